"""Who reads beside a writer, in another process, says what is so, not what was."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import chronik_store as chronik
from chronik_store.aio import AsyncPartitionLog
from chronik_store.environment import Environment
from chronik_store.testing.simulated_disk import SimulatedDisk
from tests.store.on_simulated_disk import CONFIG, URL, open_store

VALUES = [b"%d" % number for number in range(6)]


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk(seed=1)


def reader_of(disk: SimulatedDisk) -> chronik.LogStore:
    env = Environment(fs=disk.another_process())
    return chronik.LogStore.open("/old", object_store=URL, config=CONFIG, read_only=True, env=env)


@pytest.fixture
def writer(disk: SimulatedDisk) -> Any:
    store = open_store(disk)
    store.create_topic("t")
    for value in VALUES:
        store.partition("t").append(value)
    yield store.partition("t")
    store.close()


def test_files_that_go_while_a_reader_opens_are_not_taken_for_lost(disk, writer):
    """It had listed the files before the writer began the one on the strength of which others were
    pruned: the log counted as damaged, and nothing that came later was ever seen.
    """
    for _ in range(2):
        writer.seal()
        writer.append(b"more")
    beside = disk.another_process()
    reader = chronik.LogStore.open(
        "/old", object_store=URL, config=CONFIG, read_only=True, env=Environment(fs=beside)
    )
    names = disk.list("/old/wal/t/0")

    def tiering(_number: int, operation: str, path: str) -> None:
        if operation == "open" and path == f"/old/wal/t/0/{names[0]}":
            beside.hook = lambda *_: None
            while not writer.run_pipeline_once().idle:
                pass

    beside.hook = tiering
    log = reader.partition("t")
    assert names[0] not in disk.list("/old/wal/t/0")
    assert names[-1] in disk.list("/old/wal/t/0")
    assert "clean" == log.recovery.verdict
    writer.append(b"later")
    writer._core.swear()
    assert writer.watermarks.end == log.watermarks.committed
    assert [*VALUES, b"more", b"more", b"later"] == [record.value for record in log.scan()]
    reader.close()


def test_a_file_that_the_writer_removes_is_not_kept_open_by_who_has_read_it(disk, writer):
    """A process that follows kept as many as 64 open, each with its room on the disk: what the
    writer pruned of a disk that was nearly full did not free it.
    """
    writer._core.swear()
    beside = disk.another_process()
    reader = chronik.LogStore.open(
        "/old", object_store=URL, config=CONFIG, read_only=True, env=Environment(fs=beside)
    )
    log = reader.partition("t")
    assert VALUES == [record.value for record in log.scan()]
    assert 6 == log.read(0).next_offset
    assert [] == beside.open_files
    reader.close()


def test_a_scan_begins_where_the_log_starts_now(disk, writer):
    """It began where the log had started at the last look, which was out of range."""
    writer._core.swear()
    with reader_of(disk) as reader:
        log = reader.partition("t")
        assert VALUES == [record.value for record in log.scan()]
        writer.drop_before(2)
        writer._core.swear()
        assert VALUES[2:] == [record.value for record in log.scan()]
        writer.drop_before(4)
        writer._core.swear()

        async def scanned() -> list[bytes]:
            face = AsyncPartitionLog(log)
            try:
                return [record.value async for record in face.scan()]
            finally:
                await face.close()

        assert VALUES[4:] == asyncio.run(scanned())


def test_a_cursor_is_where_the_writer_has_committed_it(disk, writer):
    """It stayed where it had been when the reader last looked, perhaps for ever."""
    writer._core.swear()
    with reader_of(disk) as reader:
        cursor = reader.partition("t").cursor("mailer")
        assert (None, 0) == (cursor.committed_offset, cursor.offset)
        writer.cursor("mailer").commit(3)
        writer._core.swear()
        assert 3 == cursor.committed_offset
        writer.cursor("mailer").commit(5)
        writer._core.swear()
        assert 5 == cursor.offset
