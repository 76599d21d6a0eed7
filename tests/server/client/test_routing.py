"""Whom a client asks when nodes disagree about who leads."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from chronik_server.addresses import Address, parse_address
from chronik_server.client import AsyncClient
from chronik_server.client.channel import Channel
from chronik_server.errors import (
    CertificateError,
    ConnectionLostError,
    NotLeaderError,
    UnknownOutcomeError,
)
from chronik_server.protocol import cluster, data, greeting, topics
from chronik_server.server import Server
from chronik_store.errors import ChronikError, ConfigError, UnavailableError
from tests.server.serving import QUICK, connected, run, serving


def test_a_node_that_knows_of_no_leader_is_not_asked_for_ever(tmp_path: Path) -> None:
    """It may be cut off from the others; every other node that can be reached is asked first."""

    async def main() -> None:
        async with (
            serving(tmp_path / "off") as (cut_off, first),
            serving(tmp_path / "on") as (_, second),
        ):
            asked = []

            async def knows_nobody(message: object, *_: object) -> object:
                asked.append(type(message).__name__)
                raise NotLeaderError("led by nobody that this node knows of")

            async def describes(message: topics.DescribeTopic, *_: object) -> object:
                asked.append(type(message).__name__)
                place = topics.PartitionPlace(0, None, None, 3, ("1", "2"))
                return topics.TopicDescription(message.topic, "0" * 32, (place,)), b""

            handlers = cut_off.handlers.by_message
            handlers[data.Produce] = knows_nobody  # type: ignore[assignment]
            handlers[topics.CreateTopic] = knows_nobody  # type: ignore[assignment]
            handlers[topics.DescribeTopic] = describes  # type: ignore[assignment]
            async with AsyncClient(f"{first},{second}", options=QUICK) as client:
                await client.ping()  # the one channel that is open leads to the node cut off
                await client.create_topic("events")
                assert (0, 1, False) == await client.append("events", b"x")
            assert "CreateTopic" in asked
            assert len(asked) < 6

    run(main())


READS = (data.Fetch, data.Offsets, data.GetCursor)


def naming(server: Server, leader: str | None) -> None:
    """This node says that `leader` leads every partition."""

    async def describes(message: topics.DescribeTopic, *_: object) -> object:
        place = topics.PartitionPlace(0, None if leader is None else "2", leader, 3, ("1", "2"))
        return topics.TopicDescription(message.topic, "0" * 32, (place,)), b""

    server.handlers.by_message[topics.DescribeTopic] = describes  # type: ignore[assignment]


def following(server: Server, kind: type, times: int = 1 << 30) -> list[int]:
    """This node answers as one that does not lead, so many times; how often it was asked."""
    answers, asked = server.handlers.by_message[kind], []

    async def stale(*arguments: Any) -> Any:
        asked.append(1)
        message, payload = await answers(*arguments)
        if len(asked) <= times:
            message = dataclasses.replace(message, staleness_ms=5000)
        return message, payload

    server.handlers.by_message[kind] = stale
    return asked


@pytest.mark.parametrize("kind", READS, ids=lambda kind: kind.__name__)
def test_the_answer_of_a_leader_that_was_cut_off_is_not_taken_for_the_leaders(
    tmp_path: Path, kind: type
) -> None:
    async def main() -> None:
        async with (
            serving(tmp_path / "off") as (cut_off, first),
            serving(tmp_path / "on") as (leader, second),
        ):
            for address, value in ((first, b"old"), (second, b"new")):
                async with AsyncClient(address, options=QUICK) as client:
                    await client.create_topic("events")
                    await client.append("events", value)
                    if value == b"new":
                        await client.append("events", b"newer")
                        await client.commit_cursor("events", "job", 2)
            following(cut_off, kind)
            naming(cut_off, None)
            naming(leader, second)
            async with AsyncClient(f"{first},{second}", options=QUICK) as client:
                client.router._leaders["events", 0] = parse_address(first)
                if kind is data.Fetch:
                    found = await client.read("events", 0)
                    assert [b"new", b"newer"] == [record.value for record in found]
                elif kind is data.Offsets:
                    assert 2 == (await client.watermarks("events")).committed
                else:
                    assert 2 == await client.cursor_offset("events", "job")
                assert parse_address(second) == client.router._leaders["events", 0]

    run(main())


def test_when_no_node_names_a_leader_what_a_node_knows_is_taken(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (server, client):
            await client.create_topic("events")
            await client.append("events", b"x")
            naming(server, None)
            client.router._servers.append(Address("127.0.0.1", 1))  # it is away
            client.router.forget("events")
            asked = {kind: following(server, kind) for kind in READS}
            assert [b"x"] == [record.value for record in await client.read("events", 0)]
            assert 1 == (await client.watermarks("events")).committed
            assert await client.cursor_offset("events", "job") is None
            assert [1, 1, 1] == [len(times) for times in asked.values()]

    run(main())


def test_a_leader_that_does_not_know_yet_what_is_committed_is_asked_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (server, client):
            await client.create_topic("events")
            await client.append("events", b"x")
            naming(server, str(client.router._servers[0]))
            asked = following(server, data.Offsets, times=2)
            assert 1 == (await client.watermarks("events")).committed
            assert 3 == len(asked)

    run(main())


def test_an_unknown_outcome_is_asked_again_where_that_does_no_harm(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (server, client):
            await client.create_topic("events")
            await client.append("events", b"x")
            server.handlers.append = lambda *_: False  # type: ignore[method-assign]
            for kind in (data.Fetch, data.CommitCursor, data.Produce):
                once_unknown(server, kind)
            assert 1 == len(await client.read("events", 0, consistency="linearizable"))
            await client.commit_cursor("events", "job", 1)
            with pytest.raises(UnknownOutcomeError):
                await client.append("events", b"y", expected_offset=1)

    run(main())


def carried_out(server: Server, kind: type, error: ChronikError) -> list[int]:
    """The first request of a kind is carried out, and then fails with `error`; how many came."""
    handler, asked = server.handlers.by_message[kind], []

    async def failing(*arguments: Any) -> Any:
        asked.append(1)
        answer = await handler(*arguments)
        if len(asked) == 1:
            raise error
        return answer

    server.handlers.by_message[kind] = failing
    return asked


def test_a_topic_that_may_have_been_made_is_not_asked_for_again(tmp_path: Path) -> None:
    """It would be told that its own topic exists."""

    async def main() -> None:
        async with connected(tmp_path) as (server, client):
            done = UnavailableError("it is committed, and not in force here after 10 s")
            asked = carried_out(server, topics.CreateTopic, done)
            with pytest.raises(UnavailableError, match="committed"):
                await client.create_topic("events")
            assert [1] == asked
            asked = carried_out(server, topics.DeleteTopic, done)
            with pytest.raises(UnavailableError, match="committed"):
                await client.delete_topic("events")
            assert [1] == asked
            asked = carried_out(server, topics.CreateTopic, done)
            await client.create_topic("events", exist_ok=True)
            assert [1, 1] == asked
            server.handlers.append = lambda *_: False  # type: ignore[method-assign]
            asked = carried_out(server, data.Produce, UnavailableError("this node is stopping"))
            with pytest.raises(UnknownOutcomeError):
                await client.append("events", b"x", expected_offset=0)
            assert 1 == (await client.watermarks("events")).committed

    run(main())


def test_what_was_never_sent_is_certainly_not_done() -> None:
    """Its outcome was said to be unknown, and its caller sent to look for it in the log."""

    async def main() -> None:
        nowhere = dataclasses.replace(QUICK, retry_seconds=0.05)
        async with AsyncClient("127.0.0.1:1", options=nowhere) as client:
            for call in (
                client.append("events", b"x", expected_offset=0),
                client.create_topic("events"),
            ):
                with pytest.raises(ConnectionLostError, match="cannot connect") as caught:
                    await call
                assert "not_durable" == caught.value.durability
            with pytest.raises(ConnectionLostError) as caught:
                await client.commit_cursor("events", "job", 1)  # an attempt before may have done it
            assert caught.value.durability is None

    run(main())


def test_what_was_certainly_not_done_is_asked_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (server, client):
            create, asked = server.handlers.by_message[topics.CreateTopic], []

            async def not_yet(*arguments: Any) -> Any:
                asked.append(1)
                if len(asked) == 1:
                    raise UnavailableError("not known here yet", durability="not_durable")
                return await create(*arguments)

            server.handlers.by_message[topics.CreateTopic] = not_yet
            await client.create_topic("events")
            assert [1, 1] == asked

    run(main())


def test_a_search_has_its_deadline_to_answer(tmp_path: Path) -> None:
    """The connection does not count as lost before that."""
    options = dataclasses.replace(QUICK, request_seconds=0.3, retry_seconds=0.0)

    async def main() -> None:
        async with connected(tmp_path, options=options) as (server, client):
            await client.create_topic("events")
            search = server.handlers.by_message[data.Search]

            async def thorough(*arguments: Any) -> Any:
                await asyncio.sleep(0.6)
                return await search(*arguments)

            server.handlers.by_message[data.Search] = thorough
            assert 0 == (await client.search("events", "nothing", deadline_seconds=15.0)).total

    run(main())


def test_a_time_without_end_can_be_asked_for_and_what_is_no_time_cannot(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path, options=QUICK) as (_, client):
            await client.create_topic("events")
            for_ever = await client.search("events", "nothing", deadline_seconds=math.inf)
            assert 0 == for_ever.total
            for wrong in (math.nan, -1.0):
                with pytest.raises(ValueError, match="deadline_seconds is"):
                    await client.search("events", "nothing", deadline_seconds=wrong)
                with pytest.raises(ValueError, match="wait_seconds is"):
                    await client.read("events", 0, wait_seconds=wrong)
                with pytest.raises(ValueError, match="wait_seconds is"):
                    await client.consumer("events", wait_seconds=wrong)
            with pytest.raises(ConfigError, match="cannot be asked"):
                await client.read("events", 0, wait_seconds=math.inf)

    run(main())


def test_a_search_has_the_time_of_the_servers_own_setting(tmp_path: Path) -> None:
    """Which the client does not know, but for the welcome; 30 s were all that it waited."""
    options = dataclasses.replace(QUICK, request_seconds=0.3, retry_seconds=0.0)

    async def main() -> None:
        async with connected(tmp_path, options=options, search_seconds=5.0) as (server, client):
            await client.create_topic("events")
            search, deadlines = server.handlers.by_message[data.Search], []

            async def thorough(request: data.Search, *others: Any) -> Any:
                await asyncio.sleep(1.0)
                return await search(request, *others)

            async def noted(request: data.Search) -> Any:
                deadlines.append(request.deadline_ms)
                return await asked(request)

            asked = server.backend.search
            server.backend.search = noted  # type: ignore[method-assign]
            server.handlers.by_message[data.Search] = thorough
            assert 0 == (await client.search("events", "nothing")).total
            assert [5000] == deadlines, "what the client was told is what is kept"

    run(main())


@pytest.mark.parametrize("message", [topics.CreateTopic, topics.DeleteTopic, cluster.Status])
def test_what_may_take_long_by_its_nature_costs_no_connection(
    tmp_path: Path, message: type
) -> None:
    """A topic goes when the pipeline's run has ended; what else was asked there went with it."""
    options = dataclasses.replace(QUICK, request_seconds=0.3, retry_seconds=0.0)

    async def main() -> None:
        async with connected(tmp_path, options=options) as (server, client):
            await client.create_topic("events")
            handler = server.handlers.by_message[message]

            async def slow(*arguments: Any) -> Any:
                await asyncio.sleep(1.0)
                return await handler(*arguments)

            server.handlers.by_message[message] = slow
            call = {
                topics.CreateTopic: client.create_topic("other"),
                topics.DeleteTopic: client.delete_topic("events"),
                cluster.Status: client.status(),
            }
            await call.pop(message)
            for left in call.values():
                left.close()

    run(main())


def test_a_node_that_is_gone_is_noticed_while_a_patient_question_waits(tmp_path: Path) -> None:
    options = dataclasses.replace(QUICK, request_seconds=0.3, retry_seconds=0.0)

    async def main() -> None:
        async with connected(tmp_path, options=options) as (server, client):
            pings = []

            async def never(request: Any, _: Any) -> Any:
                pings.append(request)
                await asyncio.sleep(60)

            for kind in (greeting.Ping, cluster.Status):
                server.handlers.by_message[kind] = never
            async with asyncio.timeout(5):
                with pytest.raises(ConnectionLostError, match=r"not answered for 0\.3 s"):
                    await asyncio.gather(client.status(), client.status())
            assert 1 == sum(isinstance(each, greeting.Ping) for each in pings)

    run(main())


@pytest.mark.parametrize("kind", READS, ids=lambda kind: kind.__name__)
def test_a_node_that_hangs_does_not_take_all_the_patience_of_a_call(
    tmp_path: Path, kind: type
) -> None:
    """With `retry_seconds` no longer than `request_seconds`, as they are unless somebody says
    otherwise, nothing was asked again: consumers ended with the first node that hung.
    """
    options = dataclasses.replace(QUICK, request_seconds=0.4, retry_seconds=0.4)

    async def main() -> None:
        async with connected(tmp_path, options=options) as (server, client):
            await client.create_topic("events")
            await client.append("events", b"x")
            await client.commit_cursor("events", "job", 0)
            answers, hung = server.handlers.by_message[kind], []

            async def hangs_once(*_: Any) -> Any:
                server.handlers.by_message[kind] = answers
                hung.append(kind)
                await asyncio.sleep(60)

            server.handlers.by_message[kind] = hangs_once
            async with await client.consumer("events", cursor="job") as consumer:
                assert [b"x"] == [each.record.value async for each in consumer]
            assert [kind] == hung

    run(main())


def once_unknown(server: Server, kind: type) -> None:
    handler = server.handlers.by_message[kind]

    async def unknown(*_: object) -> Any:
        server.handlers.by_message[kind] = handler
        raise UnknownOutcomeError("this node led no more before it was confirmed")

    server.handlers.by_message[kind] = unknown


@pytest.mark.parametrize("times", [1, 1 << 30], ids=["another leads by now", "it still leads"])
def test_a_leader_of_the_metadata_whose_certificate_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Who leads was looked up as that of a topic without a name, which was said to be missing."""
    opening = Channel.open

    async def distrusting(address: Address, *given: Any, **options: Any) -> Channel:
        if address.port == 1:
            raise CertificateError("its certificate is not believed")
        return await opening(address, *given, **options)

    monkeypatch.setattr(Channel, "open", distrusting)

    async def main() -> None:
        async with connected(tmp_path) as (server, client):
            create, asked = server.handlers.by_message[topics.CreateTopic], []

            async def elsewhere(*arguments: Any) -> Any:
                asked.append(1)
                if len(asked) > times:
                    return await create(*arguments)
                raise NotLeaderError("ask node 2", node_id="2", address="127.0.0.1:1")

            server.handlers.by_message[topics.CreateTopic] = elsewhere
            if times == 1:
                await client.create_topic("events")
            else:
                with pytest.raises(CertificateError):
                    await client.create_topic("events")
            assert 2 == len(asked)

    run(main())
