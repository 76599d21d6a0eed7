"""Where a time lies in a log that goes on meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from chronik_store.aio import AsyncPartitionLog
from tests.server.serving import connected, run


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("comes", ["before the look", "behind the look"])
def test_a_record_that_comes_while_a_time_is_looked_up_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes: str, follow: bool
) -> None:
    """A consumer began behind it: at an end read later than the look that did not find it."""
    plain = AsyncPartitionLog.offset_for_timestamp

    async def main() -> None:
        async with connected(tmp_path) as (server, client):
            await client.create_topic("t")
            await client.append("t", b"old")
            (old,) = (await client.read("t", 0)).records
            since = old.timestamp_us + 1
            await asyncio.sleep(0.01)

            async def meanwhile(log: Any, time: Any) -> int | None:
                monkeypatch.setattr(AsyncPartitionLog, "offset_for_timestamp", plain)
                if comes == "before the look":
                    await client.append("t", b"new")
                found = await plain(log, time)
                if comes == "behind the look":
                    await client.append("t", b"new")
                return found

            partition = await server.backend.partition("t", 0)
            monkeypatch.setattr(AsyncPartitionLog, "offset_for_timestamp", meanwhile)
            found = await partition.offsets(since)
            line = found.watermarks
            assert line.start <= line.sealed <= line.committed <= line.durable <= line.end
            if comes == "before the look":
                assert (1, 2) == (found.offset, line.committed)
            else:
                assert (None, 1) == (found.offset, line.committed)

            since = (await client.read("t", 1)).records[0].timestamp_us + 1
            await asyncio.sleep(0.01)
            monkeypatch.setattr(AsyncPartitionLog, "offset_for_timestamp", meanwhile)
            async with await client.consumer(
                "t", since=since, follow=follow, wait_seconds=0.2
            ) as consumer:
                records = aiter(consumer)
                if comes == "behind the look" and not follow:
                    with pytest.raises(StopAsyncIteration):  # it came behind the end
                        await anext(records)
                else:
                    record = (await anext(records)).record
                    assert (2, b"new") == (record.offset, record.value)

    run(main())
