"""The asyncio face while the bucket does not answer."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

import chronik_store as chronik
from chronik_store.aio.offloop import POOL_THREADS
from chronik_store.partition_log import PartitionLog

CONFIG = chronik.LogConfig(pipeline_enabled=False, indexing_enabled=False)


def test_reads_that_wait_for_the_bucket_keep_nobody_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight of them had every thread: what stood in the WAL was not read, no cursor moved, and no
    log was opened, until the bucket was back.
    """
    waiting, is_back = threading.Semaphore(0), threading.Event()
    inner = PartitionLog.read

    def read(log: PartitionLog, offset: int, **options: Any) -> chronik.FetchResult:
        if offset < 10:
            waiting.release()
            assert is_back.wait(60)
        return inner(log, offset, **options)

    monkeypatch.setattr(PartitionLog, "read", read)
    monkeypatch.setattr(PartitionLog, "_is_hot", lambda *_: False)

    async def main() -> None:
        url = f"file://{tmp_path}/bucket"
        store = await chronik.aio.AsyncLogStore.open(
            tmp_path / "d", object_store=url, config=CONFIG
        )
        try:
            await store.create_topic("t")
            log = await store.partition("t")
            for _ in range(2):
                for _ in range(10):
                    await log.append(b"x")
                if not log.watermarks.sealed:
                    await log.seal()
                    await log.run_pipeline_once()
            assert 10 == log.watermarks.tiered
            cold = [asyncio.create_task(log.read(0)) for _ in range(POOL_THREADS)]
            for _ in cold:
                assert await asyncio.to_thread(waiting.acquire, timeout=60)
            async with asyncio.timeout(60):
                assert b"x" == (await log.read(15)).records[0].value
                await log.cursor("c").commit(3)
                await store.create_topic("u")
                assert 1 == (await (await store.partition("u")).append(b"y")).end_offset
            assert not any(task.done() for task in cold)
            is_back.set()
            assert all([(await task).records for task in cold])
        finally:
            is_back.set()
            await store.close()

    asyncio.run(main())
