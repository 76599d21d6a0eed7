"""Whoever waits for more of a log whose WAL has ended is told, and never turns in a circle."""

from __future__ import annotations

import asyncio
import threading

import pytest

import chronik_store as chronik

CONFIG = chronik.LogConfig(pipeline_enabled=False)
WAIT_SECONDS = 0.2


@pytest.fixture
def poisoned(tmp_path):
    """A log with one record whose WAL has ended."""
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as log:
        log.append(b"kept")
        log._core.wal.give_up(OSError(5, "broken"))
        yield log


def took(log, call):
    """Seconds of one call, by the log's own clock."""
    clock = log._core.env.clock
    began = clock.monotonic()
    assert () == call().records
    return clock.monotonic() - began


def test_a_read_that_waits_again_waits_in_full(poisoned):
    assert took(poisoned, lambda: poisoned.read(1, wait_seconds=WAIT_SECONDS)) >= WAIT_SECONDS
    assert b"kept" == poisoned.read(0, wait_seconds=60).records[0].value


def test_who_follows_gets_what_is_there_and_then_the_error(poisoned):
    follower = poisoned.scan(follow=True)
    assert b"kept" == next(follower).value
    with pytest.raises(chronik.LogPoisonedError, match="broken") as caught:
        next(follower)
    assert caught.value.durability is None
    assert [b"kept"] == [record.value for record in poisoned.scan()]


def test_a_follower_that_waits_already_is_told(tmp_path):
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as log:
        log.append(b"kept")
        follower, ended = log.scan(1, follow=True), []

        def follow():
            with pytest.raises(chronik.LogPoisonedError):
                next(follower)
            ended.append(True)

        thread = threading.Thread(target=follow)
        thread.start()
        log._core.wal.give_up(OSError(5, "broken"))
        thread.join(20)
        assert ended


def test_asyncio_leaves_the_loop_to_others(poisoned):
    """Before, neither of them let go of the loop again."""

    async def main():
        face = chronik.aio.AsyncPartitionLog(poisoned)
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert () == (await face.read(1, wait_seconds=WAIT_SECONDS)).records
        assert loop.time() - began >= WAIT_SECONDS
        follower = face.scan(follow=True)
        assert b"kept" == (await anext(follower)).value
        with pytest.raises(chronik.LogPoisonedError, match="broken"):
            async with asyncio.timeout(20):
                await anext(follower)
        await face.close()

    asyncio.run(main())
