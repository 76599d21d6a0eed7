"""What is too large is refused by name, whichever door it comes to, and leaves no trace."""

from __future__ import annotations

import asyncio

import pytest

import chronik_store as chronik
from tests.bad_input.kept import CONFIG, opened, values

LIMITS = CONFIG.replace(record_bytes_max=1000, batch_bytes_max=2000)
build = chronik.RecordBatch.build

TOO_LARGE = {
    "bytes": lambda: b"x" * 1001,
    "value and key": lambda: chronik.Record(b"x" * 600, key=b"k" * 600),
    "one of many": lambda: [b"small", b"x" * 1001, b"small"],
    "an iterator": lambda: iter([b"x" * 1001]),
    "together": lambda: [b"x" * 900] * 3,
    "headers": lambda: chronik.Record(b"", headers=[("h", b"x" * 2000)]),
    "prebuilt record": lambda: build([b"x" * 1001]),
    "prebuilt batch": lambda: build([b"x" * 900] * 3),
    "prebuilt and packed": lambda: build([b"x" * 1001], compression="zstd"),
    "packed among small ones": lambda: build([b"a", b"x" * 1_000_000], compression="zstd"),
}


async def asynchronous(path, config, what, door):
    async def refused():
        queued = await getattr(log, door)(what)
        await queued  # `enqueue` gives a future

    async with chronik.aio.AsyncPartitionLog.open(path, topic="t", config=config) as log:
        await log.append(b"before")
        with pytest.raises(chronik.RecordTooLargeError) as caught:
            await refused()
        await log.append(b"after")
    return caught.value


def synchronous(path, config, what, door):
    with chronik.PartitionLog.open(path, topic="t", config=config) as log:
        log.append(b"before")
        with pytest.raises(chronik.RecordTooLargeError) as caught:
            getattr(log, door)(what)
        log.append(b"after")
    return caught.value


DOORS = {
    "append": lambda *given: synchronous(*given, "append"),
    "append_nowait": lambda *given: synchronous(*given, "append_nowait"),
    "aio.append": lambda *given: asyncio.run(asynchronous(*given, "append")),
    "aio.enqueue": lambda *given: asyncio.run(asynchronous(*given, "enqueue")),
}


@pytest.mark.parametrize("packed", ["none", "zstd"])
@pytest.mark.parametrize("what", TOO_LARGE)
@pytest.mark.parametrize("door", DOORS)
def test_too_large_is_refused_before_anything_is_queued(tmp_path, door, what, packed):
    if packed == "zstd" and what in {"together", "headers"}:
        pytest.skip("packed, it is small enough")

    config = LIMITS.replace(compression=packed)
    error = DOORS[door](tmp_path / "d", config, TOO_LARGE[what]())

    assert ("not_durable", False) == (error.durability, error.retriable)
    assert error.size_bytes > error.limit_bytes
    assert "_bytes_max" in str(error)
    with opened(tmp_path / "d") as log:
        assert [b"before", b"after"] == values(log)


@pytest.mark.parametrize("packed", ["none", "zstd"])
def test_what_is_exactly_as_large_as_allowed_is_stored(tmp_path, packed):
    config = LIMITS.replace(compression=packed)
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=config) as log:
        log.append(b"x" * 1000)
        log.append(chronik.Record(b"v" * 999, key=b"k"))
    with opened(tmp_path / "d") as log:
        assert [b"x" * 1000, b"v" * 999] == values(log)


def test_what_a_smaller_limit_would_refuse_now_is_still_read(tmp_path):
    with opened(tmp_path / "d") as log:
        log.append(b"x" * 100_000)
    with opened(tmp_path / "d", record_bytes_max=1000, batch_bytes_max=2000) as log:
        assert [b"x" * 100_000] == values(log)
        log.seal()
        assert () == log.run_pipeline_once().errors
    with chronik.open_bucket(f"file://{tmp_path}/d/object_store", topic="t") as log:
        assert [b"x" * 100_000] == values(log)


def test_in_one_turn_of_the_loop_only_the_large_one_is_refused(tmp_path):
    async def main():
        face = chronik.aio.AsyncPartitionLog.open(tmp_path / "d", topic="t", config=LIMITS)
        async with face as log:
            given = [b"1", b"x" * 1001, b"2", [b"y" * 900] * 3, b"3", "text", *[b"z" * 900] * 4]
            answers = await asyncio.gather(*map(log.append, given), return_exceptions=True)
            return list(zip(given, answers, strict=True))

    answers = asyncio.run(main())

    refused = [type(answer) for _, answer in answers if isinstance(answer, BaseException)]
    accepted = [value for value, answer in answers if not isinstance(answer, BaseException)]
    large = chronik.RecordTooLargeError
    assert [large, large, TypeError] == refused
    with opened(tmp_path / "d") as log:
        assert accepted == values(log)
