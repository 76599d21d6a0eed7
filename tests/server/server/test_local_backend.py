"""A server of its own: what it keeps of a topic goes with the topic."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from chronik_server.local_backend import LocalBackend
from chronik_store import LogConfig, LogStore, restore
from chronik_store.aio.offloop import POOL_THREADS
from chronik_store.errors import TopicNotFoundError, UnavailableError
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


def test_what_is_amiss_is_told_also_while_readers_wait_for_the_bucket(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (server, _):
            backend: Any = server.backend
            pool, is_back = backend._store._pool, threading.Event()
            readers = [asyncio.ensure_future(pool.run(is_back.wait)) for _ in range(POOL_THREADS)]
            await asyncio.sleep(0)
            try:
                async with asyncio.timeout(5):
                    assert "wal" in {check.name for check in await backend.checks()}
                    assert () == (await backend.status(None)).store.partitions
            finally:
                is_back.set()
                await asyncio.gather(*readers)

    run(main())


def test_a_partition_that_was_fenced_before_this_start_is_not_ready(tmp_path: Path) -> None:
    """Nothing of it reaches the bucket any more; who met that has an error, this start has none."""
    bucket = f"file://{tmp_path}/bucket"
    quiet = LogConfig(pipeline_enabled=False)
    with LogStore.open(tmp_path / "old", object_store=bucket, config=quiet) as store:
        log = store.create_topic("t") and store.partition("t")
        for value in (b"kept", b"lost"):
            log.append(value)
            log.seal()
            log.run_pipeline_once()
            if value == b"kept":
                restore(bucket, tmp_path / "new")
        assert log.status().fenced

    async def main() -> None:
        async with connected(tmp_path / "old") as (server, client):
            (part,) = (await client.status("t")).store.partitions
            assert (part.fenced, part.last_error) == (True, None)
            faults = {check.name: check.fault for check in await server.backend.checks()}
            assert faults["tiering"].startswith("t/0: fenced: a restore has claimed the folder")
            assert faults["wal"] == ""

    run(main())


def test_a_partition_that_cannot_be_opened_is_not_a_topic_that_is_not_there(tmp_path: Path) -> None:
    async def make() -> None:
        async with connected(tmp_path) as (_, client):
            for topic in ("good", "bad"):
                await client.create_topic(topic)
                await client.append(topic, b"x" * 1000)

    async def look() -> None:
        async with connected(tmp_path) as (server, client):
            faults = {check.name: check.fault for check in await server.backend.checks()}
            assert "may have lost acknowledged entries" in faults["wal"]
            (said,) = (await client.status("bad")).store.unavailable
            assert "may have lost acknowledged entries" in said
            assert 1 == len((await client.status("good")).store.partitions)
            with pytest.raises(TopicNotFoundError):
                await client.status("neither")

    run(make())
    for path in (tmp_path / "wal" / "bad").rglob("wal_*"):
        with path.open("r+b") as file:
            file.seek(100)
            file.write(b"\xff" * 200)
    run(look())


def test_nothing_is_kept_of_topics_that_are_gone(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (server, client):
            backend = server.backend
            assert isinstance(backend, LocalBackend)
            for number in range(3):
                await client.create_topic(f"t{number}")
                await client.append(f"t{number}", b"x")
                await client.delete_topic(f"t{number}")
            assert not backend._deleting
            assert not backend._partitions

    run(main())


@pytest.mark.parametrize("fails", [False, True])
def test_who_waits_for_a_partition_goes_on_in_order_and_is_not_overtaken(
    tmp_path: Path, fails: bool
) -> None:
    """Appends without acknowledgements have nothing else that keeps them in order."""

    async def main() -> None:
        async with connected(tmp_path) as (server, client):
            backend = server.backend
            assert isinstance(backend, LocalBackend)
            await client.create_topic("t")
            store: Any = backend._store
            plain, pauses = store.partition, [0.02, 0.0]

            async def slower_first(topic: str, partition: int) -> Any:
                log = await plain(topic, partition)
                if pauses:
                    await asyncio.sleep(pauses.pop(0))
                    if fails:
                        raise UnavailableError("not now")
                return log

            store.partition = slower_first
            order: list[int] = []

            async def use(number: int) -> None:
                found = backend.known_partition("t", 0) or await backend.partition("t", 0)
                assert found is backend.known_partition("t", 0) or number < 9
                order.append(number)

            asked = [asyncio.create_task(use(number)) for number in range(9)]
            while not order:  # noqa: ASYNC110 (`run` bounds it)
                await asyncio.sleep(0)
            await use(9)
            failed = [each for each in await asyncio.gather(*asked, return_exceptions=True) if each]
            assert [str(each) for each in failed] == ["not now"] * (2 if fails else 0)
            assert order == list(range(2 if fails else 0, 10))
            assert backend._opening == {}

    run(main())
