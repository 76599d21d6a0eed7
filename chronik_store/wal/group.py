"""A group's bytes: frames with the marks that are known at the moment of writing.

Place: in `wal`, between staging and the file. Promise: one list of buffers for one write; payloads
are not copied unless they are small. Invariant: a frame says how many sectors
of zeros it wrote itself, and with how many zeros it ends, so that recovery can tell records full
of zeros from sectors that were never written, and from a write that broke off.
"""

from __future__ import annotations

from collections.abc import Iterable

from chronik_store.format.frame import (
    FRAME_HEADER_BYTES,
    SECTOR_BYTES,
    ZERO_TAIL_MAX,
    FrameKind,
    Marks,
    encode_frame_header,
    padding,
)
from chronik_store.fs.base import Buffer
from chronik_store.wal.staging import Frame

_ENTRY = int(FrameKind.ENTRY)
_JOIN_BELOW_BYTES = 4096
"""Smaller buffers than this (on average) are cheaper to join than to hand over one by one."""


def encode_group(frames: Iterable[Frame], origin: int, marks: Marks, file_id: int) -> list[Buffer]:
    """The frames as buffers that lie back to back from the first one's place on."""
    parts: list[Buffer] = []
    total = 0
    for seq, kind, head, payload, position, size in frames:
        at = origin + position
        parts += encode_frame_parts(seq, kind, head, payload, at, size, marks, file_id)
        total += size
    if total < len(parts) * _JOIN_BELOW_BYTES:
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
    length = len(head) + len(payload)
    pad = padding(length)
    if kind == _ENTRY and payload:
        sectors, tail = _zeros_of_entry(payload, position, len(head), len(pad))
        first = encode_frame_header(
            kind, 0, seq, position, marks, file_id, head, length, sectors, tail
        )
        return [first + head, payload, pad] if pad else [first + head, payload]
    covered = head or payload
    first = encode_frame_header(kind, 0, seq, position, marks, file_id, covered, length)
    whole = b"".join((first, head, payload, pad))
    sectors = zero_sectors(whole, position)
    tail = size - len(whole.rstrip(b"\0"))
    first = encode_frame_header(
        kind, 0, seq, position, marks, file_id, covered, length, sectors, tail
    )
    return [first + whole[FRAME_HEADER_BYTES:]]


def _zeros_of_entry(
    payload: Buffer, position: int, head_bytes: int, pad_bytes: int
) -> tuple[int, int]:
    """`zero_sectors` of a frame at `position` with an entry in it, and with how many zeros it ends.

    A sector that begins in the entry header is not among the former: the header ends with the
    length of the payload. Of the others one byte each is looked at first, and most end there.
    """
    start = position + FRAME_HEADER_BYTES + head_bytes
    size = len(payload)
    low = -start % SECTOR_BYTES
    firsts = bytes(payload[low::SECTOR_BYTES])
    sectors = 1 if pad_bytes and (start + size) % SECTOR_BYTES == 0 else 0
    place = firsts.find(0)
    while place >= 0:
        at = low + place * SECTOR_BYTES
        sectors += not bytes(payload[at : at + SECTOR_BYTES]).strip(b"\0")
        place = firsts.find(0, place + 1)
    ending = bytes(payload[-ZERO_TAIL_MAX:])
    tail = len(ending) - len(ending.rstrip(b"\0"))
    # A short payload of nothing but zeros: the entry header before it ends with zeros, too.
    return sectors, ZERO_TAIL_MAX if tail == len(ending) else tail + pad_bytes


def zero_sectors(frame: bytes, position: int) -> int:
    """How many sectors hold nothing but zeros of a frame at `position`, its first one excepted."""
    first = SECTOR_BYTES - position % SECTOR_BYTES
    return sum(
        not frame[low : low + SECTOR_BYTES].strip(b"\0")
        for low in range(first, len(frame), SECTOR_BYTES)
    )
