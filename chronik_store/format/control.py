"""Control commands: the payloads of entries that carry no records.

     0               4               8
     +---------------+---------------+-------------------------------------------------
     |  f5 'C K X'   |    version    |  one canonical CBOR map: the command's fields ...
     +---------------+---------------+-------------------------------------------------

Place: in `format`, above `segment_info`. Promise: each command is a frozen value that knows its
kind and its bytes. Invariant: equal commands encode to equal bytes. There is no checksum here:
the entry's own covers the whole payload of a control entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from chronik_store.errors import CorruptionError
from chronik_store.format import cbor
from chronik_store.format.checksum import Buffer
from chronik_store.format.entry import EntryKind
from chronik_store.format.envelope import Kind, refuse, unpack
from chronik_store.format.segment_info import BUNDLE, SEGMENT, BundleInfo, SegmentInfo
from chronik_store.format.shape import (
    BOOLEAN,
    HASH,
    ID,
    INDEX,
    INT64,
    KEY,
    NAME,
    NOTE,
    UINT63,
    Optional,
    Shape,
    Table,
    Text,
    TupleOf,
)

KEYS_MAX: Final = 1 << 16
"""Object keys that one INTENT or COLLECTED may name."""
VOTERS_MAX: Final = 256

SealReason = Literal["size", "age", "admin", "close"]

_FORMAT: Final = Kind(b"\xf5CKX", 1, "control command")
_HEAD: Final = _FORMAT.magic + _FORMAT.version.to_bytes(4, "little")


class _Encoded:
    __slots__ = ()
    KIND: ClassVar[EntryKind]

    def encode(self) -> bytes:
        """The payload of the entry. ValueError when a field is out of its range."""
        return _HEAD + cbor.encode(_SHAPES[self.KIND].pack(self))


@dataclass(frozen=True, slots=True)
class Noop(_Encoded):
    """A leader's first entry of its term; it says nothing."""

    KIND: ClassVar[EntryKind] = EntryKind.NOOP


@dataclass(frozen=True, slots=True)
class Seal(_Encoded):
    """Close the open segment, which must start at `first_index`. The entry is its last one.

    `clock_us`: the leader's clock, from which the age of the data is counted.
    """

    KIND: ClassVar[EntryKind] = EntryKind.SEAL
    first_index: int
    reason: SealReason
    clock_us: int


@dataclass(frozen=True, slots=True)
class Intent(_Encoded):
    """Objects under these keys may come to exist: named before the first put of each.

    `first_index`: of the sealed range they are for; 0 for bundles.
    """

    KIND: ClassVar[EntryKind] = EntryKind.INTENT
    keys: tuple[str, ...]
    clock_us: int
    first_index: int = 0


@dataclass(frozen=True, slots=True)
class AddSegment(_Encoded):
    """The verified object of the next sealed range."""

    KIND: ClassVar[EntryKind] = EntryKind.ADD_SEGMENT
    segment: SegmentInfo


@dataclass(frozen=True, slots=True)
class AddIndex(_Encoded):
    """A bundle for a listed segment, in place of the bundle key `replaces` (None: it had none)."""

    KIND: ClassVar[EntryKind] = EntryKind.ADD_INDEX
    segment_key: str
    replaces: str | None
    bundle: BundleInfo
    clock_us: int


@dataclass(frozen=True, slots=True)
class Published(_Encoded):
    """Manifest `number`, with this content hash, holds all entries up to index `folded_to`."""

    KIND: ClassVar[EntryKind] = EntryKind.PUBLISHED
    number: int
    folded_to: int
    hash: str
    clock_us: int


@dataclass(frozen=True, slots=True)
class DropPrefix(_Encoded):
    """Records below `offset` are no longer part of the log."""

    KIND: ClassVar[EntryKind] = EntryKind.DROP_PREFIX
    offset: int
    reason: str
    clock_us: int


@dataclass(frozen=True, slots=True)
class Collected(_Encoded):
    """The objects under these keys are deleted: take them off the garbage list."""

    KIND: ClassVar[EntryKind] = EntryKind.COLLECTED
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CursorSet(_Encoded):
    """The cursor stands at `offset` now; None deletes it; `reset` permits a step back."""

    KIND: ClassVar[EntryKind] = EntryKind.CURSOR
    name: str
    offset: int | None
    reset: bool


@dataclass(frozen=True, slots=True)
class Members(_Encoded):
    """The group's members from this entry on, by node identity."""

    KIND: ClassVar[EntryKind] = EntryKind.MEMBERS
    voters: tuple[str, ...]
    learners: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fenced(_Encoded):
    """A successor claimed manifest `number`: tiering of this log has ended."""

    KIND: ClassVar[EntryKind] = EntryKind.FENCED
    successor_log_id: str
    number: int
    reason: str


Command = (
    Noop
    | Seal
    | Intent
    | AddSegment
    | AddIndex
    | Published
    | DropPrefix
    | Collected
    | CursorSet
    | Members
    | Fenced
)

_KEYS: Final = TupleOf(KEY, KEYS_MAX)
_VOTERS: Final = TupleOf(NAME, VOTERS_MAX)

FENCED: Final = Table(Fenced, {"successor_log_id": ID, "number": UINT63, "reason": NOTE})
MEMBERS: Final = Table(Members, {"voters": _VOTERS, "learners": _VOTERS})

_SHAPES: Final[Mapping[int, Shape[Any]]] = {
    EntryKind.NOOP: Table(Noop, {}),
    EntryKind.SEAL: Table(
        Seal,
        {
            "first_index": INDEX,
            "reason": Text(choices=("size", "age", "admin", "close")),
            "clock_us": INT64,
        },
    ),
    EntryKind.INTENT: Table(Intent, {"keys": _KEYS, "clock_us": INT64, "first_index": UINT63}),
    EntryKind.ADD_SEGMENT: Table(AddSegment, {"segment": SEGMENT}),
    EntryKind.ADD_INDEX: Table(
        AddIndex,
        {"segment_key": KEY, "replaces": Optional(KEY), "bundle": BUNDLE, "clock_us": INT64},
    ),
    EntryKind.PUBLISHED: Table(
        Published, {"number": UINT63, "folded_to": UINT63, "hash": HASH, "clock_us": INT64}
    ),
    EntryKind.DROP_PREFIX: Table(DropPrefix, {"offset": UINT63, "reason": NOTE, "clock_us": INT64}),
    EntryKind.COLLECTED: Table(Collected, {"keys": _KEYS}),
    EntryKind.CURSOR: Table(
        CursorSet, {"name": NAME, "offset": Optional(UINT63), "reset": BOOLEAN}
    ),
    EntryKind.MEMBERS: MEMBERS,
    EntryKind.FENCED: FENCED,
}


def decode_command(kind: int, payload: Buffer, *, path: str = "") -> Command:
    """The command of a control entry of this kind, whose checksum the caller has verified."""
    shape = _SHAPES.get(kind)
    if shape is None:
        raise CorruptionError(f"entry kind {kind} carries no control command", path=path)
    refuse(_FORMAT, payload, path=path)
    what = f"control command {EntryKind(kind).name}"
    item = cbor.decode(memoryview(payload)[len(_HEAD) :], what=what, path=path)
    command: Command = unpack(shape, item, what, path=path)
    return command
