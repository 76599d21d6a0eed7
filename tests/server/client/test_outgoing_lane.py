"""The lane of one producer: its loop ends when nothing is left, and begins again."""

from chronik_server.client.outgoing import OutgoingLane
from chronik_store.format.record_batch import RecordBatch
from tests.server.serving import connected, run


def test_a_batch_given_in_the_moment_in_which_the_loop_ends_is_sent(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            lane = OutgoingLane(client.router, ("events", 0), "quorum")
            # Each answer wakes us in the very turn in which the lane's loop ends.
            return [await lane.submit(RecordBatch.build([b"%d" % n])) for n in range(5)]

    assert [0, 1, 2, 3, 4] == [found.base_offset for found in run(main())]
