"""Decisions of the control side, pure: who should hold what, which member changes next, who leads.

Place: under `steward` and `group_changes`, over `metadata`'s values. Promise: each answer is one
small step towards the wish; asked again after it, the next one follows, and with nothing left to
do there is no answer. Invariant: nothing here knows of time, network or disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from chronik_server.metadata import Metadata, Topic
from chronik_store.format.control import Members

COPIES_DEFAULT = 3
META_VOTERS_MAX = 5
"""More voters would make every change of the metadata wait for more disks; the rest learn."""


# --- which nodes hold a partition -----------------------------------------------------------------


def place_topic(
    partitions: int,
    copies: int,
    nodes: Collection[str],
    load: Counter[str],
    away: Collection[str] = (),
) -> tuple[tuple[str, ...], ...]:
    """For each partition `copies` of `nodes` (all, if there are fewer), those with least to do.

    away: of them, taken only when there are too few others: a majority must be there to begin.
    """
    load = Counter(load)
    placement = []
    for _ in range(partitions):
        chosen = sorted(nodes, key=lambda node: (node in away, load[node], node))[:copies]
        load.update(chosen)
        placement.append(tuple(sorted(chosen)))
    return tuple(placement)


class Wish(NamedTuple):
    """A partition whose replicas should be others."""

    topic: Topic
    partition: int
    replicas: tuple[str, ...]


def next_wish(metadata: Metadata, alive: Collection[str]) -> Wish | None:
    """The first partition with a node that leaves, or with fewer copies than it could have.

    alive: nodes that can take data now. A node that is away keeps its place: it may come back,
    and whoever knows that it will not removes it.
    """
    members = set(metadata.nodes_in("member"))
    load = metadata.load
    for topic in metadata.topics.values():
        wanted = min(topic.copies, len(members))
        for partition, place in enumerate(topic.places):
            kept = [node for node in place.replicas if node in members]
            if len(kept) == len(place.replicas) >= wanted:
                continue
            spare = (members & set(alive)) - set(kept)
            added = sorted(spare, key=lambda node: (load[node], node))
            replicas = tuple(sorted((*kept, *added[: max(0, wanted - len(kept))])))
            if replicas and replicas != tuple(sorted(place.replicas)):
                return Wish(topic, partition, replicas)
    return None


# --- from the members that are to those that should be --------------------------------------------


def metadata_wish(metadata: Metadata, now: Members) -> Members:
    """Every node that is not removed; up to five of them vote, those that do already first."""
    members = metadata.nodes_in("member")
    ranked = sorted(members, key=lambda node: (node not in now.voters, node))
    voters = ranked[:META_VOTERS_MAX]
    staying = {*members, *metadata.nodes_in("joining", "leaving")}
    return Members(tuple(sorted(voters)), tuple(sorted(staying - set(voters))))


def next_members(
    now: Members, wish: Members, caught_up: Collection[str], able: Collection[str]
) -> Members | None:
    """One change towards the wish; None when there is none to make now.

    able: nodes that a quorum can count on now, the leader among them; a step that leaves no
    majority of them would never be committed, and nobody would lead any more. Learners first; one
    voter at a time; nobody's vote is taken before every new voter has one.
    """
    step = _next_step(now, wish, caught_up, able)
    if step is None or 2 * len(set(step.voters) & set(able)) <= len(step.voters):
        return None
    return step


def _next_step(
    now: Members, wish: Members, caught_up: Collection[str], able: Collection[str]
) -> Members | None:
    fresh = [n for n in (*wish.voters, *wish.learners) if n not in now.voters + now.learners]
    if fresh:
        return Members(now.voters, (*now.learners, *fresh))
    waiting = [node for node in now.learners if node in wish.voters]
    for node in waiting:
        if node in caught_up:
            return Members((*now.voters, node), _without(now.learners, node))
    if waiting:
        return None
    # The vote of one that is there may be needed to take that of one that is not.
    for node in sorted(now.voters, key=lambda node: node in able):
        if node not in wish.voters and len(now.voters) > 1:
            demoted = (node,) if node in wish.learners else ()
            return Members(_without(now.voters, node), (*now.learners, *demoted))
    leaving = [node for node in now.learners if node not in wish.learners]
    if leaving:
        return Members(now.voters, tuple(n for n in now.learners if n not in leaving))
    return None


def _without(nodes: Iterable[str], node: str) -> tuple[str, ...]:
    return tuple(each for each in nodes if each != node)


# --- who leads ------------------------------------------------------------------------------------


class Handover(NamedTuple):
    """A partition that another node should lead."""

    topic: str
    partition: int
    leader: str
    to: str


class Led(NamedTuple):
    """A partition that is led, and who could."""

    topic: str
    partition: int
    leader: str
    voters: tuple[str, ...]


def next_handover(
    led: Collection[Led], able: Collection[str], failed: Collection[tuple[str, str]] = ()
) -> Handover | None:
    """One partition from a node that leads more to one that leads at least two fewer.

    able: nodes that are there long enough to be trusted with more. failed: (from, to) between
    which it has just failed. Differences of one stay, so that nothing is moved to and fro; each
    step makes the sum of squares smaller, so it ends.
    """
    leads: Counter[str] = Counter(dict.fromkeys(able, 0))
    leads.update(each.leader for each in led)
    best: tuple[int, Handover] | None = None
    for each in led:
        for voter in each.voters:
            gap = leads[each.leader] - leads[voter]
            if voter not in able or (each.leader, voter) in failed:
                continue
            if gap > 1 and (best is None or gap > best[0]):
                best = gap, Handover(each.topic, each.partition, each.leader, voter)
    return None if best is None else best[1]


def is_reached(now: Members, wish: Members) -> bool:
    """The members are exactly the wished ones."""
    return set(now.voters) == set(wish.voters) and set(now.learners) == set(wish.learners)
