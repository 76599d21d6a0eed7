"""The public API as a program that mypy --strict must accept. It is checked, never run.

Promise: who writes against the documented names, arguments and results gets these types. A change
here is a change of the public contract.
"""

from __future__ import annotations

import concurrent.futures
import datetime as dt
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import assert_type

import chronik_store as chronik
from chronik_store import aio
from chronik_store.errors import Durability


def stores(path: Path) -> None:
    config = chronik.LogConfig(segment_bytes=1 << 20)
    assert_type(chronik.LogConfig.from_env(), chronik.LogConfig)
    assert_type(config.replace(segment_bytes=1), chronik.LogConfig)
    store = chronik.LogStore.open(
        path, object_store="s3://bucket/prefix", config=config, read_only=False
    )
    assert_type(store, chronik.LogStore)
    with chronik.LogStore.open("data") as opened:
        assert_type(opened, chronik.LogStore)
        topic = opened.create_topic("events", partitions=3, exist_ok=True)
        assert_type(topic, chronik.TopicInfo)
        assert_type(topic.name, str)
        assert_type(topic.partitions, int)
        opened.delete_topic("events")
        assert_type(opened.topics(), tuple[chronik.TopicInfo, ...])
        assert_type(opened.partition("events"), chronik.PartitionLog)
        assert_type(opened.partition("events", 1), chronik.PartitionLog)
        assert_type(opened.search("events", "timeout", limit=3), chronik.SearchResult)
        assert_type(opened.run_pipeline_once(), chronik.PipelineReport)
        assert_type(opened.status(), chronik.StoreStatus)
        opened.close()


def appending(path: Path) -> None:
    with chronik.PartitionLog.open(
        path,
        topic="events",
        partition=0,
        object_store=None,
        config=chronik.LogConfig(),
        read_only=False,
    ) as log:
        assert_type(log, chronik.PartitionLog)
        result = log.append(b"one")
        assert_type(result, chronik.AppendResult)
        assert_type(result.base_offset, int)
        assert_type(result.end_offset, int)
        assert_type(result.duplicate, bool)
        record = chronik.Record(b"v", key=b"k", timestamp_us=1, headers=[("name", b"value")])
        log.append(record, expected_offset=1)
        log.append([b"two", record])
        log.append(bytes([n]) for n in range(3))
        log.append(chronik.RecordBatch.build([b"a", b"b"], keys=[b"k", None], timestamps_us=[1, 2]))
        future = log.append_nowait([b"later"], expected_offset=None)
        assert_type(future, concurrent.futures.Future[chronik.AppendResult])


def reading(log: chronik.PartitionLog) -> None:
    fetched = log.read(0, max_records=10, max_bytes=1 << 20, wait_seconds=1.5)
    assert_type(fetched, chronik.FetchResult)
    assert_type(fetched.records, tuple[chronik.StoredRecord, ...])
    assert_type(fetched.next_offset, int)
    assert_type(fetched.elapsed_seconds, float)
    for record in fetched:
        assert_type(record, chronik.StoredRecord)
        assert_type(record.offset, int)
        assert_type(record.timestamp_us, int)
        assert_type(record.time, dt.datetime)
        assert_type(record.value, bytes)
        assert_type(record.key, bytes | None)
        assert_type(record.headers, tuple[tuple[str, bytes], ...])
    for batch in log.read_batches(0, max_bytes=1 << 20):
        assert_type(batch, chronik.StoredBatch)
        assert_type(batch.base_offset, int)
        assert_type(batch.end_offset, int)
        assert_type(batch.timestamps_us, memoryview)
        assert_type(batch.key_offsets, memoryview)
        assert_type(batch.key_data, memoryview)
        assert_type(batch.value_offsets, memoryview)
        assert_type(batch.value_data, memoryview)
        assert_type(batch.values(), list[bytes])
        assert_type(batch.records(), list[chronik.StoredRecord])
    assert_type(log.scan(), Iterator[chronik.StoredRecord])
    assert_type(log.scan(5, 10, follow=True), Iterator[chronik.StoredRecord])
    assert_type(log.scan(start=5, stop=10), Iterator[chronik.StoredRecord])
    assert_type(log.offset_for_timestamp(dt.datetime.now(dt.UTC)), int | None)
    assert_type(log.offset_for_timestamp(1_700_000_000_000_000), int | None)
    assert_type(chronik.open_bucket("s3://b/p", topic="t", partition=0), chronik.PartitionLog)


def searching(log: chronik.PartitionLog) -> None:
    found = log.search(
        "error AND key:web",
        since=dt.datetime.now(dt.UTC),
        until=1_700_000_000_000_000,
        start=0,
        stop=10,
        limit=10,
        order="newest",
        deadline_seconds=2.0,
        require_complete=True,
    )
    assert_type(found, chronik.SearchResult)
    assert_type(found.hits, tuple[chronik.SearchHit, ...])
    assert_type(found.total, int)
    assert_type(found.total_is_exact, bool)
    assert_type(found.unknown_paths, tuple[str, ...])
    assert_type(found.elapsed_seconds, float)
    for hit in found:
        assert_type(hit.record, chronik.StoredRecord)
        assert_type(hit.offset, int)
        assert_type(hit.score, float)
    for coverage in found.coverage:
        assert_type(coverage.searched, tuple[tuple[int, int], ...])
        assert_type(coverage.missing, tuple[tuple[int, int], ...])


def tending(log: chronik.PartitionLog) -> None:
    cursor = log.cursor("billing")
    assert_type(cursor, chronik.Cursor)
    assert_type(cursor.offset, int)
    for record in cursor.records():
        assert_type(record, chronik.StoredRecord)
        cursor.commit(record.offset + 1)
    for batch in cursor.batches():
        cursor.commit(batch.end_offset, reset=True)
    log.drop_before(10)
    assert_type(log.seal(), int)
    assert_type(log.run_pipeline_once(), chronik.PipelineReport)
    assert_type(log.verify(bucket=True, deep=True), chronik.VerifyReport)
    assert_type(log.watermarks, chronik.Watermarks)
    line = log.watermarks
    first_half = (line.start, line.indexed, line.tiered, line.sealed)
    assert_type(first_half, tuple[int, int, int, int])
    assert_type((line.committed, line.durable, line.end), tuple[int, int, int])
    assert_type(log.recovery, chronik.RecoveryReport)
    assert_type(log.status(), chronik.LogStatus)
    log.close()


def failing(log: chronik.PartitionLog) -> None:
    try:
        log.append(b"x", expected_offset=3)
    except chronik.OffsetConflictError as error:
        assert_type(error.end_offset, int)
        assert_type(error.retriable, bool)
    except chronik.ChronikError as error:
        assert_type(error.durability, Durability | None)


def misspelt() -> None:
    """What is not there is told to who checks types: mypy says so where an ignore is not needed."""
    chronik.PartitonLog.open("data", topic="events")  # type: ignore[attr-defined]


async def asynchronously(path: Path) -> None:
    async with aio.AsyncPartitionLog.open(path, topic="events") as log:
        assert_type(log, aio.AsyncPartitionLog)
        assert_type(await log.append([b"one"]), chronik.AppendResult)
        assert_type(await log.read(0, wait_seconds=1.0), chronik.FetchResult)
        assert_type(log.scan(), AsyncIterator[chronik.StoredRecord])
        assert_type(await log.search("one"), chronik.SearchResult)
        assert_type(await log.seal(), int)
        assert_type(await log.run_pipeline_once(), chronik.PipelineReport)
        assert_type(log.watermarks, chronik.Watermarks)
    opened = await aio.AsyncPartitionLog.open(path, topic="events")
    await opened.close()
    async with aio.AsyncLogStore.open(path) as store:
        assert_type(await store.create_topic("t", partitions=2), chronik.TopicInfo)
        assert_type(await store.search("t", "one"), chronik.SearchResult)
