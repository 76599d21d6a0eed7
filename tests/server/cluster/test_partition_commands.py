"""Commands of a partition wait on the event loop, and for a bounded time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from chronik_server import partition_commands
from chronik_server.backend import FetchOptions
from chronik_server.client import AsyncClient
from chronik_server.errors import NotLeaderError, UnknownOutcomeError
from chronik_server.raft.consensus import Proposed
from chronik_server.raft.door import ConsensusDoor
from chronik_server.raft.errors import OutcomeUnknownError
from chronik_store.aio.offloop import POOL_THREADS
from chronik_store.errors import OffsetConflictError, OffsetOutOfRangeError, UnavailableError
from chronik_store.format.control import CursorSet, Noop
from chronik_store.format.record_batch import RecordBatch
from chronik_store.threads import SystemThreads
from chronik_store.wal.active_file import ActiveFile
from tests.server.cluster.nodes import InProcess, clustered
from tests.server.serving import QUICK, run


@asynccontextmanager
async def one_topic(path: Path) -> AsyncIterator[tuple[InProcess, AsyncClient]]:
    """One node, and a client of it that has made topic x."""
    async with (
        clustered(path, 1) as (node,),
        AsyncClient(node.address, options=QUICK) as client,
    ):
        await client.create_topic("x")
        yield node, client


def test_commands_do_what_they_say_and_refuse_what_cannot_be_meant(tmp_path: Path) -> None:
    async def main() -> None:
        async with one_topic(tmp_path) as (node, client):
            await client.append("x", [b"a", b"b", b"c"])
            part = node.backend.known_partition("x", 0)
            await part.commit_cursor("c", 2, reset=False)
            await part.commit_cursor("c", 2, reset=False)
            with pytest.raises(OffsetConflictError):
                await part.commit_cursor("c", 1, reset=False)
            with pytest.raises(OffsetOutOfRangeError):
                await part.commit_cursor("c", 4, reset=True)
            await part.commit_cursor("c", 1, reset=True)
            assert part.log.cursor("c").committed_offset == 1
            assert (True, False) == (await part.delete_cursor("c"), await part.delete_cursor("c"))
            assert 3 == await part.seal() == await part.seal()
            with pytest.raises(OffsetOutOfRangeError):
                await part.drop_before(4)
            await part.drop_before(2)
            await part.drop_before(1)
            assert (await client.watermarks("x")).start == 2

    run(main())


def test_a_commit_that_another_one_overtook_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both were asked for when the cursor stood before either; the log has them in one order."""

    async def main() -> None:
        async with one_topic(tmp_path) as (node, client):
            await client.append("x", [b"a"] * 10)
            part = node.backend.known_partition("x", 0)
            propose = part.consensus.propose
            first: list[CursorSet] = []

            def overtaken(payloads: Any, **options: Any) -> asyncio.Future[Any]:
                while first:
                    propose([first.pop()])
                return propose(payloads, **options)

            monkeypatch.setattr(part.consensus, "propose", overtaken)
            first.append(CursorSet("c", 9, False))
            with pytest.raises(OffsetConflictError, match="stands at 9") as caught:
                await client.commit_cursor("x", "c", 5)
            assert 9 == caught.value.expected_offset == await client.cursor_offset("x", "c")
            first.append(CursorSet("c", 10, False))
            await client.commit_cursor("x", "c", 5, reset=True)
            assert 5 == await client.cursor_offset("x", "c")
            first.append(CursorSet("c", None, True))
            assert not await client.delete_cursor("x", "c"), "another one did"

    run(main())


def test_what_is_so_already_is_said_by_who_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader that was deposed and does not know it yet may have missed that it is so no more."""

    async def deposed() -> int:
        raise OutcomeUnknownError("leadership ended before a quorum confirmed the read")

    async def main() -> None:
        async with one_topic(tmp_path) as (node, client):
            await client.append("x", [b"a"] * 10)
            part = node.backend.known_partition("x", 0)
            await part.commit_cursor("c", 5, reset=False)
            monkeypatch.setattr(part.consensus, "read_barrier", deposed)
            for call in (
                part.commit_cursor("c", 5, reset=False),
                part.delete_cursor("other"),
            ):
                with pytest.raises(UnknownOutcomeError):
                    await call

    run(main())


def test_3_a_repeated_compare_and_append_is_the_duplicate_that_it_is(tmp_path: Path) -> None:
    """As in an embedded log: what is repeated was appended where it was expected to be."""

    async def main() -> None:
        async with one_topic(tmp_path) as (node, client):
            batch = RecordBatch.build([b"a", b"b"], producer_id=7, base_sequence=0)
            assert (0, 2, False) == await client.append("x", batch, expected_offset=0)
            assert (0, 2, True) == await client.append("x", batch, expected_offset=0)
            part = node.backend.known_partition("x", 0)
            assert (0, 2, True) == await part.produce(batch, "leader", 0)
            with pytest.raises(OffsetConflictError) as caught:
                await client.append("x", batch.with_producer(7, 0, 2), expected_offset=0)
            assert (0, 2) == (caught.value.expected_offset, caught.value.end_offset)
            assert "not_durable" == caught.value.durability
            assert (2, 3, False) == await client.append("x", b"c", expected_offset=2)

    run(main())


def test_4_only_who_leads_says_that_an_offset_is_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S4: what was read elsewhere is committed, though this node has not heard of it yet."""

    async def main() -> None:
        async with one_topic(tmp_path) as (node, client):
            await client.append("x", [b"a", b"b"])
            part = node.backend.known_partition("x", 0)
            await part.drop_before(1)
            options = FetchOptions(1000, 1, 0.0, "committed")
            for offset in (0, 3):
                with pytest.raises(OffsetOutOfRangeError):
                    await part.fetch(offset, options)

            def deposed(_: object) -> NoReturn:
                raise UnavailableError("another one leads")

            monkeypatch.setattr(type(part.consensus), "read_barrier", deposed)
            with pytest.raises(UnavailableError, match="may be committed"):
                await part.fetch(3, options)
            with pytest.raises(NotLeaderError):
                await part.fetch(0, options)

    run(main())


def test_acks_leader_waits_for_the_disk_of_the_leader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, write = threading.Event(), ActiveFile.write

    def held(active: ActiveFile, group: Any, marks: Any) -> None:
        assert gate.wait(20)
        write(active, group, marks)

    async def main() -> None:
        async with one_topic(tmp_path) as (node, client):
            await client.append("x", b"before")
            part = node.backend.known_partition("x", 0)
            monkeypatch.setattr(ActiveFile, "write", held)
            batch = RecordBatch.build([b"a"])
            told = asyncio.create_task(part.produce(batch, "leader", None))
            await asyncio.sleep(0.2)
            assert 2 == part.core.end_offset
            assert not told.done()
            gate.set()
            assert (1, 2, False) == await told

    run(main())


def test_3_a_retry_with_acks_leader_waits_for_what_becomes_of_its_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands somewhere before the log's end: only the outcome says where."""

    async def main() -> None:
        async with one_topic(tmp_path) as (node, client):
            await client.append("x", [b"a", b"b"])
            part = node.backend.known_partition("x", 0)
            original: asyncio.Future[Proposed] = asyncio.get_running_loop().create_future()
            monkeypatch.setattr(part.consensus, "propose", lambda *_, **__: original)
            told = asyncio.create_task(part.produce(RecordBatch.build([b"a"]), "leader", None))
            await asyncio.sleep(0.1)
            assert not told.done()
            original.set_result(Proposed(1, 1, 0, 1, duplicate=True))
            assert (0, 1, True) == await told

    run(main())


def test_7_commands_that_cannot_commit_stop_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with (
            clustered(tmp_path, 1) as (node,),
            AsyncClient(node.address, options=QUICK) as client,
        ):
            for topic in ("x", "y"):
                await client.create_topic(topic)
                await client.append(topic, [b"a"] * 3)
            loop = asyncio.get_running_loop()
            part = node.backend.known_partition("x", 0)
            proposed: list[Any] = []

            def never(payloads: Any, **_: Any) -> asyncio.Future[Any]:
                proposed.append(payloads)
                return loop.create_future()

            monkeypatch.setattr(part.consensus, "propose", never)
            stuck = [
                asyncio.create_task(part.commit_cursor(f"c{number}", 1, reset=False))
                for number in range(POOL_THREADS + 1)
            ]
            while len(proposed) < len(stuck):  # noqa: ASYNC110 (`run` bounds it)
                await asyncio.sleep(0)
            found = await asyncio.wait_for(
                node.backend.checks(), 5
            )  # it needs a thread of the pool
            assert ["", "", ""] == [each.fault for each in found]
            for task in stuck:
                task.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)

            monkeypatch.setattr(partition_commands, "COMMAND_SECONDS", 0.01)
            with pytest.raises(UnknownOutcomeError):
                await part.seal()

    run(main())


def test_7_the_door_of_the_pipelines_threads_waits_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chronik_server.raft.door.ANSWER_SECONDS", 0.01)

    class Silent:
        term, is_ready = 1, True

        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            self.loop = loop

        def propose(self, *_: Any, **__: Any) -> asyncio.Future[Any]:
            return self.loop.create_future()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        door = ConsensusDoor(Silent(loop), SystemThreads())
        with pytest.raises(OutcomeUnknownError):
            await loop.run_in_executor(None, lambda: door.propose(Noop(), term=1))

    run(main())


def test_18_a_read_that_no_quorum_confirmed_names_who_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unconfirmed() -> int:
        raise OutcomeUnknownError("leadership ended before a quorum confirmed the read")

    async def main() -> None:
        async with one_topic(tmp_path) as (node, client):
            await client.append("x", [b"a"])
            part = node.backend.known_partition("x", 0)
            monkeypatch.setattr(part.consensus, "read_barrier", unconfirmed)
            with pytest.raises(NotLeaderError):
                await part.fetch(0, FetchOptions(1, 1, 0.0, "linearizable"))

    run(main())
