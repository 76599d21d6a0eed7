"""Appends that overlap share batches, and nothing else: each has its own place, its own error."""

import asyncio
import enum

import pytest

from chronik_server.client import async_client
from chronik_server.client.fetching import batches_of
from chronik_server.client.overlapping import GATHER_BYTES
from chronik_server.protocol.data import Fetch, Produce
from chronik_store.errors import ConfigError, LogClosedError, RecordTooLargeError
from chronik_store.format.record_batch import RecordBatch
from chronik_store.log_store import LogStore
from chronik_store.model import Record
from tests.server.serving import LOG, connected, run


class Topic(enum.StrEnum):
    """Names that equal a str."""

    EVENTS = "events"


async def batches(client):
    """How many records each batch of the log holds."""
    answer = await client.router.ask_leader(("events", 0), Fetch("events", max_bytes=1 << 22))
    return [len(each.values()) for each in batches_of(answer.payload, 0)]


async def stored(client):
    return [record.value for record in await client.read("events", 0, max_records=100_000)]


def test_calls_of_one_turn_lie_together_each_at_its_place(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            calls = [[b"a"], [b"b", b"c"], Record(b"d", b"key"), b"e"]
            found = await asyncio.gather(*(client.append("events", call) for call in calls))
            return found, await stored(client), await batches(client)

    found, values, sizes = run(main())

    assert [5] == sizes
    assert [(0, 1, False), (1, 3, False), (3, 4, False), (4, 5, False)] == found
    assert [b"a", b"b", b"c", b"d", b"e"] == values


def test_what_is_wrong_with_one_call_is_not_the_others(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            calls = [b"good", Record("text"), b"well"]
            outcome = await asyncio.gather(
                *(client.append("events", call) for call in calls), return_exceptions=True
            )
            return outcome, await stored(client)

    (first, wrong, last), values = run(main())

    assert isinstance(wrong, TypeError)
    assert [b"good", b"well"] == values
    assert [0, 1] == sorted((first.base_offset, last.base_offset))


@pytest.mark.parametrize(
    ("topic", "partition"),
    [("events", True), ("events", 1.0), (Topic.EVENTS, 1), (b"events", 1)],
    ids=repr,
)
def test_what_only_equals_a_topic_or_partition_is_no_place_for_later_appends(
    tmp_path, topic, partition
):
    """All that came after it through this client was refused as it was, for ever."""

    async def main():
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events", partitions=2)
            with pytest.raises(ConfigError, match="cannot be asked") as refused:
                await client.append(topic, b"lost", partition=partition)
            assert "not_durable" == refused.value.durability
            return await client.append("events", b"kept", partition=1)

    assert (0, 1, False) == run(main())


def test_a_shared_batch_over_the_servers_limit_goes_in_its_parts(tmp_path):
    log = LOG.replace(record_bytes_max=1900, batch_bytes_max=2000)

    sizes = (900, 900, 3000, 900)

    async def main():
        async with connected(tmp_path, log=log) as (_, client):
            await client.create_topic("events")
            outcome = await asyncio.gather(
                *(client.append("events", bytes([n]) * size) for n, size in enumerate(sizes)),
                return_exceptions=True,
            )
            return outcome, await stored(client)

    outcome, values = run(main())

    assert isinstance(outcome[2], RecordTooLargeError)
    assert [(n, 900) for n in (0, 1, 3)] == sorted((v[0], len(v)) for v in values)


def test_a_big_call_and_a_made_batch_and_a_timed_record_share_with_nobody(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            timed = Record(b"t", timestamp_us=5)
            made = RecordBatch.build([b"m", b"n"])
            calls = [b"a", bytes(GATHER_BYTES), made, timed, b"b"]
            found = await asyncio.gather(*(client.append("events", call) for call in calls))
            records = await client.read("events", 0, max_bytes=1 << 22)
            return calls, found, {record.offset: record for record in records}

    calls, found, records = run(main())

    assert found[4].base_offset == found[0].base_offset + 1
    assert [1, 1, 2, 1, 1] == [each.end_offset - each.base_offset for each in found]
    assert 5 == records[found[3].base_offset].timestamp_us
    assert 5 != records[found[0].base_offset].timestamp_us
    assert [b"m", b"n"] == [records[found[2].base_offset + n].value for n in (0, 1)]
    assert calls[1] == records[found[1].base_offset].value


def test_a_wait_that_is_given_up_takes_nothing_back(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            given_up = asyncio.create_task(client.append("events", b"left"))
            stays = asyncio.create_task(client.append("events", b"stays"))
            await asyncio.sleep(0)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            return await stays, await stored(client)

    place, values = run(main())

    assert (1, 2, False) == place
    assert [b"left", b"stays"] == values


def test_more_and_more_calls_lose_nothing(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")

            async def writer(number):
                return [await client.append("events", b"%d/%d" % (number, n)) for n in range(20)]

            found = await asyncio.gather(*(writer(number) for number in range(40)))
            return found, await stored(client)

    found, values = run(main())

    assert 800 == len(values) == len(set(values))
    for number, places in enumerate(found):
        mine = [values[place.base_offset] for place in places]
        assert [b"%d/%d" % (number, n) for n in range(20)] == mine


def test_closing_sees_through_what_has_gathered(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            tasks = [asyncio.create_task(client.append("events", b"%d" % n)) for n in range(9)]
            await asyncio.sleep(0)
            await client.close()
            return await asyncio.gather(*tasks)

    assert list(range(9)) == [place.base_offset for place in run(main())]


def test_what_is_remembered_of_partitions_is_bounded(tmp_path, monkeypatch):
    """Topics come and go, and a client may live for years."""
    monkeypatch.setattr(async_client, "LANES_KEPT", 3)

    async def main():
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events", partitions=20)
            appends = [client.append("events", b"%d" % n, partition=n) for n in range(10)]
            first = await asyncio.gather(*appends)  # nobody who is busy is forgotten
            kept = []
            for number in range(10, 20):
                await client.append("events", b"more", partition=number)
                kept.append(len(client._appends))
            return first, kept

    first, kept = run(main())

    assert [(0, 1, False)] * 10 == first
    assert 3 >= max(kept)


@pytest.mark.parametrize(
    "rest",
    [[RecordBatch.build([b"c", b"d"])], [b"c"], []],
    ids=["another batch", "a record", "nothing"],
)
def test_a_batch_in_a_list_is_refused_as_by_the_embedded_library(tmp_path, rest):
    """What followed it was left out, and the call succeeded."""
    records = [RecordBatch.build([b"a", b"b"]), *rest]
    with LogStore.open(tmp_path / "embedded", config=LOG) as store:
        store.create_topic("events")
        with pytest.raises(TypeError) as embedded:
            store.partition("events").append(records)

    async def main():
        async with connected(tmp_path / "served") as (_, client):
            await client.create_topic("events")
            with pytest.raises(TypeError) as refused:
                await client.append("events", records)
            return refused.value, await stored(client)

    refused, values = run(main())

    assert str(embedded.value) == str(refused)
    assert [] == values


def test_closing_sees_through_what_is_refused_together_and_asked_again_alone(tmp_path):
    """Those that were asked again found their lane closed, and calls made before `close` failed."""
    log = LOG.replace(record_bytes_max=1900, batch_bytes_max=2000)

    async def main():
        async with connected(tmp_path, log=log) as (server, client):
            await client.create_topic("events")
            await client.append("events", b"the way is known")
            produce = server.handlers.by_message[Produce]

            async def slow(message, payload):
                """The batch over the limit is in the second lane; the first ends before it."""
                await asyncio.sleep(0.2 if len(payload) > 2000 else 0.02)
                return await produce(message, payload)

            server.handlers.by_message[Produce] = slow
            made = [RecordBatch.build([b"b%d" % n]) for n in range(5)]
            values = [b"%d" % n + bytes(900) for n in range(4)]
            calls = [asyncio.create_task(client.append("events", each)) for each in made + values]
            await asyncio.sleep(0)
            closing = asyncio.create_task(client.close())
            await asyncio.sleep(0)
            with pytest.raises(LogClosedError) as late:
                await client.append("events", b"late")
            await closing
            found = await asyncio.gather(*calls, return_exceptions=True)
            return found, late.value.durability

    found, late = run(main())

    assert [] == [each for each in found if isinstance(each, BaseException)]
    assert list(range(1, 10)) == sorted(each.base_offset for each in found)
    assert "not_durable" == late
