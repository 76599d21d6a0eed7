"""Waits of the asyncio face that are given up: by who waits, by a loop that ends, by a failure."""

from __future__ import annotations

import asyncio
import gc
import threading
from functools import partial

import pytest

import chronik_store as chronik
from chronik_store.aio import AsyncLogStore
from chronik_store.append_path import AppendPath
from chronik_store.errors import UnavailableError
from chronik_store.log_core import LogCore

CONFIG = chronik.LogConfig(pipeline_enabled=False)


def run(coroutine):
    return asyncio.run(coroutine)


def opened(path, **options):
    return chronik.aio.AsyncPartitionLog.open(path, topic="t", config=CONFIG, **options)


class SlowOpening:
    """`LogStore.open` that waits until it is let, before or after it has opened."""

    def __init__(self, monkeypatch, *, after):
        self.arrived, self.go, self.done = threading.Event(), threading.Event(), threading.Event()
        inner = chronik.LogStore.open

        def slow(*args, **options):
            opened = inner(*args, **options) if after else None
            self.arrived.set()
            assert self.go.wait(30)
            opened = opened or inner(*args, **options)
            close = opened.close

            def closed():
                close()
                self.done.set()

            opened.close = closed
            return opened

        monkeypatch.setattr(chronik.LogStore, "open", slow)

    async def arrives(self):
        assert await asyncio.to_thread(self.arrived.wait, 30)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("many", [False, True])
def test_an_open_that_is_cancelled_leaves_the_directory_to_others(
    tmp_path, monkeypatch, after, many
):
    path = tmp_path / "d"

    async def entered():
        if many:
            await chronik.aio.AsyncLogStore.open(path, config=CONFIG)
        else:
            async with opened(path):
                raise AssertionError("cancelled before")

    async def main():
        with monkeypatch.context() as patch:
            slow = SlowOpening(patch, after=after)
            task = asyncio.create_task(entered())
            await slow.arrives()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            slow.go.set()
            assert await asyncio.to_thread(slow.done.wait, 30)
        async with opened(path) as log:
            await log.append(b"a")

    run(main())


def test_an_open_that_is_cancelled_as_its_loop_ends_leaves_the_directory_to_others(
    tmp_path, monkeypatch
):
    """`asyncio.run` cancels what is left, waits for its threads, and is gone."""

    async def main():
        slow = SlowOpening(monkeypatch, after=True)
        slow.go.set()
        task = asyncio.create_task(opened(tmp_path / "d")._run())  # left alone on purpose
        await slow.arrives()
        return task

    task = run(main())
    monkeypatch.undo()
    if not task.cancelled():  # it was there before the loop ended, and is the caller's
        task.result()._log.close()
    chronik.LogStore.open(tmp_path / "d").close()


def test_an_open_that_is_faster_than_the_end_of_its_loop_is_the_callers(tmp_path, monkeypatch):
    async def main():
        slow = SlowOpening(monkeypatch, after=True)
        slow.go.set()
        return await asyncio.create_task(opened(tmp_path / "d")._run())

    log = run(main())
    with pytest.raises(chronik.DirectoryLockedError):
        chronik.LogStore.open(tmp_path / "d")
    log._log.close()
    chronik.LogStore.open(tmp_path / "d").close()


def test_an_open_that_fails_after_it_was_cancelled_says_so_in_the_log(
    tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", logger="chronik_store.aio")
    arrived, go = threading.Event(), threading.Event()

    def fails(*_args, **_options):
        arrived.set()
        assert go.wait(30)
        raise chronik.UnavailableError("no disk")

    monkeypatch.setattr(chronik.LogStore, "open", fails)

    async def main():
        task = asyncio.create_task(opened(tmp_path / "d")._run())
        await asyncio.to_thread(arrived.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()

    run(main())
    assert ["no disk" in each.getMessage() for each in caplog.records] == [True]


def test_a_loop_that_closes_under_a_waiter_is_nobody_elses_concern(tmp_path, monkeypatch, caplog):
    """It may close between any look at it and the call that would wake it; those who are told of
    the same group after it were not told then.
    """
    loop = asyncio.new_event_loop()
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as log:
        face = chronik.aio.AsyncPartitionLog(log)
        loop.run_until_complete(face.read(0, wait_seconds=0.01))
        loop.close()
        with monkeypatch.context() as patch:
            patch.setattr(loop, "is_closed", lambda: False)
            assert (0, 1, False) == log.append(b"a")
        face._pool.close()
    assert [] == [record for record in caplog.records if record.levelname == "ERROR"]


def test_waits_beside_a_writer_that_were_given_up_take_no_thread_from_the_others(tmp_path):
    """Each kept one of the eight for the rest of its time."""

    async def main():
        async with opened(tmp_path / "d") as writer, opened(tmp_path / "d", read_only=True) as log:
            await writer.append(b"a")
            assert b"a" == (await log.read(0, wait_seconds=20)).records[0].value
            for _ in range(2):
                waits = [asyncio.create_task(log.read(1, wait_seconds=600)) for _ in range(8)]
                await asyncio.sleep(0.05)
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
            async with asyncio.timeout(20):
                assert b"a" == (await log.read(0)).records[0].value
                waiting = asyncio.create_task(log.read(1, wait_seconds=600))
                await asyncio.sleep(1)
                await writer.append(b"b")
                assert b"b" == (await waiting).records[0].value
                assert () == (await log.read(2, wait_seconds=0.3)).records

    run(main())


def test_any_number_that_waits_beside_a_writer_takes_one_thread(tmp_path, monkeypatch):
    """Each took one of the eight for its looks: a search stood behind 200 followers for 6 s."""
    look, lock, at_once = LogCore.wait_offset, threading.Lock(), [0, 0]
    began = threading.Event()

    def counted(core, offset, timeout_seconds):
        with lock:
            at_once[0] += 1
            at_once[1] = max(at_once)
        began.set()
        try:
            return look(core, offset, timeout_seconds)
        finally:
            with lock:
                at_once[0] -= 1

    async def main():
        async with opened(tmp_path / "d") as writer, opened(tmp_path / "d", read_only=True) as log:
            await writer.append(b"a")
            assert b"a" == (await log.read(0, wait_seconds=20)).records[0].value
            monkeypatch.setattr(LogCore, "wait_offset", counted)
            waits = [asyncio.create_task(log.read(1, wait_seconds=600)) for _ in range(40)]
            await asyncio.to_thread(began.wait, 20)
            waits[0].cancel()
            await writer.append(b"b")
            found = await asyncio.gather(*waits[1:])
            assert {b"b"} == {each.records[0].value for each in found}
            with pytest.raises(asyncio.CancelledError):
                await waits[0]

    run(main())
    assert [0, 1] == at_once


@pytest.mark.parametrize("are_cancelled", [False, True])
@pytest.mark.parametrize("work", ["a look", "the first append"])
def test_what_fails_in_a_thread_is_told_to_who_waits_and_to_nobody_else(
    tmp_path, monkeypatch, work, are_cancelled
):
    """With nobody left who waits, asyncio complained of an exception that was never retrieved."""
    began, goes_on = threading.Event(), threading.Event()

    def fails(*_):
        began.set()
        assert goes_on.wait(20)
        raise UnavailableError("the disk is away")

    async def main():
        untold = []
        asyncio.get_running_loop().set_exception_handler(lambda _, said: untold.append(said))
        async with opened(tmp_path / "d") as log, opened(tmp_path / "d", read_only=True) as reader:
            monkeypatch.setattr(LogCore, "wait_offset", fails)
            monkeypatch.setattr(AppendPath, "begin", fails)
            calls = [
                log.append(b"a") if work == "the first append" else reader.read(0, wait_seconds=600)
                for _ in range(3)
            ]
            waits = [asyncio.create_task(call) for call in calls]
            await asyncio.to_thread(began.wait, 20)
            for wait in waits if are_cancelled else ():
                wait.cancel()
            await asyncio.sleep(0)
            goes_on.set()
            ends = [type(each) for each in await asyncio.gather(*waits, return_exceptions=True)]
            pending = log._beginning or reader._looking
            if pending is not None:
                await asyncio.wait([pending])
            log._beginning = reader._looking = None
            del waits, calls, pending
            gc.collect()
            await asyncio.sleep(0)
        return untold, ends

    untold, ends = run(main())
    assert [asyncio.CancelledError if are_cancelled else UnavailableError] * 3 == ends
    assert [] == untold


@pytest.mark.parametrize("face", [opened, partial(AsyncLogStore.open, config=CONFIG)])
def test_a_close_that_was_given_up_is_waited_for_by_the_next(tmp_path, monkeypatch, face):
    """It returned at once, and whoever opened the directory then found it locked."""
    began, goes_on = threading.Event(), threading.Event()

    async def main():
        there = await face(tmp_path / "d")
        store = there._store if isinstance(there, AsyncLogStore) else there._log._on_close.__self__
        end = store._ticker.close

        def slowly():
            began.set()
            assert goes_on.wait(20)
            end()

        monkeypatch.setattr(store._ticker, "close", slowly)
        first = asyncio.create_task(there.close())
        await asyncio.to_thread(began.wait, 20)
        first.cancel()
        others = [asyncio.create_task(there.close()) for _ in range(2)]
        await asyncio.wait([first])
        threading.Timer(0.2, goes_on.set).start()
        await asyncio.gather(*others)
        async with face(tmp_path / "d"):
            pass
        await there.close()

    run(main())
