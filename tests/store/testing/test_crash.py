"""What a power loss may leave of a file: every sector as of its sync or a later write, no other."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence

import pytest

from chronik_store.testing.crash import (
    CrashError,
    CrashMode,
    MortalThreads,
    PendingWrite,
    surviving_bytes,
)

SECTOR = 512


def states_of_sectors(
    durable: bytes, pending: Sequence[PendingWrite], size_bytes: int
) -> list[set[bytes]]:
    """For each sector all that it ever held, zero-filled to its end."""
    content = bytearray(durable) + bytes(size_bytes + SECTOR - len(durable))
    starts = range(0, size_bytes, SECTOR)
    states = [{bytes(content[at : at + SECTOR])} for at in starts]
    for write in pending:
        content[write.position : write.position + len(write.data)] = write.data
        for number, at in enumerate(starts):
            states[number].add(bytes(content[at : at + SECTOR]))
    return states


def random_file(rng: random.Random) -> tuple[bytes, list[PendingWrite], int]:
    """A synced part, unsynced writes over and behind it, and the size in the page cache."""
    durable = rng.randbytes(rng.choice((0, 1, 500, 512, 1300, 4096)))
    size_bytes = len(durable)
    pending = []
    for number in range(rng.randint(1, 5)):
        position = rng.randint(0, size_bytes)
        data = rng.randbytes(rng.choice((1, 20, 512, 700, 2000)))
        pending.append(PendingWrite(number, position, data))
        size_bytes = max(size_bytes, position + len(data))
    return durable, pending, size_bytes


@pytest.mark.parametrize("mode", ["lost", "kept", "torn", "any"])
def test_each_sector_holds_what_it_held_once(mode: CrashMode, seed: int) -> None:
    rng = random.Random(f"{seed}/{mode}")
    for _ in range(400):
        durable, pending, size_bytes = random_file(rng)
        image = surviving_bytes(durable, size_bytes, pending, mode, rng)
        states = states_of_sectors(durable, pending, size_bytes)

        assert len(durable) <= len(image) <= size_bytes
        for number, at in enumerate(range(0, len(image), SECTOR)):
            part = bytes(image[at : at + SECTOR])
            assert any(state.startswith(part) for state in states[number])


def test_lost_and_kept_are_the_two_ends(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(50):
        durable, pending, size_bytes = random_file(rng)
        kept = surviving_bytes(durable, size_bytes, pending, "kept", rng)
        content = bytearray(durable) + bytes(size_bytes - len(durable))
        for write in pending:
            content[write.position : write.position + len(write.data)] = write.data

        assert kept == content
        assert surviving_bytes(durable, size_bytes, pending, "lost", rng) == durable


def test_a_file_without_unsynced_writes_is_left_alone() -> None:
    assert surviving_bytes(b"abc", 3, [], "any", random.Random(1)) == b"abc"


def test_threads_that_a_crash_left_waiting_end_when_told() -> None:
    threads = MortalThreads()
    condition, waits = threads.condition(), threading.Event()

    def wait_for_ever() -> None:
        with condition:
            waits.set()
            condition.wait()
        raise AssertionError("nothing has woken it")

    victim = threads.spawn(wait_for_ever, name="victim")
    assert waits.wait(10)
    threads.end()
    victim.join(10)
    assert not victim.is_alive()
    with condition, pytest.raises(CrashError):
        condition.wait(0)
