"""The client against a real server on loopback: what is promised is what comes."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from chronik_server.client import Client
from chronik_server.client.fetching import search_result_of
from chronik_server.client.partitioning import partition_of
from chronik_server.protocol import data
from chronik_store.errors import (
    BackpressureError,
    ConfigError,
    CorruptionError,
    LogClosedError,
    OffsetConflictError,
    OffsetOutOfRangeError,
    QueryError,
    RecordTooLargeError,
    TopicExistsError,
    TopicNotFoundError,
)
from chronik_store.format.record_batch import RecordBatch
from chronik_store.model import PipelineReport, Record, SearchResult
from tests.server.serving import LOG, QUICK, connected, run, serving


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            created = await client.create_topic("events", partitions=2)
            records = [b"a", Record(b"b", b"k", 1_700_000_000_000_000, (("h", b"v"),))]
            result = await client.append("events", records, partition=1)
            found = await client.read("events", 0, partition=1)

            assert 2 == len(created.partitions)
            assert (0, 2, False) == result
            assert [b"a", b"b"] == [record.value for record in found]
            assert (b"k", (("h", b"v"),)) == (found.records[1].key, found.records[1].headers)
            assert ("wal_tail", 2) == (found.tier, found.next_offset)
            assert 2 == (await client.watermarks("events", partition=1)).committed
            assert [b"b"] == [r.value for r in await client.read("events", 1, partition=1)]
            assert () == (await client.read("events", 2, partition=1)).records

    run(main())


def test_errors_are_those_of_the_library(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            await client.append("events", b"one")
            with pytest.raises(TopicExistsError):
                await client.create_topic("events")
            with pytest.raises(TopicNotFoundError):
                await client.append("nowhere", b"x")
            with pytest.raises(TopicNotFoundError):
                await client.read("events", 0, partition=7)
            with pytest.raises(OffsetOutOfRangeError) as caught:
                await client.read("events", 99)
            assert (99, 0, 1) == (
                caught.value.offset,
                caught.value.first_offset,
                caught.value.end_offset,
            )
            with pytest.raises(OffsetConflictError) as conflict:
                await client.append("events", b"x", expected_offset=0)
            assert "not_durable" == conflict.value.durability
            assert (1, 2, False) == await client.append("events", b"x", expected_offset=1)
            with pytest.raises(QueryError):
                await client.search("events", "nofield:x")
            with pytest.raises(ConfigError):
                await client.create_topic("../x")
            with pytest.raises(TypeError, match="encode"):
                await client.append("events", "text")  # type: ignore[arg-type]

    run(main())


def test_an_argument_that_nothing_can_mean_is_called_that(tmp_path: Path) -> None:
    """And not a record that is too large, as whatever could not be sent once was."""

    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            negative: list[Coroutine[Any, Any, Any]] = [
                client.read("events", -1),
                client.drop_before("events", -1),
                client.commit_cursor("events", "job", -1),
                client.append("events", b"x", expected_offset=-1),
                client.search("events", "x", start=-1),
            ]
            for call in negative:
                with pytest.raises(OffsetOutOfRangeError, match="negative"):
                    await call
            wrong: list[Coroutine[Any, Any, Any]] = [
                client.read("events", 0, partition=-1),
                client.read("events", 0, wait_seconds=1e6),
                client.read("events", 0, max_bytes=0),
                client.search("events", "x", order="best"),  # type: ignore[arg-type]
                client.create_topic("x" * 300),
                client.create_topic("more", partitions=0),
                client.append("events", b"x", acks="all"),  # type: ignore[arg-type]
                client.append("events", b"x", partition=-1),
            ]
            for call in wrong:
                with pytest.raises(ConfigError, match="cannot be asked"):
                    await call
            with pytest.raises(ConfigError) as refused:
                await client.append("events", b"x", partition=-1)
            assert "not_durable" == refused.value.durability
            for count in (0, -1):  # it was an empty answer, as at the end
                with pytest.raises(ValueError, match="max_records"):
                    await client.read("events", 0, max_records=count)

    run(main())


def test_a_producer_that_could_not_work_is_not_made(tmp_path: Path) -> None:
    """Its first append never ended, or its `close` failed with an assertion."""
    wrong: tuple[tuple[dict[str, Any], type[Exception]], ...] = (
        ({"buffer_bytes": -1}, ValueError),
        ({"batch_bytes": 0}, ValueError),
        ({"batch_bytes": 1.5}, TypeError),
        ({"linger_seconds": None}, TypeError),
        ({"linger_seconds": -0.1}, ValueError),
        ({"acks": []}, ConfigError),
        ({"compression": "gzip"}, ConfigError),
    )

    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            for options, kind in wrong:
                with pytest.raises(kind, match=next(iter(options))):
                    await client.producer("events", **options)

    run(main())


def test_a_pipeline_step_may_take_longer_than_an_answer(tmp_path: Path) -> None:
    """It uploads and indexes; giving the connection up would take it from everybody else on it."""
    options = dataclasses.replace(QUICK, request_seconds=0.3, retry_seconds=0)

    async def main() -> None:
        async with connected(tmp_path, options=options) as (server, client):
            step = server.backend.run_pipeline

            async def slow() -> PipelineReport:
                await asyncio.sleep(1.0)
                return await step()

            server.backend.run_pipeline = slow  # type: ignore[method-assign]
            assert () == (await client.run_pipeline_once()).errors

    run(main())


def test_a_search_that_missed_much_is_answered_all_the_same(tmp_path: Path) -> None:
    """With the bucket away each of many bundles has a reason of its own, and a long one."""

    async def main() -> None:
        async with connected(tmp_path) as (server, client):
            await client.create_topic("events")
            await client.append("events", b'{"level": "error"}')
            search, path = server.backend.search, "json." + "p" * 2000

            async def missing(request: data.Search) -> SearchResult:
                found = await search(request)
                ranges = tuple((10 * number, 10 * number + 5) for number in range(100))
                reasons = tuple(f"bundle {number}: {'x' * 2000}" for number in range(100))
                gaps = dataclasses.replace(found.coverage[0], missing=ranges, reasons=reasons)
                return dataclasses.replace(found, coverage=(gaps,), unknown_paths=(path,) * 2000)

            server.backend.search = missing  # type: ignore[method-assign]
            found = await client.search("events", "error")
            (part,) = found.coverage
            assert 1 == len(found.hits)
            assert 100 == len(part.missing)
            assert "and 37 more" == part.reasons[-1]
            assert part.reasons[0].startswith("bundle 0: xxx")
            assert found.unknown_paths[0].startswith("json.ppp")

    run(main())


def test_a_batch_over_the_servers_limit_is_refused_by_name(tmp_path: Path) -> None:
    log = LOG.replace(record_bytes_max=1000, batch_bytes_max=2000)

    async def main() -> None:
        async with connected(tmp_path, log=log) as (_, client):
            await client.create_topic("events")
            with pytest.raises(RecordTooLargeError) as caught:
                await client.append("events", b"x" * 5000)
            assert "not_durable" == caught.value.durability
            bomb = RecordBatch.build([b"\0" * 100_000], compression="zstd")
            assert bomb.nbytes < 2000
            with pytest.raises(RecordTooLargeError):
                await client.append("events", bomb)
            assert (0, 1, False) == await client.append("events", b"fits")

    run(main())


def test_overlapping_appends_are_each_stored_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            values = [b"%d" % number for number in range(300)]
            results = await asyncio.gather(*(client.append("events", value) for value in values))
            found = await client.read("events", 0)

            assert set(range(300)) == {result.base_offset for result in results}
            assert sorted(values) == sorted(record.value for record in found)

    run(main())


def test_a_producer_keeps_order_and_partitions_by_key(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events", partitions=3)
            async with await client.producer("events", batch_bytes=2000) as producer:
                futures = [
                    await producer.enqueue(b"%d" % number, b"k%d" % (number % 7))
                    for number in range(500)
                ]
                keyless = await producer.append(b"no key")
            placed = [future.result() for future in futures]
            seen: dict[bytes | None, list[int]] = {}
            async with await client.consumer("events") as consumer:
                async for partition, record, _ in consumer:
                    if record.key is None:
                        assert keyless == (partition, record.offset)
                        continue
                    assert partition_of(record.key, 3) == partition
                    assert (partition, record.offset) == placed[int(record.value)]
                    seen.setdefault(record.key, []).append(int(record.value))

            assert 500 == sum(map(len, seen.values()))
            assert all(values == sorted(values) for values in seen.values())

    run(main())


def test_the_partition_of_a_key_is_fixed_for_ever() -> None:
    """Other languages compute the same: xxh3-64 of the key, modulo."""
    assert [2, 3, 1, 3] == [partition_of(key, 4) for key in (b"", b"a", b"user-1", b"\x00\xff")]


def test_a_full_buffer_is_said_and_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            async with await client.producer("events", buffer_bytes=1000) as producer:
                producer.append_nowait(b"x" * 2000)
                with pytest.raises(BackpressureError):
                    producer.append_nowait(b"y")
                assert (0, 1) == await producer.append(b"y")
            with pytest.raises(LogClosedError):
                producer.append_nowait(b"z")

    run(main())


def test_acks_none_is_stored_without_an_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            assert (-1, -1, False) == await client.append("events", b"x", acks="none")
            found = await client.read("events", 0, wait_seconds=3)
            assert [b"x"] == [record.value for record in found]

    run(main())


def test_a_long_poll_ends_with_the_record_it_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            waiting = asyncio.create_task(client.read("events", 0, wait_seconds=10))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await client.append("events", b"now")
            found = await asyncio.wait_for(waiting, 2)
            assert [b"now"] == [record.value for record in found]
            begun = asyncio.get_running_loop().time()
            assert () == (await client.read("events", 1, wait_seconds=0.1)).records
            assert 0.09 < asyncio.get_running_loop().time() - begun < 2

    run(main())


def test_min_bytes_gathers_several_batches(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")

            async def trickle() -> None:
                for _ in range(5):
                    await client.append("events", b"x" * 1000)

            task = asyncio.create_task(trickle())
            found = await client.read("events", 0, min_bytes=3000, wait_seconds=5)
            await task
            assert 3 <= len(found)

    run(main())


def test_a_consumer_follows_seeks_and_goes_on_at_its_cursor(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            await client.append("events", [b"%d" % number for number in range(10)])
            async with await client.consumer("events", cursor="job") as consumer:
                async for item in consumer:
                    if item.record.offset == 3:
                        break
                await consumer.commit()
            assert 4 == await client.cursor_offset("events", "job")
            async with await client.consumer("events", cursor="job", follow=True) as consumer:
                items = aiter(consumer)
                assert [b"4", b"5"] == [(await anext(items)).record.value for _ in range(2)]
                await consumer.seek(0, 9)
                assert b"9" == (await anext(items)).record.value
                coming = asyncio.ensure_future(anext(items))
                await asyncio.sleep(0.02)
                await client.append("events", b"fresh")
                assert b"fresh" == (await asyncio.wait_for(coming, 3)).record.value
            assert await client.delete_cursor("events", "job")
            assert not await client.delete_cursor("events", "job")

    run(main())


def test_a_consumer_begins_at_a_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            base = 1_700_000_000_000_000
            for number in range(5):
                record = Record(b"%d" % number, None, base + number * 1_000_000)
                await client.append("events", record)
            assert 3 == await client.offset_for_timestamp("events", base + 2_500_000)
            async with await client.consumer("events", since=base + 2_500_000) as consumer:
                assert [b"3", b"4"] == [item.record.value async for item in consumer]

    run(main())


def test_search_finds_in_all_partitions(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events", partitions=2)
            await client.append("events", b"disk is full", partition=0)
            await client.append("events", [b"x", b"the disk again"], partition=1)
            found = await client.search("events", "disk")
            assert {(0, 0), (1, 1)} == {(hit.partition, hit.offset) for hit in found}
            assert {b"disk is full", b"the disk again"} == {hit.record.value for hit in found}
            assert found.complete
            assert 1 == (await client.search("events", "disk", partition=1)).total
            assert 0 == (await client.search("events", "nothing")).total

    run(main())


def test_the_blocking_client_does_the_same(tmp_path: Path) -> None:
    def work(address: str) -> None:
        with Client(address, options=QUICK) as client:
            client.create_topic("events")
            assert (0, 2, False) == client.append("events", [b"a", b"b"])
            with client.producer("events") as producer:
                futures = [producer.append(b"%d" % number) for number in range(20)]
            assert list(range(2, 22)) == [future.result(5).offset for future in futures]
            with client.consumer("events", cursor="c") as consumer:
                assert 22 == len(list(consumer))
                consumer.commit()
            assert 22 == client.cursor_offset("events", "c")
            with pytest.raises(TopicNotFoundError):
                client.read("nowhere", 0)
        with pytest.raises(LogClosedError):
            client.topics()
        client.close()

    async def main() -> None:
        async with serving(tmp_path) as (_, address):
            await asyncio.to_thread(work, address)

    run(main())


def test_loading_the_client_loads_nothing_heavy() -> None:
    """That it imports no room of the engine is a contract of pyproject.toml."""
    heavy = ["tantivy", "fsspec", "s3fs", "raftos", "pyarrow", "prometheus_client", "structlog"]
    code = (
        f"import sys, chronik_server.client as c; print([m for m in {heavy} if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == ran.stdout.strip()


def test_an_answer_with_a_record_too_many_is_corruption() -> None:
    """It was a bare ValueError."""
    payload = RecordBatch.from_records([Record(b"a"), Record(b"b")]).buffer
    found = data.Searched(1, total_is_exact=True, elapsed_us=1, hits=(data.Hit(0, 7, 1.0),))
    with pytest.raises(CorruptionError, match="2 records for 1 hits"):
        search_result_of("t", found, payload)
