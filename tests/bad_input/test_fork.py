"""After a fork the child gets ForkedError from every call, and the parent notices nothing."""

from __future__ import annotations

import asyncio
import os
import pickle
import select
import threading
import time
import warnings

import pytest

import chronik_store as chronik
from tests.bad_input.kept import CONFIG, opened, stored, values

SECONDS = 30


def in_child(function):
    """What `function` returns in a forked child; the child dies if it takes too long."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # we know that threads do not come
        pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            answer = pickle.dumps(function())
        except BaseException as error:  # all of it is to be seen in the parent
            answer = pickle.dumps(repr(error))
        os.write(writing, answer)
        os._exit(0)
    os.close(writing)
    answer = b""
    deadline = time.monotonic() + SECONDS
    try:
        while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
            part = os.read(reading, 1 << 16)
            if not part:
                break
            answer += part
        else:
            os.kill(pid, 9)
            raise AssertionError("the child hangs")
    finally:
        os.close(reading)
        os.waitpid(pid, 0)
    return pickle.loads(answer)


def outcomes(calls):
    """The name of each call that did not end in ForkedError, and how it did end."""
    found = {}
    for name, call in calls.items():
        try:
            found[name] = repr(call())
        except chronik.ForkedError as error:
            if "open it anew" not in str(error):
                found[name] = str(error)
        except BaseException as error:
            found[name] = repr(error)
    return found


def calls_of(log, cursor):
    return {
        "append": lambda: log.append(b"child"),
        "append nothing": lambda: log.append([]),
        "nowait": lambda: log.append_nowait(b"child"),
        "read": lambda: log.read(0),
        "wait": lambda: log.read(log._view.committed.offset, wait_seconds=60),
        "batches": lambda: log.read_batches(0),
        "scan": log.scan,
        "search": lambda: log.search("1"),
        "time": lambda: log.offset_for_timestamp(0),
        "cursor": lambda: log.cursor("new"),
        "position": lambda: cursor.offset,
        "commit": lambda: cursor.commit(1),
        "delete": cursor.delete,
        "records": cursor.records,
        "drop": lambda: log.drop_before(1),
        "seal": log.seal,
        "pipeline": log.run_pipeline_once,
        "verify": log.verify,
        "watermarks": lambda: log.watermarks,
        "status": log.status,
    }


def files_below(path):
    return {each: each.read_bytes() for each in path.rglob("*") if each.is_file()}


def quiet(path):
    """The files below `path`, once the background has written its mark and its zeros."""
    before = files_below(path)
    while True:
        time.sleep(0.3)
        now = files_below(path)
        if now == before:
            return now
        before = now


def test_each_call_of_a_log_and_its_store(tmp_path):
    with chronik.LogStore.open(tmp_path / "d", config=CONFIG) as store:
        store.create_topic("t")
        log = store.partition("t")
        log.append([b"1", b"2"])
        cursor = log.cursor("c")
        begun, fresh = log.scan(), log.scan(0, follow=True)
        batches = log.read_batches(0)
        next(begun)
        calls = {
            **calls_of(log, cursor),
            "fresh iterator": lambda: list(fresh),
            "batch iterator": lambda: list(batches),
            "begun iterator": lambda: list(begun),
            "topics": store.topics,
            "create": lambda: store.create_topic("u"),
            "delete topic": lambda: store.delete_topic("t"),
            "partition": lambda: store.partition("t"),
            "store search": lambda: store.search("t", "1"),
            "store pipeline": store.run_pipeline_once,
            "rebuild": lambda: store.rebuild_indexes("t"),
            "store status": store.status,
        }
        before = quiet(tmp_path)
        assert {} == in_child(lambda: outcomes(calls))
        assert before == files_below(tmp_path)
        log.append(b"3")
        assert [b"2", b"3"] == [record.value for record in begun]
    assert [b"1", b"2", b"3"] == stored(tmp_path / "d")


@pytest.mark.parametrize("kind", ["reader", "bucket"])
def test_each_call_of_a_reader(tmp_path, kind):
    with opened(tmp_path / "d") as log:
        log.append([b"1", b"2"])
        log.seal()
        assert not log.run_pipeline_once().errors
    if kind == "reader":
        log = opened(tmp_path / "d", read_only=True)
    else:
        log = chronik.open_bucket(f"file://{tmp_path}/d/object_store", topic="t")
    with log:
        calls = calls_of(log, log.cursor("c"))
        found = in_child(lambda: outcomes(calls))
        if kind == "bucket":
            # It cannot be written to anywhere; that is said first.
            found = {name: said for name, said in found.items() if "ReadOnlyError" not in said}
        assert {} == found
        assert [b"1", b"2"] == values(log)


def test_closing_in_the_child_leaves_everything_to_the_parent(tmp_path):
    with chronik.LogStore.open(tmp_path / "d", config=CONFIG) as store:
        store.create_topic("t")
        log = store.partition("t")
        log.append([b"1"])
        before = quiet(tmp_path)

        def child():
            with store, log:
                pass
            log.close()
            store.close()
            return "closed"

        assert "closed" == in_child(child)
        assert before == files_below(tmp_path)
        with pytest.raises(chronik.DirectoryLockedError):
            opened(tmp_path / "d")
        log.append(b"2")
    assert [b"1", b"2"] == stored(tmp_path / "d")


def test_a_fork_in_the_middle_of_many_appends(tmp_path):
    """Whatever lock another thread holds at the fork, the child answers and the parent goes on."""
    with opened(tmp_path / "d", wal_file_bytes=16_384) as log:
        cursor = log.cursor("c")
        done = threading.Event()
        acknowledged = []

        def appender(name):
            number = 0
            while not done.is_set():
                value = b"%d-%d" % (name, number)
                log.append(value)
                acknowledged.append(value)
                number += 1

        threads = [threading.Thread(target=appender, args=(name,)) for name in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                calls = calls_of(log, cursor)
                found = in_child(lambda calls=calls: (outcomes(calls), log.close()))
                assert ({}, None) == found
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert sorted(acknowledged) == sorted(stored(tmp_path / "d"))


def test_the_child_opens_anew_what_it_wants_to_read(tmp_path):
    with opened(tmp_path / "d") as log:
        log.append([b"1", b"2"])
        log.seal()  # whatever is sealed has a mark over it

        def child():
            with opened(tmp_path / "d", read_only=True) as mine:
                return [record.value for record in mine.read(0, wait_seconds=10)]

        assert [b"1", b"2"] == in_child(child)
        assert "DirectoryLockedError" in in_child(lambda: opened(tmp_path / "d"))
    assert (2, 3, False) == in_child(lambda: opened(tmp_path / "d").append(b"3"))
    assert [b"1", b"2", b"3"] == stored(tmp_path / "d")


def test_the_asyncio_faces(tmp_path):
    async def main():
        async with chronik.aio.AsyncLogStore.open(tmp_path / "d", config=CONFIG) as store:
            await store.create_topic("t")
            log = await store.partition("t")
            await log.append([b"1", b"2"])
            return await asyncio.to_thread(in_child, lambda: child_of(store, log))

    def child_of(store, log):
        async def calls():
            found = {}
            for name, call in {
                "append": lambda: log.append(b"x"),
                "append large": lambda: log.append(b"x" * 100_000),
                "enqueue": lambda: log.enqueue(b"x"),
                "read": lambda: log.read(0),
                "wait": lambda: log.read(2, wait_seconds=60),
                "search": lambda: log.search("1"),
                "scan": lambda: anext(log.scan()),
                "batches": lambda: anext(log.read_batches(0)),
                "seal": log.seal,
                "status": log.status,
                "topics": store.topics,
                "partition": lambda: store.partition("t"),
                "store search": lambda: store.search("t", "1"),
            }.items():
                try:
                    found[name] = repr(await asyncio.wait_for(call(), 5))
                except chronik.ForkedError:
                    pass
                except BaseException as error:
                    found[name] = repr(error)
            await asyncio.wait_for(log.close(), 5)
            await asyncio.wait_for(store.close(), 5)
            return found

        return asyncio.run(calls())

    assert {} == asyncio.run(main())
    assert [b"1", b"2"] == stored(tmp_path / "d")
