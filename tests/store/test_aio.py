"""The asyncio face: the same answers, awaited; the loop is never blocked by a sync."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

import chronik_store as chronik
from chronik_store.aio import AsyncLogStore
from chronik_store.aio import log_store as log_store_face
from chronik_store.cursor import Cursor

CONFIG = chronik.LogConfig(pipeline_enabled=False)


def run(coroutine):
    return asyncio.run(coroutine)


def opened(path, **options):
    return chronik.aio.AsyncPartitionLog.open(path, topic="t", config=CONFIG, **options)


def test_open_is_awaitable_and_a_context_manager(tmp_path):
    async def main():
        async with opened(tmp_path / "d") as log:
            assert (0, 1, False) == await log.append(b"a")
        log = await opened(tmp_path / "d")
        found = await log.read(0)
        await log.close()
        return found

    assert b"a" == run(main()).records[0].value


def test_many_tasks_append_and_each_gets_its_own_offset(tmp_path):
    async def main():
        async with opened(tmp_path / "d") as log:

            async def appender(name):
                return [
                    (
                        (await log.append(b"%d-%d" % (name, number))).base_offset,
                        b"%d-%d" % (name, number),
                    )
                    for number in range(20)
                ]

            results = await asyncio.gather(*[appender(name) for name in range(64)])
            stored = {record.offset: record.value async for record in log.scan()}
        assert dict(pair for part in results for pair in part) == stored

    run(main())


def test_cancelling_the_wait_does_not_cancel_the_write(tmp_path):
    async def main():
        async with opened(tmp_path / "d") as log:
            await log.append(b"first")
            task = asyncio.create_task(log.append(b"second"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await log.append(b"third")
            return [record.value async for record in log.scan()]

    assert [b"first", b"second", b"third"] == run(main())


def test_a_waiting_read_is_woken(tmp_path):
    async def main():
        async with opened(tmp_path / "d") as log:
            reading = asyncio.create_task(log.read(0, wait_seconds=10))
            await asyncio.sleep(0.05)
            await log.append(b"late")
            return await reading

    assert b"late" == run(main()).records[0].value


@pytest.mark.parametrize("read_only", [False, True])
def test_who_waits_past_the_end_is_told_at_once(tmp_path, read_only):
    """As in a thread. It waited in full first, and gave what had come there meanwhile."""

    async def main():
        async with opened(tmp_path / "d") as writer:
            await writer.append(b"a")
            async with opened(tmp_path / "d", read_only=read_only) if read_only else writer as log:
                async with asyncio.timeout(20):
                    with pytest.raises(chronik.OffsetOutOfRangeError):
                        await log.read(5, wait_seconds=600)

    run(main())


def test_the_rest_of_the_api_answers_the_same(tmp_path):
    async def main():
        async with opened(tmp_path / "d") as log:
            await log.append([b"needle %d" % number for number in range(10)])
            assert 10 == await log.seal()
            assert () == (await log.run_pipeline_once()).errors
            assert 10 == (await log.search("needle")).total
            assert 0 == await log.offset_for_timestamp(0)
            await log.drop_before(3)
            assert 3 == log.watermarks.start
            cursor = log.cursor("c")
            await cursor.commit(5)
            assert 5 == len([record async for record in cursor.records()])
            assert [5, 6] == [record.offset async for record in log.scan(5, 7)]
            assert 7 == sum([batch.record_count async for batch in log.read_batches(3)]) - 3
            assert (await log.verify(bucket=True)).ok
            assert 10 == (await log.status()).watermarks.end

    run(main())


def test_a_scan_of_what_is_in_memory_lets_others_run(tmp_path):
    """It is answered without a thread, so nothing else made it pause: not before the end."""

    async def main():
        async with opened(tmp_path / "d") as log:
            await log.append([b"x"] * 5000)
            last = None

            async def scan():
                nonlocal last
                async for record in log.scan():
                    last = record.offset

            scanning = asyncio.ensure_future(scan())
            await asyncio.sleep(0)
            scanning.cancel()
            with pytest.raises(asyncio.CancelledError):
                await scanning
            return last

    assert 999 == run(main())


def test_errors_are_the_same(tmp_path):
    async def main():
        async with opened(tmp_path / "d") as log:
            with pytest.raises(chronik.OffsetOutOfRangeError):
                await log.read(5)
            with pytest.raises(chronik.OffsetConflictError):
                await log.append(b"a", expected_offset=4)
            with pytest.raises(TypeError):
                await log.append("text")
        with pytest.raises(chronik.LogClosedError):
            await log.append(b"x")

    run(main())


def test_back_pressure_waits_instead_of_raising(tmp_path):
    config = CONFIG.replace(queue_bytes_max=4096)

    async def main():
        face = chronik.aio.AsyncPartitionLog.open(tmp_path / "d", topic="t", config=config)
        async with face as log:
            await asyncio.gather(*[log.append(b"x" * 1000) for _ in range(200)])
            return log.watermarks.end

    assert 200 == run(main())


def test_a_store_of_many_partitions(tmp_path):
    async def main():
        async with chronik.aio.AsyncLogStore.open(tmp_path / "d", config=CONFIG) as store:
            await store.create_topic("t", partitions=2)
            one, two = await store.partition("t", 0), await store.partition("t", 1)
            assert one is await store.partition("t", 0)
            await asyncio.gather(one.append(b"needle"), two.append(b"needle"))
            assert 2 == (await store.search("t", "needle")).total
            assert 2 == len((await store.status()).partitions)

    run(main())


def test_a_waiting_read_ends_with_the_log(tmp_path):
    async def main(end):
        log = await opened(tmp_path / "d")
        await log.append(b"first")
        reading = asyncio.create_task(log.read(log.watermarks.end, wait_seconds=60))
        await asyncio.sleep(0)
        assert log._moved is not None
        async with asyncio.timeout(20):
            await end(log)
            found = (await asyncio.gather(reading, return_exceptions=True))[0]
        await log.close()
        return found

    async def closed(log):
        await log.close()

    async def poisoned(log):
        log._log._core.wal.give_up(OSError(5, "broken"))

    assert isinstance(run(main(closed)), chronik.LogClosedError)
    assert () == run(main(poisoned)).records


def test_the_log_of_a_deleted_topic_is_not_kept(tmp_path):
    async def main():
        async with chronik.aio.AsyncLogStore.open(tmp_path / "d", config=CONFIG) as store:
            await store.create_topic("kept")
            kept = await store.partition("kept")
            for _ in range(3):
                await store.create_topic("t")
                log = await store.partition("t")
                assert log is await store.partition("t")
                assert (0, 1, False) == await log.append(b"a")
                gone = weakref.ref(log)
                await store.delete_topic("t")
                del log
                gc.collect()
                assert gone() is None
            assert kept is await store.partition("kept")

    run(main())


def test_faces_of_logs_that_were_closed_are_not_kept_and_rarely_looked_for(tmp_path, monkeypatch):
    """Looking at every face for each log that is opened made a thousand of them quadratic."""
    monkeypatch.setattr(log_store_face, "FACES_MIN", 4)
    looks = []
    drop_closed = AsyncLogStore._drop_closed
    monkeypatch.setattr(
        AsyncLogStore, "_drop_closed", lambda self: (looks.append(1), drop_closed(self))
    )

    async def main():
        async with AsyncLogStore.open(tmp_path / "d", config=CONFIG) as store:
            for number in range(40):
                await store.create_topic(f"t{number}")
                await store.partition(f"t{number}")
            assert len(looks) < 10
            inner = store._store
            for number in range(36):
                inner.delete_topic(f"t{number}")  # under the face
            for number in range(100):
                await store.create_topic(f"u{number}")
                await store.partition(f"u{number}")
                inner.delete_topic(f"u{number}")
            assert len(store._faces) < 90
            assert len(looks) < 30

    asyncio.run(main())


def test_a_cursors_place_is_looked_up_off_the_loop(tmp_path, monkeypatch):
    """Of a log that another process writes that is a look at its disk, or a request."""
    threads = []
    look = Cursor._look

    def seen(self):
        threads.append(threading.current_thread())
        look(self)

    async def main():
        async with opened(tmp_path / "d") as log:
            await log.append([b"a", b"b"])
            monkeypatch.setattr(Cursor, "_look", seen)
            cursor = log.cursor("c")
            records = [record.offset async for record in cursor.records()]
            batches = [batch.base_offset async for batch in cursor.batches()]
        return records, batches

    assert ([0, 1], [0]) == run(main())
    assert len(threads) == 2
    assert threading.main_thread() not in threads


def test_a_failure_that_nobody_waited_for_is_not_the_next_appends(tmp_path, monkeypatch):
    """An append was given up while it waited for the log's file, which then could not be made:
    the next one, much later, failed with that.
    """

    async def main():
        async with opened(tmp_path / "d") as log:
            core, arrived, go = log._log._core, threading.Event(), threading.Event()
            begin = core.begin

            def fails():
                arrived.set()
                assert go.wait(10)
                raise chronik.UnavailableError("no room for a file")

            monkeypatch.setattr(core, "begin", fails)
            given_up = asyncio.ensure_future(log.append(b"a"))
            await asyncio.to_thread(arrived.wait, 10)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            monkeypatch.setattr(core, "begin", begin)
            go.set()
            await asyncio.wait([log._beginning])
            return await log.append(b"b")

    assert (0, 1, False) == run(main())
