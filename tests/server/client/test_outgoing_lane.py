"""The lane of one producer: no task while nothing goes wrong, its loop when something does, and
from one to the other nothing is lost, doubled or out of order.
"""

import asyncio
import dataclasses
from contextlib import asynccontextmanager

import pytest

from chronik_server.client import AsyncClient
from chronik_server.client.outgoing import OutgoingLane, outcome
from chronik_server.errors import NotLeaderError, UnknownOutcomeError
from chronik_server.protocol.data import Produce
from chronik_store.errors import RecordTooLargeError, UnavailableError
from chronik_store.format.record_batch import RecordBatch, StoredBatch
from tests.server.serving import QUICK, connected, run, serving

IMPATIENT = {"request_seconds": 0.3, "retry_seconds": 10.0}
"""Of each answer, not of the call."""


def batch(number):
    return RecordBatch.build([b"%d" % number])


@asynccontextmanager
async def lane_of(tmp_path, acks="quorum", **options):
    """A server, its client, and a lane that has found its way: its first batch is stored."""
    options = dataclasses.replace(QUICK, **options)
    async with connected(tmp_path, options=options) as (server, client):
        await client.create_topic("events")
        lane = OutgoingLane(client.router, ("events", 0), acks)
        await lane.submit(batch(0))
        yield server, client, lane


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
        async with lane_of(tmp_path) as (_, _, lane):
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
        async with lane_of(tmp_path) as (_, client, lane):
            sent = [lane.submit(batch(n)) for n in range(1, 40)]
            return [(await each).base_offset for each in sent], await values(client)

    offsets, found = run(main())

    assert list(range(1, 40)) == offsets
    assert [b"%d" % n for n in range(40)] == found


def test_what_is_refused_once_is_sent_again_with_all_behind_it(tmp_path):
    async def main():
        async with lane_of(tmp_path) as (server, client, lane):
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
        async with lane_of(tmp_path) as (server, client, lane):
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
        async with lane_of(tmp_path, **IMPATIENT) as (server, client, lane):
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


def test_who_owes_an_answer_behind_one_that_failed_is_given_up_too(tmp_path):
    async def main():
        async with lane_of(tmp_path, **IMPATIENT) as (server, client, lane):
            append, heard = server.handlers.append, []

            def failing(*arguments):
                heard.append(arguments)
                if len(heard) == 1:
                    raise NotLeaderError("led by nobody")
                return True if len(heard) == 2 else append(*arguments)

            server.handlers.append = failing
            sent = [lane.submit(batch(n)) for n in (1, 2)]
            async with asyncio.timeout(5):
                offsets = [(await each).base_offset for each in sent]
            return offsets, await values(client)

    offsets, found = run(main())

    assert [1, 2] == offsets
    assert [b"0", b"1", b"2"] == found


def test_batches_that_wait_behind_one_that_nobody_takes_do_not_each_begin_anew(tmp_path):
    async def main():
        async with lane_of(tmp_path, retry_seconds=0.5) as (server, _, lane):
            append, loop = server.handlers.append, asyncio.get_running_loop()

            def refusing(*_):
                raise UnavailableError("not now", durability="not_durable")

            server.handlers.append = refusing
            begun = loop.time()
            sent = [lane.submit(batch(n)) for n in range(1, 20)]
            await asyncio.sleep(0.3)
            late = lane.submit(batch(20))
            await asyncio.wait(sent)
            seconds, is_early = loop.time() - begun, late.done()
            server.handlers.append = append
            return seconds, is_early, [outcome(each) for each in sent], await late

    seconds, is_early, outcomes, late = run(main())

    assert seconds < 2  # once retry_seconds, not once for each
    assert {UnavailableError} == set(map(type, outcomes))
    assert {"not_durable"} == {each.durability for each in outcomes}
    assert not is_early  # it has been tried for less than that
    assert 1 == late.base_offset


def test_a_batch_that_may_be_stored_is_not_called_lost_by_one_that_is(tmp_path):
    """They are given up for the same reason, and each with an outcome of its own."""

    async def main():
        async with lane_of(tmp_path, retry_seconds=0.3) as (server, _, lane):

            def failing(*_):
                raise UnavailableError("a quorum has not answered", durability="unknown")

            server.handlers.append = failing
            sent = [lane.submit(batch(n)) for n in range(1, 8)]  # two more than the window
            await asyncio.wait(sent)
            return [outcome(each).durability for each in sent]

    assert ["unknown"] * 5 + ["not_durable"] * 2 == run(main())


def test_acks_none_is_not_told_for_ever_to_who_does_not_listen(tmp_path):
    async def main():
        async with lane_of(tmp_path, acks="none", request_seconds=0.5) as (server, _, lane):
            for session in server.sessions:
                session._transport.pause_reading()
            big = RecordBatch.build([bytes(16 << 20)])
            async with asyncio.timeout(10):
                return [await lane.submit(big) for _ in range(3)]

    assert [(-1, -1, False)] * 3 == run(main())


@pytest.mark.parametrize("listens", [True, False], ids=["late", "never"])
def test_a_client_that_closes_sees_off_what_it_has_told(tmp_path, listens):
    """Nobody answers it, so nothing else says whether it has left."""

    async def main():
        options = dataclasses.replace(QUICK, request_seconds=1.0 if not listens else 10.0)
        async with serving(tmp_path) as (server, address):
            client = AsyncClient(address, options=options)
            await client.create_topic("events")
            await client.append("events", b"first")
            (session,) = server.sessions
            session._transport.pause_reading()
            big = RecordBatch.build([bytes(16 << 20)])
            await client.append("events", big, acks="none")
            loop = asyncio.get_running_loop()
            if listens:
                loop.call_later(0.3, session._transport.resume_reading)
            begun = loop.time()
            await client.close()
            seconds = loop.time() - begun
            if not listens:
                session.abort()
                return seconds, 2
            async with AsyncClient(address, options=QUICK) as other:
                for _ in range(100):
                    if (stored := (await other.watermarks("events")).committed) == 2:
                        break
                    await asyncio.sleep(0.05)
            return seconds, stored

    seconds, stored = run(main())

    assert 2 == stored
    assert (0.2 < seconds < 8) if listens else (0.9 < seconds < 5)


def held_back(server):
    """The server takes each produce to hand, and answers it once the event is set."""
    produce, go_on = server.handlers.by_message[Produce], asyncio.Event()

    async def waiting(*arguments):
        await go_on.wait()
        return await produce(*arguments)

    server.handlers.by_message[Produce] = waiting
    return go_on


def hearing(server):
    """The values of every produce that reaches the server, as it comes."""
    produce, heard = server.handlers.by_message[Produce], []

    def listening(message, payload):
        heard.extend(record.value for record in StoredBatch(payload, 0, 0).records())
        return produce(message, payload)

    server.handlers.by_message[Produce] = listening
    return heard


def test_acks_none_is_told_once(tmp_path):
    """It has no sequence: the log would take a repetition for another batch."""

    async def main():
        async with connected(tmp_path) as (server, client):
            await client.create_topic("events")
            lane = OutgoingLane(client.router, ("events", 0), "none")
            heard = hearing(server)
            outcomes = [await each for each in [lane.submit(batch(n)) for n in range(12)]]
            await client.ping()  # on the same connection, behind them
            return outcomes, heard

    outcomes, heard = run(main())

    assert {(-1, -1, False)} == set(outcomes)
    assert [b"%d" % n for n in range(12)] == heard


def test_acks_none_of_a_batch_that_no_frame_takes_is_that_batchs_error(tmp_path):
    async def main():
        async with connected(tmp_path, frame_bytes_max=1 << 20) as (server, client):
            await client.create_topic("events")
            heard = hearing(server)
            lane = OutgoingLane(client.router, ("events", 0), "none")
            big = RecordBatch.build([bytes(2 << 20)])
            sent = [lane.submit(each) for each in (batch(0), big, batch(1))]
            outcomes = await asyncio.gather(*sent, return_exceptions=True)
            await client.ping()
            return outcomes, heard

    (first, refused, second), heard = run(main())

    assert isinstance(refused, RecordTooLargeError)
    assert "not_durable" == refused.durability
    assert first == second
    assert [b"0", b"1"] == heard


@pytest.mark.parametrize("posted", [True, False], ids=["posted", "on its way to be"])
@pytest.mark.parametrize("call", ["flush", "close"])
def test_who_gives_up_a_flush_takes_nothing_from_those_who_wait(tmp_path, call, posted):
    async def main():
        async with connected(tmp_path) as (server, client):
            await client.create_topic("events")
            lane = OutgoingLane(client.router, ("events", 0), "quorum")
            if posted:  # the way is known: no task is needed
                await lane.submit(batch(9))
            go_on = held_back(server)
            sent = [lane.submit(batch(n)) for n in range(3)]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(getattr(lane, call)(), 0.05)
            assert not any(each.done() for each in sent)
            go_on.set()
            return [(await each).base_offset for each in sent]

    assert [posted, posted + 1, posted + 2] == run(main())


def test_appends_outlive_the_close_of_their_client_that_is_given_up(tmp_path):
    """Both faces: those that share a batch, and the records of a producer."""

    async def main():
        async with connected(tmp_path) as (server, client):
            await client.create_topic("events")
            go_on = held_back(server)
            producer = await client.producer("events", linger_seconds=0)
            waiting = [asyncio.ensure_future(client.append("events", b"a")) for _ in range(3)]
            waiting += [asyncio.ensure_future(producer.append(b"p")) for _ in range(3)]
            await asyncio.sleep(0.02)
            for close in (client.close(), producer.flush()):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(close, 0.05)
            go_on.set()
            await asyncio.gather(*waiting)
            return await values(client)

    assert [b"a"] * 3 + [b"p"] * 3 == sorted(run(main()))


def test_a_batch_whose_future_is_cancelled_is_of_unknown_outcome(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            sent = OutgoingLane(client.router, ("events", 0), "quorum").submit(batch(0))
            sent.cancel()
            await asyncio.sleep(0)
            return outcome(sent)

    found = run(main())

    assert isinstance(found, UnknownOutcomeError)
    assert "unknown" == found.durability


@pytest.mark.parametrize("durability", ["not_durable", None])
def test_a_lane_finds_its_way_into_a_topic_that_was_made_anew(tmp_path, durability):
    """It goes on with a sequence that the new log has never heard of, and is turned away first."""

    async def main():
        async with lane_of(tmp_path) as (server, client, lane):
            await client.delete_topic("events")
            await client.create_topic("events")
            produce = server.handlers.by_message[Produce]

            async def being_opened(*_):
                server.handlers.by_message[Produce] = produce
                raise UnavailableError("it is being opened here", durability=durability)

            server.handlers.by_message[Produce] = being_opened
            sent = [lane.submit(batch(n)) for n in (1, 2)]
            outcomes = await asyncio.gather(*sent, return_exceptions=True)
            last = await lane.submit(batch(3))
            return outcomes, last, await values(client)

    outcomes, last, found = run(main())

    if durability == "not_durable":
        assert [0, 1] == [each.base_offset for each in outcomes]
        assert [b"1", b"2", b"3"] == found
    else:  # the first attempt may have been stored in the log that is gone
        assert isinstance(outcomes[0], UnknownOutcomeError)
        assert b"3" == found[last.base_offset]
