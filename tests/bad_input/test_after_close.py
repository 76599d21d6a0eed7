"""What is closed says so, at every door, and keeps what it has."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

import chronik_store as chronik
from tests.bad_input.kept import CONFIG, opened, stored, values

STORED = [b"%d" % number for number in range(10)]


def calls_of(log, cursor):
    return {
        "append": lambda: log.append(b"x"),
        "append nothing": lambda: log.append([]),
        "nowait": lambda: log.append_nowait(b"x"),
        "read": lambda: log.read(0),
        "read at the end": lambda: log.read(10, wait_seconds=30),
        "batches": lambda: log.read_batches(0),
        "entries": lambda: log.read_entries(0),
        "scan": log.scan,
        "search": lambda: log.search("1"),
        "time": lambda: log.offset_for_timestamp(0),
        "cursor": lambda: log.cursor("new"),
        "position": lambda: cursor.offset,
        "committed": lambda: cursor.committed_offset,
        "commit": lambda: cursor.commit(6),
        "commit again": lambda: cursor.commit(5),
        "records": cursor.records,
        "cursor batches": cursor.batches,
        "delete": cursor.delete,
        "drop": lambda: log.drop_before(1),
        "seal": log.seal,
        "pipeline": log.run_pipeline_once,
        "verify": log.verify,
        "watermarks": lambda: log.watermarks,
        "status": log.status,
    }


def filled(path, **options):
    log = opened(path, **options)
    log.append(STORED[:5])
    log.seal()
    assert not log.run_pipeline_once().errors
    log.append(STORED[5:])
    log.cursor("c").commit(5)
    return log


def refused(calls, kinds=(chronik.LogClosedError,)):
    for name, call in calls.items():
        with pytest.raises(kinds) as caught:
            call()
        assert "open" in str(caught.value), name


def test_a_log(tmp_path):
    log = filled(tmp_path / "d")
    cursor = log.cursor("c")
    log.close()
    refused(calls_of(log, cursor))
    assert ("t", 0) == (log.topic, log.partition)
    assert "closed" in repr(log)
    assert "c" in repr(cursor)
    with opened(tmp_path / "d") as log:
        assert STORED == values(log)
        assert 5 == log.cursor("c").offset


@pytest.mark.parametrize("kind", ["reader", "bucket"])
def test_a_reader(tmp_path, kind):
    filled(tmp_path / "d").close()
    if kind == "reader":
        log = opened(tmp_path / "d", read_only=True)
    else:
        log = chronik.open_bucket(f"file://{tmp_path}/d/object_store", topic="t")
    cursor = log.cursor("c")
    log.close()
    refused(calls_of(log, cursor), (chronik.LogClosedError, chronik.ReadOnlyError))


def test_a_reader_that_is_open_writes_nothing(tmp_path):
    filled(tmp_path / "d").close()
    writing = ["append", "append nothing", "nowait", "commit", "commit again", "delete", "drop",
               "seal", "pipeline"]  # fmt: skip
    for log in (
        opened(tmp_path / "d", read_only=True),
        chronik.open_bucket(f"file://{tmp_path}/d/object_store", topic="t"),
    ):
        with log:
            calls = calls_of(log, log.cursor("c"))
            refused({name: calls[name] for name in writing}, (chronik.ReadOnlyError,))
    with opened(tmp_path / "d") as log:
        assert STORED == values(log)


@pytest.mark.parametrize("started", [False, True])
def test_iterators_end_with_the_error(tmp_path, started):
    log = filled(tmp_path / "d", tail_bytes_max=0)
    iterators = {
        "scan": log.scan(),
        "follow": log.scan(5, follow=True),
        "batches": log.read_batches(0, max_bytes=1),
        "cursor": log.cursor("c").records(),
        "cursor batches": log.cursor("c").batches(max_bytes=1),
    }
    if started:
        for iterator in iterators.values():
            next(iterator)
    log.close()
    for name, iterator in iterators.items():
        # What was read ahead may still come; then the error, never a quiet end.
        with pytest.raises(chronik.LogClosedError):
            list(iterator)
        assert [] == list(iterator), name


def test_a_waiting_read_is_woken_by_the_close(tmp_path):
    log = filled(tmp_path / "d")
    ended = []

    def wait():
        try:
            ended.append(log.read(10, wait_seconds=60).records)
        except chronik.LogClosedError as error:
            ended.append(error)

    def follow():
        try:
            ended.append(list(log.scan(10, follow=True)))
        except chronik.LogClosedError as error:
            ended.append(error)

    threads = [threading.Thread(target=each) for each in (wait, follow)]
    for thread in threads:
        thread.start()
    while log._core.watch._waiting < 2:
        time.sleep(0.001)
    log.close()
    for thread in threads:
        thread.join(20)
    assert [chronik.LogClosedError] * 2 == [type(each) for each in ended]


def test_a_store_and_its_logs(tmp_path):
    store = chronik.LogStore.open(tmp_path / "d", config=CONFIG)
    store.create_topic("t")
    log = store.partition("t")
    log.append(STORED)
    cursor = log.cursor("c")
    cursor.commit(5)
    store.close()
    assert "<PartitionLog t/0 closed>" == repr(log)
    refused(
        {
            "topics": store.topics,
            "create": lambda: store.create_topic("u"),
            "create again": lambda: store.create_topic("t", exist_ok=True),
            "delete": lambda: store.delete_topic("t"),
            "partition": lambda: store.partition("t"),
            "missing": lambda: store.partition("missing"),
            "search": lambda: store.search("t", "1"),
            "search missing": lambda: store.search("missing", "1"),
            "pipeline": store.run_pipeline_once,
            "rebuild": lambda: store.rebuild_indexes("t"),
            "status": store.status,
            **calls_of(log, cursor),
        }
    )
    with opened(tmp_path / "d") as log:
        assert STORED == values(log)


def test_a_log_closed_by_itself_leaves_its_store_open(tmp_path):
    with chronik.LogStore.open(tmp_path / "d", config=CONFIG) as store:
        store.create_topic("t")
        log = store.partition("t")
        log.append(STORED)
        log.close()
        with pytest.raises(chronik.LogClosedError):
            log.append(b"x")
        again = store.partition("t")
        assert again is not log
        assert STORED == values(again)
        again.append(b"10")
        log.close()
        again.append(b"11")
    with opened(tmp_path / "d") as log:
        assert [*STORED, b"10", b"11"] == values(log)


def test_the_asyncio_faces(tmp_path):
    async def main():
        store = await chronik.aio.AsyncLogStore.open(tmp_path / "d", config=CONFIG)
        await store.create_topic("t")
        log = await store.partition("t")
        await log.append(STORED)
        cursor = log.cursor("c")
        await cursor.commit(5)
        records = log.scan()
        following = log.scan(9, follow=True)
        assert b"9" == (await anext(following)).value
        await store.close()
        await store.close()
        calls = {
            "append": lambda: log.append(b"x"),
            "append large": lambda: log.append(b"x" * 100_000),
            "enqueue": lambda: log.enqueue(b"x"),
            "append nothing": lambda: log.append([]),
            "read": lambda: log.read(0),
            "wait": lambda: log.read(10, wait_seconds=30),
            "search": lambda: log.search("1"),
            "time": lambda: log.offset_for_timestamp(0),
            "commit": lambda: cursor.commit(6),
            "delete": cursor.delete,
            "drop": lambda: log.drop_before(1),
            "seal": log.seal,
            "pipeline": log.run_pipeline_once,
            "verify": log.verify,
            "status": log.status,
            "scan": lambda: anext(log.scan()),
            "batches": lambda: anext(log.read_batches(0)),
            "cursor records": lambda: anext(cursor.records()),
            "scan begun": lambda: anext(records),
            "following": lambda: anext(following),
            "create": lambda: store.create_topic("u"),
            "delete topic": lambda: store.delete_topic("t"),
            "topics": store.topics,
            "partition": lambda: store.partition("t"),
            "store search": lambda: store.search("t", "1"),
            "store pipeline": store.run_pipeline_once,
            "store status": store.status,
        }
        for name, call in calls.items():
            with pytest.raises(chronik.LogClosedError):
                print(name, await asyncio.wait_for(call(), 10))
        with pytest.raises(chronik.LogClosedError):
            log.cursor("c")
        with pytest.raises(chronik.LogClosedError):
            _ = cursor.offset
        with pytest.raises(chronik.LogClosedError):
            _ = log.watermarks
        await log.close()

    asyncio.run(main())
    with opened(tmp_path / "d") as log:
        assert STORED == values(log)


LATE = """
import sys
import chronik_store as chronik

class Owner:
    def __init__(self):
        self.log = chronik.PartitionLog.open(sys.argv[1], topic="t")
        self.log.append(b"1")  # a thread fills the file ahead now

    def __del__(self):
        self.log.close()
        print("closed")

owner = Owner()
"""


def test_a_close_while_the_interpreter_ends_waits_for_no_thread(tmp_path):
    """It stands still for good by then, with the file in its hands."""
    program = [sys.executable, "-c", LATE, tmp_path / "d"]

    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)

    assert ("closed\n", "") == (done.stdout, done.stderr)
    assert [b"1"] == stored(tmp_path / "d")
