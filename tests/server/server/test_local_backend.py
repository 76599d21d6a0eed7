"""A server of its own: what it keeps of a topic goes with the topic."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from chronik_server.local_backend import LocalBackend
from tests.server.serving import connected, run


@pytest.mark.parametrize("ends", ["before the deletion", "after it"])
def test_6_who_asks_while_a_topic_is_deleted_leaves_nothing_for_the_next_one(
    tmp_path: Path, ends: str
) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (server, client):
            backend = server.backend
            assert isinstance(backend, LocalBackend)
            await client.create_topic("t")
            await client.append("t", [b"old"])
            backend._partitions.clear()
            store: Any = backend._store
            plain = store.partition
            found, go_on = asyncio.Event(), asyncio.Event()

            async def slowly(topic: str, partition: int) -> Any:
                log = await plain(topic, partition)
                found.set()
                await go_on.wait()
                return log

            store.partition = slowly
            asking = asyncio.create_task(backend.partition("t", 0))
            await found.wait()
            store.partition = plain
            if ends == "after it":
                await client.delete_topic("t")
            else:
                delete = store.delete_topic

                async def behind(topic: str) -> None:
                    go_on.set()
                    await asking
                    await delete(topic)

                store.delete_topic = behind
                await client.delete_topic("t")
            go_on.set()
            await asking
            await client.create_topic("t")
            await client.append("t", [b"new"])
            assert [b"new"] == [each.value for each in (await client.read("t", 0)).records]
            assert backend.known_partition("t", 0) is await backend.partition("t", 0)

    run(main())
