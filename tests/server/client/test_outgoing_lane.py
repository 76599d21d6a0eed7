"""The lane of one producer: no task while nothing goes wrong, its loop when something does, and
from one to the other nothing is lost, doubled or out of order.
"""

import asyncio
import dataclasses

from chronik_server.client.outgoing import OutgoingLane
from chronik_server.protocol.data import Produce
from chronik_store.errors import UnavailableError
from chronik_store.format.record_batch import RecordBatch
from tests.server.serving import QUICK, connected, run


def batch(number):
    return RecordBatch.build([b"%d" % number])


async def values(client):
    async with await client.consumer("events") as consumer:
        return [found.record.value async for found in consumer]


def test_a_batch_given_in_the_moment_in_which_the_loop_ends_is_sent(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            lane = OutgoingLane(client.router, ("events", 0), "quorum")
            # Each answer wakes us in the very turn in which the lane's loop ends.
            return [await lane.submit(batch(n)) for n in range(5)]

    assert [0, 1, 2, 3, 4] == [found.base_offset for found in run(main())]


def test_once_the_way_is_known_a_batch_needs_no_task(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            lane = OutgoingLane(client.router, ("events", 0), "quorum")
            await lane.submit(batch(0))
            await asyncio.sleep(0)
            before = asyncio.all_tasks()
            sent = [lane.submit(batch(n)) for n in range(1, 4)]
            during = asyncio.all_tasks()
            return during - before, [(await each).base_offset for each in sent]

    tasks, offsets = run(main())

    assert set() == tasks
    assert [1, 2, 3] == offsets


def test_more_than_the_window_keeps_its_order(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            lane = OutgoingLane(client.router, ("events", 0), "quorum")
            await lane.submit(batch(0))
            sent = [lane.submit(batch(n)) for n in range(1, 40)]
            return [(await each).base_offset for each in sent], await values(client)

    offsets, found = run(main())

    assert list(range(1, 40)) == offsets
    assert [b"%d" % n for n in range(40)] == found


def test_what_is_refused_once_is_sent_again_with_all_behind_it(tmp_path):
    async def main():
        async with connected(tmp_path) as (server, client):
            await client.create_topic("events")
            lane = OutgoingLane(client.router, ("events", 0), "quorum")
            await lane.submit(batch(0))
            append, refusals = server.handlers.append, 2

            def refusing(*arguments):
                nonlocal refusals
                refusals -= 1
                if refusals >= 0:
                    raise UnavailableError("not now", durability="not_durable")
                return append(*arguments)

            server.handlers.append = refusing
            sent = [lane.submit(batch(n)) for n in range(1, 6)]
            offsets = [(await each).base_offset for each in sent]
            after = [(await lane.submit(batch(n))).base_offset for n in (6, 7)]
            return offsets, after, await values(client)

    offsets, after, found = run(main())

    assert ([1, 2, 3, 4, 5], [6, 7]) == (offsets, after)
    assert [b"%d" % n for n in range(8)] == found


def test_what_is_given_while_the_lane_closes_is_waited_for(tmp_path):
    async def main():
        async with connected(tmp_path) as (server, client):
            await client.create_topic("events")
            lane = OutgoingLane(client.router, ("events", 0), "quorum")
            await lane.submit(batch(0))
            produce, delays = server.handlers.by_message[Produce], [0.0, 0.2]

            async def delayed(*arguments):
                await asyncio.sleep(delays.pop(0))
                return await produce(*arguments)

            server.handlers.by_message[Produce] = delayed
            first = lane.submit(batch(1))
            closing = asyncio.create_task(lane.close())
            await asyncio.sleep(0)
            late = lane.submit(batch(2))
            await closing
            return first.done() and late.done(), await values(client)

    done, found = run(main())

    assert done
    assert [b"0", b"1", b"2"] == found


def test_a_node_that_does_not_answer_is_given_up_and_asked_again(tmp_path):
    async def main():
        options = dataclasses.replace(QUICK, request_seconds=0.3, retry_seconds=10.0)
        async with connected(tmp_path, options=options) as (server, client):
            await client.create_topic("events")
            lane = OutgoingLane(client.router, ("events", 0), "quorum")
            await lane.submit(batch(0))
            append = server.handlers.append
            server.handlers.append = lambda *_: True  # begun, and never ended
            sent = [lane.submit(batch(n)) for n in (1, 2)]
            await asyncio.sleep(0.1)
            server.handlers.append = append
            offsets = [(await each).base_offset for each in sent]
            return offsets, await values(client)

    offsets, found = run(main())

    assert [1, 2] == offsets
    assert [b"0", b"1", b"2"] == found
