"""Appends of one turn of the loop: together in a batch, each whole, in the order of the calls."""

from __future__ import annotations

import asyncio
import threading

import pytest

import chronik_store as chronik
from chronik_store import disk_guard
from chronik_store.aio import appends
from chronik_store.clock import SystemClock
from chronik_store.commit.committer import Committer
from chronik_store.wal.active_file import ActiveFile

CONFIG = chronik.LogConfig(pipeline_enabled=False)


def with_log(tmp_path, main, config=CONFIG):
    async def opened():
        async with chronik.aio.AsyncPartitionLog.open(
            tmp_path / "d", topic="t", config=config
        ) as log:
            await log.append(b"first")
            return await main(log)

    return asyncio.run(opened())


def test_appends_of_one_turn_share_a_batch_in_the_order_of_the_calls(tmp_path):
    async def main(log):
        places = await asyncio.gather(*[log.append(b"%d" % number) for number in range(50)])
        return places, [batch.values() async for batch in log.read_batches(0)]

    places, batches = with_log(tmp_path, main)

    assert [(number + 1, number + 2, False) for number in range(50)] == places
    assert [[b"first"], [b"%d" % number for number in range(50)]] == batches


def test_an_append_of_several_records_stays_together(tmp_path):
    async def main(log):
        return await asyncio.gather(
            log.append(b"a"),
            log.append([b"b", chronik.Record(b"c", key=b"k")]),
            log.append(chronik.Record(b"d")),
            log.append([]),
        )

    assert [(1, 2, False), (2, 4, False), (4, 5, False)] == with_log(tmp_path, main)[:3]


def test_what_needs_a_batch_of_its_own_goes_behind_what_was_there_before(tmp_path):
    own = chronik.RecordBatch.build([b"own"])

    async def main(log):
        await asyncio.gather(
            log.append(b"a"),
            log.append(own),
            log.append(b"b"),
            log.append(chronik.Record(b"timed", timestamp_us=7)),
            log.append(b"c", expected_offset=5),
            log.append(b"d"),
            log.append(chronik.Record(b"headed", headers=(("h", b"1"),))),
            log.append(bytes(appends.SMALL_BYTES + 1)),
            log.append([b"many"] * (appends.FEW_RECORDS + 1)),
        )
        return [(record.value, record.headers) async for record in log.scan(1)]

    found = with_log(tmp_path, main)
    assert [b"a", b"own", b"b", b"timed", b"c", b"d", b"headed"] == [
        value for value, _ in found[:7]
    ]
    assert (("h", b"1"),) == found[6][1]
    assert appends.SMALL_BYTES + 1 == len(found[7][0])
    assert appends.FEW_RECORDS + 1 == len(found[8:])


def test_an_append_that_is_refused_spoils_nobody_elses(tmp_path):
    async def main(log):
        return await asyncio.gather(
            log.append(b"a"),
            log.append(b"b", expected_offset=77),
            log.append([b"fine", "text"]),
            log.append(b"much too large"),
            log.append(b"c"),
            return_exceptions=True,
        )

    found = with_log(tmp_path, main, CONFIG.replace(record_bytes_max=10))
    kinds = [type(each).__name__ for each in found]
    assert [
        *("AppendResult", "OffsetConflictError", "TypeError", "RecordTooLargeError"),
        "AppendResult",
    ] == kinds
    assert [(1, 2, False), (2, 3, False)] == [found[0], found[4]]


def test_each_task_gets_an_error_of_its_own(tmp_path):
    async def main(log):
        waiting = [await log.enqueue(b"%d" % number) for number in range(3)]
        log._log._core.wal._commit.poison(OSError(5, "broken"))
        return await asyncio.gather(*waiting, return_exceptions=True)

    async def opened():
        log = await chronik.aio.AsyncPartitionLog.open(tmp_path / "d", topic="t", config=CONFIG)
        await log.append(b"first")
        found = await main(log)
        with pytest.raises(chronik.LogPoisonedError):
            await log.append(b"later")
        await log.close()
        return found

    found = asyncio.run(opened())
    assert [chronik.LogPoisonedError] * 3 == list(map(type, found))
    assert 3 == len(set(map(id, found)))


def test_what_was_queued_is_there_after_close(tmp_path):
    async def main():
        log = await chronik.aio.AsyncPartitionLog.open(tmp_path / "d", topic="t", config=CONFIG)
        await log.append(b"first")
        future = await log.enqueue(b"second")
        await log.close()
        return await future

    assert (1, 2, False) == asyncio.run(main())
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as log:
        assert [b"first", b"second"] == [record.value for record in log.scan()]


@pytest.mark.parametrize("many", [False, True])
def test_what_waits_for_the_file_of_a_new_log_is_there_after_close(tmp_path, many):
    """Later appends were, the first ones of a log were refused: its file was not there yet."""

    async def main():
        if many:
            store = await chronik.aio.AsyncLogStore.open(tmp_path / "d", config=CONFIG)
            await store.create_topic("t")
            log = await store.partition("t")
        else:
            store = log = await chronik.aio.AsyncPartitionLog.open(
                tmp_path / "d", topic="t", config=CONFIG
            )
        appending = [
            asyncio.ensure_future(log.append(b"a")),
            asyncio.ensure_future(log.append(b"b", expected_offset=1)),
            asyncio.ensure_future(log.append(chronik.Record(b"c", headers=[("h", b"")]))),
        ]
        await asyncio.sleep(0)
        assert log._beginning is not None
        await store.close()
        return await asyncio.gather(*appending)

    assert [0, 1, 2] == [place.base_offset for place in asyncio.run(main())]


def test_a_store_closes_behind_what_its_faces_have_queued(tmp_path):
    async def main():
        store = await chronik.aio.AsyncLogStore.open(tmp_path / "d", config=CONFIG)
        await store.create_topic("t")
        log = await store.partition("t")
        await log.append(b"first")
        future = await log.enqueue(b"second")
        await store.close()
        return await future

    assert (1, 2, False) == asyncio.run(main())


def test_more_than_a_batch_holds_in_one_turn_is_several(tmp_path):
    async def main(log):
        value = bytes(10_000)
        places = await asyncio.gather(*[log.append(value) for _ in range(100)])
        return places, [batch.record_count async for batch in log.read_batches(1)]

    places, counts = with_log(tmp_path, main)
    assert list(range(1, 101)) == [place.base_offset for place in places]
    assert 100 == sum(counts)
    assert all(count * 10_000 <= appends.TOGETHER_BYTES + 10_000 for count in counts)


def test_a_full_queue_keeps_the_order(tmp_path):
    async def main(log):
        async def produce():
            return [await log.enqueue(b"%d" % number + bytes(500)) for number in range(300)]

        await asyncio.gather(*await produce())
        return [int(record.value.rstrip(b"\0")) async for record in log.scan(1)]

    assert list(range(300)) == with_log(tmp_path, main, CONFIG.replace(queue_bytes_max=2048))


def test_a_full_queue_of_a_log_that_has_ended_is_no_reason_to_wait(tmp_path, monkeypatch):
    config = CONFIG.replace(queue_bytes_max=4096)

    async def main():
        log = await chronik.aio.AsyncPartitionLog.open(tmp_path / "d", topic="t", config=config)
        await log.append(b"first")
        monkeypatch.setattr(Committer, "notify", lambda *_: None)
        tasks = [asyncio.create_task(log.append(b"x" * 2000)) for _ in range(20)]
        for _ in range(3):  # turns of the loop: gathered, staged, refused
            await asyncio.sleep(0)
        assert log._appends._full
        log._log._core.wal.give_up(OSError(5, "broken"))
        async with asyncio.timeout(10):
            found = await asyncio.gather(*tasks, return_exceptions=True)
            await log.drain()
        with pytest.raises(chronik.LogPoisonedError) as later:
            log._log.append_nowait(b"later")
        await log.close()
        return [error.durability for error in found], later.value.durability

    found, later = asyncio.run(main())
    assert {"unknown", "not_durable"} == set(found)
    assert "not_durable" == later


def test_an_append_that_waited_for_room_and_was_never_staged_says_so(tmp_path, monkeypatch):
    config = CONFIG.replace(queue_bytes_max=4096)
    log = chronik.PartitionLog.open(tmp_path / "d", topic="t", config=config)
    log.append(b"first")
    monkeypatch.setattr(Committer, "notify", lambda *_: None)
    queued = log.append_nowait(b"x" * 8000)

    def broken(*_):
        raise OSError(5, "broken")

    monkeypatch.setattr(ActiveFile, "write", broken)
    end = log.watermarks.end

    with pytest.raises(chronik.LogPoisonedError) as caught:
        log.append(b"second")

    assert "not_durable" == caught.value.durability
    assert "unknown" == queued.exception(0).durability
    assert end == log.watermarks.end
    log.close()


def test_a_disk_that_is_nearly_full_never_puts_the_loop_to_sleep(tmp_path, monkeypatch):
    config = CONFIG.replace(disk_reserve_bytes=0, disk_throttle_bytes=1 << 60)
    loops, slept, pauses = threading.get_ident(), [], []

    class Watched(SystemClock):
        def sleep(self, seconds):
            slept.append(threading.get_ident() == loops)

    async def main():
        log = await chronik.aio.AsyncPartitionLog.open(tmp_path / "d", topic="t", config=config)
        await log.append(b"first")
        guard, loop = log._log._core.guard, asyncio.get_running_loop()
        monkeypatch.setattr(guard, "_clock", Watched())
        call_later = loop.call_later

        def noted(seconds, *call):
            if seconds == disk_guard.THROTTLE_SECONDS:
                pauses.append(log.watermarks.end)
            return call_later(0, *call)

        monkeypatch.setattr(loop, "call_later", noted)
        own = chronik.RecordBatch.build([b"own"])
        for _ in range(3):
            places = await asyncio.gather(log.append(b"a"), log.append(own), log.append(b"b"))
        await log.close()
        return places

    places = asyncio.run(main())
    assert [(7, 8, False), (8, 9, False), (9, 10, False)] == places
    assert True not in slept
    assert len(pauses) >= 9  # one for each batch, and nothing was staged before it was over


def test_a_full_disk_is_told_to_each_task(tmp_path, monkeypatch):
    async def main():
        log = await chronik.aio.AsyncPartitionLog.open(tmp_path / "d", topic="t", config=CONFIG)
        await log.append(b"first")
        monkeypatch.setattr(log._log._core.guard, "has_room", lambda _size: False)
        own = chronik.RecordBatch.build([b"own"])
        found = await asyncio.gather(
            log.append(b"a"), log.append(b"b"), log.append(own), return_exceptions=True
        )
        await log.close()
        return found

    assert [chronik.DiskFullError] * 3 == [type(error) for error in asyncio.run(main())]
