"""Damage: a flipped byte anywhere never yields wrong data, nor quietly less of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chronik_store.errors import CorruptionError, FutureVersionError, IdentityMismatchError
from chronik_store.testing.simulated_disk import SimulatedDisk
from tests.depth import share

Opens = Callable[..., Any]


def write_some(owner: Any) -> None:
    """Every kind of frame, over several files; everything acknowledged."""
    owner.append(values=[b"a", b"bb"])
    owner.vote(2, "")
    owner.append(bytes(1500))
    for number in range(4):
        owner.append(values=[b"v" * (100 * number + 50)] * 3)
    owner.wal.lead(owner.truncate(5))
    owner.append(b"again")
    owner.vote(3, "somebody")
    with owner.wal.lock:
        owner.wal.stage_suspect(True)
        seq = owner.wal.stage_suspect(False)
    owner.wal.lead(seq)
    owner.append(b"x" * 700 + bytes(700))
    owner.append(b"last")


def state_of(owner: Any) -> tuple[Any, ...]:
    return owner.copy.entries, owner.wal.hard_state, owner.wal.suspect, owner.live()


def outcome(disk: SimulatedDisk, open_wal: Opens) -> tuple[Any, ...] | None:
    """The state that opening finds, None if it refuses."""
    try:
        return state_of(open_wal(disk, start=False))
    except (CorruptionError, FutureVersionError, IdentityMismatchError):
        return None


FLIPS = [
    pytest.param(False, 0xFF, 7, id="killed-inverted"),
    pytest.param(True, 0x80, 7, id="closed-bit7"),
    pytest.param(False, 0xFF, 1, id="killed-inverted-each", marks=pytest.mark.slow),
    pytest.param(False, 0x01, share(3, every=1), id="killed-bit0", marks=pytest.mark.slow),
    pytest.param(True, 0xFF, share(3, every=1), id="closed-inverted", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("closed", "mask", "step"), FLIPS)
def test_a_flip_of_any_byte_is_noticed_or_harmless(
    open_wal: Opens, closed: bool, mask: int, step: int
) -> None:
    disk = SimulatedDisk(seed=1)
    owner = open_wal(disk, commits=False, settings={"file_bytes": 3000})
    write_some(owner)
    if closed:
        owner.close()
    expected = outcome(disk.another_process(), open_wal)
    assert expected is not None
    assert expected[1:] == state_of(owner)[1:]
    refused = 0
    for path in [path for path in disk.paths("/data/wal") if path.endswith(".log")]:
        content = disk.peek(path)
        written = len(content.rstrip(b"\0"))
        for position in range(0, min(len(content), written + 16), step):
            damaged = disk.another_process()
            damaged.overwrite(path, position, bytes([content[position] ^ mask]))
            found = outcome(damaged, open_wal)
            damaged.overwrite(path, position, content[position : position + 1])
            refused += found is None
            assert found is None or found == expected, (path, position)
    assert refused * step > 3000
