"""A consumer's answers at a time: nothing is left out, nobody starves, and what the wire says is
checked.
"""

import asyncio
import dataclasses
import gc

import pytest

from chronik_server.client import Client, partition_lane
from chronik_server.client.fetching import batches_of, records_of
from chronik_server.protocol.data import Fetch, Offsets
from chronik_store.errors import (
    CorruptionError,
    FutureVersionError,
    LogClosedError,
    OffsetOutOfRangeError,
    UnavailableError,
)
from chronik_store.format.batch_layout import (
    BATCH_HEADER_BYTES,
    column_lengths,
    column_starts,
    parse_header,
    restamped,
)
from chronik_store.format.entry import encode_entry_header
from chronik_store.format.record_batch import RecordBatch
from tests.server.serving import QUICK, connected, run, serving


async def take_all(consumer, found):
    """Add (partition, offset) of every record to `found`, also when it raises."""
    async for item in consumer:
        found.append((item.partition, item.record.offset))


async def filled(client, partitions, count):
    await client.create_topic("events", partitions=partitions)
    for number in range(partitions):
        for first in range(0, count, 50):
            values = [b"%d/%d" % (number, place) for place in range(first, first + 50)]
            await client.append("events", values, partition=number)


def test_runs_hold_what_iterating_gives_in_order(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await filled(client, 3, 200)
            async with await client.consumer("events", fetch_bytes=1000) as consumer:
                runs = [run async for run in consumer.runs()]
                positions = consumer.positions()
            return runs, positions

    runs, positions = run(main())

    for number in range(3):
        mine = [record for found in runs if found.partition == number for record in found.records]
        assert list(range(200)) == [record.offset for record in mine]
        assert [b"%d/%d" % (number, place) for place in range(200)] == [r.value for r in mine]
    assert dict.fromkeys(range(3), 200) == positions
    assert len(runs) >= 6


def test_a_partition_that_is_always_ready_does_not_starve_the_others(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await filled(client, 3, 500)
            async with await client.consumer("events", fetch_bytes=1000) as consumer:
                order = []
                async for found in consumer.runs():
                    order.append(found.partition)
                    await asyncio.sleep(0.01)  # the next answers are here before we ask
            return order

    order = run(main())

    assert [{0, 1, 2}] * 3 == [set(order[at : at + 3]) for at in (0, 3, 6)], order


def test_seeking_within_a_run_drops_its_rest(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await filled(client, 1, 100)
            async with await client.consumer("events") as consumer:
                found = []
                async for item in consumer:
                    found.append(item.record.offset)
                    if len(found) == 3:
                        await consumer.seek(0, 98)
            return found

    assert [0, 1, 2, 98, 99] == run(main())


def test_who_stops_in_the_middle_and_iterates_again_misses_nothing(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await filled(client, 1, 400)
            found, places = [], []
            async with await client.consumer("events", fetch_bytes=2000) as consumer:
                for wanted in (3, 57, 1, 200):
                    async for item in consumer:
                        found.append(item.record.offset)
                        if len(found) >= wanted:
                            break
                    places.append(consumer.positions()[0])
                run = await consumer.take_run()
                found += [record.offset for record in run.records]
                found += [each.record.offset async for each in consumer]
            return found, places

    found, places = run(main())

    assert list(range(400)) == found
    assert [3, 57, 58, 200] == places


def test_blocking_misses_nothing_either(tmp_path):
    def work(address):
        with Client(address, options=QUICK) as client:
            client.create_topic("events")
            for _ in range(4):
                client.append("events", [b"%d" % number for number in range(100)])
            found = []
            with client.consumer("events", fetch_bytes=1000) as consumer:
                for item in consumer:
                    found.append(item.record.offset)
                    if len(found) == 150:
                        break
                found += [record.offset for run in consumer.runs() for record in run.records]
            return found

    async def main():
        async with serving(tmp_path) as (_, address):
            return await asyncio.to_thread(work, address)

    assert list(range(400)) == run(main())


def test_a_run_is_a_batch_or_some_small_ones(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            for size in (100_000, 100_000, 300_000, 10, 10):
                await client.append("events", [b"x" * (size // 2)] * 2)
            async with await client.consumer("events", start=1) as consumer:
                return [[r.offset for r in run.records] async for run in consumer.runs()]

    assert [[1, 2, 3], [4, 5], [6, 7, 8, 9]] == run(main())


def test_the_next_question_is_on_its_way_before_an_answer_is_handed_out(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await filled(client, 1, 400)
            channel = await client.router.leader_channel(("events", 0))
            async with await client.consumer("events", fetch_bytes=1000) as consumer:
                run = await consumer.take_run()
                return run.records[0].offset, channel.in_flight, channel.backlog_bytes

    assert (0, 1, 0) == run(main())


def test_blocking_commits_only_what_was_handed_out(tmp_path):
    def work(address):
        with Client(address, options=QUICK) as client:
            client.create_topic("events")
            client.append("events", [b"%d" % number for number in range(100)])
            with client.consumer("events", cursor="c") as consumer:
                for item in consumer:
                    if item.record.offset == 41:
                        break
                consumer.commit()
            with client.consumer("events", cursor="c") as consumer:
                rest = [record.offset for found in consumer.runs() for record in found.records]
                consumer.commit()
            return rest, client.cursor_offset("events", "c")

    async def main():
        async with serving(tmp_path) as (_, address):
            return await asyncio.to_thread(work, address)

    assert (list(range(42, 100)), 100) == run(main())


def test_a_batch_with_a_good_checksum_and_bad_columns_is_refused():
    batch = RecordBatch.build([b"abc", b"def"])
    header = parse_header(batch.buffer)
    damaged = bytearray(batch.buffer)
    place = BATCH_HEADER_BYTES + column_starts(column_lengths(header))[4] + 4
    damaged[place] = 200  # the first value ends behind the second
    payload = restamped(damaged, header)
    entry = encode_entry_header(1, 1, 1, 0, 2, 5, payload) + payload

    assert [b"abc", b"def"] == [
        record.value
        for record in records_of(
            encode_entry_header(1, 1, 1, 0, 2, 5, batch.buffer) + batch.buffer, 0
        )
    ]
    with pytest.raises(CorruptionError, match="value offsets do not rise"):
        records_of(entry, 0)


def test_an_answer_that_ends_elsewhere_than_it_says_is_refused(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await filled(client, 1, 50)
            ask = client.router.ask_leader

            async def lying(lane, question, **options):
                answer = await ask(lane, question, **options)
                if hasattr(answer.message, "next_offset"):
                    message = dataclasses.replace(answer.message, next_offset=49)
                    answer = answer._replace(message=message)
                return answer

            client.router.ask_leader = lying
            async with await client.consumer("events") as consumer:
                with pytest.raises(CorruptionError, match="ends at offset 50"):
                    async for _ in consumer.runs():
                        pass

    run(main())


def test_what_was_damaged_on_its_way_is_fetched_again_and_never_passed_over(tmp_path, monkeypatch):
    opened = []

    def flipping(payload, offset):
        opened.append(offset)
        if len(opened) == 3:
            damaged = bytearray(payload)
            damaged[len(damaged) // 2] ^= 1
            payload = bytes(damaged)
        return batches_of(payload, offset)

    monkeypatch.setattr(partition_lane, "batches_of", flipping)

    async def main():
        async with connected(tmp_path) as (_, client):
            await filled(client, 1, 400)
            found = []
            async with await client.consumer("events", fetch_bytes=1000, cursor="job") as consumer:
                with pytest.raises(CorruptionError):
                    await take_all(consumer, found)
                place = len(found)
                assert {0: place} == consumer.positions()
                await consumer.commit()
                assert place == await client.cursor_offset("events", "job")
                await take_all(consumer, found)
                await consumer.commit()
            return (
                place,
                [offset for _, offset in found],
                await client.cursor_offset("events", "job"),
            )

    place, found, cursor = run(main())

    assert 0 < place < 400
    assert list(range(400)) == found
    assert 400 == cursor


def test_what_this_version_cannot_read_is_asked_for_again_and_never_passed_over(
    tmp_path, monkeypatch
):
    """Whoever went on behind the error got the answer after that one, and its cursor with it."""
    opened = []

    def newer(payload, offset):
        opened.append(offset)
        if len(opened) == 3:
            raise FutureVersionError("a batch of version 2; this side reads 1", found=2)
        return batches_of(payload, offset)

    monkeypatch.setattr(partition_lane, "batches_of", newer)

    async def main():
        async with connected(tmp_path) as (_, client):
            await filled(client, 1, 400)
            found = []
            async with await client.consumer("events", fetch_bytes=1000) as consumer:
                with pytest.raises(FutureVersionError):
                    await take_all(consumer, found)
                assert {0: len(found)} == consumer.positions()
                await take_all(consumer, found)
            return [offset for _, offset in found]

    assert list(range(400)) == run(main())


@pytest.mark.parametrize("partitions", [1, 2])
def test_whom_retention_overtook_goes_on_where_it_seeks_to(tmp_path, partitions):
    async def main():
        async with connected(tmp_path) as (_, client):
            await filled(client, partitions, 100)
            await client.seal("events")
            await client.append("events", b"later")
            await client.drop_before("events", 50)
            found = []
            async with await client.consumer("events", start=0) as consumer:
                with pytest.raises(OffsetOutOfRangeError) as caught:
                    await take_all(consumer, found)
                await consumer.seek(0, caught.value.first_offset)
                await take_all(consumer, found)
            return found

    found = run(main())

    assert list(range(50, 101)) == [offset for number, offset in found if number == 0]
    assert list(range(100)) * (partitions - 1) == [o for number, o in found if number == 1]


def test_a_node_that_ends_before_the_others_is_not_asked_without_a_pause(tmp_path):
    async def main():
        async with connected(tmp_path) as (server, client):
            await filled(client, 1, 50)
            handler, behind = server.handlers.by_message[Fetch], 50
            asked = 0

            async def knowing_less(message, payload):
                nonlocal asked
                asked += 1
                answer, entries = await handler(message, payload)
                if message.offset >= behind:
                    answer = dataclasses.replace(answer, next_offset=message.offset)
                    entries = []
                return answer, entries

            server.handlers.by_message[Fetch] = knowing_less
            await client.append("events", [b"not known there yet"] * 50)
            async with await client.consumer("events", fetch_bytes=1000) as consumer:
                found = [(await consumer.take_run()) for _ in range(1)]
                while found[-1].records[-1].offset < 49:
                    found.append(await consumer.take_run())
                before = asked
                await asyncio.sleep(0.4)
                during, behind = asked - before, 100
                rest = [record.offset async for run in consumer.runs() for record in run.records]
            return during, rest

    during, rest = run(main())

    assert during <= 3
    assert list(range(50, 100)) == rest


def test_a_closed_consumer_hands_out_nothing_and_keeps_nobody_waiting(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await filled(client, 1, 50)
            unused, used, asked = [await client.consumer("events", follow=True) for _ in range(3)]
            first = await anext(aiter(used))
            await asked.take_run()
            waiting = asyncio.create_task(asked.take_run())
            await asyncio.sleep(0.05)
            for each in (unused, used, asked):
                await each.close()
            calls = [unused.take(), used.take(), waiting, asked.seek(0, 0)]
            async with asyncio.timeout(5):
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
            return first.record.offset, used.positions(), outcomes

    offset, positions, outcomes = run(main())

    assert (0, {0: 1}) == (offset, positions)
    assert [LogClosedError] * 4 == list(map(type, outcomes))


def test_a_consumer_that_is_left_alone_ends_by_itself(tmp_path):
    """Without a word about tasks that nobody ended."""

    async def main():
        async with connected(tmp_path) as (_, client):
            await filled(client, 2, 300)
            said, before = [], asyncio.all_tasks()
            asyncio.get_running_loop().set_exception_handler(lambda _, what: said.append(what))
            consumer = await client.consumer("events", fetch_bytes=1000)
            async for _ in consumer:
                break
            fetching = asyncio.all_tasks() - before
            del consumer
            async with asyncio.timeout(5):
                await asyncio.gather(*fetching)
            fetching.clear()
            gc.collect()
            return said

    assert [] == run(main())


def test_a_consumer_does_not_wait_for_ever_for_what_nobody_knows_any_more(tmp_path):
    """The leader that said where the end is has gone, and too few are left to elect another."""

    async def main():
        options = dataclasses.replace(QUICK, retry_seconds=0.5)
        async with connected(tmp_path, options=options) as (server, client):
            await filled(client, 1, 50)
            offsets = server.handlers.by_message[Offsets]

            async def ahead(*arguments):
                found, payload = await offsets(*arguments)
                line = dataclasses.replace(found.watermarks, committed=60, durable=60, end=60)
                return dataclasses.replace(found, watermarks=line), payload

            server.handlers.by_message[Offsets] = ahead
            found = []
            consumer = await client.consumer("events")
            async with asyncio.timeout(5):
                with pytest.raises(UnavailableError, match=r"ends at offset 50 .* and at 60"):
                    await take_all(consumer, found)
            await client.append("events", [b"more"] * 10)
            await consumer.seek(0, consumer.positions()[0])  # there is a leader again
            await take_all(consumer, found)
            return found

    assert [(0, place) for place in range(60)] == run(main())
