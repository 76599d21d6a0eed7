"""Clean, torn or suspect: what a frame that cannot be read says about the disk (protocol 9).

Place: in `wal`, under recovery. The facts it rests on: one group is in flight, so a frame of a
later group proves that everything before it was synced; the file was zero-filled (or ends there),
so what a power cut kept from the disk, and what stands behind a write that broke off, is all zeros;
sectors of 512 bytes are atomic, and one shared with an acknowledged frame keeps its old bytes.
Promise: "torn" only for frames that were certainly never acknowledged, as far as one flipped byte,
wherever it is, can be told from a tear. Invariant: no field of an unproved header decides anything
alone: a flip in a length must not make a frame "run past the end of the file".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from chronik_store.errors import CorruptionError
from chronik_store.format.entry import ENTRY_HEADER_BYTES
from chronik_store.format.frame import (
    FRAME_HEADER_BYTES,
    SECTOR_BYTES,
    ZERO_SECTORS_MAX,
    ZERO_TAIL_MAX,
    ZEROS_BYTES,
    FrameHeader,
    FrameKind,
    are_zeros,
    decode_frame,
    decode_hard_state,
    find_frame,
    first_nonzero,
    frame_bytes,
    frame_entry,
    frame_payload,
    is_proved,
    peek_frame,
)
from chronik_store.model import Verdict

_ENTRY = int(FrameKind.ENTRY)
_HARD_STATE = int(FrameKind.HARD_STATE)
_FIXED = {int(FrameKind.TRUNCATE): 8, int(FrameKind.SUSPECT): 8}
_VOTE_LENGTH = 8
_VOTE_START = 10
_ALIGNMENT = 8
_FAR = 1 << 62
_ALWAYS_WRITTEN = 64
"""Each frame has a byte behind these that is not zero: in the position of its synced mark."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What stands behind the last good frame.

    below_mark: a frame says that what is missing was synced. last_seq: the highest seq of any frame
    there; hard_state: the strongest found there; end: behind the last byte that is not zero.
    """

    verdict: Verdict
    reason: str = ""
    below_mark: bool = False
    last_seq: int = 0
    hard_state: tuple[int, str] = (0, "")
    end: int = 0


class Remains(NamedTuple):
    """What whole frames behind damage say: entries up to an index, and where their records end;
    and up to which index entries were committed when they were written.
    """

    last_index: int = 0
    end_offset: int = 0
    committed_index: int = 0

    def joined(self, other: Remains) -> Remains:
        """What both say."""
        return Remains(*map(max, self, other))


def judge(
    view: memoryview, position: int, *, file_id: int, expected_seq: int, sworn_seq: int
) -> Judgement:
    """Judge what stands at `position`, where the frame `expected_seq` is not readable.

    sworn_seq: the highest seq that a valid frame before it says was synced.
    """
    sworn = f"frames up to seq {sworn_seq} were on disk"
    if first_nonzero(view, position) is None:
        if sworn_seq < expected_seq:
            return Judgement("clean", end=position)
        reason = f"{sworn}, zeros stand at byte {position}"
        return Judgement("suspect", reason, below_mark=True, end=position)
    reason, below_mark = "", sworn_seq >= expected_seq
    if below_mark:
        reason = f"{sworn}, the one at byte {position} is damaged"
    elif not is_torn(view, position, file_id, expected_seq):
        reason = f"the frame at byte {position} is damaged, not cut off"
    last_seq, at = 0, position + _ALIGNMENT
    while (frame := find_frame(view, at, file_id=file_id)) is not None:
        at = frame.next_position
        last_seq = max(last_seq, frame.seq)
        below_mark = below_mark or frame.synced_seq >= expected_seq
        if not reason:
            reason = _contradiction(view, frame, file_id, expected_seq)
    end = last_nonzero(view, position)
    verdict: Verdict = "suspect" if reason else "torn"
    hard_state = strongest_hard_state(view, position, file_id)
    return Judgement(verdict, reason, below_mark, last_seq, hard_state, end)


def strongest_hard_state(view: memoryview, start: int, file_id: int) -> tuple[int, str]:
    """The hard state of the latest term among the valid frames from `start` on; (0, "") if none."""
    strongest = (0, "")
    while (frame := find_frame(view, start, file_id=file_id)) is not None:
        start = frame.next_position
        if frame.kind == _HARD_STATE:
            strongest = max(strongest, decode_hard_state(frame_payload(view, frame)))
    return strongest


def remains_of(view: memoryview, start: int, file_id: int) -> Remains:
    """What stands whole from `start` on, behind damage: nothing builds on it any more."""
    last_index = end_offset = committed_index = 0
    while (frame := find_frame(view, start, file_id=file_id)) is not None:
        start = frame.next_position
        committed_index = max(committed_index, frame.committed_index)
        if frame.kind == _ENTRY:
            try:
                header, _ = frame_entry(view, frame)
            except CorruptionError:
                continue
            last_index = max(last_index, header.index)
            end_offset = max(end_offset, header.end_offset)
    return Remains(last_index, end_offset, committed_index)


def _contradiction(view: memoryview, frame: FrameHeader, file_id: int, expected_seq: int) -> str:
    """Why a valid frame behind a torn one shows that it is not torn after all; "" if it fits."""
    if frame.synced_seq >= expected_seq:
        return f"the frame at byte {frame.position} was written after the damaged one was synced"
    if frame.seq <= expected_seq:
        return f"the frame at byte {frame.position} is out of order"
    if frame.kind == _ENTRY:
        try:
            frame_entry(view, frame)
        except CorruptionError:
            if not is_torn(view, frame.position, file_id, frame.seq):
                return f"the frame at byte {frame.position} is damaged, not cut off"
    after = frame.next_position
    if decode_frame(view, after, file_id=file_id) or first_nonzero(view, after) is None:
        return ""
    if not is_torn(view, after, file_id, frame.seq + 1):
        return f"the frame at byte {after} is damaged, not cut off"
    return ""


def is_torn(view: memoryview, position: int, file_id: int, seq: int) -> bool:
    """Whether the broken frame `seq` at `position` was not written whole: a sector of it was never
    written, or the write broke off in it and nothing stands behind.
    """
    frame = peek_frame(view, position)
    if frame is not None and is_proved(view, frame, file_id):
        end = position + frame_bytes(frame.payload_bytes)
        # Counted as the writer did: of a sector that the next frame shares, this frame's part.
        unwritten = _unwritten_sectors(view, position, end, upto=end)
        return frame.payload_end > len(view) or _lacks_some(view, frame, end, unwritten)
    if first_nonzero(view, position, _sector_end(position)) is None:
        return True
    if last_nonzero(view, position) <= position + _ALWAYS_WRITTEN:
        return True
    if frame is not None and frame.seq != seq:
        frame = None
    end = position + _least_bytes(view, frame)
    if end > len(view):
        return True
    unwritten = _unwritten_sectors(view, position, end)
    if frame is None or (frame.kind == _ENTRY and unwritten):
        # Up to `end` there are headers only, and no sector that begins in them is ever zero; the
        # zeros that a frame counts stand further on.
        return unwritten > 0
    is_entry = frame.kind == _ENTRY and frame.payload_bytes > ENTRY_HEADER_BYTES
    if is_entry and last_nonzero(view, position) <= end:
        return True  # a payload begins with its magic, right behind the headers
    return _lacks_some(view, frame, end, unwritten)


def _lacks_some(view: memoryview, frame: FrameHeader, end: int, unwritten: int) -> bool:
    """Whether more of a frame that reaches to `end`, or further, is zero than was written so."""
    if frame.zero_sectors < min(ZERO_SECTORS_MAX, unwritten):
        return True
    tail = frame.zero_tail
    return tail < ZERO_TAIL_MAX and last_nonzero(view, frame.position) < end - tail


def _least_bytes(view: memoryview, frame: FrameHeader | None) -> int:
    """How many bytes an unproved frame takes at least, as far as its header can be believed."""
    if frame is None:
        return FRAME_HEADER_BYTES
    size = frame.payload_bytes
    if frame.kind == _ENTRY and size >= ENTRY_HEADER_BYTES:
        return FRAME_HEADER_BYTES + ENTRY_HEADER_BYTES
    if frame.kind == _HARD_STATE and size >= _VOTE_START:
        length = frame.payload_start + _VOTE_LENGTH
        vote = view[length] | view[length + 1] << 8 if length + 2 <= len(view) else -1
        return frame_bytes(size if size == _VOTE_START + vote else _VOTE_START)
    return frame_bytes(size) if size == _FIXED.get(frame.kind) else FRAME_HEADER_BYTES


def _unwritten_sectors(view: memoryview, position: int, end: int, *, upto: int = _FAR) -> int:
    """How many sectors that begin in (position, end) hold only zeros before `upto`."""
    starts = range(_sector_end(position), end, SECTOR_BYTES)
    return sum(
        first_nonzero(view, start, min(start + SECTOR_BYTES, upto)) is None for start in starts
    )


def _sector_end(position: int) -> int:
    return position - position % SECTOR_BYTES + SECTOR_BYTES


def last_nonzero(view: memoryview, start: int) -> int:
    """The position behind the last byte from `start` on that is not zero; `start` if all are."""
    high = len(view)
    while high > start:
        low = max(start, high - ZEROS_BYTES)
        part = view[low:high]
        if not are_zeros(part):
            return low + len(bytes(part).rstrip(b"\0"))
        high = low
    return start
