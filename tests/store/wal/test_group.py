"""A group's bytes: the counts of zeros in a frame's header are those of its bytes."""

from __future__ import annotations

import random

from chronik_store.format.entry import EntryKind, encode_entry_header
from chronik_store.format.frame import (
    SECTOR_BYTES,
    ZERO_TAIL_MAX,
    FrameKind,
    Marks,
    decode_frame,
    frame_bytes,
)
from chronik_store.wal.group import encode_frame_parts, encode_group

MARKS = Marks(3, 1, 700, 0)


def brute_force(frame: bytes, position: int) -> tuple[int, int]:
    """Zero sectors but the first, zeros at the end; byte by byte."""
    touched: dict[int, bool] = {}
    for place, byte in enumerate(frame):
        sector = (position + place) // SECTOR_BYTES
        touched[sector] = touched.get(sector, True) and byte == 0
    first = position // SECTOR_BYTES
    tail = 0
    while tail < len(frame) and frame[len(frame) - 1 - tail] == 0:
        tail += 1
    return sum(zero for sector, zero in touched.items() if sector != first), tail


def some_payload(rng: random.Random) -> bytes:
    parts = [b"", bytes(rng.randrange(1600)), rng.randbytes(rng.randrange(900))]
    rng.shuffle(parts)
    return b"".join(parts[: rng.randint(0, 3)])


def test_the_counts_of_zeros_are_those_of_the_bytes() -> None:
    rng = random.Random(5)
    for _ in range(3000):
        payload = some_payload(rng)
        position = 8 * rng.randrange(64, 400)
        size = frame_bytes(64 + len(payload))
        head = encode_entry_header(EntryKind.NOOP, 1, 1, 0, 0, 0, payload)
        data = memoryview(payload) if rng.random() < 0.5 else payload
        parts = encode_frame_parts(9, FrameKind.ENTRY, head, data, position, size, MARKS, 77)
        frame = b"".join(parts)
        found = decode_frame(memoryview(bytes(position) + frame), position, file_id=77)

        assert found is not None
        assert len(frame) == size
        sectors, tail = brute_force(frame, position)
        assert found.zero_sectors == sectors
        assert found.zero_tail == min(tail, ZERO_TAIL_MAX) or (
            found.zero_tail == ZERO_TAIL_MAX and not payload.strip(b"\0")
        )


def test_small_frames_of_every_kind_too() -> None:
    rng = random.Random(6)
    kinds = (FrameKind.HARD_STATE, FrameKind.TRUNCATE, FrameKind.MARK, FrameKind.SUSPECT)
    for _ in range(1000):
        payload = bytes(rng.choice((0, 8))) + rng.randbytes(rng.choice((0, 0, 8, 20)))
        position = 8 * rng.randrange(64, 400)
        size = frame_bytes(len(payload))
        parts = encode_frame_parts(9, rng.choice(kinds), b"", payload, position, size, MARKS, 77)
        frame = b"".join(parts)
        found = decode_frame(memoryview(bytes(position) + frame), position, file_id=77)

        assert found is not None
        assert (found.zero_sectors, found.zero_tail) == brute_force(frame, position)


def test_small_buffers_are_joined_and_large_ones_are_not_copied() -> None:
    head = encode_entry_header(EntryKind.NOOP, 1, 1, 0, 0, 0, b"x" * 16)
    small = [(n, 1, head, b"x" * 16, 160 * n, 160) for n in range(10)]
    assert len(encode_group(small, 4096, MARKS, 1)) == 1

    large = b"y" * 100_000
    head = encode_entry_header(EntryKind.NOOP, 1, 1, 0, 0, 0, large)
    buffers = encode_group([(1, 1, head, large, 0, frame_bytes(100_064))], 4096, MARKS, 1)
    assert any(buffer is large for buffer in buffers)
