"""Protocol 1 and 2: checkpoints outlive the files before them; snapshots replace a log or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chronik_store.format.manifest_file import LogBase
from chronik_store.model import Position
from chronik_store.testing.simulated_disk import SimulatedDisk

Opens = Callable[..., Any]


def snapshot(owner: Any, index: int, term: int, offset: int) -> Any:
    base = LogBase(index, term, offset, 1000)
    manifest = replace(owner.folded.manifest, next=base)
    return replace(
        owner.folded,
        base=base,
        committed_index=index,
        manifest=manifest,
        manifest_folded_to=index,
        producers_folded_to=index,
    )


def test_hard_state_outlives_the_file_that_held_it(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = open_wal(disk)
    owner.append(b"old")
    owner.vote(9, "b")
    owner.wal.rotate()
    owner.append(b"new")
    owner.wal.remove_files(owner.wal.files()[0].seq)

    again = open_wal(disk.kill())

    assert again.wal.hard_state == (9, "b")
    assert again.copy.hard_state == (9, "b")
    assert again.wal.base.index == 1


def test_a_truncation_outlives_the_file_that_held_it(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = open_wal(disk, commits=False)
    for _ in range(4):
        owner.append(b"old")
    owner.wal.rotate()
    owner.append(b"five")
    owner.wal.lead(owner.truncate(3))
    owner.term = 2
    owner.append(b"new")
    owner.wal.commit_mark = 3
    owner.append(b"newer")
    owner.wal.remove_files(owner.wal.files()[-1].seq - 1)
    assert owner.wal.base == LogBase(2, 1, 0, 2)

    again = open_wal(disk.kill())

    assert again.wal.base == LogBase(2, 1, 0, 2)
    assert again.wal.term(2) == 1
    assert {index: data for index, (_, _, data) in again.copy.entries.items()} == {
        3: b"new",
        4: b"newer",
    }


def test_every_file_begins_with_what_the_owner_has_folded(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk, settings={"file_bytes": 2000})
    for number in range(4):
        owner.folded = replace(owner.folded, manifest_folded_to=number, producers_folded_to=number)
        owner.append(b"%d" % number * 1500)

    again = open_wal(disk.kill(), start=False)

    assert [c.manifest_folded_to for c in again.copy.checkpoints] == [0, 1, 2, 3]
    assert [file.folded_to for file in again.wal.files()] == [0, 1, 2, 3]


def test_a_snapshot_replaces_a_log_that_does_not_reach_it(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk)
    owner.append(values=[b"a", b"b"])
    assert owner.wal.install_snapshot(snapshot(owner, 500, 6, 900))
    owner.wal.commit_mark = 500

    wal = owner.wal
    assert (wal.first_index, wal.last_index, wal.end_offset) == (501, 500, 900)
    assert wal.term(500) == 6
    assert wal.durable == Position(501, 900)
    assert owner.append(values=[b"c"]) == 501

    again = open_wal(disk.kill())
    assert again.copy.entries.keys() == {501}
    assert again.wal.base == LogBase(500, 6, 900, 1000)
    assert again.wal.recovery_commit_index == 500


def test_a_snapshot_replaces_a_log_that_contradicts_it(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk, commits=False)
    for _ in range(6):
        owner.append(b"other history")
    owner.wal.commit_mark = 2

    assert owner.wal.install_snapshot(snapshot(owner, 4, 3, 0))

    assert (owner.wal.first_index, owner.wal.last_index) == (5, 4)
    assert owner.wal.durable == Position(5, 0)
    again = open_wal(disk.kill())
    assert again.wal.base.term == 3
    assert not again.copy.entries


def test_a_snapshot_that_the_log_agrees_with_keeps_the_suffix(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk, commits=False)
    for _ in range(6):
        owner.append(b"same")
    owner.wal.commit_mark = 2

    assert not owner.wal.install_snapshot(snapshot(owner, 4, 1, 0))

    assert (owner.wal.first_index, owner.wal.last_index) == (1, 6)
    again = open_wal(disk.kill())
    assert again.copy.entries.keys() == set(range(1, 7))
    assert again.copy.checkpoints[-1].manifest_folded_to == 4


def test_an_outdated_snapshot_truncates_nothing(open_wal: Opens) -> None:
    owner = open_wal()
    for _ in range(6):
        owner.append(b"committed")

    assert not owner.wal.install_snapshot(snapshot(owner, 4, 99, 0))

    assert owner.wal.last_index == 6
    assert owner.wal.term(4) == 1


def test_durable_stays_at_what_is_committed_until_the_snapshot_is_on_disk(
    open_wal: Opens,
) -> None:
    owner = open_wal(commits=False)
    for _ in range(6):
        owner.append(b"x")
    owner.wal.commit_mark = 2

    with owner.wal.lock:
        seq, _ = owner.wal.stage_snapshot(snapshot(owner, 10, 2, 0))
    assert owner.wal.durable == Position(3, 0)

    owner.wal.lead(seq)
    assert owner.wal.durable == Position(11, 0)


@pytest.mark.parametrize("mode", ["lost", "kept", "torn"])
def test_the_old_files_are_the_log_until_the_snapshot_is_on_disk(
    disk: SimulatedDisk, open_wal: Opens, mode: Any
) -> None:
    owner = open_wal(disk)
    owner.append(b"old")
    with owner.wal.lock:
        owner.wal.stage_snapshot(snapshot(owner, 10, 2, 0))

    again = open_wal(disk.crash(mode))

    assert again.copy.entries.keys() == {1}


def test_a_file_staged_before_a_snapshot_says_what_was_folded_then(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk, commits=False)
    owner.append(b"not committed")
    with owner.wal.lock:
        rotation = owner.wal.stage_rotation()
        installed = snapshot(owner, 10, 2, 0)
        owner.wal.stage_snapshot(installed)
        owner.folded = installed

    owner.wal.lead(rotation)
    again = open_wal(disk.kill(), start=False)

    assert [c.manifest_folded_to for c in again.copy.checkpoints][:2] == [0, 0]
    if again.wal.base.index == 0:
        assert again.wal.recovery_commit_index == 0


def test_the_commit_index_is_known_from_a_checkpoint_alone(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    """Nothing was written behind it, and the frames before it were written before they knew."""
    owner = open_wal(disk, commits=False)
    for _ in range(3):
        owner.append(b"x")
    owner.wal.commit_mark = 2
    owner.wal.rotate()

    assert open_wal(disk.crash("lost"), start=False).wal.recovery_commit_index == 2


def test_a_reader_beside_it_goes_on_behind_the_snapshot(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk, commits=False)
    for _ in range(6):
        owner.append(b"other history")
    owner.wal.commit_mark = 2
    reader = open_wal(disk.another_process(), start=False, read_only=True)

    assert owner.wal.install_snapshot(snapshot(owner, 500, 6, 900))
    owner.wal.commit_mark = 500
    owner.append(values=[b"a", b"b"])
    owner.append(values=[b"c"])
    reader.wal.refresh()

    assert (501, 502, 903) == (
        reader.wal.first_index, reader.wal.last_index, reader.wal.end_offset
    )  # fmt: skip
    assert reader.live() == owner.live()
    assert 500 <= reader.wal.recovery_commit_index <= 502
    owner.wal.remove_files(owner.wal.files()[-1].seq - 1)
    owner.append(values=[b"d"])
    reader.wal.refresh()
    assert reader.live() == owner.live()
