"""A group's bytes: frames with the marks that are known at the moment of writing.

Place: in `wal`, between staging and the file. Promise: one list of buffers for one write; payloads
are not copied unless they are small. Invariant: a frame says how many sectors of zeros it wrote
itself, so that recovery can tell records full of zeros from sectors that were never written.
"""

from __future__ import annotations

from collections.abc import Iterable

from chronik_store.format.frame import SECTOR_BYTES, FrameKind, Marks, encode_frame_header, padding
from chronik_store.fs.base import Buffer
from chronik_store.wal.staging import Frame

_ENTRY = int(FrameKind.ENTRY)
_ZERO_SECTOR = bytes(SECTOR_BYTES)
_JOIN_BELOW_BYTES = 4096
"""Smaller buffers than this (on average) are cheaper to join than to hand over one by one."""


def encode_group(frames: Iterable[Frame], origin: int, marks: Marks, file_id: int) -> list[Buffer]:
    """The frames as buffers that lie back to back from the first one's place on."""
    parts: list[Buffer] = []
    total = 0
    for seq, kind, head, payload, position, size in frames:
        parts += encode_frame_parts(
            seq, kind, head, payload, origin + position, size, marks, file_id
        )
        total += size
    if len(parts) > 4 and total < len(parts) * _JOIN_BELOW_BYTES:
        return [b"".join(parts)]
    return parts


def encode_frame_parts(
    seq: int,
    kind: int,
    head: bytes,
    payload: Buffer,
    position: int,
    size: int,
    marks: Marks,
    file_id: int,
) -> list[Buffer]:
    """One frame at `position` of its file, padded to `size` bytes."""
    covered = head if kind == _ENTRY else payload
    length = len(head) + len(payload)
    header = encode_frame_header(kind, 0, seq, position, marks, file_id, covered, length)
    if (position % SECTOR_BYTES) + size > SECTOR_BYTES and _may_have_zeros(
        payload, position + size
    ):
        whole = b"".join((header, head, payload, padding(length)))
        count = zero_sectors(whole, position, 0, size)
        if count:
            header = encode_frame_header(
                kind, 0, seq, position, marks, file_id, covered, length, count
            )
    parts: list[Buffer] = [header + head]
    if length > len(head):
        parts.append(payload)
    if length % 8:
        parts.append(padding(length))
    return parts


def _may_have_zeros(payload: Buffer, end: int) -> bool:
    """Whether one of the sectors behind a frame's first may be all zeros; cheap, errs on yes."""
    if len(payload) < 2 * SECTOR_BYTES:
        return True
    data = payload if isinstance(payload, bytes) else bytes(payload)
    if data.find(_ZERO_SECTOR) >= 0:
        return True
    tail = data[-(end % SECTOR_BYTES or SECTOR_BYTES) + 7 :]
    return tail.count(0) == len(tail)


def zero_sectors(data: Buffer, position: int, start: int, end: int) -> int:
    """How many sectors of a frame, its first one excepted, hold nothing but zeros of it.

    The frame stands at data[start:end] and at `position` of its file.
    """
    view = memoryview(data)
    first = start + SECTOR_BYTES - position % SECTOR_BYTES
    count = 0
    for low in range(first, end, SECTOR_BYTES):
        high = min(low + SECTOR_BYTES, end)
        if view[low:high] == _ZERO_SECTOR[: high - low]:
            count += 1
    return count
