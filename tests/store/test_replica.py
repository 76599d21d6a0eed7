"""The Raft face of a log against the paper's receiver rules (protocol 16)."""

from __future__ import annotations

import pytest

from chronik_store.errors import (
    CorruptionError,
    LogPoisonedError,
)
from chronik_store.format.control import Members, Seal
from chronik_store.format.entry import Entry
from chronik_store.format.record_batch import RecordBatch
from chronik_store.manifest.state import FoldedState
from chronik_store.replica import Conflict, Replica
from chronik_store.testing.cluster_log import (
    control_entry,
    record_entry,
    run_of,
    stepped,
)
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.wal.staging import Staging
from chronik_store.wal.tail import MemoryTail


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


def test_a_sync_that_failed_before_the_engine_listens_is_told_to_it_all_the_same(disk):
    """The log had failed while it was opened: nobody ended the process, and it took nothing."""
    _, replica, committer = stepped(disk)
    replica.append_entries(0, 0, run_of([1]))
    disk.hook = fail_next("sync_data", 5)
    committer.flush()

    errors: list[BaseException] = []
    replica.on_poisoned(errors.append)
    later: list[BaseException] = []
    replica.on_poisoned(later.append)
    assert ([5], []) == ([error.errno for error in errors], later)


def test_a_failed_sync_tells_the_engine_once_and_acknowledges_nothing(disk):
    _, replica, committer = stepped(disk)
    errors: list[BaseException] = []
    replica.on_poisoned(errors.append)
    ticket = replica.append_entries(0, 0, run_of([1])).ticket
    done: list[int] = []
    replica.when_synced(ticket, lambda: done.append(1))
    disk.hook = fail_next("sync_data", 5)

    committer.flush()

    assert ([], 1, 0) == (done, len(errors), replica.durable_index)
    with pytest.raises(LogPoisonedError):
        replica.append_entries(1, 1, run_of([1, 1], first=2, offset=1))


def test_suspicion_is_durable(disk):
    _, replica, committer = stepped(disk)
    replica.set_suspect(True)
    committer.flush()
    again, replica, committer = stepped(disk.crash("lost"))[0:3]

    assert replica.suspect
    replica.set_suspect(False)
    committer.flush()
    assert not stepped(again.env.fs.crash("lost"))[1].suspect


def test_suspicion_that_was_cleared_does_not_come_back_with_a_later_start(disk):
    """The frame that cleared it may lie behind what the next start has copied on."""
    _, replica, committer = stepped(disk)
    replica.set_suspect(True)
    committer.flush()
    disk = disk.crash("lost")
    _, replica, committer = stepped(disk)
    replica.append_entries(0, 0, run_of([1]))
    replica.set_suspect(False)
    committer.flush()
    for _ in range(2):
        disk = disk.crash("lost")
        _, replica, _ = stepped(disk)
        assert not replica.suspect


# --- members --------------------------------------------------------------------------------------


def test_members_are_those_of_the_last_entry_and_a_truncation_brings_back_the_one_before(disk):
    _, replica, _ = stepped(disk)
    old, new = Members(("a",), ()), Members(("a", "b"), ())

    replica.append_entries(0, 0, [control_entry(1, 1, 0, old), control_entry(1, 2, 0, new)])
    assert (2, new) == replica.members
    replica.truncate_suffix(2)

    assert (1, old) == replica.members


# --- half-way -------------------------------------------------------------------------------------


def out_of_memory(*_args):
    raise MemoryError("injected")


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Staging, "add"), (FoldedState, "note_records"), (MemoryTail, "append")],
)
def test_entries_that_stop_half_way_end_the_log(disk, monkeypatch, owner, name):
    core, replica, committer = stepped(disk)
    told = []
    replica.on_poisoned(told.append)
    replica.append_entries(0, 0, run_of([1]))
    committer.flush()
    monkeypatch.setattr(owner, name, out_of_memory)

    with pytest.raises(MemoryError):
        replica.append_entries(1, 1, run_of([1], first=2, offset=1))
    monkeypatch.undo()

    assert isinstance(core.wal.poisoned, MemoryError)
    assert [core.wal.poisoned] == told
    with pytest.raises(LogPoisonedError):
        replica.append_entries(1, 1, run_of([1, 1], first=2, offset=1))


def test_a_proposal_of_which_a_part_was_staged_ends_the_log(disk, monkeypatch):
    core, replica, committer = stepped(disk)
    replica.save_hard_state(1, "a")
    committer.flush()
    monkeypatch.setattr(Seal, "encode", out_of_memory)

    with pytest.raises(MemoryError):
        replica.propose(1, [Seal(1, "admin", 1)])
    assert core.wal.poisoned is None
    with pytest.raises(MemoryError):
        replica.propose(1, [RecordBatch.build([b"x"]), Seal(1, "admin", 1)])

    assert isinstance(core.wal.poisoned, MemoryError)


def test_a_vote_that_is_not_staged_is_not_shown(disk):
    core, replica, _ = stepped(disk)
    replica.save_hard_state(1, "a")
    core.wal.give_up(OSError(5, "broken"))

    with pytest.raises(LogPoisonedError):
        replica.save_hard_state(2, "b")

    assert (1, "a") == replica.hard_state
