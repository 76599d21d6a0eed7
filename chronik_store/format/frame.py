"""The frame: the WAL's local envelope of an entry, a hard state, a truncation, a checkpoint.

     0               4               8                               16
     +---------------+---------------+-------------------------------+
     |  f5 'C K F'   |    version    |           checksum            |
     +-------+-------+---------------+---------------+---------------+
  16 | kind  | flags |      log      | payload_bytes |sectors|tai|par|
     +-------+-------+---------------+---------------+---------------+
  32 |              seq              |           position            |
     +-------------------------------+-------------------------------+
  48 |          synced_seq           |          synced_file          |
     +-------------------------------+-------------------------------+
  64 |        synced_position        |        committed_index        |
     +-------------------------------+-------------------------------+
  80 |  payload: payload_bytes bytes, then zeros up to a multiple of 8

sectors, tai, par: zero_sectors (u16), how many 512-byte sectors, the frame's first one excepted,
hold only zeros of it; zero_tail (u8), with how many zeros it ends, padding included (each at its
maximum: that many or more); their parity (u8). So records full of zeros do not look like sectors
that a power cut kept from the disk, nor like a write that broke off; and the parity shows one
flipped byte among them where nothing of the header can be proved any more.

Place: in `format`, above `entry`; what a broken frame means is for `wal` to judge. Promise:
`decode_frame` never raises, whatever the bytes. Invariant: the checksum is seeded with the
file's random id, so a frame of another file is never taken for one of this file; it covers bytes
16..80 and, of the payload, the entry header of an ENTRY frame or all of any other.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from functools import partial
from typing import Final, NamedTuple

from chronik_store.errors import CorruptionError
from chronik_store.format.checksum import Buffer, checksum
from chronik_store.format.entry import ENTRY_HEADER_BYTES, EntryHeader, verified_entry

FRAME_MAGIC: Final = b"\xf5CKF"
FRAME_VERSION: Final = 1
FRAME_HEADER_BYTES: Final = 80
FRAME_ALIGNMENT: Final = 8
SECTOR_BYTES: Final = 512
"""What a disk writes whole or not at all (the assumption of protocol section 9)."""
VOTE_BYTES_MAX: Final = 255
ZERO_SECTORS_MAX: Final = (1 << 16) - 1
ZERO_TAIL_MAX: Final = (1 << 8) - 1

_PREFIX: Final = struct.Struct("<4sIQ")
_FIELDS: Final = struct.Struct("<HHIIHBBQQQQQQ")
_HEADER: Final = struct.Struct("<4sIQHHIIHBBQQQQQQ")
_COVERED_FROM: Final = _PREFIX.size
_UINT64: Final = struct.Struct("<Q")
_VOTE: Final = struct.Struct("<QH")
ZEROS_BYTES: Final = 1 << 16
_ZEROS: Final = bytes(ZEROS_BYTES)


class FrameKind(IntEnum):
    """What a frame's payload is."""

    ENTRY = 1
    HARD_STATE = 2
    TRUNCATE = 3
    CHECKPOINT = 4
    MARK = 5
    SUSPECT = 6


_ENTRY: Final = int(FrameKind.ENTRY)
_KIND_MAX: Final = max(FrameKind)


class Marks(NamedTuple):
    """What the writer knew when it wrote a frame: everything up to `synced_seq` was on disk, the
    last of it ending at `synced_position` of the WAL file number `synced_file`; entries up to
    `committed_index` were committed.
    """

    synced_seq: int
    synced_file: int
    synced_position: int
    committed_index: int


class FrameHeader(NamedTuple):
    """A frame whose checksum matched. `position` is its own place in its file."""

    kind: int
    log: int
    payload_bytes: int
    seq: int
    position: int
    synced_seq: int
    synced_file: int
    synced_position: int
    committed_index: int
    zero_sectors: int
    zero_tail: int
    checksum: int

    @property
    def marks(self) -> Marks:
        """The four marks together."""
        return Marks(self.synced_seq, self.synced_file, self.synced_position, self.committed_index)

    @property
    def payload_start(self) -> int:
        """Where in the file the payload starts."""
        return self.position + FRAME_HEADER_BYTES

    @property
    def payload_end(self) -> int:
        """Where in the file the payload ends."""
        return self.position + FRAME_HEADER_BYTES + self.payload_bytes

    @property
    def next_position(self) -> int:
        """Where in the file the next frame starts."""
        return self.position + frame_bytes(self.payload_bytes)


# What `_make` does, without its look at the length, in a third of the time.
_make: Final = partial(tuple.__new__, FrameHeader)


def frame_bytes(payload_bytes: int) -> int:
    """The bytes that a frame with such a payload takes in its file, padding included."""
    return (FRAME_HEADER_BYTES + payload_bytes + 7) & ~7


def padding(payload_bytes: int) -> bytes:
    """The zeros behind such a payload."""
    return _ZEROS[: -payload_bytes & 7]


def encode_frame_header(
    kind: int,
    log: int,
    seq: int,
    position: int,
    marks: Marks,
    file_id: int,
    covered: Buffer,
    payload_bytes: int,
    zero_sectors: int = 0,
    zero_tail: int = 0,
) -> bytes:
    """The 80 bytes before a payload of `payload_bytes`, at `position` of the file `file_id`.

    `covered`: what the frame checksum covers of the payload: for ENTRY the 64 bytes of the entry
    header, for other kinds the whole payload. The counts of zeros are cut to their maxima.
    ValueError when a field is out of its range.
    """
    sectors = min(ZERO_SECTORS_MAX, zero_sectors)
    tail = min(ZERO_TAIL_MAX, zero_tail)
    parity = _parity(sectors, tail)
    try:
        fields = _FIELDS.pack(
            kind, 0, log, payload_bytes, sectors, tail, parity, seq, position, *marks
        )
    except struct.error as error:
        raise ValueError(f"frame {seq}: {error}") from error
    digest = checksum(fields + covered, file_id)
    return _PREFIX.pack(FRAME_MAGIC, FRAME_VERSION, digest) + fields


def _parity(zero_sectors: int, zero_tail: int) -> int:
    return 0xFF ^ (zero_sectors & 0xFF) ^ (zero_sectors >> 8) ^ zero_tail


def encode_frame(
    kind: int, log: int, seq: int, position: int, marks: Marks, file_id: int, payload: Buffer
) -> bytes:
    """A whole frame, padded. An ENTRY's payload is better written beside its header, uncopied."""
    covered = payload[:ENTRY_HEADER_BYTES] if kind == _ENTRY else payload
    size = len(payload)
    head = encode_frame_header(kind, log, seq, position, marks, file_id, covered, size)
    return b"".join((head, payload, padding(size)))


def decode_frame(data: memoryview, position: int, *, file_id: int) -> FrameHeader | None:
    """The frame at `position` of the file that `data` is the whole of (or a prefix of), or None.

    A FrameHeader: magic, version, kind, own position, bounds and checksum are right, so all of
    the frame is proved but an entry's payload (see `frame_entry`). A frame version other than
    ours is no frame: the file's header carries the same version and was accepted.
    """
    frame = peek_frame(data, position)
    if (
        frame is None
        or position + FRAME_HEADER_BYTES + frame.payload_bytes > len(data)
        or not is_proved(data, frame, file_id)
    ):
        return None
    return frame


def peek_frame(data: memoryview, position: int) -> FrameHeader | None:
    """What a header says whose magic, version, own position and parity stand; nothing else is
    verified.
    """
    try:
        fields = _HEADER.unpack_from(data, position)
    except struct.error:
        return None
    magic, version, digest, kind, flags, log, size, sectors, tail, parity, seq, own, *_ = fields
    if magic != FRAME_MAGIC or version != FRAME_VERSION or own != position or flags:
        return None
    if parity != _parity(sectors, tail):
        return None
    return _make((kind, log, size, seq, own, *fields[12:], sectors, tail, digest))


def is_proved(data: memoryview, frame: FrameHeader, file_id: int) -> bool:
    """Whether the checksum matches what it covers, though the payload may run past `data`."""
    kind, _, size, _, position, *_, digest = frame
    covered = ENTRY_HEADER_BYTES if kind == _ENTRY else size
    end = position + FRAME_HEADER_BYTES + covered
    return (
        _ENTRY <= kind <= _KIND_MAX
        and covered <= size
        and end <= len(data)
        and checksum(data[position + _COVERED_FROM : end], file_id) == digest
    )


def frame_payload(data: memoryview, frame: FrameHeader) -> memoryview:
    """The payload of a frame of this file."""
    return data[frame.payload_start : frame.payload_end]


def frame_entry(
    data: memoryview, frame: FrameHeader, *, path: str = ""
) -> tuple[EntryHeader, memoryview]:
    """The entry in an ENTRY frame, and its payload, both verified; CorruptionError if not."""
    header, payload = verified_entry(data[: frame.payload_end], frame.payload_start, path=path)
    if header.entry_bytes != frame.payload_bytes:
        raise CorruptionError(
            f"frame {frame.seq}: {frame.payload_bytes} bytes for an entry of {header.entry_bytes}",
            path=path,
        )
    return header, payload


def first_nonzero(data: memoryview, start: int, end: int | None = None) -> int | None:
    """The first position in [start, end) that is not zero; None when all of it is."""
    limit = len(data) if end is None else min(end, len(data))
    for low in range(start, limit, ZEROS_BYTES):
        part = data[low : min(low + ZEROS_BYTES, limit)]
        if not are_zeros(part):
            return low + len(part) - len(bytes(part).lstrip(b"\0"))
    return None


def are_zeros(part: memoryview) -> bool:
    """Whether these bytes, at most ZEROS_BYTES, are nothing but zeros.

    One comparison of memory, without a copy: stripping zeros looks at each byte in turn, which
    took 0.4 s for the 64 MiB that may be filled ahead.
    """
    return _ZEROS.startswith(part)


def find_frame(data: memoryview, start: int, *, file_id: int) -> FrameHeader | None:
    """The first valid frame at or behind `start`, at any multiple of 8; None when none is left."""
    position = -(-start // FRAME_ALIGNMENT) * FRAME_ALIGNMENT
    while position < len(data):
        chunk = bytes(data[position : position + len(_ZEROS) + len(FRAME_MAGIC)])
        found = chunk.find(FRAME_MAGIC)
        while found >= 0:
            if found % FRAME_ALIGNMENT == 0:
                frame = decode_frame(data, position + found, file_id=file_id)
                if frame is not None:
                    return frame
            found = chunk.find(FRAME_MAGIC, found + 1)
        position += len(_ZEROS)
    return None


def encode_hard_state(term: int, vote: str) -> bytes:
    """Payload of HARD_STATE: term u64, length u16, then the vote in UTF-8 ("": no vote)."""
    raw = vote.encode()
    if len(raw) > VOTE_BYTES_MAX or not 0 <= term < 1 << 63:
        raise ValueError(f"not a hard state: term {term}, vote {vote!r:.80}")
    return _VOTE.pack(term, len(raw)) + raw


def decode_hard_state(payload: Buffer, *, path: str = "") -> tuple[int, str]:
    """(term, vote) of a HARD_STATE payload."""
    if len(payload) >= _VOTE.size:
        term, size = _VOTE.unpack_from(payload)
        if len(payload) == _VOTE.size + size and size <= VOTE_BYTES_MAX and not term >> 63:
            try:
                return term, bytes(payload[_VOTE.size :]).decode()
            except UnicodeDecodeError as error:
                raise CorruptionError("hard state: its vote is not UTF-8", path=path) from error
    raise CorruptionError("hard state: term or length out of range", path=path)


def encode_truncate(index: int) -> bytes:
    """Payload of TRUNCATE: u64, the first index that is gone."""
    if not 1 <= index < 1 << 63:
        raise ValueError(f"not an index: {index}")
    return _UINT64.pack(index)


def decode_truncate(payload: Buffer, *, path: str = "") -> int:
    """The first index that a TRUNCATE takes away."""
    return _uint64(payload, 1, (1 << 63) - 1, "truncation", path)


def encode_suspect(suspect: bool) -> bytes:
    """Payload of SUSPECT: u64, 1 when suspicion is set and 0 when it is cleared."""
    return _UINT64.pack(1 if suspect else 0)


def decode_suspect(payload: Buffer, *, path: str = "") -> bool:
    """Whether a SUSPECT sets suspicion (True) or clears it."""
    return bool(_uint64(payload, 0, 1, "suspicion", path))


def _uint64(payload: Buffer, low: int, high: int, what: str, path: str) -> int:
    if len(payload) != _UINT64.size:
        raise CorruptionError(f"{what}: {len(payload)} bytes instead of 8", path=path)
    value = int(_UINT64.unpack(payload)[0])
    if not low <= value <= high:
        raise CorruptionError(f"{what}: {value} is out of range", path=path)
    return value
