"""What a server looks at before it takes a batch: whatever it takes can be read, by everybody."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chronik_server import handlers
from chronik_server.protocol import data
from chronik_server.protocol.events import Event, Failure, Request, Response
from chronik_server.protocol.verbs import Verb
from chronik_store.errors import CorruptionError
from chronik_store.format.batch_layout import BATCH_HEADER_BYTES, COVERED_FROM
from chronik_store.format.checksum import checksum
from chronik_store.format.record_batch import RecordBatch
from tests.server.server.test_limits import Raw
from tests.server.serving import connected, run


def test_a_damaged_batch_is_refused_at_the_door(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            raw = await Raw.open(str(client.router._servers[0]))
            batch = bytearray(RecordBatch.build([b"hello"]).buffer)
            for number, damage in enumerate((0, 20, len(batch) - 1), 2):
                flipped = bytes(batch[:damage]) + bytes((batch[damage] ^ 1,)) + batch[damage + 1 :]
                raw.say(Request(number, Verb.PRODUCE, data.Produce("events"), flipped))
                (event,) = await raw.hear()
                assert isinstance(event, Failure)
                assert isinstance(event.error, CorruptionError)
                assert "not_durable" == event.error.durability
            raw.say(Request(9, Verb.PRODUCE, data.Produce("events"), b""))
            (event,) = await raw.hear()
            assert isinstance(event, Failure)
            assert 0 == (await client.watermarks("events")).end
            raw.writer.close()

    run(main())


def test_a_batch_that_nobody_could_read_is_refused_though_its_checksum_is_right(
    tmp_path: Path,
) -> None:
    """It stopped the index of its partition, and whoever followed it, for good."""
    batch = RecordBatch.build([b"hello"], keys=[b"key"], headers=[[("name", b"value")]]).buffer
    heads = [BATCH_HEADER_BYTES + place for place in (0, 8, 15)]
    offsets = [batch.index(data) - 9 for data in (b"key", b"hello")]

    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            raw = await Raw.open(str(client.router._servers[0]))
            for number, place in enumerate([*heads, *offsets, batch.index(b"name"), -1], 2):
                changed = bytearray(batch)
                changed[place] ^= 0x80 * (place != -1)
                digest = checksum(memoryview(changed)[COVERED_FROM:])
                changed[COVERED_FROM - 8 : COVERED_FROM] = digest.to_bytes(8, "little")
                raw.say(Request(number, Verb.PRODUCE, data.Produce("events"), bytes(changed)))
                (event,) = await raw.hear()
                if place == -1:
                    assert event == Response(number, data.Produced(0, 1))
                    continue
                assert isinstance(event, Failure), place
                assert isinstance(event.error, CorruptionError)
                assert "not_durable" == event.error.durability
            raw.writer.close()

    run(main())


def test_a_large_batch_is_checked_beside_the_loop_and_keeps_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Millions of headers, which pack into a megabyte, would hold up a server for seconds."""
    headers = [[("a name that is longer than usual", b"")]]
    large = RecordBatch.build([b"x"] * 5000, headers=headers * 5000, producer_id=7)
    small = RecordBatch.build([b"x"], producer_id=7, base_sequence=5000)
    loops: list[bool] = []
    check = handlers._check

    def checked(batch: RecordBatch) -> None:
        try:
            loops.append(asyncio.get_running_loop() is not None)
        except RuntimeError:
            loops.append(False)
        check(batch)

    monkeypatch.setattr(handlers, "_check", checked)

    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            raw = await Raw.open(str(client.router._servers[0]))
            for number, batch in enumerate((large, small), 2):
                raw.say(Request(number, Verb.PRODUCE, data.Produce("events"), batch.buffer))
            answers: list[Event] = []
            while len(answers) < 2:
                answers += await raw.hear()
            assert answers == [
                Response(2, data.Produced(0, 5000)),
                Response(3, data.Produced(5000, 5001)),
            ]
            raw.writer.close()

    run(main())
    assert loops == [False, True]
