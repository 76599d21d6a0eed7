"""Read-only beside a live writer: nothing is locked, nothing written, files come and go."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from chronik_store.errors import CorruptionError, ReadOnlyError, UnavailableError
from chronik_store.format.frame import FRAME_MAGIC
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.wal import follow

Opens = Callable[..., Any]


@pytest.fixture
def pair(disk: SimulatedDisk, open_wal: Opens) -> tuple[Any, Any]:
    """A writer with small files, and a reader of another process."""
    writer = open_wal(disk, settings={"file_bytes": 4096})
    writer.append(b"first")
    reader = open_wal(disk.another_process(), start=False, read_only=True)
    return writer, reader


def payloads(owner: Any) -> dict[int, bytes]:
    return {index: payload for index, (_, _, payload) in owner.copy.entries.items()}


def test_a_reader_sees_what_was_there_and_what_comes(pair: tuple[Any, Any]) -> None:
    writer, reader = pair
    assert payloads(reader) == {1: b"first"}

    writer.append(b"second")

    assert reader.wal.refresh()
    assert payloads(reader) == {1: b"first", 2: b"second"}
    assert reader.live() == payloads(reader)
    assert not reader.wal.refresh()


def test_committed_is_what_a_frame_swears_to(pair: tuple[Any, Any]) -> None:
    writer, reader = pair
    assert reader.wal.recovery_commit_index == 0

    writer.append(b"second")
    reader.wal.refresh()
    assert reader.wal.recovery_commit_index == 1

    with writer.wal.lock:
        seq = writer.wal.stage_mark()
    writer.wal.lead(seq)
    reader.wal.refresh()
    assert reader.wal.recovery_commit_index == 2


def test_a_reader_follows_over_rotations_truncations_and_a_new_open(
    pair: tuple[Any, Any], disk: SimulatedDisk, open_wal: Opens
) -> None:
    writer, reader = pair
    writer.commits = False
    for number in range(6):
        writer.append(b"%d" % number * 1500)
        if number % 2:
            reader.wal.refresh()
    writer.wal.lead(writer.truncate(3))
    writer.append(b"other")
    reader.wal.refresh()
    assert payloads(reader) == writer.live()

    writer.close()
    again = open_wal(disk, settings={"file_bytes": 4096})
    again.append(b"after")
    reader.wal.refresh()
    assert payloads(reader) == again.live()
    assert [file.seq for file in reader.wal.files()] == [file.seq for file in again.wal.files()]


def test_a_reader_that_saw_the_last_mark_of_a_close_follows_the_next_open(
    pair: tuple[Any, Any], disk: SimulatedDisk, open_wal: Opens
) -> None:
    writer, reader = pair
    writer.append(b"second")
    writer.close()
    reader.wal.refresh()  # further than what the next file builds on: marks need no copy

    again = open_wal(disk, settings={"file_bytes": 4096})
    again.append(b"after")
    reader.wal.refresh()

    assert payloads(reader) == again.live()


def test_a_reader_of_a_file_that_the_next_open_makes_anew_goes_on_in_that_one(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    """Nobody swore to the file, so the next one continues the file before it, and has all of it."""
    writer = open_wal(disk)
    for number in range(10):
        writer.append(b"%d" % number * 1500)
    disk = disk.kill()
    open_wal(disk)
    reader = open_wal(disk.another_process(), start=False, read_only=True)
    disk = disk.kill()
    disk.hook = fail_next("remove", errno.EIO, times=1 << 30)  # it stays there for a while
    again = open_wal(disk)
    again.append(b"after")
    again.append(b"that")
    assert len(disk.list("/data/wal")) == 3

    reader.wal.refresh()

    assert payloads(reader) == again.live()
    assert reader.wal.recovery.verdict == "clean"


@pytest.mark.parametrize("before", [0, 10])
@pytest.mark.parametrize("look", [1, 2, 3])
def test_a_file_that_was_made_anew_may_go_while_a_reader_opens(
    look: int, before: int, disk: SimulatedDisk, open_wal: Opens
) -> None:
    """What stands in files before it is there (`simulate`, seed 41000271: it was in no tier)."""
    if before:
        writer = open_wal(disk)
        for number in range(before):
            writer.append(b"%d" % number * 1500)
        disk = disk.kill()
    kept = disk.list("/data/wal") if before else []
    open_wal(disk)  # nobody swears to its file, so the next one takes its place
    disk = disk.kill()
    disk.hook = fail_next("remove", errno.EIO, times=1 << 30)
    writer = open_wal(disk)
    writer.append(b"after")
    [anew, *_] = [name for name in disk.list("/data/wal") if name not in kept]
    beside, looks = disk.another_process(), []

    def take_away(_number: int, operation: str, path: str) -> None:
        if operation == "open" and path == f"/data/wal/{anew}":
            looks.append(path)
            if len(looks) == look:
                disk.vanish(path)

    beside.hook = take_away
    reader = open_wal(beside, start=False, read_only=True)

    assert len(looks) == look
    assert payloads(reader) == writer.live()
    assert reader.wal.recovery.verdict == "clean"


def test_a_reader_that_was_left_behind_by_pruning_starts_over(pair: tuple[Any, Any]) -> None:
    writer, reader = pair
    for number in range(8):
        writer.append(b"%d" % number * 1500)
    writer.wal.remove_files(writer.wal.files()[-1].seq - 1)

    reader.wal.refresh()

    assert reader.wal.first_index == writer.wal.first_index > 2
    assert payloads(reader) == writer.live()


def test_a_pruned_file_is_an_index_error_not_an_empty_answer(pair: tuple[Any, Any]) -> None:
    writer, reader = pair
    for number in range(8):
        writer.append(b"%d" % number * 1500)
    reader.wal.refresh()
    writer.wal.remove_files(writer.wal.files()[-1].seq - 1)

    with pytest.raises(IndexError):
        reader.wal.read(1, 1, 100)
    reader.wal.refresh()
    assert payloads(reader).keys() >= writer.live().keys()
    assert reader.wal.first_index == writer.wal.first_index


def test_a_half_written_group_is_not_damage(pair: tuple[Any, Any], disk: SimulatedDisk) -> None:
    writer, reader = pair
    path = writer.wal.files()[-1].path
    end = len(disk.peek(path).rstrip(b"\0"))
    disk.overwrite(path, end + (-end % 8), b"half a frame")

    assert not reader.wal.refresh()
    assert payloads(reader) == {1: b"first"}


def test_damage_below_a_mark_is_reported(pair: tuple[Any, Any], disk: SimulatedDisk) -> None:
    writer, reader = pair
    writer.append(b"second" * 100)
    writer.append(b"third")
    path = writer.wal.files()[-1].path
    place = disk.peek(path).index(b"secondsecond")
    disk.overwrite(path, place, b"X")

    with pytest.raises(CorruptionError):
        reader.wal.refresh()
    assert not reader.wal.refresh()
    assert payloads(reader) == {1: b"first"}


def test_a_quiet_log_is_not_gone_through_at_each_look(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind its end stand megabytes of zeros, and a reader looks twenty times a second."""
    writer, reader = pair
    gone_through = []
    whole = follow.replay_file

    def counted(*arguments: Any, **named: Any) -> bool:
        gone_through.append(arguments[1])
        return whole(*arguments, **named)

    monkeypatch.setattr(follow, "replay_file", counted)
    monkeypatch.setattr(follow, "FULL_LOOK_SECONDS", 3600.0)
    for _ in range(40):
        assert not reader.wal.refresh()
    assert len(gone_through) == 1
    monkeypatch.setattr(follow, "FULL_LOOK_SECONDS", 0.0)
    for _ in range(4):
        assert not reader.wal.refresh()
    assert len(gone_through) == 5
    writer.append(b"second")
    assert reader.wal.refresh()
    assert payloads(reader) == {1: b"first", 2: b"second"}


def test_a_new_file_without_a_frame_is_where_the_reader_goes_on(pair: tuple[Any, Any]) -> None:
    writer, reader = pair
    for number in range(6):
        writer.append(b"x" * 900)
        writer.wal.rotate()
        reader.wal.refresh()
        assert not reader.wal.refresh()
        assert len(payloads(reader)) == number + 2


def test_a_frame_that_was_lost_below_a_mark_is_reported_by_the_next_full_look(
    pair: tuple[Any, Any], disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = pair
    assert not reader.wal.refresh()  # a full look
    writer.append(b"second")
    path = writer.wal.files()[-1].path
    end = len(disk.peek(path).rstrip(b"\0"))
    place = disk.peek(path).index(b"second")
    start = place - place % 8
    while disk.peek(path)[start : start + len(FRAME_MAGIC)] != FRAME_MAGIC:
        start -= 8
    writer.append(b"third")
    disk.overwrite(path, start, bytes(end - start))

    monkeypatch.setattr(follow, "FULL_LOOK_SECONDS", 3600.0)
    assert not reader.wal.refresh()
    monkeypatch.setattr(follow, "FULL_LOOK_SECONDS", 0.0)
    with pytest.raises(CorruptionError):
        reader.wal.refresh()
    assert payloads(reader) == {1: b"first"}


def test_a_reader_stages_nothing_and_writes_nothing(
    pair: tuple[Any, Any], disk: SimulatedDisk
) -> None:
    _, reader = pair
    with pytest.raises(ReadOnlyError):
        reader.stage(b"x")
    reader.close()


def test_an_empty_directory_can_be_followed(disk: SimulatedDisk, open_wal: Opens) -> None:
    reader = open_wal(disk.another_process(), start=False, read_only=True)
    assert not reader.wal.refresh()
    writer = open_wal(disk)
    writer.append(b"first")

    assert reader.wal.refresh()
    assert payloads(reader) == {1: b"first"}


def test_a_new_file_that_cannot_be_opened_is_looked_at_again(
    pair: tuple[Any, Any], disk: SimulatedDisk
) -> None:
    writer, reader = pair
    writer.append(b"second")
    writer.wal.rotate()
    writer.append(b"third")
    writer.append(b"fourth")
    new = writer.wal.files()[-1].path
    opened = []

    def refuse(_number: int, operation: str, path: str) -> None:
        if operation == "open" and path == new:
            opened.append(path)
            if len(opened) == 2:  # its checkpoint was read, its frames are not
                raise OSError(5, "broken")

    reader.env.fs.hook = refuse
    with pytest.raises(UnavailableError):
        reader.wal.refresh()

    assert reader.wal.refresh()
    assert reader.wal.recovery.verdict == "clean"
    assert payloads(reader) == payloads(writer) | reader.live()


def test_an_interrupted_look_is_no_damage(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = pair
    for number in range(3):
        writer.append(b"%d" % number)
    seen: list[int] = []

    def on_entry(header: Any, payload: Any) -> None:
        seen.append(header.index)
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(reader.copy, "on_entry", on_entry)
    with pytest.raises(KeyboardInterrupt):
        reader.wal.refresh()
    monkeypatch.undo()

    with pytest.raises(UnavailableError, match="open it again"):
        reader.wal.refresh()
    assert reader.wal.recovery.verdict == "clean"
    assert reader.wal.read(1, 1, 100)[0].payload == b"first"
