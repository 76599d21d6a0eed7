"""Search bundles built anew through a server: found by pieces, built in steps, as long as it takes.

The server is one of its own; what a cluster adds is in tests/server/cluster/test_bundles.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chronik_server import bundle_upkeep
from chronik_server.client import AsyncClient, Client
from chronik_server.server import Server
from chronik_store.errors import ConfigError, OffsetOutOfRangeError, TopicNotFoundError
from chronik_store.model import BundlesFound, BundlesRebuilt
from tests.server.serving import QUICK, connected, run, serving


@asynccontextmanager
async def indexed(path: Path, **settings: Any) -> AsyncIterator[tuple[Server, AsyncClient]]:
    """A topic of two segments, with their bundles."""
    async with connected(path, **settings) as (server, client):
        await client.create_topic("t")
        for _ in range(2):
            await client.append("t", [b"needle %d" % number for number in range(10)])
            await client.seal("t")
        assert 2 == (await client.run_pipeline_once()).indexed
        yield server, client


def files(path: Path) -> list[Path]:
    return sorted((path / "object_store" / "indexes" / "t").rglob("*.tar.gz"))


def test_a_lost_one_is_found_and_built_anew(tmp_path: Path) -> None:
    async def main() -> None:
        async with indexed(tmp_path) as (_, client):
            assert BundlesFound(()) == await client.find_bundles("t")
            lost, kept = files(tmp_path)
            lost.unlink()
            (key,) = (await client.find_bundles("t")).keys
            assert key.endswith(lost.name)
            assert BundlesFound(()) == await client.find_bundles("t", 10)
            assert BundlesRebuilt(1) == await client.rebuild_bundles("t", [key])
            assert BundlesRebuilt(1) == await client.rebuild_bundles("t", [key])
            assert BundlesFound(()) == await client.find_bundles("t")
            assert kept in files(tmp_path)
            assert 2 == len((await client.find_bundles("t", everything=True)).keys)
            assert 20 == (await client.search("t", "needle", require_complete=True)).total

    run(main())


def test_a_look_is_answered_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_upkeep, "LOOK_SECONDS", 0.0)

    async def main() -> None:
        async with indexed(tmp_path) as (_, client):
            first = await client.find_bundles("t", everything=True)
            second = await client.find_bundles("t", first.next_offset or 0, everything=True)
            assert [(1, 10), (1, None)] == [
                (len(each.keys), each.next_offset) for each in (first, second)
            ]

    run(main())


def test_what_cannot_be_asked_is_refused_by_name(tmp_path: Path) -> None:
    async def main() -> None:
        async with indexed(tmp_path) as (_, client):
            (key, _) = (await client.find_bundles("t", everything=True)).keys
            await client.create_topic("u")
            with pytest.raises(ConfigError, match="no search bundle of u/0"):
                await client.rebuild_bundles("u", [key])
            with pytest.raises(ConfigError, match="cannot be asked"):
                await client.rebuild_bundles("t", [key] * 1001)
            with pytest.raises(TopicNotFoundError):
                await client.find_bundles("nobody")
            with pytest.raises(TopicNotFoundError):
                await client.rebuild_bundles("t", [key], partition=7)
            with pytest.raises(OffsetOutOfRangeError):
                await client.find_bundles("t", -1)

    run(main())


def test_a_step_may_take_longer_than_an_answer(tmp_path: Path) -> None:
    """It builds for minutes; giving the connection up would take it from everybody else on it."""
    options = dataclasses.replace(QUICK, request_seconds=0.3, retry_seconds=0)

    async def main() -> None:
        async with indexed(tmp_path, options=options) as (server, client):
            part = await server.backend.partition("t", 0)
            find, step = part.find_bundles, part.rebuild_bundles

            async def slow_find(offset: int, *, everything: bool) -> BundlesFound:
                await asyncio.sleep(1.0)
                return await find(offset, everything=everything)

            async def slow_step(keys: Any) -> BundlesRebuilt:
                await asyncio.sleep(1.0)
                return await step(keys)

            part.find_bundles = slow_find  # type: ignore[method-assign]
            part.rebuild_bundles = slow_step  # type: ignore[method-assign]
            found = await client.find_bundles("t", everything=True)
            assert BundlesRebuilt(2) == await client.rebuild_bundles("t", found.keys)

    run(main())


def test_the_blocking_client_has_the_same_calls(tmp_path: Path) -> None:
    def ask(address: str) -> BundlesRebuilt:
        with Client(address, options=QUICK) as client:
            client.create_topic("t")
            client.append("t", b"needle")
            client.seal("t")
            assert 1 == client.run_pipeline_once().indexed
            return client.rebuild_bundles("t", client.find_bundles("t", everything=True).keys)

    async def main() -> None:
        async with serving(tmp_path) as (_, address):
            assert BundlesRebuilt(1) == await asyncio.to_thread(ask, address)

    run(main())
