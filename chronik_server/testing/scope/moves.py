"""A group in a small scope: what happens by default, and what else may happen instead.

Place: over `cells` and `checks`; `search` chooses. Promise: by default messages arrive in the order
in which they were sent, disks answer, and a script goes on when all is quiet; every way in which a
network, a disk, a machine or a client may depart from that is a word. Invariant: a situation is a
value: equal situations go on equally.

    drop, again, late, hold     the message (or the disk's answer) that is next is lost; comes once
                                more when the script has gone on; comes behind all that is on its
                                way; comes only when the script has gone on
    cut                         the connection that it comes by breaks, with all that is on it
    crash, bounce, torn         its node loses power: for long, for a moment, in front of a sync
    rot, wipe                   and the last bytes on its disk are damaged, or it has a new one
    isolate, rejoin             its node is cut off from all others, or is so no more
    silence, beat               its node hears nothing for too long; its clock passes a beat
    record, read, lead n        its node, which leads, is asked
    next                        the script goes on before all is quiet

When all is quiet the same may befall any node: `silence n2`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from chronik_server.raft.consensus import Role
from chronik_server.raft.messages import decode
from chronik_server.testing.scope import checks
from chronik_server.testing.scope.cell import AGE, BEAT, SILENCE, boot_id
from chronik_server.testing.scope.cells import Cells, Outcome
from chronik_server.testing.scope.views import Input, View
from chronik_store.format.control import Members

HEAL_ROUNDS: Final = 40
STEPS_MAX: Final = 1000
ASKED: Final = ("record", "read", "members", "lead", "seal", "list")
ENDS: Final = ("crash", "bounce", "torn", "rot", "wipe")

Script = tuple[Input, ...]
"""What is done one after the other, each when all is quiet: `(word, *details)`."""


class Situation(NamedTuple):
    """A group between two steps."""

    nodes: tuple[int, ...]
    queue: tuple[int, ...] = ()
    held: tuple[tuple[int, int], ...] = ()
    """(script position, event): it comes when the script has gone on."""
    at: int = 0
    reads: tuple[int, ...] = ()
    """What was acknowledged when each read was asked for."""
    records: int = 0
    """That were asked for besides the script's."""
    lost: tuple[tuple[int, int], ...] = ()
    """(node, index): it was damaged when its disk had so much."""
    apart: int = 0
    """Nodes that are cut off from the others, and not from each other: one bit each."""


class Violation(AssertionError):  # noqa: N818 (it is what is found, not a failure of the scope)
    """Something must not be and is."""


class Group:
    """See the module. names: all nodes; learners: those of them that begin without a vote."""

    def __init__(
        self, names: Sequence[str], script: Script, *, learners: tuple[str, ...] = ()
    ) -> None:
        self.names = tuple(names)
        voters = tuple(name for name in names if name not in learners)
        self.members = Members(voters, learners)
        self.cells = Cells(self.names, self.members)
        self.script = script
        self._checked: set[tuple[int, ...]] = set()

    def begin(self) -> Situation:
        """All nodes have started."""
        situation = Situation(tuple(range(len(self.names))))
        for node in range(len(self.names)):
            peers = [(each, boot_id(each, 1)) for each in self.names if each != self.names[node]]
            situation = self._give(situation, node, ("start", *peers), is_first=True)
        return situation

    def views(self, situation: Situation) -> list[View]:
        """Of all nodes."""
        return [self.cells.view(state) for state in situation.nodes]

    # --- one step --------------------------------------------------------------------------------

    def is_over(self, now: Situation) -> bool:
        """The script is done, and all is quiet."""
        return not now.queue and not now.held and now.at >= len(self.script)

    def default(self, now: Situation) -> Situation:
        """What happens if nothing departs from it."""
        if now.queue:
            node, given = self.cells.event(now.queue[0])
            return self._give(now._replace(queue=now.queue[1:]), node, given)
        due = tuple(event for at, event in now.held if at < now.at or now.at >= len(self.script))
        if due:
            held = tuple(each for each in now.held if each[1] not in due)
            return now._replace(queue=due, held=held)
        return self._go_on(now)

    def _go_on(self, now: Situation) -> Situation:
        word, *details = self.script[now.at]
        now = now._replace(at=now.at + 1)
        if word in ASKED:
            leader = self._leader(now)
            return now if leader is None else self._ask(now, leader, word, *details)
        nodes = [self.names.index(name) for name in details] or range(len(self.names))
        for node in nodes:
            now = self._befall(now, node, word)
        return now

    def words(self, now: Situation) -> Iterator[str]:
        """What may happen instead."""
        if not now.queue:
            for node, name in enumerate(self.names):
                yield from (f"{word} {name}" for word in self._of_node(now, node))
            return
        node, given = self.cells.event(now.queue[0])
        if given[0] == "hear":
            yield from ("drop", "again", "cut")
        yield from ("late", "hold")
        if given[0] == "sync":
            yield "torn"
        yield from self._of_node(now, node)
        if now.at < len(self.script):
            yield "next"

    def _of_node(self, now: Situation, node: int) -> Iterator[str]:
        view = self.cells.view(now.nodes[node])
        if now.apart >> node & 1:
            yield "rejoin"
        if not view.is_up:
            yield "boot"
            return
        yield from ("crash", "bounce", "silence", "isolate")
        damaged = {self.names[n] for n, _ in now.lost} | {self.names[node]}
        if all(set(v.members.voters) - damaged for v in self.views(now)):
            yield from ("rot", "wipe")  # were all damaged, they would go on with what is left
        if view.role == Role.LEADER:
            yield from ("beat", "record", "read")
            yield from (f"lead {v}" for v in view.members.voters if v != self.names[node])

    def instead(self, now: Situation, word: str) -> Situation:
        """One of `words`."""
        kind, *details = word.split()
        if not now.queue:
            return self._befall(now, self.names.index(details[-1]), *([kind, *details[:-1]]))
        event, rest = now.queue[0], now._replace(queue=now.queue[1:])
        node, given = self.cells.event(event)
        if kind == "drop":
            return rest
        if kind == "late":
            return rest._replace(queue=(*rest.queue, event))
        if kind in ("hold", "again"):
            kept = rest if kind == "hold" else self._give(rest, node, given)
            return kept._replace(held=(*kept.held, (now.at, event)))
        if kind == "cut":
            return self._cut(rest, node, self.names.index(given[1]))
        if kind == "torn":
            return self._give(rest, node, ("torn",))
        if kind == "next":
            return self._go_on(now)
        return self._befall(now, node, kind, *details)

    # --- what befalls a node ---------------------------------------------------------------------

    def _befall(self, now: Situation, node: int, word: str, *details: str) -> Situation:
        view = self.cells.view(now.nodes[node])
        if word == "isolate":
            return now._replace(apart=now.apart | 1 << node)
        if word == "rejoin":
            return now._replace(apart=now.apart & ~(1 << node))
        if word == "boot":
            return now if view.is_up else self._boot(now, node)
        if not view.is_up:
            return now
        if word in ENDS:
            now = self._give(now, node, ("crash",))
            if word in ("rot", "wipe"):
                now = now._replace(lost=(*now.lost, (node, view.durable)))
                now = self._give(now, node, (word,))
            return now if word == "crash" else self._boot(now, node)
        if word == "silence":
            for other, its in enumerate(self.views(now)):
                if other != node and its.is_up and its.role != Role.LEADER:
                    now = self._give(now, other, ("clock", AGE))
            return self._give(now, node, ("clock", SILENCE))
        if word == "beat":
            return self._give(now, node, ("clock", BEAT))
        if word in ASKED:
            return self._ask(now, node, word, *details)
        return self._give(now, node, (word,))

    def _ask(self, now: Situation, node: int, word: str, *details: object) -> Situation:
        if word == "record" and not details:
            details = (b"besides %d" % now.records,)
            now = now._replace(records=now.records + 1)
        elif word == "read":
            views = self.views(now)
            highest = max((index for v in views for index, _ in v.acked), default=0)
            details = (len(now.reads),)
            now = now._replace(reads=(*now.reads, highest))
        return self._give(now, node, ("ask", word, *details))

    def _boot(self, now: Situation, node: int) -> Situation:
        """A new life: what is on its way from the old one, or to it, is lost."""
        name, views = self.names[node], self.views(now)
        now = self._without(now, lambda to, given: to == node or given[:2] == ("hear", name))
        others = [n for n, view in enumerate(views) if n != node and view.is_up]
        peers = [(self.names[n], boot_id(self.names[n], views[n].life)) for n in others]
        boot = boot_id(name, views[node].life + 1)
        now = self._give(now, node, ("start", *peers))
        for other in others:
            now = self._give(now, other, ("peer", name, boot))
        return now

    def _cut(self, now: Situation, one: int, other: int) -> Situation:
        views, names = self.views(now), self.names
        pair = {one: names[other], other: names[one]}
        now = self._without(now, lambda to, given: given[:2] == ("hear", pair.get(to)))
        for node, peer in ((one, other), (other, one)):
            if views[node].is_up and views[peer].is_up:
                boot = boot_id(names[peer], views[peer].life)
                now = self._give(now, node, ("gone", names[peer]))
                now = self._give(now, node, ("peer", names[peer], boot))
        return now

    def _without(self, now: Situation, goes: Callable[[int, Input], bool]) -> Situation:
        queue = tuple(each for each in now.queue if not goes(*self.cells.event(each)))
        held = tuple(each for each in now.held if not goes(*self.cells.event(each[1])))
        return now._replace(queue=queue, held=held)

    def _leader(self, now: Situation) -> int | None:
        ready = [(view.term, n) for n, view in enumerate(self.views(now)) if view.is_ready]
        return max(ready)[1] if ready else None

    # --- inputs ----------------------------------------------------------------------------------

    def _give(
        self, now: Situation, node: int, given: Input, *, is_first: bool = False
    ) -> Situation:
        cells, old = self.cells, now.nodes[node]
        before = None if is_first else cells.view(old)
        came = cells.give(old, cells.number(node, given))
        now = now._replace(nodes=(*now.nodes[:node], came.state, *now.nodes[node + 1 :]))
        now = self._with_events(now, node, came)
        if not is_first or node == len(self.names) - 1:
            self._check(now, node, before, came)
        return now

    def _with_events(self, now: Situation, node: int, came: Outcome) -> Situation:
        cells, view = self.cells, self.cells.view(came.state)
        if not view.is_up:
            return self._without(now, lambda to, _given: to == node)
        queue = list(now.queue)
        for target, event in came.events:
            its = now.nodes[target]
            is_there = its >= len(self.names) and cells.view(its).is_up
            if is_there and not (now.apart >> node ^ now.apart >> target) & 1:
                queue.append(event)
        for waits, word in ((view.sync_waits, "sync"), (view.work_waits, "work")):
            event = cells.number(node, (word,))
            if waits and event not in queue and not any(e == event for _, e in now.held):
                queue.append(event)
        return now._replace(queue=tuple(queue))

    def _check(self, now: Situation, node: int, before: View | None, came: Outcome) -> None:
        views = self.views(now)
        found = list(checks.step(views, node, before, now.lost))
        if now.nodes not in self._checked:
            self._checked.add(now.nodes)
            found += checks.between(views, self.members)
        for word, *details in came.told:
            if word == "read" and len(details) == 2 and details[1] < now.reads[details[0]]:
                found.append(f"a read saw {details[1]}, {now.reads[details[0]]} was acknowledged")
        if found:
            raise Violation("; ".join(dict.fromkeys(found)))

    def describe(self, now: Situation) -> str:
        """For people: what is next, and all nodes."""
        if now.queue:
            node, given = self.cells.event(now.queue[0])
            what = decode(*given[2:]) if given[0] == "hear" else ""
            step = f"{self.names[node]} {given[0]} {what}"
        else:
            step = f"quiet, script at {now.at}"
        nodes = ", ".join(
            f"{name} {v.role}{'' if v.is_up else ' down'}{' suspect' * v.is_suspect} term {v.term} "
            f"log {v.first}:{[term for term, _ in v.log]} durable {v.durable} commit {v.commit}"
            for name, v in zip(self.names, self.views(now), strict=True)
        )
        return f"{step} | {nodes}"

    # --- the end ---------------------------------------------------------------------------------

    def heal(self, now: Situation) -> None:
        """No departure any more: somebody leads, commits, and all members have it; unless too few
        voters are whole, which is for an operator (protocol 9). Violation.
        """
        now = now._replace(queue=(), held=(), at=len(self.script), apart=0)
        for node in range(len(self.names)):
            now = self._befall(now, node, "boot")
        now = self._settled(now)
        for round_ in range(HEAL_ROUNDS):
            leader = self._leader(now)
            if leader is None:
                now = self._befall(now, round_ % len(self.names), "silence")
            elif self._has_converged(now, leader):
                return
            else:
                now = self._befall(now, leader, "beat")
                if not any(value == b"healed" for v in self.views(now) for _, value in v.acked):
                    now = self._ask(now, leader, "record", b"healed")
            now = self._settled(now)
        if self._may_elect(now):
            raise Violation(f"liveness: {self.describe(now)}")

    def _may_elect(self, now: Situation) -> bool:
        views = self.views(now)
        whole = {n for n, v in zip(self.names, views, strict=True) if not v.is_suspect}
        voters = [set(v.members.voters) for v in views if not v.is_suspect]
        return all(2 * len(whole & each) > len(each) for each in voters)

    def _settled(self, now: Situation) -> Situation:
        for _ in range(STEPS_MAX):
            if not now.queue:
                return now
            now = self.default(now)
        raise Violation("liveness: messages without end")

    def _has_converged(self, now: Situation, leader: int) -> bool:
        views = self.views(now)
        members = views[leader].members
        named = [
            v
            for n, v in zip(self.names, views, strict=True)
            if n in members.voters or n in members.learners
        ]
        same = {(v.first + len(v.log), v.commit, v.is_suspect) for v in named}
        return len(same) == 1 and any(value == b"healed" for v in views for _, value in v.acked)
