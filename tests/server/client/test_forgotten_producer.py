"""A log that has forgotten a producer while its batches are on their way (protocol 3)."""

import asyncio

from chronik_server.client.outgoing import OutgoingLane, outcome
from chronik_server.protocol.data import Produce
from chronik_store.errors import ProducerSequenceError, UnavailableError
from chronik_store.format.record_batch import RecordBatch
from tests.server.serving import connected, run


def batch(number):
    return RecordBatch.build([b"%d" % number])


def test_what_is_stored_behind_a_batch_that_was_forgotten_is_not_stored_again(tmp_path):
    """The one behind it was answered; in a new epoch nothing would recognise it."""

    async def main():
        async with connected(tmp_path) as (server, client):
            await client.create_topic("events")
            lane = OutgoingLane(client.router, ("events", 0), "quorum")
            await lane.submit(batch(0))
            produce, calls = server.handlers.by_message[Produce], []

            async def forgetful(request, payload):
                calls.append(len(calls))
                if len(calls) == 1:
                    await produce(request, payload)
                    raise UnavailableError("stored, and the answer is lost", durability="unknown")
                if len(calls) == 3:
                    raise ProducerSequenceError(
                        "who?", producer_id=1, expected_sequence=0, sequence=1
                    )
                return await produce(request, payload)

            server.handlers.by_message[Produce] = forgetful
            sent = [lane.submit(batch(n)) for n in (1, 2)]
            await asyncio.wait(sent)
            async with await client.consumer("events") as consumer:
                found = [each.record.value async for each in consumer]
            return [outcome(each) for each in sent], found

    outcomes, found = run(main())

    assert [b"0", b"1", b"2"] == found
    assert ["unknown", "unknown"] == [each.durability for each in outcomes]
