"""A consumer's answers at a time: nothing is left out, nobody starves, and what the wire says is
checked.
"""

import asyncio
import dataclasses

import pytest

from chronik_server.client import Client
from chronik_store.errors import CorruptionError
from tests.server.serving import QUICK, connected, run, serving


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


def test_an_answer_that_ends_elsewhere_than_it_says_is_refused(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await filled(client, 1, 50)
            ask = client.router.ask_leader

            async def lying(lane, question, **options):
                answer = await ask(lane, question, **options)
                if hasattr(answer.message, "next_offset"):
                    message = dataclasses.replace(answer.message, next_offset=49)
                    answer = dataclasses.replace(answer, message=message)
                return answer

            client.router.ask_leader = lying
            async with await client.consumer("events") as consumer:
                with pytest.raises(CorruptionError, match="ends at offset 50"):
                    async for _ in consumer.runs():
                        pass

    run(main())
