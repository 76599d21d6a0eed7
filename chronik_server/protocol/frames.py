"""A frame: twenty fixed bytes, a CBOR header, a raw payload.

     0               4       5       6               8              12
     +---------------+-------+-------+---------------+---------------+
     |  frame_bytes  |version| kind  |     verb      |  request_id   |
     +---------------+-------+-------+---------------+---------------+
  12 | header_bytes  |   checksum    |  header: header_bytes bytes ...
     +---------------+---------------+
     |  payload: frame_bytes - 16 - header_bytes bytes ...

All integers little-endian. frame_bytes counts what follows it. The checksum is the low half of
xxh3-64 over the sixteen bytes before it and the header; a payload brings its own (a batch, an
entry), so that each byte is hashed once.

Place: the lowest part of the protocol. Promise: `FrameDecoder` never holds more than one frame of
the allowed size and what came behind it in the same read, nor, of a frame that is only announced,
more than a few times what has arrived. Invariant: the place of frame_bytes and version is the same
in every version to come, so a newer frame is refused by name.
"""

from __future__ import annotations

import struct
from collections import deque
from enum import IntEnum
from functools import partial
from typing import Final, NamedTuple

from chronik_server.errors import ProtocolError
from chronik_store.errors import FutureVersionError
from chronik_store.format.checksum import Buffer, checksum

VERSION: Final = 1
VERSION_MAX: Final = 31
"""No version will be above it: what is above is text of another protocol."""
FRAME_HEAD_BYTES: Final = 20
HEADER_BYTES_MAX: Final = 16 << 20
FRAME_BYTES_MAX: Final = (1 << 31) - 1
_HEAD: Final = struct.Struct("<IBBHIII")
_COVERED: Final = struct.Struct("<IBBHII")
_FIXED_BYTES: Final = FRAME_HEAD_BYTES - 4
_LOW: Final = 0xFFFFFFFF
READ_BYTES: Final = 64 << 10
_GROWTH: Final = 4
"""A long frame's buffer is at most so many times as long as what has arrived of it."""
_KEPT: Final = 5
_KEPT_BYTES_MAX: Final = 2 << 20
"""So many buffers of no more than this are kept: those of a reader's answers."""


class FrameKind(IntEnum):
    """What a frame is to its receiver."""

    REQUEST = 1
    RESPONSE = 2
    ERROR = 3
    ONE_WAY = 4
    """Not answered: a produce with acks "none", and what nodes tell each other."""


_KINDS: Final = frozenset(map(int, FrameKind))


class Frame(NamedTuple):
    """One frame, its header still CBOR."""

    kind: int
    verb: int
    request_id: int
    header: bytes
    payload: bytes | memoryview = b""


_frame = partial(tuple.__new__, Frame)


def encode_frame(
    kind: int, verb: int, request_id: int, header: bytes, payload_bytes: int = 0
) -> bytes:
    """Head and header of a frame; `payload_bytes` bytes of payload follow it verbatim.

    ValueError when a field or length is out of its range.
    """
    size = _FIXED_BYTES + len(header) + payload_bytes
    if len(header) > HEADER_BYTES_MAX or size > FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {size} bytes with {len(header)} bytes of header")
    try:
        covered = _COVERED.pack(size, VERSION, kind, verb, request_id, len(header))
    except struct.error as error:
        raise ValueError(f"verb {verb}, request {request_id}: {error}") from error
    digest = checksum(covered + header) & _LOW
    return b"".join((covered, digest.to_bytes(4, "little"), header))


class FrameDecoder:
    """Bytes as they arrive in, frames out. `frame_bytes_max` bounds a frame, head included.

    Two ways in, of which one decoder takes one: `feed`, or `get_buffer` and `buffer_updated`, which
    read a long frame to where it stays: its payload is a view. read_buffer: READ_BYTES that the
    decoders of one event loop share; nothing stays in it, and they keep no other while they wait.
    Not thread-safe. After an error it takes nothing more.
    """

    def __init__(self, frame_bytes_max: int, read_buffer: memoryview | None = None) -> None:
        self.frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()
        self._wanted = FRAME_HEAD_BYTES
        self._short = read_buffer  # what is read to between long frames
        self._long: memoryview | None = None  # the first part of a long frame
        self._long_bytes = 0  # so much of it has arrived
        kept = _KEPT if read_buffer is None else 0
        self._kept: deque[bytearray] = deque(maxlen=kept)  # the last ones, to be used again

    @property
    def pending_bytes(self) -> int:
        """How much of a frame that is not whole yet has arrived."""
        return len(self._buffer) + self._long_bytes

    def get_buffer(self) -> memoryview:
        """Where the next bytes belong. The same place until `buffer_updated` is told of some."""
        if self._long is not None:
            return self._long[self._long_bytes :]
        if self._short is None:
            self._short = memoryview(bytearray(READ_BYTES))
        return self._short

    def buffer_updated(self, count: int) -> list[Frame]:
        """The frames that `count` bytes in the buffer complete. Raises what `feed` does."""
        whole = self._long
        if whole is None:
            frames = self.feed(self.get_buffer()[:count])
            if self._wanted > READ_BYTES:
                self._long_bytes = len(self._buffer)
                self._lengthen(self._buffer)
                self._buffer.clear()
            return frames
        self._long_bytes += count
        if self._long_bytes < len(whole):
            return []
        if len(whole) < self._wanted:
            self._lengthen(whole)
            return []
        self._long, self._long_bytes, self._wanted = None, 0, FRAME_HEAD_BYTES
        return [_long_frame(whole.toreadonly())]

    def _lengthen(self, arrived: Buffer) -> None:
        self._long = self._used_again(self._wanted)
        if self._long is None:
            size = min(self._wanted, _GROWTH * max(len(arrived), READ_BYTES))
            buffer = bytearray(size)
            if size == self._wanted <= _KEPT_BYTES_MAX:
                self._kept.append(buffer)
            self._long = memoryview(buffer)
        self._long[: len(arrived)] = arrived

    def _used_again(self, size: int) -> memoryview | None:
        """A buffer that is long enough, and of which nobody holds a view any more: its pages are
        there already.
        """
        for buffer in self._kept:
            if len(buffer) >= size:
                try:
                    buffer.append(buffer.pop())  # refused while there is a view
                except BufferError:
                    continue
                return memoryview(buffer)[:size]
        return None

    def feed(self, data: Buffer) -> list[Frame]:
        """The frames that `data` completes. ProtocolError, FutureVersionError: hang up."""
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._wanted:
                return []
            data = buffer
        frames: list[Frame] = []
        at, size, wanted = 0, len(data), FRAME_HEAD_BYTES
        limit = self.frame_bytes_max
        with memoryview(data) as view:
            while size - at >= FRAME_HEAD_BYTES:
                length, version, kind, verb, number, header_bytes, digest = _HEAD.unpack_from(
                    view, at
                )
                wanted = length + 4
                if (
                    version != VERSION
                    or wanted > limit
                    or kind not in _KINDS
                    or header_bytes > HEADER_BYTES_MAX
                    or header_bytes + _FIXED_BYTES > length
                ):
                    # Refused before the rest has arrived.
                    raise self._refusal(length, version, kind, header_bytes)
                if size - at < wanted:
                    break
                start = at + FRAME_HEAD_BYTES
                end = start + header_bytes
                header = bytes(view[start:end])
                if checksum(bytes(view[at : at + _FIXED_BYTES]) + header) & _LOW != digest:
                    raise ProtocolError("a frame's checksum does not match its bytes")
                at += wanted
                frames.append(_frame((kind, verb, number, header, bytes(view[end:at]))))
                wanted = FRAME_HEAD_BYTES
            if data is not buffer:
                buffer += view[at:]
        if data is buffer and at:
            del buffer[:at]
        self._wanted = wanted
        return frames

    def _refusal(
        self, size: int, version: int, kind: int, header_bytes: int
    ) -> ProtocolError | FutureVersionError:
        """What is wrong with the fixed bytes of a frame."""
        if VERSION < version <= VERSION_MAX:
            return FutureVersionError(
                f"a frame of version {version}; this side speaks {VERSION}",
                found=version,
                supported=VERSION,
            )
        if version != VERSION:
            return ProtocolError("these bytes are not Chronik's protocol")
        length = size + 4
        if length > self.frame_bytes_max:
            return ProtocolError(
                f"a frame of {length} bytes; at most {self.frame_bytes_max} are allowed here"
            )
        if kind not in _KINDS:
            return ProtocolError(f"a frame of kind {kind}, which is none")
        return ProtocolError(f"a header of {header_bytes} bytes in a frame of {length}")


def _long_frame(whole: memoryview) -> Frame:
    """The frame whose fixed bytes were checked when they came; its payload is a view."""
    _, _, kind, verb, request_id, header_bytes, digest = _HEAD.unpack_from(whole)
    end = FRAME_HEAD_BYTES + header_bytes
    header = bytes(whole[FRAME_HEAD_BYTES:end])
    if checksum(bytes(whole[:_FIXED_BYTES]) + header) & _LOW != digest:
        raise ProtocolError("a frame's checksum does not match its bytes")
    return Frame(kind, verb, request_id, header, whole[end:])
