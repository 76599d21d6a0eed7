"""What nodes tell each other, as the protocol sees it: a group, a head, a payload.

Place: in `protocol`. Promise: opaque here; the head is encoded and read by `raft.messages`, the
payload is entries or a snapshot. Invariant: the bytes are those of any other message's header, a
canonical CBOR map, though they are written and read by hand: one goes with every group of entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from chronik_server.protocol.message import REMEMBERED, REMEMBERED_BYTES_MAX, Codec
from chronik_store.format.shape import NAME, ShapeError

HEAD_BYTES_MAX: Final = 8 << 20
_MAP_OF_ONE: Final = b"\xa1"
_MAP_AND_HEAD: Final = b"\xa2\x64head\x58"
"""A map of two, the key "head", and a byte string of 24 to 255 bytes, whose length follows."""
_GROUP_KEY: Final = b"\x65group"


@dataclass(frozen=True, slots=True)
class RaftMessage:
    """From one node of a group to another. `head` is Raft's own encoding; entries are payload."""

    group: str
    head: bytes = b""


class Blob:
    """A byte string of at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def pack(self, value: bytes) -> Any:
        return self.unpack(value, "it")

    def unpack(self, item: Any, what: str) -> bytes:
        if type(item) is not bytes or len(item) > self.limit:
            raise ShapeError(f"{what} is not a byte string of at most {self.limit} bytes")
        return item


class RaftCodec(Codec[RaftMessage]):
    """The codec of RaftMessage: the same bytes as any other's, without taking apart what is the
    same in all messages of a group.
    """

    def __init__(self) -> None:
        super().__init__(RaftMessage, {"group": NAME, "head": Blob(HEAD_BYTES_MAX)})
        self._pack_group = lru_cache(REMEMBERED)(self._packed_group)
        self._unpack_group = lru_cache(REMEMBERED)(self._unpacked_group)

    def _packed_group(self, group: str) -> bytes:
        return super().encode(RaftMessage(group))[1:]

    def _unpacked_group(self, packed: bytes) -> str:
        return super().decode(_MAP_OF_ONE + packed).group

    def encode(self, message: RaftMessage) -> bytes:
        """As `Codec.encode`."""
        size = len(message.head)
        if not 24 <= size < 256:
            return super().encode(message)
        head = _MAP_AND_HEAD + bytes((size,)) + message.head
        return head + self._pack_group(message.group)

    def decode(self, header: bytes) -> RaftMessage:
        """As `Codec.decode`."""
        if not header.startswith(_MAP_AND_HEAD):
            return super().decode(header)
        start = len(_MAP_AND_HEAD) + 1
        end = start + header[start - 1] if len(header) >= start else 0
        packed = header[end:]
        if not packed.startswith(_GROUP_KEY) or len(packed) > REMEMBERED_BYTES_MAX:
            return super().decode(header)
        return RaftMessage(self._unpack_group(packed), header[start:end])


RAFT_MESSAGE: Final = RaftCodec()
