"""Protocol 4: what `durable` means after a truncation, at open, and after a failed sync.

Gates hold a call to the disk while the schedule moves on around it.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Any

import pytest

from chronik_store.errors import LogPoisonedError
from chronik_store.model import Position
from chronik_store.testing.disk_faults import Gate, crash_at, fail_next
from chronik_store.testing.simulated_disk import CrashError, SimulatedDisk

Opens = Callable[..., Any]


def in_thread(call: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def test_s1_a_sync_that_began_before_a_truncation_lifts_durable_over_live_entries_only(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk, commits=False)
    for _ in range(10):
        owner.append(b"old")
    gate = Gate("sync_data")
    disk.hook = gate
    for _ in range(10):
        seq = owner.stage(b"11 to 20, in flight")
    leader = in_thread(lambda: owner.wal.lead(seq))
    assert gate.arrived.wait(5)

    owner.truncate(11)
    for _ in range(5):
        seq = owner.stage(b"11' to 15'")
    seen: list[Position] = []
    owner.wal.on_synced = lambda: seen.append(owner.wal.durable)
    gate.open()
    leader.join(5)
    owner.wal.lead(seq)

    assert owner.wal.last_index == 15
    assert seen[0] == Position(11, 0)
    assert owner.wal.durable == Position(16, 0)


def test_s1_truncation_below_what_was_durable_lowers_it_at_once(open_wal: Opens) -> None:
    owner = open_wal(commits=False)
    for _ in range(5):
        owner.append(b"x")

    owner.truncate(3)

    assert owner.wal.durable == Position(3, 0)
    assert owner.wal.end_offset == 0
    assert owner.wal.last_index == 2


def test_s2_what_a_killed_process_did_not_sync_is_copied_before_it_counts(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk)
    owner.append(b"synced")
    disk.hook = fail_next("sync_data", errno.EIO)
    with pytest.raises(LogPoisonedError):
        owner.append(b"a ghost: in the page cache, never on the disk")

    after_kill = disk.kill()
    reopened = open_wal(after_kill, start=False)
    assert reopened.wal.last_index == 2
    assert reopened.wal.durable.index <= 2
    reopened.start()
    assert reopened.wal.durable == Position(3, 0)

    after_power_cut = open_wal(after_kill.crash("lost"))
    assert after_power_cut.copy.entries.keys() == {1, 2}


def test_s2_only_what_no_mark_swears_to_is_copied(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = open_wal(disk)
    for number in range(20):
        owner.append(b"%04d" % number * 100)

    again = open_wal(disk.kill())

    # The last group: nothing was written after it that says it was synced.
    assert again.wal.recovery.copied_bytes == 64 + 400
    assert again.wal.last_index == 20


def test_s2_copies_count_all_together_or_not_at_all(open_wal: Opens) -> None:
    """However small groups are now: a file with the first of them only would be the log's end."""
    call, crashed = 0, True
    while crashed:
        call += 1
        disk = SimulatedDisk(seed=call)
        owner = open_wal(disk, commits=False)
        for number in range(5):
            seq = owner.stage(b"%d" % number * 300)
        owner.wal.lead(seq)
        image = disk.kill()
        image.hook = crash_at(call)
        try:
            open_wal(image, settings={"group_bytes": 1})
            crashed = False
        except CrashError:
            pass
        assert open_wal(image.crash("lost")).live().keys() == {1, 2, 3, 4, 5}
    assert call > 10


def test_s2_a_name_that_was_read_is_made_durable_before_a_file_builds_on_it(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk, settings={"file_bytes": 4096})
    for number in range(6):
        owner.append(b"%d" % number * 1500)
    killed = disk.kill()
    open_wal(killed)

    for seed in range(10):
        image = killed.crash("any") if seed else killed.crash("torn")
        assert open_wal(image).copy.entries.keys() == set(range(1, 7))


def test_a_truncation_never_goes_below_what_is_committed(open_wal: Opens) -> None:
    owner = open_wal()
    owner.append(b"committed")

    with pytest.raises(AssertionError):
        owner.truncate(1)


def test_synced_never_goes_back_and_covers_every_kind_of_frame(open_wal: Opens) -> None:
    owner = open_wal(commits=False)
    seen = [owner.wal.synced_seq]
    for step in range(4):
        owner.append(b"x")
        owner.vote(step + 1, "me")
        owner.wal.lead(owner.truncate(owner.wal.last_index))
        seen.append(owner.wal.synced_seq)

    assert seen == sorted(seen)
    assert owner.wal.synced_seq == owner.wal.last_seq
    assert owner.wal.last_index == 0
