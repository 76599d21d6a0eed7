"""The judge of a cluster finds what it must; a node that damage keeps away is no finding."""

from __future__ import annotations

import pytest

from chronik_server.raft.messages import RequestVote, RequestVoteResponse
from chronik_server.testing.node import Node
from chronik_server.testing.world import World
from chronik_store.errors import FutureVersionError
from chronik_store.testing.cluster_log import record_entry
from tests.server.raft.alone import entries_of, success


@pytest.fixture
def world():
    """Three nodes that do nothing of their own: no time passes."""
    with World(3) as made:
        made.boot_all()
        yield made


def found(world: World) -> list[str]:
    """What the judge says, without the time."""
    return [what.partition(" s: ")[2] for what in world.violations]


def hold(node: Node, *entries: tuple[int, bytes]) -> None:
    """These (term, value) are the node's log, on disk."""
    made = [
        record_entry(term, index, index - 1, value)
        for index, (term, value) in enumerate(entries, start=1)
    ]
    node.replica.append_entries(0, 0, made)
    node.committer.flush()


def test_two_votes_in_a_term(world):
    judge, node = world.judge, world.nodes["n1"]
    judge.sent(node, "n2", RequestVoteResponse(3, vote_granted=True))
    judge.sent(node, "n2", RequestVoteResponse(3, vote_granted=True))
    judge.sent(node, "n3", RequestVoteResponse(4, vote_granted=True))
    assert [] == found(world)

    judge.sent(node, "n3", RequestVoteResponse(3, vote_granted=True))
    judge.sent(node, "n3", RequestVote(4, "n1", 0, 0))
    assert [
        "n1 votes twice in 3: for n2, and for n3",
        "n1 votes twice in 4: for n3, and for n1",
    ] == found(world)


def test_a_vote_that_a_crash_took_back(world):
    world.judge.sent(world.nodes["n1"], "n2", RequestVoteResponse(3, vote_granted=True))
    world.crash("n1", "lost")
    world.boot("n1")

    assert ["n1 has shown term 3 with vote n2, and came back with 0, none"] == found(world)


def test_two_that_lead_by_what_they_send(world):
    world.judge.sent(world.nodes["n1"], "n3", entries_of(5, 0, 0, leader="n1"))
    world.judge.sent(world.nodes["n2"], "n3", entries_of(5, 0, 0, leader="n2"))

    assert ["election safety: n1 and n2 lead 5"] == found(world)


def test_an_answer_ahead_of_the_disk(world):
    node = world.nodes["n1"]
    hold(node, (0, b"a"))
    world.judge.sent(node, "n2", success(0, 1))
    assert [] == found(world)

    world.judge.sent(node, "n2", success(0, 2))
    assert ["n1 answers 2, durable is 1"] == found(world)


@pytest.mark.parametrize(
    ("log", "at"),
    [
        ([(1, b"a"), (2, b"y")], 2),  # the entry itself
        ([(2, b"a"), (2, b"x")], 2),  # the one before it
    ],
)
def test_logs_that_do_not_match(world, log, at):
    for name, entries in (("n1", [(1, b"a"), (2, b"x")]), ("n2", log)):
        hold(world.nodes[name], *entries)
        world.judge.look(world.nodes[name])

    assert [f"log matching: n2 differs at {at} of term 2"] == found(world)


def test_a_commit_that_no_quorum_has_on_disk(world):
    judge, node = world.judge, world.nodes["n1"]
    hold(node, (1, b"a"))
    node.replica.advance_commit(1)
    judge.commit_shown(node, 1)

    assert ["durability: 1 is committed, and no quorum has it on disk"] == found(world)


def test_a_commit_that_is_gone(world):
    node = world.nodes["n1"]
    for each in ("n1", "n2"):
        hold(world.nodes[each], (1, b"a"), (1, b"b"))
    world.judge.commit_shown(node, 2)
    assert [] == found(world)

    node.replica.truncate_suffix(2)
    world.judge.look(node)
    assert ["commit undone: n1 ends at 1"] == found(world)


def test_what_was_durable_and_is_gone_after_a_crash(world):
    hold(world.nodes["n1"], (1, b"a"))
    world.crash("n1", "lost")
    world.new_disk("n1")
    world.boot("n1")

    assert ["n1 came back up to 0; 1 was durable, 0 committed"] == found(world)


def test_a_read_that_misses_something(world):
    world.judge.read(world.nodes["n1"], 4, 4)
    world.judge.read(world.nodes["n1"], 3, 4)

    assert ["a read at n1 saw 3, 4 was acknowledged"] == found(world)


def test_damage_that_reads_as_a_newer_version_keeps_a_node_away_and_nothing_else():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.commit(b"before")
        name = next(name for name in world.names if name != leader.name)
        world.crash(name)
        path = next(path for path in world.disks[name].paths("/data/wal") if path.endswith(".log"))
        world.flip(name, path, 7, 0)
        with pytest.raises(FutureVersionError):
            world.boot(name)
        world.commit(b"without it")

        world.repair(name)
        world.boot(name)
        world.until(world.converged)
        world.check_logs()
        assert [] == world.violations
