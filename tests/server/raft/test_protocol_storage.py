"""Schedules of the protocol about what is durable: 1, 2, 3, 4, 8, 11, against the real roles."""

from __future__ import annotations

import asyncio

import pytest

from chronik_server.raft.errors import NotLeaderError, OutcomeUnknownError
from chronik_server.raft.messages import InstallSnapshot, RequestVoteResponse
from chronik_server.testing.node import Node
from chronik_server.testing.tiering import add_segment, prune
from chronik_server.testing.world import World
from chronik_store.control_path import StaleTermError
from chronik_store.errors import CorruptionError, NotReplicatedError, ProducerSequenceError
from chronik_store.format.control import Noop, Seal
from chronik_store.testing.cluster_log import batch, run_of
from chronik_store.testing.simulated_disk import SimulatedDisk
from tests.server.raft.alone import Alone, ask, entries_of


def propose(world: World, node: Node, *commands: object) -> int:
    """Commands through consensus, waited for; the index of the last."""
    future = node.consensus.propose(list(commands))
    return int(world.loop.run_until_complete(asyncio.wait_for(future, 5)).index)


def tiered(world: World, node: Node) -> None:
    """Records, their SEAL and their segment, then more records; the WAL is pruned."""
    propose(world, node, batch(b"s1", b"s2"))
    propose(world, node, Seal(node.core.manifest.open_first_index, "admin", 0))
    propose(world, node, add_segment(node))
    propose(world, node, batch(b"after"))


# --- 1 --------------------------------------------------------------------------------------------


def test_1_a_vote_survives_the_pruning_of_the_file_that_held_it():
    with Alone(terms=[6]) as alone:
        alone.feed("n2", ask(9, "n2", 501, 6))
        alone.feed("n2", entries_of(9, 1, 6, run_of([6, 6], first=2, offset=1), commit=3))
        alone.node.core.wal.rotate()
        alone.node.core.wal.remove_files(alone.node.core.wal.files()[-1].seq - 1)
        alone.restart()

        alone.feed("n3", ask(9, "n3", 900, 8))

        assert (9, "n2") == alone.replica.hard_state
        assert [False] == [m.vote_granted for m in alone.sent(RequestVoteResponse, "n3")]


def test_1_s2_what_a_pruned_log_begins_with_is_known_as_committed():
    with World(1) as world:
        world.boot_all()
        node = world.elect()
        tiered(world, node)
        prune(node)
        manifest, first = node.core.manifest, node.replica.first_index
        assert first > 1
        world.crash("n1", "lost")
        node = world.boot("n1")

        assert (first, manifest.next) == (node.replica.first_index, node.core.manifest.next)
        assert node.replica.commit_index >= first - 1
        node = world.elect()
        assert 3 == world.commit(b"goes on").base_offset


# --- 2 --------------------------------------------------------------------------------------------


def behind_a_pruned_leader(world: World) -> tuple[Node, Node]:
    """(leader, follower): the follower slept while the leader tiered and pruned."""
    world.boot_all()
    world.commit(b"first")
    world.run(1)
    leader = world.elect()
    sleeper = next(name for name in world.names if name != leader.name)
    world.crash(sleeper)
    tiered(world, leader)
    base = leader.core.manifest.next.index
    prune(leader)
    assert base + 1 == leader.replica.first_index
    world.run(0.01)  # what was on its way to the one that slept is lost
    return leader, world.boot(sleeper)


def test_2_a_snapshot_stands_for_the_last_segment_and_the_rest_comes_as_entries():
    with World(3) as world:
        world.keep_log = True
        leader, follower = behind_a_pruned_leader(world)
        world.until(world.converged)

        sent = [m for _, to, m in world.log if isinstance(m, InstallSnapshot)]
        base = leader.core.manifest.next.index
        assert {base} == {m.snapshot.base.index for m in sent}
        assert base < sent[0].snapshot.folded_to
        assert base + 1 == follower.replica.first_index
        assert follower.core.manifest.segments == leader.core.manifest.segments
        world.check_logs()
        assert [] == world.violations


def test_2_a_snapshot_node_does_not_count_for_entries_that_it_does_not_have():
    with World(3) as world:
        leader, follower = behind_a_pruned_leader(world)
        world.network.drop = lambda _a, to, m: (
            to == follower.name and bool(getattr(m, "entries", ()))
        )
        world.run(3)

        base = leader.core.manifest.next.index
        progress = leader.group.state.replication.peers[follower.name]
        assert base == progress.match_index == follower.replica.durable_index


@pytest.mark.parametrize(
    ("where", "when"), [("memory", "before"), ("memory", "after"), ("disk", "after")]
)
def test_2_what_is_pruned_while_a_leader_reads_it_comes_as_a_snapshot(monkeypatch, where, when):
    """A thread of the pipeline prunes, whatever the leader is about to do."""
    with World(3, tail_bytes=1 if where == "disk" else 1 << 20) as world:
        world.keep_log = True
        world.boot_all()
        world.commit(b"first")
        world.run(1)
        leader = world.elect()
        sleeper = next(name for name in world.names if name != leader.name)
        world.crash(sleeper)
        tiered(world, leader)
        replica, base = leader.replica, leader.core.manifest.next.index
        plain = replica.entries

        def entries(first_index, max_bytes):
            is_first = replica.first_index <= first_index <= base
            assert not is_first or (where == "disk") == (first_index < replica.tail_first_index)
            if is_first and when == "before":
                prune(leader)
            found = plain(first_index, max_bytes)
            if is_first and when == "after":
                prune(leader)
            return found

        monkeypatch.setattr(replica, "entries", entries)
        world.run(0.01)  # what was on its way to the one that slept is lost
        world.boot(sleeper)
        world.until(world.converged)

        assert base + 1 == replica.first_index
        assert [base] == [
            m.snapshot.base.index for _, _, m in world.log if type(m) is InstallSnapshot
        ]
        assert ([], []) == (world.loop.errors, world.violations)


def test_2_producers_in_a_snapshot_are_those_of_its_base():
    """A retry of what is not in the segment must not be swallowed as a duplicate."""
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        early, late = batch(b"a", producer_id=7), batch(b"b", producer_id=7, base_sequence=1)
        propose(world, leader, early)
        propose(world, leader, Seal(leader.core.manifest.open_first_index, "admin", 0))
        propose(world, leader, late)
        propose(world, leader, add_segment(leader))

        snapshot = leader.replica.snapshot()

        assert [0] == [each.last_sequence for each in snapshot.producers]


# --- 3 --------------------------------------------------------------------------------------------


def test_3_a_duplicate_of_what_is_not_committed_is_not_acknowledged():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.run(1)
        world.isolate(leader.name)
        records = batch(b"x", producer_id=5)
        first = leader.consensus.propose([records])
        again = leader.consensus.propose([records])
        world.run(0.1)
        assert (False, False) == (first.done(), again.done())
        world.until(lambda: first.done() and again.done())

        assert isinstance(first.exception(), OutcomeUnknownError)
        assert isinstance(again.exception(), OutcomeUnknownError)
        world.heal()
        new = world.elect()
        assert new.name != leader.name
        done = world.loop.run_until_complete(new.consensus.propose([records]))
        assert not done.duplicate, "the first copy was truncated"
        world.until(world.converged)
        assert [] == world.violations


def test_3_a_duplicate_shares_the_outcome_of_its_original():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        records = batch(b"x", producer_id=5)
        both = [leader.consensus.propose([records]) for _ in range(2)]
        one, two = world.loop.run_until_complete(asyncio.gather(*both))

        assert (one.index, one.base_offset, False) == (two.index, two.base_offset, one.duplicate)
        assert two.duplicate


def test_3_a_duplicate_whose_original_is_pruned_is_answered_all_the_same():
    with World(1) as world:
        world.boot_all()
        node = world.elect()
        records = batch(b"x", producer_id=5)
        first = world.loop.run_until_complete(node.consensus.propose([records]))
        tiered(world, node)
        prune(node)
        assert first.index < node.replica.first_index - 1

        again = world.loop.run_until_complete(node.consensus.propose([records]))
        assert (first.base_offset, True, 0) == (again.base_offset, again.duplicate, again.term)


def test_3_a_new_leader_knows_the_sequences_of_the_old_one():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        records = batch(b"x", producer_id=5)
        done = world.loop.run_until_complete(leader.consensus.propose([records]))
        world.crash(leader.name)
        new = world.elect()

        again = world.loop.run_until_complete(new.consensus.propose([records]))
        assert (done.base_offset, True) == (again.base_offset, again.duplicate)
        with pytest.raises(ProducerSequenceError):
            new.consensus.propose([batch(b"y", producer_id=5, base_sequence=9)])


def test_3_a_leader_is_not_ready_before_its_noop_is_committed():
    with Alone(terms=[1]) as alone:
        alone.lead()
        assert (False, None) == (
            alone.node.consensus.is_ready,
            alone.node.consensus.door.leader_term(),
        )
        alone.acknowledge("n2", 2)

        assert alone.node.consensus.is_ready


# --- 4 --------------------------------------------------------------------------------------------


def test_4_s3_the_own_disk_comes_last_and_the_answer_comes_with_it():
    """Nobody has to call again: the leader's own sync resolves what a quorum has acknowledged."""
    with Alone() as alone:
        alone.lead()
        alone.acknowledge("n2", 1)
        last = alone.replica.last_index
        alone.acknowledge("n2", last)
        alone.world.network.disk_delays = (3.0,)
        future = alone.node.consensus.propose([batch(b"x")])
        alone.run()
        for peer in ("n2", "n3"):
            alone.acknowledge(peer, last + 1)
        assert not future.done()
        for _ in range(10):  # the quorum goes on answering, and says nothing new
            alone.run(0.4)
            alone.acknowledge("n2", last + 1)

        assert last + 1 == future.result().index


def test_4_s1_a_sync_that_was_under_way_acknowledges_nothing_that_was_truncated():
    with Alone(hard=(1, "")) as alone:
        alone.world.network.disk_delays = (0.05,)
        alone.feed("n2", entries_of(1, 0, 0, run_of([1, 1, 1])), settle=False)
        alone.feed("n3", entries_of(2, 1, 1, run_of([2], first=2, offset=1), leader="n3"))
        alone.run(0.2)

        assert (2, 2) == (alone.replica.last_index, alone.replica.durable_index)
        assert 2 == alone.replica.term(2)


# --- 8 --------------------------------------------------------------------------------------------


def test_8_s4_what_acts_for_a_term_that_has_passed_is_refused():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        term = leader.consensus.door.leader_term()
        world.isolate(leader.name)
        world.elect()
        world.until(lambda: not leader.consensus.is_ready)
        assert leader.consensus.door.leader_term() is None

        with pytest.raises(NotLeaderError):
            leader.consensus.propose([Noop()], term=term)


def test_8_s4_a_leader_of_a_later_term_refuses_its_own_earlier_one():
    with World(1) as world:
        world.boot_all()
        node = world.elect()
        term = node.consensus.term
        world.crash("n1", "kept")
        node = world.boot("n1")
        node = world.elect()

        with pytest.raises(NotLeaderError, match="passed"):
            node.consensus.propose([Noop()], term=term)


def test_8_s2_the_second_of_two_seals_is_a_no_op_on_every_replica():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        first = leader.core.manifest.open_first_index
        propose(world, leader, batch(b"a"), Seal(first, "age", 0), Seal(first, "age", 0))
        world.until(world.converged)

        assert {1} == {len(n.core.manifest.sealed) for n in world.nodes.values()}
        assert {1} == {n.core.refused_commands["SEAL"] for n in world.nodes.values()}


# --- 11 -------------------------------------------------------------------------------------------


def test_11_a_log_that_a_cluster_owns_takes_nothing_past_its_consensus():
    with World(3) as world:
        world.boot_all()
        node = world.elect()

        with pytest.raises(NotReplicatedError):
            node.core.appends.append(batch(b"x"), None)
        with pytest.raises(NotReplicatedError):
            node.core.propose(Noop())


def test_11_commands_of_the_pipeline_go_through_the_door():
    with World(3) as world:
        world.boot_all()
        node = world.elect()
        asked: list[object] = []

        class Door:
            def leader_term(self) -> int | None:
                return 4

            def propose(self, command: object, *, term: int | None) -> int:
                asked.append((command, term))
                raise StaleTermError("passed")

        node.core.control.door = Door()

        assert 4 == node.core.leader_term()
        with pytest.raises(StaleTermError):
            node.core.propose(Noop(), term=4)
        assert [(Noop(), 4)] == asked


def test_11_opened_by_another_owner_the_commit_is_what_the_checkpoint_knows():
    """Nothing above it is shown, sealed or uploaded by whoever else opens the directory."""
    with Alone(terms=[1, 1, 1]) as alone:
        alone.feed("n2", entries_of(1, 3, 1, commit=1))
        alone.restart("kept")

        assert (3, True) == (alone.replica.last_index, alone.replica.commit_index <= 1)


def test_damaged_entries_are_dropped_and_come_again():
    with Alone(hard=(1, "")) as alone:
        good = entries_of(1, 0, 0, run_of([1]))
        entry = good.entries[0]
        bad = entry._replace(payload=bytes(entry.payload)[:-1] + b"\xff")
        alone.feed("n2", entries_of(1, 0, 0, [bad]))
        assert 0 == alone.replica.last_index

        alone.feed("n2", good)
        assert 1 == alone.replica.last_index
        with pytest.raises(CorruptionError):
            alone.replica.append_entries(1, 1, [bad])


def test_a_poisoned_log_ends_the_process_and_acknowledges_nothing():
    with Alone() as alone:
        failures: list[str] = []
        alone.node.raft._on_fatal = lambda group_id, _error: failures.append(group_id)
        alone.lead()
        alone.acknowledge("n2", 1)
        disk: SimulatedDisk = alone.node.disk
        future = alone.node.consensus.propose([batch(b"x")])

        def fail(_call: int, operation: str, _path: str) -> None:
            if operation == "sync_data":
                raise OSError(5, "no more")

        disk.hook = fail
        alone.run(0.1)

        assert ["events/0"] == failures
        assert isinstance(future.exception(), OutcomeUnknownError)
        disk.hook = None
