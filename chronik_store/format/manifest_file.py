"""The manifest: which segments and bundles a log has; its values and their bytes.

    envelope (magic f5 'CKM'), body = one canonical CBOR map:
    { manifest: {...}, term, folded_to, predecessor_hash, successor, producers, members }

Place: in `format`, above `control`; the rules by which a manifest changes are the `manifest`
room's. Promise: self-sufficient, so that a log opens from its newest manifest object alone.
Invariant: equal manifests encode to equal bytes, since they are compared by hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from chronik_store.format.checksum import Buffer
from chronik_store.format.control import FENCED, MEMBERS, Fenced, Members
from chronik_store.format.envelope import Kind, seal_value, unseal_value
from chronik_store.format.producer_state import ProducerEntry, decode_producers, encode_producers
from chronik_store.format.segment_info import SEGMENT, BundleInfo, SegmentInfo, range_fault
from chronik_store.format.shape import (
    HASH,
    ID,
    INDEX,
    INT64,
    KEY,
    NAME,
    PARTITION,
    TOPIC,
    UINT63,
    Embedded,
    Fixed,
    Optional,
    Row,
    Table,
    TupleOf,
)

__all__ = [
    "BundleInfo",
    "GarbageItem",
    "IntentItem",
    "LogBase",
    "Manifest",
    "ManifestObject",
    "SealedRange",
    "SegmentInfo",
    "decode_manifest_object",
]

ITEMS_MAX: Final = 1 << 20
"""Segments, sealed ranges, garbage items, intents or cursors of one manifest."""

_KIND: Final = Kind(b"\xf5CKM", 1, "manifest")


class LogBase(NamedTuple):
    """The last entry before the first stored one: `index` is inclusive, `offset` the end offset
    behind it, `timestamp_us` its index timestamp. LogBase(0, 0, 0, 0): nothing lies before.
    """

    index: int  # type: ignore[assignment]  # tuple.index is not missed
    term: int
    offset: int
    timestamp_us: int


EMPTY_BASE: Final = LogBase(0, 0, 0, 0)


class SealedRange(NamedTuple):
    """A run that a SEAL (its last entry, of this term) closed and no ADD_SEGMENT lists yet.

    `sealed_us` is the leader's clock, `timestamp_us` the index timestamp at the SEAL.
    """

    first_index: int
    last_index: int
    base_offset: int
    end_offset: int
    term: int
    sealed_us: int
    timestamp_us: int


class GarbageItem(NamedTuple):
    """An object to delete: since when, and by the entry of which index (the generation)."""

    key: str
    since_us: int
    generation: int


class IntentItem(NamedTuple):
    """An INTENT whose objects are not accounted for yet: its entry's term, index and clock.

    `first_index` is that of the sealed range it is for, 0 for bundles.
    """

    keys: tuple[str, ...]
    first_index: int
    term: int
    index: int  # type: ignore[assignment]  # tuple.index is not missed
    clock_us: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The fold of all control entries up to `generation`, the index that last changed it.

    `next`: the end of the last segment, i.e. the entry that a snapshot stands for. `sealed`:
    sealed ranges behind it. `open_first_index`: the first entry that no SEAL closes yet.
    `cursors`: (name, offset) sorted by name. published_*: the newest PUBLISHED that was applied.
    """

    topic: str
    partition: int
    topic_id: str
    log_id: str
    generation: int = 0
    start_offset: int = 0
    next: LogBase = EMPTY_BASE
    segments: tuple[SegmentInfo, ...] = ()
    sealed: tuple[SealedRange, ...] = ()
    garbage: tuple[GarbageItem, ...] = ()
    intents: tuple[IntentItem, ...] = ()
    published_number: int = 0
    published_folded_to: int = 0
    published_hash: str = "0" * 16
    published_generation: int = 0
    fenced: Fenced | None = None
    cursors: tuple[tuple[str, int], ...] = ()
    open_first_index: int = 1


@dataclass(frozen=True, slots=True)
class ManifestObject:
    """One published manifest: the body of `manifests/{topic}/{partition}/{log_id}/{number}`.

    term: of the leader that published it. folded_to: the index up to which entries are in it.
    predecessor_hash: `content_hash` of the object one number below. successor: the log_id that
    took the log over by claiming this number, else None; the topic's own id: the topic is deleted.
    producers, members: as of manifest.next.
    """

    manifest: Manifest
    term: int
    folded_to: int
    predecessor_hash: str
    successor: str | None = None
    producers: tuple[ProducerEntry, ...] = ()
    members: Members | None = None

    def encode(self) -> bytes:
        """The object's bytes. ValueError when a field is out of its range."""
        return seal_value(_KIND, _OBJECT, self)


def _cursors_fault(manifest: Manifest) -> str:
    names = [name for name, _ in manifest.cursors]
    return "" if names == sorted(set(names)) else "its cursors are not sorted by different names"


LOG_BASE: Final = Row(
    LogBase, {"index": UINT63, "term": UINT63, "offset": UINT63, "timestamp_us": INT64}
)
PRODUCERS: Final = Embedded(encode_producers, decode_producers)

MANIFEST: Final = Table(
    Manifest,
    {
        "topic": TOPIC,
        "partition": PARTITION,
        "topic_id": ID,
        "log_id": ID,
        "generation": UINT63,
        "start_offset": UINT63,
        "next": LOG_BASE,
        "segments": TupleOf(SEGMENT, ITEMS_MAX),
        "sealed": TupleOf(
            Row(
                SealedRange,
                {
                    "first_index": INDEX,
                    "last_index": INDEX,
                    "base_offset": UINT63,
                    "end_offset": UINT63,
                    "term": UINT63,
                    "sealed_us": INT64,
                    "timestamp_us": INT64,
                },
                range_fault,
            ),
            ITEMS_MAX,
        ),
        "garbage": TupleOf(
            Row(GarbageItem, {"key": KEY, "since_us": INT64, "generation": UINT63}), ITEMS_MAX
        ),
        "intents": TupleOf(
            Row(
                IntentItem,
                {
                    "keys": TupleOf(KEY, 1 << 16),
                    "first_index": UINT63,
                    "term": UINT63,
                    "index": INDEX,
                    "clock_us": INT64,
                },
            ),
            ITEMS_MAX,
        ),
        "published_number": UINT63,
        "published_folded_to": UINT63,
        "published_hash": HASH,
        "published_generation": UINT63,
        "fenced": Optional(FENCED),
        "cursors": TupleOf(Fixed(NAME, UINT63), ITEMS_MAX),
        "open_first_index": INDEX,
    },
    _cursors_fault,
)
_OBJECT: Final = Table(
    ManifestObject,
    {
        "manifest": MANIFEST,
        "term": UINT63,
        "folded_to": UINT63,
        "predecessor_hash": HASH,
        "successor": Optional(ID),
        "producers": PRODUCERS,
        "members": Optional(MEMBERS),
    },
)


def decode_manifest_object(data: Buffer, *, path: str = "") -> ManifestObject:
    """The published manifest that `data` is."""
    return unseal_value(_KIND, _OBJECT, data, path=path)[0]
