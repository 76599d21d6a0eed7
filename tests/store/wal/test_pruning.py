"""Old files go front to back, never under a reader, never above what is committed."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chronik_store.errors import UnavailableError
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.wal.entry_table import LogFile
from chronik_store.wal.wal import Wal

Opens = Callable[..., Any]


@pytest.fixture
def owner(disk: SimulatedDisk, open_wal: Opens) -> Any:
    """A log of eight entries in eight files."""
    made = open_wal(disk, settings={"file_bytes": 1500}, tail_bytes=0)
    for number in range(8):
        made.append(values=[b"%d" % number * 1400])
    return made


def names(disk: SimulatedDisk) -> list[str]:
    return [path for path in disk.paths("/data/wal") if path.endswith(".log")]


def test_files_tell_what_they_hold(owner: Any) -> None:
    files = owner.wal.files()

    assert [(file.first_index, file.last_index) for file in files] == [(i, i) for i in range(1, 9)]
    assert [file.records for file in files] == [1] * 8
    assert [file.sealed for file in files] == [True] * 7 + [False]
    assert all(file.size_bytes >= 1500 for file in files)


def test_what_is_removed_is_gone_and_the_rest_is_as_it_was(
    owner: Any, disk: SimulatedDisk, open_wal: Opens
) -> None:
    files = owner.wal.files()
    count, size = owner.wal.remove_files(files[2].seq)

    assert (count, size) == (3, sum(file.size_bytes for file in files[:3]))
    assert owner.wal.first_index == 4
    assert owner.wal.base.index == 3
    assert owner.wal.base.offset == 3
    assert names(disk) == [file.path for file in files[3:]]
    with pytest.raises(IndexError):
        owner.wal.read(3, 3, 10)
    manifest = replace(owner.folded.manifest, start_offset=3)
    owner.folded = replace(owner.folded, manifest=manifest)
    owner.wal.rotate()
    owner.close()
    assert open_wal(disk.another_process()).wal.base.index == 3


def test_the_file_that_is_being_written_never_goes(owner: Any) -> None:
    owner.wal.remove_files(1 << 40)

    assert len(owner.wal.files()) == 1
    assert owner.live().keys() == {8}
    assert owner.append(b"goes on") == 9


def test_what_is_not_committed_never_goes(owner: Any) -> None:
    owner.wal.commit_mark = 5

    with pytest.raises(AssertionError):
        owner.wal.remove_files(owner.wal.files()[6].seq)


def test_a_truncation_that_is_not_on_disk_yet_takes_no_file(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    """A crash undoes it, and a log that begins above what is committed takes its base for that."""
    made = open_wal(disk, settings={"file_bytes": 1500}, commits=False)
    for number in range(8):
        made.append(values=[b"%d" % number * 1400])
    made.wal.commit_mark = 5
    with made.wal.changing():
        made.wal.stage_truncate(6)
    count, _ = made.wal.remove_files(1 << 40)

    assert count == 5
    again = open_wal(disk.crash("lost"), read_only=True, start=False)
    assert (5, {6, 7, 8}) == (again.wal.base.index, set(again.copy.entries))


def test_a_file_that_a_start_lets_go_may_have_been_pruned_before(
    disk: SimulatedDisk, open_wal: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline sees the new file as soon as it is there."""
    open_wal(disk).append(b"first")
    disk = disk.kill()
    open_wal(disk)  # no frame swears to its file: the next open takes its place
    let_go = Wal._drop

    def pruned_first(wal: Wal, file: LogFile) -> None:
        wal.commit_mark = wal.last_index
        assert wal.remove_files(file.seq)[0] == 2
        let_go(wal, file)

    monkeypatch.setattr(Wal, "_drop", pruned_first)
    again = open_wal(disk.kill())
    assert again.wal.poisoned is None
    assert len(again.wal.files()) == 1
    again.append(b"goes on")


def test_a_pinned_file_goes_when_the_pin_does(owner: Any, disk: SimulatedDisk) -> None:
    files = owner.wal.files()
    with owner.wal.pin(2):
        count, _ = owner.wal.remove_files(files[3].seq)
        assert count == 4
        assert names(disk)[0] == files[1].path
        owner.wal.remove_files(files[5].seq)
        assert names(disk)[0] == files[1].path

    assert names(disk)[0] == files[6].path


def test_a_crash_between_removals_leaves_no_hole(open_wal: Opens) -> None:
    for seed in range(12):
        disk = SimulatedDisk(seed=seed)
        owner = open_wal(disk, settings={"file_bytes": 1500})
        for number in range(6):
            owner.append(b"%d" % number * 1400)
        images = []
        disk.hook = lambda _n, op, _p, d=disk, i=images: (
            i.append(d.crashed("any")) if op in {"remove", "sync_directory"} else None
        )
        owner.wal.remove_files(owner.wal.files()[3].seq)
        disk.hook = None
        for image in images:
            found = open_wal(image).copy.entries.keys()
            assert set(found) == set(range(min(found), 7))


def test_a_disk_that_refuses_is_asked_again(owner: Any, disk: SimulatedDisk) -> None:
    files = owner.wal.files()
    disk.hook = fail_next("remove", errno.EIO)
    with pytest.raises(UnavailableError):
        owner.wal.remove_files(files[1].seq)
    assert names(disk)[0] == files[0].path

    owner.wal.remove_files(files[1].seq)

    assert names(disk)[0] == files[2].path


def test_a_file_that_cannot_go_costs_no_reader_its_entries(
    owner: Any, disk: SimulatedDisk, caplog: pytest.LogCaptureFixture
) -> None:
    files = owner.wal.files()
    last = files[-1].last_index
    owner.wal.shrink_tail(0)
    refusals = []

    def refuse(_number: int, operation: str, path: str) -> None:
        if operation == "remove":
            refusals.append(path)
            raise OSError(errno.EIO, "refused")

    disk.hook = refuse
    with owner.wal.pin(1):
        assert owner.wal.remove_files(files[1].seq)[0] == 2
    assert owner.wal.read(last, last, 1)[0].header.index == last

    assert refusals == [files[0].path]  # a reader does not ask again
    assert "refused" in caplog.text
    disk.hook = None
    owner.wal.remove_files(files[1].seq)
    assert names(disk)[0] == files[2].path


def test_a_damaged_file_that_was_moved_before_a_failed_sync_holds_nothing_up(
    owner: Any, disk: SimulatedDisk
) -> None:
    """Each later call wanted to move it again: no file behind it ever went."""
    files = owner.wal.files()
    owner.wal._table.files[0].damaged = True
    disk.hook = fail_next("sync_directory", errno.EIO, path_end="quarantine")
    with pytest.raises(UnavailableError):
        owner.wal.remove_files(files[1].seq)

    owner.wal.remove_files(files[2].seq)

    kept = f"/data/wal/quarantine/{files[0].path.rpartition('/')[2]}"
    assert [kept, *(file.path for file in files[3:])] == names(disk)


def test_a_damaged_file_replaces_none_of_an_earlier_namesake(
    owner: Any, disk: SimulatedDisk
) -> None:
    """A topic was deleted, and made anew: its files have the names of those before."""
    first = owner.wal.files()[0]
    owner.wal._table.files[0].damaged = True
    kept = f"/data/wal/quarantine/{first.path.rpartition('/')[2]}"
    disk.make_directories("/data/wal/quarantine")
    disk.create(kept).write_at(0, [b"evidence"])

    owner.wal.remove_files(first.seq)

    assert b"evidence" == disk.peek(kept)
    assert f"{kept}.1" in disk.paths("/data/wal/quarantine")
