"""A group's bytes: frames with the marks that are known at the moment of writing.

Place: in `wal`, between staging and the file. Promise: one list of buffers for one write; payloads
are not copied unless they are small or hold runs of zeros. Invariant: a frame says how many sectors
of zeros it wrote itself, and with how many zeros it ends, so that recovery can tell records full
of zeros from sectors that were never written, and from a write that broke off.
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
    pad = padding(length)

    def header(sectors: int, tail: int) -> bytes:
        return encode_frame_header(
            kind, 0, seq, position, marks, file_id, covered, length, sectors, tail
        )

    start = header(0, len(pad))
    one_sector = position % SECTOR_BYTES + size <= SECTOR_BYTES
    if not _ends_in_data(head, payload) or not (one_sector or _is_full(payload, position + size)):
        whole = b"".join((start, head, payload, pad))
        start = header(zero_sectors(whole, position), size - len(whole.rstrip(b"\0")))
    parts: list[Buffer] = [start + head]
    if payload:
        parts.append(payload)
    if pad:
        parts.append(pad)
    return parts


def _ends_in_data(head: bytes, payload: Buffer) -> bool:
    """Whether the last byte before the padding is not zero."""
    last = payload or head
    return bool(last) and last[-1] != 0


def _is_full(payload: Buffer, end: int) -> bool:
    """Whether no sector behind a frame's first one is all zeros; cheap, errs on no."""
    if len(payload) < 2 * SECTOR_BYTES:
        return False
    data = payload if isinstance(payload, bytes) else bytes(payload)
    if data.find(_ZERO_SECTOR) >= 0:
        return False
    tail = data[-(end % SECTOR_BYTES or SECTOR_BYTES) + 7 :]
    return tail.count(0) < len(tail)


def zero_sectors(frame: bytes, position: int) -> int:
    """How many sectors hold nothing but zeros of a frame at `position`, its first one excepted."""
    first = SECTOR_BYTES - position % SECTOR_BYTES
    return sum(
        not frame[low : low + SECTOR_BYTES].strip(b"\0")
        for low in range(first, len(frame), SECTOR_BYTES)
    )
