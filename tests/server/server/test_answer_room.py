"""Answers are counted: a server holds no more records than its limits say."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from chronik_server.answer_room import AnswerBudget, Room, Share
from chronik_server.client import AsyncClient
from chronik_server.protocol.cluster import FindBundles, Status, StatusFound
from chronik_server.protocol.connection import Connection
from chronik_server.protocol.data import Fetch, Search
from chronik_server.protocol.events import Request, Response
from chronik_server.protocol.greeting import Hello
from chronik_server.protocol.states import Side
from chronik_server.protocol.topics import (
    DescribeTopic,
    ListTopics,
    PartitionPlace,
    TopicDescription,
)
from chronik_server.protocol.verbs import Verb
from chronik_server.server import Server
from chronik_store.model import BundlesFound, TopicInfo
from tests.server.serving import ONCE, connected, run

MIB = 1 << 20


class Wire:
    """What waits to be sent on a connection."""

    def __init__(self, budget: AnswerBudget, limit: int) -> None:
        self.waits = 0
        self.room = Room(budget, limit, lambda: self.waits)

    def sent(self, size: int) -> None:
        self.waits -= size
        self.room.moved()


def test_a_connection_reads_no_more_than_its_limit_and_goes_on_when_it_is_taken() -> None:
    async def main() -> None:
        budget = AnswerBudget(1000)
        wire = Wire(budget, 100)
        first, second = Share(wire.room), Share(wire.room)
        assert await first.take(60, more=False)
        assert not await second.take(60, more=True)
        waiting = asyncio.ensure_future(second.take(60, more=False))
        await asyncio.sleep(0)
        wire.waits += 50
        first.keep(50)
        first.close()  # its answer waits to be sent now
        await asyncio.sleep(0)
        assert (50, False) == (budget.used, waiting.done())
        wire.sent(10)
        await waiting
        assert 100 == budget.used
        second.close()
        wire.room.end()
        assert 0 == budget.used

    run(main())


def test_all_connections_together_have_a_limit_and_one_may_always_read() -> None:
    async def main() -> None:
        budget = AnswerBudget(100)
        one, two = Wire(budget, 1000), Wire(budget, 1000)
        large, small = Share(one.room), Share(two.room)
        assert await large.take(500, more=False)  # nobody holds anything: as large as it is
        waiting = asyncio.ensure_future(small.take(10, more=False))
        await asyncio.sleep(0)
        assert not waiting.done()
        one.room.end()
        large.close()
        await waiting
        assert 10 == budget.used

    run(main())


def test_a_long_answer_is_not_overtaken_by_short_ones_that_follow_each_other() -> None:
    """It waited for as long as they came, and then its client gave up the connection."""

    async def main() -> None:
        budget = AnswerBudget(1000)
        wire, other = Wire(budget, 100), Wire(budget, 100)
        short, long, next_, elsewhere = (Share(w.room) for w in (wire, wire, wire, other))
        await short.take(10, more=False)
        waits = asyncio.ensure_future(long.take(100, more=False))
        await asyncio.sleep(0)
        follows = asyncio.ensure_future(next_.take(10, more=False))
        await asyncio.sleep(0)
        assert not follows.done()
        assert not await next_.take(10, more=True), "nor by more of another one"
        assert await elsewhere.take(10, more=False), "of another connection"
        short.close()
        assert await waits
        assert not follows.done()
        long.close()
        assert await follows

        waits = asyncio.ensure_future(long.take(100, more=False))
        follows = asyncio.ensure_future(short.take(10, more=False))
        await asyncio.sleep(0)
        waits.cancel()  # whoever waited behind it alone goes on
        assert await follows
        for share in (short, next_, elsewhere):
            share.close()
        assert (0, 0, 0) == (budget.used, wire.room.waiters, len(budget.waiting))

    run(main())


def test_who_gives_up_waiting_holds_nothing() -> None:
    async def main() -> None:
        budget = AnswerBudget(100)
        wire = Wire(budget, 100)
        first, second = Share(wire.room), Share(wire.room)
        await first.take(100, more=False)
        waiting = [asyncio.ensure_future(second.take(100, more=False)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        first.close()
        waiting[1].cancel()  # it was given room just now
        await asyncio.gather(*waiting, return_exceptions=True)
        assert 0 == budget.used

    run(main())


def test_an_answer_that_waits_for_more_of_itself_goes_when_its_room_is_wanted() -> None:
    async def main() -> None:
        budget = AnswerBudget(100)
        one, two = Wire(budget, 1000), Wire(budget, 1000)
        patient, other = Share(one.room), Share(two.room)
        for comes_first in (True, False):
            assert await patient.take(100, more=False)
            go_on = asyncio.Event()
            if comes_first:
                wants = asyncio.ensure_future(other.take(50, more=False))
                await asyncio.sleep(0)
            waits = asyncio.ensure_future(patient.wait(go_on.wait))
            await asyncio.sleep(0)
            if not comes_first:
                assert not waits.done()
                wants = asyncio.ensure_future(other.take(50, more=False))
            assert not await waits
            assert (False, 0) == (wants.done(), len(budget.patient))
            patient.close()
            assert await wants
            assert 50 == budget.used
            other.close()

        assert await patient.take(100, more=False)
        waits = asyncio.ensure_future(patient.wait(go_on.wait))
        await asyncio.sleep(0)
        go_on.set()  # nobody wants it, and more has come
        assert await waits
        go_on.clear()
        waits = asyncio.ensure_future(patient.wait(go_on.wait))
        wants = asyncio.ensure_future(other.take(50, more=False))
        await asyncio.sleep(0)
        waits.cancel()  # its asker has gone, just as its room is wanted
        (gone,) = await asyncio.gather(waits, return_exceptions=True)
        assert isinstance(gone, asyncio.CancelledError)
        patient.close()
        await wants
        other.close()
        assert (0, 0) == (budget.used, len(budget.patient))

    run(main())


def test_who_waits_for_more_keeps_nobody_from_reading(tmp_path: Path) -> None:
    """It held what it had for as long as it wished, and the others' clients gave them up."""

    async def main() -> None:
        async with connected(tmp_path, answers_bytes_max=MIB) as (server, client):
            await client.create_topic("t")
            for _ in range(9):
                await client.append("t", bytes(100_000))
            address = str(client.router._servers[0])
            async with AsyncClient(address, options=ONCE) as patient:
                waiting = asyncio.create_task(
                    patient.read("t", 0, min_bytes=1 << 30, max_bytes=MIB, wait_seconds=60)
                )
                while not server.answers.used:  # noqa: ASYNC110 (`run` bounds it)
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)
                assert not waiting.done()
                async with asyncio.timeout(4):
                    assert (await client.read("t", 0)).records
                    assert 9 == len((await waiting).records)

    run(main())


QUESTIONS = {
    Verb.FETCH: Fetch("t", 0, 0, max_bytes=1 << 30),
    Verb.SEARCH: Search("t", "found", limit=2),
    Verb.STATUS: Status(),
    Verb.LIST_TOPICS: ListTopics(),
    Verb.DESCRIBE_TOPIC: DescribeTopic("t"),
    Verb.FIND_BUNDLES: FindBundles("t", everything=True),
}


async def make_long_lists(server: Server) -> None:
    """Answers of about a mebibyte, as with thousands of topics."""
    found = await server.backend.status(None)
    partition = dataclasses.replace(found.store.partitions[0], notes=("x" * 1000,))
    store = dataclasses.replace(found.store, partitions=(partition,) * 900)
    topics = tuple(TopicInfo(f"{number:0200}", "0" * 32, 1) for number in range(4_500))
    nodes = tuple(f"{number:0200}" for number in range(5))
    places = tuple(PartitionPlace(number, replicas=nodes) for number in range(1_000))
    part = await server.backend.partition("t", 0)
    keys = tuple(f"{number:01000}" for number in range(1_000))

    async def status(_: str | None) -> StatusFound:
        return dataclasses.replace(found, store=store)

    async def list_topics() -> tuple[TopicInfo, ...]:
        return topics

    async def describe_topic(_: str) -> TopicDescription:
        return TopicDescription("t", "0" * 32, places)

    async def find_bundles(_: int, *, everything: bool) -> BundlesFound:
        return BundlesFound(keys)

    server.backend.describe_topic = describe_topic  # type: ignore[method-assign]
    part.find_bundles = find_bundles  # type: ignore[method-assign]
    server.backend.status = status  # type: ignore[method-assign]
    server.backend.topics = list_topics  # type: ignore[method-assign]


@pytest.mark.parametrize("verb", QUESTIONS)
def test_a_client_that_takes_nothing_makes_the_server_hold_little(
    tmp_path: Path, verb: Verb
) -> None:
    """Thirty small frames asked for thirty times everything."""

    async def main() -> None:
        settings = {"in_flight_bytes_max": 3 * MIB, "frame_bytes_max": 4 * MIB}
        async with connected(tmp_path, **settings) as (server, client):
            await client.create_topic("t")
            for _ in range(8):
                await client.append("t", [b"found" + bytes(MIB // 2)] * 2)
            await make_long_lists(server)
            before = set(server.sessions)
            host, _, port = str(client.router._servers[0]).rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 16)
            wire = Connection(Side.CLIENT)

            def say(verb: Verb, message: object) -> None:
                number = wire.next_request_id()
                writer.writelines(bytes(b) for b in wire.send(Request(number, verb, message)))

            say(Verb.HELLO, Hello((1,)))
            wire.receive_data(await reader.read(1 << 16))
            (session,) = set(server.sessions) - before
            for _ in range(30):
                say(verb, QUESTIONS[verb])
            while session.under_way.is_empty and not session.backlog_bytes:  # noqa: ASYNC110 (`run` bounds it)
                await asyncio.sleep(0.001)
            most = 0
            for _ in range(100):
                await asyncio.sleep(0.002)
                most = max(most, session.backlog_bytes, server.answers.used)
            assert 0 < most <= 5 * (MIB + 1024)  # with what stands around the records
            answers = 0
            while answers < 30:
                for event in wire.receive_data(await reader.read(1 << 20)):
                    assert isinstance(event, Response)
                    assert len(event.payload) <= 4 * MIB
                    assert event.payload or verb not in {Verb.FETCH, Verb.SEARCH}
                    answers += 1
            await client.ping()
            assert (0, 0) == (server.answers.used, len(server.answers.waiting))
            writer.close()

    run(main())
