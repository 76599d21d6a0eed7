"""What a store says of itself: its identity (the STORE file and object) and its topics.

    envelope (magic f5 'CKI'), body = one canonical CBOR map: StoreIdentity
    envelope (magic f5 'CKL'), body = one canonical CBOR map: TopicCatalog

Place: in `format`. Promise: a directory and a bucket prefix of one store carry the same store id.
Invariant: no secret ever stands in it (the URL is stored without credentials by its writer).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from operator import lt
from typing import Final, Literal, NamedTuple

from chronik_store.errors import CorruptionError
from chronik_store.format import cbor
from chronik_store.format.checksum import Buffer
from chronik_store.format.envelope import Kind, seal, seal_value, unseal_value
from chronik_store.format.shape import (
    ID,
    INT64,
    NAME,
    TOPIC,
    Integer,
    Optional,
    Row,
    Table,
    Text,
    TupleOf,
)

TOPICS_MAX: Final = 1 << 20
PARTITIONS_MAX: Final = 1 << 20
REMEMBERED_MAX: Final = 1 << 16
"""Entries whose bytes are remembered, some 200 bytes each; beyond that they are made again."""

_IDENTITY_KIND: Final = Kind(b"\xf5CKI", 1, "STORE identity")
_CATALOG_KIND: Final = Kind(b"\xf5CKL", 1, "topic catalog")


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """format_version: of the store's layout. store_id: 32 hex digits, random. url: the bucket
    prefix it belongs to, None until known. owner: "local", or cluster id and node id.
    """

    format_version: int
    store_id: str
    url: str | None
    created_us: int
    owner: str

    def encode(self) -> bytes:
        """The STORE file's bytes. ValueError when a field is out of its range."""
        return seal_value(_IDENTITY_KIND, _IDENTITY, self)


class TopicEntry(NamedTuple):
    """A topic of this store: its name, its id, its partitions [0, partitions), its state."""

    name: str
    topic_id: str
    partitions: int
    state: Literal["live", "deleting"]


@dataclass(frozen=True, slots=True)
class TopicCatalog:
    """The topics, sorted by (name, topic_id); one id stands once."""

    topics: tuple[TopicEntry, ...] = ()

    def encode(self) -> bytes:
        """The catalog's bytes. ValueError when unsorted or a field is out of its range.

        It is written anew for each topic that is made, and nearly all of it is as it was: what an
        entry is in bytes is remembered, so that a thousand topics are not encoded a thousand times.
        """
        if not all(map(lt, self.topics, self.topics[1:])):
            raise ValueError("the topics of a catalog are sorted and different")
        if len(self.topics) > TOPICS_MAX:
            raise ValueError(f"a catalog has at most {TOPICS_MAX} topics")
        whole = b"".join(map(_entry_bytes, self.topics))
        return seal(_CATALOG_KIND, _CATALOG_HEAD + cbor.array_head(len(self.topics)) + whole)


_IDENTITY: Final = Table(
    StoreIdentity,
    {
        "format_version": Integer(1, (1 << 32) - 1),
        "store_id": ID,
        "url": Optional(Text(4096)),
        "created_us": INT64,
        "owner": NAME,
    },
)
_ENTRY: Final = Row(
    TopicEntry,
    {
        "name": TOPIC,
        "topic_id": ID,
        "partitions": Integer(1, PARTITIONS_MAX),
        "state": Text(choices=("live", "deleting")),
    },
)
_CATALOG: Final = Table(TopicCatalog, {"topics": TupleOf(_ENTRY, TOPICS_MAX)})
_CATALOG_HEAD: Final = cbor.encode({"topics": []})[:-1]
"""Up to the array, which is empty here: one byte."""


@lru_cache(REMEMBERED_MAX)
def _entry_bytes(entry: TopicEntry) -> bytes:
    return cbor.encode(_ENTRY.pack(entry))


def decode_store_identity(data: Buffer, *, path: str = "") -> StoreIdentity:
    """The identity that `data` is."""
    return unseal_value(_IDENTITY_KIND, _IDENTITY, data, path=path)[0]


def decode_topic_catalog(data: Buffer, *, path: str = "") -> TopicCatalog:
    """The catalog that `data` is."""
    catalog = unseal_value(_CATALOG_KIND, _CATALOG, data, path=path)[0]
    if list(catalog.topics) != sorted(set(catalog.topics)):
        raise CorruptionError("topic catalog: its topics are not sorted and different", path=path)
    return catalog
