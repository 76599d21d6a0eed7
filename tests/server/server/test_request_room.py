"""What all connections of a server may make it hold of requests, and that each gets its turn."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from pathlib import Path
from typing import Any

from chronik_server.client import AsyncClient
from chronik_server.protocol import data
from chronik_server.protocol.events import Request, Response
from chronik_server.protocol.verbs import Verb
from chronik_server.request_room import RequestBudget, Requests
from chronik_store.format.record_batch import RecordBatch
from tests.server.server.test_limits import Raw, until_nobody_is_there
from tests.server.serving import QUICK, run, serving

MIB = 1 << 20


class Reader:
    """A connection that is read from while it may be."""

    def __init__(self, budget: RequestBudget, limit: int = 1000) -> None:
        self.requests = Requests(budget, limit, self.steer)
        self.reads = True

    def steer(self) -> None:
        self.reads = self.requests.may_read()

    def begin(self, size: int) -> None:
        self.requests.begin(size)
        self.steer()

    def arrived(self, size: int) -> None:
        self.requests.arrived(size)
        self.steer()

    def end(self, size: int) -> None:
        self.requests.end(size)
        self.steer()


def test_over_the_limit_of_all_who_holds_more_than_a_share_is_not_read_from() -> None:
    budget = RequestBudget(100)
    one, two, three = (Reader(budget) for _ in range(3))
    one.begin(60)
    two.begin(60)
    one.steer()
    assert [False, False, True] == [each.reads for each in (one, two, three)]
    three.begin(33)
    assert three.reads
    three.begin(1)
    assert not three.reads
    three.end(34)
    assert three.reads
    two.end(60)
    assert [True, True, True] == [each.reads for each in (one, two, three)]
    one.end(60)
    assert 0 == budget.used


def test_of_those_who_have_begun_a_frame_one_goes_on_in_the_order_of_their_coming() -> None:
    """All of them would wait for the others to finish."""
    budget = RequestBudget(100)
    first, second, third = (Reader(budget) for _ in range(3))
    for each in (first, second, third):
        each.arrived(50)
    for each in (first, second):
        each.steer()
    assert [True, False, False] == [each.reads for each in (third, first, second)]
    third.begin(80)
    third.arrived(0)
    assert [False, True, False] == [each.reads for each in (third, first, second)]
    first.requests.leave()
    assert second.reads


def test_a_node_is_read_from_whatever_clients_hold() -> None:
    budget = RequestBudget(100)
    client, node = Reader(budget), Reader(budget)
    node.requests.is_exempt = True
    client.begin(500)
    node.arrived(500)
    assert [False, True] == [client.reads, node.reads]


def test_whatever_happens_in_which_order_somebody_can_go_on_and_nothing_is_left() -> None:
    chance = random.Random(11)
    for _ in range(200):
        budget = RequestBudget(100)
        readers = [Reader(budget, 70) for _ in range(5)]
        open_: dict[Reader, list[int]] = {each: [] for each in readers}
        for _ in range(200):
            able = [each for each in readers if each.reads]
            busy = [each for each in readers if open_[each]]
            assert able or busy, "everybody waits for the others"
            assert budget.used == sum(each.requests.held for each in readers)
            one = chance.choice(able or busy)
            what = chance.choice(["arrive", "begin", "end"])
            if what == "arrive" and one.reads:
                one.arrived(one.requests.arriving + chance.randint(1, 40))
            elif what == "begin" and one.reads:
                open_[one].append(one.requests.arriving or 1)
                one.begin(open_[one][-1])
                one.arrived(0)
            elif open_[one]:
                one.end(open_[one].pop())
        for each in readers:
            each.requests.leave()
            for size in open_[each]:
                each.requests.end(size)
        assert 0 == budget.used


def test_many_who_append_at_once_hold_no_more_together_than_the_limit(tmp_path: Path) -> None:
    """Each might have 64 MiB on its way."""

    async def main() -> None:
        async with serving(tmp_path, requests_bytes_max=MIB) as (server, address):
            async with AsyncClient(address, options=QUICK) as client:
                await client.create_topic("events")
            opening, go_on = server.backend.known_partition, asyncio.Event()
            partition = server.backend.partition

            async def slowly(*which: Any) -> Any:
                await go_on.wait()
                return await partition(*which)

            server.backend.known_partition = lambda *_: None  # type: ignore[method-assign]
            server.backend.partition = slowly  # type: ignore[method-assign]
            batch = RecordBatch.build([b"x" * 50_000]).buffer
            raws = [await Raw.open(address) for _ in range(10)]
            for raw in raws:
                for number in range(2, 12):
                    raw.say(Request(number, Verb.PRODUCE, data.Produce("events"), batch))
            for _ in range(40):
                await asyncio.sleep(0.01)
            assert MIB < server.requests.used < 2 * MIB
            late = await Raw.open(address)
            late.say(Request(2, Verb.PRODUCE, data.Produce("events"), batch))
            server.backend.known_partition = opening  # type: ignore[method-assign]
            go_on.set()
            assert all(isinstance(each, Response) for each in await late.hear())
            for raw in raws:
                answered = 0
                while answered < 10:
                    answered += sum(isinstance(each, Response) for each in await raw.hear())
            async with AsyncClient(address, options=QUICK) as client:
                assert 101 == (await client.watermarks("events")).committed
            for raw in (*raws, late):
                raw.writer.close()
            await until_nobody_is_there(server)
            assert 0 == server.requests.used

    run(main())


def test_a_connection_that_is_gone_is_held_by_nobody(tmp_path: Path) -> None:
    """With the frame that it had begun, which may be long: not until somebody looks for garbage."""

    async def main() -> None:
        async with serving(tmp_path) as (server, address):
            raw = await Raw.open(address)
            (session,) = map(weakref.ref, server.sessions)
            batch = RecordBatch.build([b"x" * MIB]).buffer
            request = Request(2, Verb.PRODUCE, data.Produce("events"), batch)
            whole = b"".join(bytes(part) for part in raw.connection.send(request))
            raw.writer.write(whole[:-1])
            while not server.requests.used:  # noqa: ASYNC110 (`run` bounds it)
                await asyncio.sleep(0.01)
            raw.writer.close()
            await until_nobody_is_there(server)
            await asyncio.sleep(0.01)
            assert session() is None

    gc.collect()
    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


def test_long_frames_that_are_never_finished_keep_nobody_else_out(tmp_path: Path) -> None:
    """They stall one after the other, until their time is over; who asks little is served."""
    settings: dict[str, Any] = {"requests_bytes_max": MIB, "frame_seconds": 0.3}

    async def main() -> None:
        async with serving(tmp_path, **settings) as (server, address):
            batch = RecordBatch.build([b"x" * (4 * MIB)]).buffer
            stalled = [await Raw.open(address) for _ in range(3)]
            for raw in stalled:
                request = Request(2, Verb.PRODUCE, data.Produce("events"), batch)
                whole = b"".join(bytes(part) for part in raw.connection.send(request))
                raw.writer.write(whole[: MIB // 2])
            async with AsyncClient(address, options=QUICK) as client:
                await client.create_topic("events")
                assert 0 == (await client.append("events", b"x" * 10_000)).base_offset
            assert server.requests.used < 2 * MIB
            for raw in stalled:
                assert "not finished" in str(await raw.last_word())
            await until_nobody_is_there(server)
            assert 0 == server.requests.used

    run(main())
