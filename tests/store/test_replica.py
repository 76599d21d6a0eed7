"""The Raft face of a log against the paper's receiver rules and a plain list (protocol 16)."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from chronik_store.config import LogConfig
from chronik_store.errors import (
    CorruptionError,
    FencedError,
    IdentityMismatchError,
    LogPoisonedError,
    OffsetConflictError,
    ProducerSequenceError,
)
from chronik_store.format.control import CursorSet, Fenced, Members, Noop, Seal
from chronik_store.format.entry import Entry
from chronik_store.format.manifest_file import LogBase
from chronik_store.replica import Conflict, Replica, Snapshot
from chronik_store.testing.disk_faults import crash_at, fail_next
from chronik_store.testing.simulated_disk import CrashError, SimulatedDisk
from tests.store.cluster_log import (
    SteppedCommitter,
    batch,
    control_entry,
    record_entry,
    run_of,
    stepped,
)


@pytest.fixture
def disk():
    return SimulatedDisk(seed=1)


def terms(replica: Replica) -> list[int]:
    return [replica.term(i) for i in range(replica.first_index, replica.last_index + 1)]


# --- append_entries -------------------------------------------------------------------------------


def test_entries_are_taken_and_durable_only_after_the_sync(disk):
    _, replica, committer = stepped(disk)

    appended = replica.append_entries(0, 0, run_of([1, 1, 2]))

    assert (3, None) == appended[1:]
    assert (3, 0) == (replica.last_index, replica.durable_index)
    committer.flush()
    assert 3 == replica.durable_index


def test_a_gap_is_a_conflict_that_names_our_end(disk):
    _, replica, _ = stepped(disk)
    replica.append_entries(0, 0, run_of([1, 1]))

    assert Conflict(3, None) == replica.append_entries(7, 1, run_of([1], first=8)).conflict
    assert [1, 1] == terms(replica)


@pytest.mark.parametrize(
    ("own", "prev", "hint"),
    [
        ([1, 1, 1], (3, 2), Conflict(1, 1)),
        ([1, 2, 2, 2], (4, 3), Conflict(2, 2)),
        ([1, 2, 3], (2, 1), Conflict(2, 2)),
        ([1, 1, 4, 4, 5], (4, 3), Conflict(3, 4)),
    ],
)
def test_a_conflict_names_the_first_entry_of_its_term(disk, own, prev, hint):
    _, replica, _ = stepped(disk)
    replica.append_entries(0, 0, run_of(own))

    assert hint == replica.append_entries(*prev, []).conflict
    assert own == terms(replica)


def test_a_conflict_goes_back_no_further_than_what_is_committed(disk):
    _, replica, committer = stepped(disk)
    replica.append_entries(0, 0, run_of([1, 1, 1, 1]))
    committer.flush()
    replica.advance_commit(2)

    assert Conflict(3, 1) == replica.append_entries(4, 2, []).conflict


def test_only_a_real_conflict_truncates(disk):
    _, replica, _ = stepped(disk)
    replica.append_entries(0, 0, run_of([1, 1, 1, 1]))

    replica.append_entries(0, 0, run_of([1, 1]))  # late, or repeated

    assert 4 == replica.last_index
    assert 1 == replica.append_entries(0, 0, run_of([1])).last_index, "what was compared, no more"


def test_a_conflicting_suffix_is_replaced_from_the_conflict_on(disk):
    _, replica, _ = stepped(disk)
    replica.append_entries(0, 0, run_of([1, 1, 1, 1]))

    replica.append_entries(1, 1, run_of([1, 3], first=2, offset=1))

    assert [1, 1, 3] == terms(replica)


def test_truncating_what_is_committed_is_a_defect(disk):
    _, replica, committer = stepped(disk)
    replica.append_entries(0, 0, run_of([1, 1]))
    committer.flush()
    replica.advance_commit(2)

    with pytest.raises(AssertionError, match="committed"):
        replica.append_entries(1, 1, run_of([2], first=2, offset=1))
    with pytest.raises(AssertionError, match="committed"):
        replica.truncate_suffix(2)


def damaged(entry: Entry) -> Entry:
    return Entry(entry.header, bytes(entry.payload)[:-1] + b"\xff")


@pytest.mark.parametrize(
    "entries",
    [
        [record_entry(1, 1, 0, b"a"), damaged(record_entry(1, 2, 1, b"b"))],
        [record_entry(1, 1, 0, b"a"), record_entry(1, 3, 1, b"b")],
        [record_entry(1, 1, 0, b"a"), record_entry(1, 2, 7, b"b")],
        [record_entry(1, 1, 5, b"a")],
    ],
    ids=["bytes", "index", "offset", "first offset"],
)
def test_entries_that_are_not_what_follows_are_refused_whole(disk, entries):
    _, replica, _ = stepped(disk)

    with pytest.raises(CorruptionError):
        replica.append_entries(0, 0, entries)
    assert 0 == replica.last_index


# --- durability -----------------------------------------------------------------------------------


def test_hard_state_survives_a_crash_once_its_ticket_is_synced(disk):
    _, replica, committer = stepped(disk)
    done = []
    ticket = replica.save_hard_state(7, "n2")
    replica.when_synced(ticket, lambda: done.append("synced"))
    assert [] == done
    committer.flush()
    assert ["synced"] == done

    assert (7, "n2") == stepped(disk.crash("lost"))[1].hard_state


def test_hard_state_that_was_not_synced_may_be_lost(disk):
    _, replica, _ = stepped(disk)
    replica.save_hard_state(7, "n2")

    assert (0, "") == stepped(disk.crash("lost"))[1].hard_state


def test_tickets_call_back_in_their_order_whenever_they_were_asked_for(disk):
    _, replica, committer = stepped(disk)
    first = replica.save_hard_state(1, "n1")
    second = replica.append_entries(0, 0, run_of([1])).ticket
    order: list[str] = []

    replica.when_synced(second, lambda: order.append("second"))
    replica.when_synced(first, lambda: order.append("first"))
    replica.when_synced(second, lambda: order.append("third"))
    committer.flush()
    replica.when_synced(first, lambda: order.append("late"))

    assert ["first", "second", "third", "late"] == order


def test_a_callback_asked_for_inside_a_callback_comes_after_those_that_wait(disk):
    _, replica, committer = stepped(disk)
    ticket = replica.save_hard_state(1, "n1")
    order: list[int] = []

    def again() -> None:
        replica.when_synced(ticket, lambda: order.append(3))
        order.append(1)

    replica.when_synced(ticket, again)
    replica.when_synced(ticket, lambda: order.append(2))
    committer.flush()

    assert [1, 2, 3] == order


def test_commit_waits_for_the_own_disk(disk):
    _, replica, committer = stepped(disk)
    replica.append_entries(0, 0, run_of([1, 1]))

    replica.advance_commit(2)

    assert 0 == replica.commit_index
    committer.flush()
    assert 2 == replica.commit_index


def test_a_sync_that_began_before_a_truncation_makes_nothing_durable_that_is_gone(disk):
    _, replica, committer = stepped(disk)
    replica.append_entries(0, 0, run_of([1, 1, 1]))

    def replace_meanwhile(_number: int, operation: str, _path: str) -> None:
        if operation == "sync_data":
            disk.hook = None
            replica.truncate_suffix(2)
            replica.append_entries(1, 1, run_of([2], first=2, offset=1))

    disk.hook = replace_meanwhile
    committer.step()
    assert disk.hook is None
    assert (2, 1) == (replica.last_index, replica.durable_index)

    committer.flush()
    assert 2 == replica.durable_index
    assert [1, 2] == terms(stepped(disk.crash("lost"))[1])


def test_a_failed_sync_tells_the_engine_once_and_acknowledges_nothing(disk):
    _, replica, committer = stepped(disk)
    errors: list[BaseException] = []
    replica.on_poisoned = errors.append
    ticket = replica.append_entries(0, 0, run_of([1])).ticket
    done: list[int] = []
    replica.when_synced(ticket, lambda: done.append(1))
    disk.hook = fail_next("sync_data", 5)

    committer.flush()

    assert ([], 1, 0) == (done, len(errors), replica.durable_index)
    with pytest.raises(LogPoisonedError):
        replica.append_entries(1, 1, run_of([1], first=2, offset=1))


def test_suspicion_is_durable(disk):
    _, replica, committer = stepped(disk)
    replica.set_suspect(True)
    committer.flush()
    again, replica, committer = stepped(disk.crash("lost"))[0:3]

    assert replica.suspect
    replica.set_suspect(False)
    committer.flush()
    assert not stepped(again.env.fs.crash("lost"))[1].suspect


# --- members --------------------------------------------------------------------------------------


def test_members_are_those_of_the_last_entry_and_a_truncation_brings_back_the_one_before(disk):
    _, replica, _ = stepped(disk)
    old, new = Members(("a",), ()), Members(("a", "b"), ())

    replica.append_entries(0, 0, [control_entry(1, 1, 0, old), control_entry(1, 2, 0, new)])
    assert (2, new) == replica.members
    replica.truncate_suffix(2)

    assert (1, old) == replica.members


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


def test_a_snapshot_below_the_commit_changes_nothing(disk):
    core, replica, committer = stepped(disk)
    replica.append_entries(0, 0, run_of([1, 1, 1]))
    committer.flush()
    replica.advance_commit(3)

    replica.install_snapshot(snapshot_at(core, 2, 1, 2))

    assert (1, 3) == (replica.first_index, replica.last_index)


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


# --- against a list, with crashes -----------------------------------------------------------------


def everything(replica: Replica) -> list[Entry]:
    found: list[Entry] = []
    while len(found) < replica.last_index:
        found += replica.entries(len(found) + 1, 1 << 20)
    return found


class Model:
    """What the log must be: a list of terms; `synced` is a lower bound after a crash."""

    def __init__(self) -> None:
        self.log: list[Entry] = []
        self.hard = (0, "")
        self.history: list[tuple[int, list[Entry], tuple[int, str]]] = [(0, [], (0, ""))]

    def change(self, log: list[Entry], apply: Callable[[], int]) -> None:
        """One frame for the truncation, one for each entry: a crash may fall between any two."""
        same = 0
        while same < min(len(log), len(self.log)) and log[same] is self.log[same]:
            same += 1
        between = [log[:length] for length in range(same, len(log))]
        self.log = log
        ticket = apply()
        self.history += [(ticket, each, self.hard) for each in (*between, log)]

    def after_crash(self, synced: int) -> list[tuple[list[Entry], tuple[int, str]]]:
        """States that recovery may come to: the last one synced, or any later one."""
        first = max(n for n, (ticket, _, _) in enumerate(self.history) if ticket <= synced)
        return [(log, hard) for _, log, hard in self.history[first:]]


def step(rng: random.Random, model: Model, replica: Replica) -> None:
    dice = rng.random()
    floor = replica.commit_index
    if dice < 0.5:
        prev = rng.randint(floor, len(model.log))
        last_term = model.log[prev - 1].header.term if prev else 0
        term = max(model.hard[0], last_term, 1)
        offset = prev
        entries = run_of([term] * rng.randint(1, 3), first=prev + 1, offset=offset)
        # What has the same term is the same entry; a longer suffix of it stays.
        same = 0
        while prev + same < len(model.log) and same < len(entries):
            if model.log[prev + same].header.term != term:
                break
            same += 1
        log = model.log
        if same < len(entries):
            log = model.log[: prev + same] + entries[same:]
        model.change(log, lambda: replica.append_entries(prev, last_term, entries).ticket)
    elif dice < 0.7:
        term = model.hard[0] + rng.randint(1, 2)
        model.hard = (term, rng.choice(["", "n1", "n2"]))
        model.change(model.log, lambda: replica.save_hard_state(*model.hard))
    elif dice < 0.85 and len(model.log) > floor:
        index = rng.randint(floor + 1, len(model.log))
        model.change(model.log[: index - 1], lambda: replica.truncate_suffix(index))
    else:
        replica.advance_commit(min(replica.durable_index, floor + 1))


@pytest.mark.parametrize("seed", range(25))
def test_the_replica_is_a_list_through_crashes_and_reopens(seed):
    rng = random.Random(seed)
    disk, model = SimulatedDisk(seed=seed), Model()
    committed: list[Entry] = []
    for _ in range(5):
        _, replica, committer = stepped(disk, file_bytes=4096, tail_bytes=600)
        model.history = [(0, list(model.log), model.hard)]
        disk.hook = crash_at(disk.calls + rng.randint(5, 80))
        with suppress(CrashError):
            for _ in range(60):
                step(rng, model, replica)
                if rng.random() < 0.4:
                    committer.step()
                assert [e.header.term for e in model.log] == terms(replica)
                committed = model.log[: replica.commit_index]
        synced = replica.synced_ticket
        disk = disk.crash("any")
        _, replica, _ = stepped(disk)
        found = everything(replica)
        got = ([bytes(e.encode()) for e in found], replica.hard_state)
        allowed = [([bytes(e.encode()) for e in log], h) for log, h in model.after_crash(synced)]
        assert got in allowed
        assert [bytes(e.encode()) for e in committed] == got[0][: len(committed)]
        model.log, model.hard = [Entry(e.header, bytes(e.payload)) for e in found], got[1]
        disk = disk.crash("kept")
