"""A server of its own whose disk fails ends, so that whoever watches it starts it again."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from chronik_server.addresses import Address
from chronik_server.cli_serve import serve
from chronik_server.client import AsyncClient
from chronik_server.config import ServerConfig
from chronik_server.errors import UnknownOutcomeError, hide
from chronik_store.cli.session import Session
from chronik_store.environment import Environment
from chronik_store.errors import LogPoisonedError, UnavailableError
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.simulated_disk import SimulatedDisk
from tests.ports import free_ports
from tests.server.serving import LOG, QUICK, connected, run


def test_it_ends_with_an_error_and_its_clients_go_on_when_it_is_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before, it went on without that log until somebody came to look."""
    disk = SimulatedDisk()
    address = Address("127.0.0.1", *free_ports(1))
    config = ServerConfig(data_dir="/d", listen=address)
    log = LOG.replace(object_store="file:///bucket")

    async def main() -> None:
        ended, asked = [], asyncio.Event()

        async def supervised() -> None:
            while not asked.is_set():
                code = await serve(Session(), config, log, asked, env=Environment(fs=disk))
                if code:  # of an end that nobody asked for
                    ended.append(code)
                    asked.clear()

        running = asyncio.create_task(supervised())
        async with AsyncClient(str(address), options=QUICK) as client:
            await client.create_topic("t")
            await client.append("t", b"a")
            disk.hook = fail_next("sync_data", errno.EIO)
            found = [await client.append("t", b"b"), await client.append("t", b"c")]
            assert [(1, 2), (2, 3)] == [(each.base_offset, each.end_offset) for each in found]
            records = (await client.read("t", 0)).records
            assert [b"a", b"b", b"c"] == [record.value for record in records]
            assert [3] == ended
        asked.set()
        await running

    run(main())
    assert "the log of t/0 has failed" in capsys.readouterr().err


@pytest.mark.parametrize("before", [False, True])
def test_whoever_made_it_is_told_once_and_clients_what_became_of_theirs(
    tmp_path: Path, before: bool
) -> None:
    """Nobody tells a client to open a log that is a server's."""
    told: list[BaseException] = []

    async def main() -> None:
        async with connected(tmp_path, on_fatal=told.append, options=QUICK) as (server, client):
            backend: Any = server.backend
            await client.create_topic("t")
            await client.append("t", b"a")
            core = await backend.core("t", 0)
            if before:
                backend._partitions.clear()
                core.watch._listeners = ()
            core.wal.give_up(OSError(errno.EIO, "broken"))
            part = await backend.partition("t", 0)
            batch = client.batching.batch(b"b")
            assert batch is not None
            with pytest.raises(LogPoisonedError):
                await part.produce(batch, "quorum", None)
            for _ in range(3):
                await client.ping()  # each in a turn of the loop of its own
            assert 1 == len(told)
            assert [b"a"] == [record.value for record in (await client.read("t", 0)).records]
            faults = {check.name: check.fault for check in await backend.checks()}
            assert "poisoned" in faults["wal"]
            assert not faults["tiering"]

    run(main())


def test_what_is_said_of_a_failed_log_can_be_followed_by_who_hears_it() -> None:
    cause = OSError(errno.EIO, "broken")
    for durability in ("not_durable", None):
        found = hide(LogPoisonedError("close the log", cause=cause, durability=durability))
        assert isinstance(found, UnavailableError)
        assert durability == found.durability
        assert "close the log" not in str(found)
        assert "broken" in str(found)
    unknown = hide(LogPoisonedError("close the log", cause=cause))
    assert isinstance(unknown, UnknownOutcomeError)
    assert "close the log" not in str(unknown)
