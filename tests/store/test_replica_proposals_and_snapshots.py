"""The Raft face of a log: what a leader writes, and what it sends as snapshots (2, 16)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chronik_store.config import LogConfig
from chronik_store.errors import (
    CorruptionError,
    FencedError,
    IdentityMismatchError,
    OffsetConflictError,
    ProducerSequenceError,
)
from chronik_store.format.control import CursorSet, DropPrefix, Fenced, Members, Noop, Seal
from chronik_store.format.manifest_file import LogBase
from chronik_store.replica import Replica, Snapshot
from chronik_store.testing.cluster_log import (
    SteppedCommitter,
    batch,
    control_entry,
    run_of,
    stepped,
)
from chronik_store.testing.simulated_disk import SimulatedDisk


@pytest.fixture
def disk():
    return SimulatedDisk(seed=1)


def terms(replica: Replica) -> list[int]:
    return [replica.term(i) for i in range(replica.first_index, replica.last_index + 1)]


# --- the leader's side ----------------------------------------------------------------------------


def leading(disk: Any, **options: Any) -> tuple[Any, Replica, SteppedCommitter]:
    core, replica, committer = stepped(disk, **options)
    replica.save_hard_state(1, "n1")
    return core, replica, committer


def test_a_proposal_is_one_entry_per_payload_with_contiguous_offsets(disk):
    _, replica, _ = leading(disk)

    staged = replica.propose(1, [batch(b"a", b"b"), Noop(), batch(b"c")])

    assert (3, 0, 3, False) == (staged.index, staged.base_offset, staged.end_offset, False)
    assert [1, 1, 1] == terms(replica)


def test_the_time_of_a_truncated_entry_is_forgotten_with_it(disk):
    """Its clock had been wrong: what the next leader wrote was an hour ahead, too."""
    core, replica, _ = stepped(disk)
    now_us = core.env.clock.time_us()
    ahead = replica.propose(0, [batch(b"a", timestamps_us=[now_us + 1_800_000_000])])
    replica.truncate_suffix(ahead.index)
    replica.save_hard_state(1, "n1")

    replica.propose(1, [Noop(), batch(b"b")])

    noop, record = replica.entries(1, 1 << 20)
    assert 0 == noop.header.timestamp_us
    assert now_us <= record.header.timestamp_us <= core.env.clock.time_us()


def test_proposing_for_another_term_is_a_defect(disk):
    _, replica, _ = leading(disk)

    with pytest.raises(AssertionError, match="term"):
        replica.propose(2, [Noop()])


def test_a_retried_batch_shares_the_place_of_its_original_committed_or_not(disk):
    _, replica, committer = leading(disk)
    records = batch(b"a", producer_id=9)
    first = replica.propose(1, [records])

    again = replica.propose(1, [records])

    assert (first.index, 0, 1, True) == (
        again.index,
        again.base_offset,
        again.end_offset,
        again.duplicate,
    )
    committer.flush()
    replica.advance_commit(1)
    assert replica.propose(1, [records]).duplicate


def test_an_expected_offset_is_compared_with_the_end_tail_included(disk):
    _, replica, _ = leading(disk)
    replica.propose(1, [batch(b"a", b"b")])

    with pytest.raises(OffsetConflictError) as caught:
        replica.propose(1, [batch(b"c")], expected_offset=1)
    assert (2, 1) == (caught.value.end_offset, replica.last_index)
    assert 2 == replica.propose(1, [batch(b"c")], expected_offset=2).base_offset


def test_a_truncation_forgets_the_batches_that_it_cut(disk):
    _, replica, _ = leading(disk)
    records = batch(b"a", producer_id=9)
    replica.propose(1, [records])
    replica.truncate_suffix(1)

    assert not replica.propose(1, [records]).duplicate


def test_17_a_time_far_ahead_of_the_leaders_clock_does_not_pin_the_index(disk):
    core, replica, _ = leading(disk)
    now_us = core.env.clock.time_us()
    far_us = now_us + 10**13

    late = batch(b"z", timestamps_us=[now_us - 10**9])
    replica.propose(1, [batch(b"x", timestamps_us=[far_us]), batch(b"y"), late])

    first, second, third = (each.header.timestamp_us for each in replica.entries(1, 1 << 20))
    assert now_us <= first <= now_us + 3700 * 10**6
    assert first == second == third


def test_a_batch_out_of_sequence_stages_nothing(disk):
    _, replica, _ = leading(disk)

    with pytest.raises(ProducerSequenceError):
        replica.propose(1, [batch(b"a", producer_id=9, base_sequence=4)])
    with pytest.raises(ValueError, match="alone"):
        replica.propose(1, [Noop(), batch(b"a", producer_id=9)])
    assert 0 == replica.last_index


def test_a_full_segment_is_sealed_by_the_leader_at_once(disk):
    config = LogConfig(segment_bytes=1 << 20)
    _, replica, committer = leading(disk, config=config)

    replica.propose(1, [batch(bytes(1 << 20))])
    committer.flush()

    assert 2 == replica.last_index, "the records, and their SEAL"


def test_a_fenced_log_that_stops_refuses_records_and_takes_commands(disk):
    _, replica, committer = leading(disk, config=LogConfig(on_fenced="stop"))
    replica.propose(1, [Fenced("ee" * 16, 3, "restored")])
    committer.flush()
    replica.advance_commit(1)

    with pytest.raises(FencedError):
        replica.propose(1, [batch(b"a")])
    assert 2 == replica.propose(1, [Noop()]).index


# --- snapshots ------------------------------------------------------------------------------------


def snapshot_at(core: Any, index: int, term: int, offset: int) -> Snapshot:
    """As a leader would make it whose last segment ends there."""
    base = LogBase(index, term, offset, 0)
    manifest = replace(core.manifest, next=base)
    return Snapshot(base, manifest, index + 3, (), Members(("a", "b"), ()), 1)


def test_a_snapshot_begins_a_log_behind_its_base_and_survives_a_crash(disk):
    core, replica, committer = stepped(disk)
    replica.append_entries(0, 0, run_of([1]))
    replica.save_hard_state(4, "n3")
    committer.flush()
    snapshot = Snapshot.decode(snapshot_at(core, 50, 3, 40).encode())

    replica.install_snapshot(snapshot)
    replica.append_entries(50, 3, run_of([4], first=51, offset=40))
    assert (51, 51, 3) == (replica.first_index, replica.last_index, replica.term(50))
    committer.flush()

    _, replica, _ = stepped(disk.crash("lost"))
    assert (51, 51, 50) == (replica.first_index, replica.last_index, replica.commit_index)
    assert (4, "n3") == replica.hard_state
    assert (1, Members(("a", "b"), ())) == replica.members


def test_a_snapshot_that_was_not_synced_leaves_the_old_log_whole(disk):
    core, replica, committer = stepped(disk)
    replica.append_entries(0, 0, run_of([1, 1]))
    committer.flush()

    replica.install_snapshot(snapshot_at(core, 50, 3, 40))

    assert [1, 1] == terms(stepped(disk.crash("lost"))[1])


def test_a_snapshot_whose_base_we_hold_keeps_the_suffix_and_what_it_says(disk):
    core, replica, committer = stepped(disk)
    members = Members(("a", "b", "c"), ())
    tail = [control_entry(2, 4, 3, members), control_entry(2, 5, 3, CursorSet("c", 1, False))]
    replica.append_entries(0, 0, [*run_of([1, 1, 2]), *tail])
    committer.flush()

    replica.install_snapshot(snapshot_at(core, 3, 2, 3))

    assert (1, 5, 3) == (replica.first_index, replica.last_index, replica.commit_index)
    assert (4, members) == replica.members
    replica.advance_commit(5)
    assert (("c", 1),) == core.manifest.cursors


def test_a_snapshot_whose_base_is_another_entry_than_ours_replaces_the_log(disk):
    """Ours was never committed, whatever stands at that index."""
    core, replica, committer = stepped(disk)
    replica.append_entries(0, 0, run_of([1, 1, 1, 1]))
    committer.flush()

    replica.install_snapshot(snapshot_at(core, 3, 2, 3))
    committer.flush()

    assert (4, 3, 3) == (replica.first_index, replica.last_index, replica.commit_index)
    assert 2 == replica.term(3)


def test_a_snapshot_below_the_commit_changes_nothing(disk):
    core, replica, committer = stepped(disk)
    replica.append_entries(0, 0, run_of([1, 1, 1]))
    committer.flush()
    replica.advance_commit(3)

    replica.install_snapshot(snapshot_at(core, 2, 1, 2))

    assert (1, 3) == (replica.first_index, replica.last_index)


def test_a_snapshot_that_is_older_than_what_is_left_here_changes_nothing(disk):
    core, replica, committer = stepped(disk)
    replica.install_snapshot(snapshot_at(core, 50, 3, 40))
    committer.flush()

    replica.install_snapshot(snapshot_at(core, 20, 2, 15))
    committer.flush()

    assert (51, 50, 50) == (replica.first_index, replica.last_index, replica.commit_index)


def test_entries_from_below_the_snapshot_are_here_already(disk):
    """A late message: all of that is committed, hence equal."""
    core, replica, committer = stepped(disk)
    replica.install_snapshot(snapshot_at(core, 50, 3, 40))
    committer.flush()

    known = replica.append_entries(10, 1, run_of([1, 2], first=11, offset=8))
    beyond = replica.append_entries(49, 3, run_of([3, 3], first=50, offset=39))

    assert [(12, None), (51, None)] == [known[1:], beyond[1:]]
    assert (51, 51, 41) == (replica.first_index, replica.last_index, core.end_offset)


def test_what_was_written_before_a_snapshot_is_not_marked_committed_by_it(disk):
    """Its own file is not there yet, and what the log has at these indexes never was committed."""
    core, replica, committer = stepped(disk)
    replica.append_entries(0, 0, run_of([1, 1]))
    replica.install_snapshot(snapshot_at(core, 50, 3, 40))
    committer.step()
    assert 50 > replica.durable_index

    _, replica, _ = stepped(disk.crash("lost"))
    assert (2, 0) == (replica.last_index, replica.commit_index)


def test_a_snapshot_of_another_log_is_refused(disk):
    core, replica, _ = stepped(disk)
    other = snapshot_at(core, 5, 1, 5)
    other = replace(other, manifest=replace(other.manifest, log_id="99" * 16))

    with pytest.raises(IdentityMismatchError):
        replica.install_snapshot(other)


def test_a_snapshot_that_does_not_stand_for_its_manifest_is_refused(disk):
    core, _, _ = stepped(disk)
    honest = snapshot_at(core, 5, 1, 5)

    with pytest.raises(CorruptionError):
        Snapshot.decode(replace(honest, base=LogBase(9, 1, 9, 0)).encode())
    with pytest.raises(CorruptionError):
        Snapshot.decode(replace(honest, folded_to=4).encode())
    with pytest.raises(CorruptionError):
        Snapshot.decode(honest.encode()[:-1] + b"x")


def test_a_snapshot_stands_for_the_end_of_the_last_segment_not_for_the_newest_entry(disk):
    core, replica, committer = leading(disk)
    replica.propose(1, [batch(b"a"), Seal(1, "admin", 0), batch(b"b"), Noop()])
    committer.flush()
    replica.advance_commit(4)

    snapshot = replica.snapshot()

    assert (0, 4) == (snapshot.base.index, snapshot.folded_to)
    assert core.manifest == snapshot.manifest


@pytest.mark.parametrize("order", ["sealed first", "dropped first"])
def test_a_snapshot_behind_a_range_that_was_dropped_has_the_producers_as_of_its_end(disk, order):
    """No segment of it was ever listed: DROP_PREFIX, or the SEAL behind it, moved `next`."""
    _, replica, committer = leading(disk)
    replica.propose(1, [batch(b"a", producer_id=7, base_sequence=0)])
    commands = [Seal(1, "admin", 0), DropPrefix(1, "test", 0)]
    replica.propose(1, commands if order == "sealed first" else commands[::-1])
    replica.propose(1, [batch(b"b", producer_id=7, base_sequence=1)])
    committer.flush()
    replica.advance_commit(4)

    snapshot = replica.snapshot()

    assert (2 if order == "sealed first" else 3, 1) == snapshot.base[::2]
    assert [(0, 1)] == [(each.last_sequence, each.index) for each in snapshot.producers]
    _, other, _ = stepped(SimulatedDisk(seed=2))
    other.install_snapshot(Snapshot.decode(snapshot.encode()))
    other.save_hard_state(2, "n2")
    assert other.propose(2, [batch(b"a", producer_id=7, base_sequence=0)]).duplicate


def test_a_snapshot_has_the_members_as_of_its_base(disk):
    core, replica, committer = leading(disk)
    before, after = Members(("a", "b"), ()), Members(("a", "b", "c"), ())
    commands = [before, batch(b"x"), Seal(1, "admin", 0), after, DropPrefix(1, "test", 0)]
    replica.propose(1, commands)
    committer.flush()
    replica.advance_commit(5)

    snapshot = replica.snapshot()

    assert (3, 1, before) == (snapshot.base.index, snapshot.members_index, snapshot.members)
    assert (4, after) == replica.members
    assert [None, before, after] == [core.members_at(index) for index in (0, 3, 4)]


def test_a_checkpoint_has_the_members_that_are_committed_and_a_truncation_its_seals(disk):
    """What is truncated must not come back with a file that was begun before."""
    core, replica, committer = leading(disk)
    before, after = Members(("a", "b"), ()), Members(("a", "b", "c"), ())
    replica.propose(1, [before, batch(b"x")])
    committer.flush()
    replica.advance_commit(2)
    size = core.state.open_bytes
    replica.propose(1, [after, batch(b"y" * 100_000), Seal(1, "admin", 0)])
    checkpoint = core.checkpoint()
    assert (1, before) == (checkpoint.members_index, checkpoint.members)
    assert core.state.seal_waits

    replica.truncate_suffix(3)

    assert (size, False) == (core.state.open_bytes, core.state.seal_waits)
