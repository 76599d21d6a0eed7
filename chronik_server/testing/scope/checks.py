"""What must hold between the nodes of a group, whatever the order of what happened on each.

Place: over views; `moves` asks it after each step. Promise: every violation of what is listed is
told where it is first to be seen. Invariant: what a view says of the past holds for ever, so the
checks need no common clock; only a read knows what was acknowledged before it.

    election safety        no two nodes have led one term
    log matching           logs that agree on a term at an index agree up to there
    state machine safety   what any node has ever shown as committed at an index is one entry
    leader completeness    who begins to lead has all that was committed in terms before
    durable on a quorum    what is first shown is on the disks of a majority of some node's voters
    one change at a time   of members, in any log; each differs by one voter from the one before
    reads                  one sees what was acknowledged before it was asked for

What concerns one node alone is in `testimony`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chronik_server.testing.scope.views import Content, View
from chronik_store.format.control import Members


def between(views: Sequence[View], first_members: Members) -> Iterator[str]:
    """What is wrong in these views, taken together."""
    for at, one in enumerate(views):
        yield from one.wrong
        for other in views[at + 1 :]:
            if one.led & other.led:
                yield f"election safety: two have led in {sorted(one.led & other.led)}"
            yield from _logs(one, other)
            for index, (mine, its) in enumerate(zip(one.shown, other.shown, strict=False), 1):
                if mine and its and mine[1] != its[1]:
                    yield f"state machine safety: two entries are shown at {index}"
    known = max(max(len(view.shown), view.counted) for view in views)
    for view in views:
        before, pending = first_members, 0
        for index, members in view.changes:
            pending += index > known
            if len(set(before.voters) ^ set(members.voters)) > 1 and view.first == 1:
                yield f"{before} is followed by {members}"
            before = members
        if pending > 1:
            yield f"{pending} changes of members are pending at once"


def _logs(one: View, other: View) -> Iterator[str]:
    low = max(one.first, other.first)
    mine, its = one.log[low - one.first :], other.log[low - other.first :]
    same = [a[0] == b[0] for a, b in zip(mine, its, strict=False)]
    if True in same:
        agreed = len(same) - same[::-1].index(True)
        if mine[:agreed] != its[:agreed]:
            yield f"log matching: two logs agree at {low + agreed - 1} and differ before"


def step(
    views: Sequence[View], node: int, before: View | None, lost: Sequence[tuple[int, int]]
) -> Iterator[str]:
    """What is wrong in what this node has just done. lost: (node, index), what a disk held when it
    was damaged; that much is taken to be there.
    """
    now = views[node]
    new_terms = now.led - (before.led if before is not None else frozenset())
    for term in new_terms if now.is_up else ():
        for other in views:
            for index, shown in enumerate(other.shown, 1):
                is_due = shown is not None and shown[0] < term and index >= now.first
                if is_due and shown and _entry(now, index) != shown[1]:
                    yield f"leader completeness: who leads {term} lacks {index}"
    known = len(before.shown) if before is not None else 0
    for index in range(known + 1, len(now.shown) + 1):
        shown = now.shown[index - 1]
        if shown and not any(len(v.shown) >= index for n, v in enumerate(views) if n != node):
            holders = {n for n, v in enumerate(views) if _holds(v, index, shown[1])}
            holders |= {n for n, held in lost if index <= held}
            names = {f"n{n + 1}" for n in holders}
            voters = [set(v.members.voters) for v in views if v.is_up]
            if not any(2 * len(names & each) > len(each) for each in voters):
                yield f"durability: {index} is shown, and no quorum has it on disk"


def _entry(view: View, index: int) -> Content | None:
    place = index - view.first
    return view.log[place] if 0 <= place < len(view.log) else None


def _holds(view: View, index: int, entry: Content) -> bool:
    if view.durable < index or view.is_suspect:
        return False
    return index < view.first or _entry(view, index) == entry
