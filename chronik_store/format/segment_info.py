"""What the manifest knows of a segment and of its bundle: values, and their place in CBOR.

Place: in `format`, below `control` and `manifest_file`, which both carry them. Promise: enough to
plan any read or search without opening the object. Invariant: ranges hold one entry at least;
they are inclusive at both ends in indexes and exclusive at their ends in offsets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from chronik_store.format.shape import (
    BOOLEAN,
    HASH,
    INDEX,
    INT64,
    KEY,
    NAME,
    UINT63,
    Optional,
    Row,
    Text,
    TupleOf,
)

JSON_PATHS_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class BundleInfo:
    """A packed search index of one segment. Times are of its records, `engine` is the version of
    Tantivy that wrote it, `json_paths` the paths that occur (all, unless truncated).
    """

    key: str
    size_bytes: int
    hash: str
    engine: str
    document_count: int
    min_timestamp_us: int
    max_timestamp_us: int
    json_paths: tuple[str, ...]
    json_paths_truncated: bool


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """A sealed run of whole entries in one object: indexes [first_index, last_index], offsets
    [base_offset, end_offset), the term of its SEAL. first/last_timestamp_us are index timestamps,
    min/max_timestamp_us those of its records. added_index: the entry that listed it (0: none yet).
    """

    key: str
    first_index: int
    last_index: int
    base_offset: int
    end_offset: int
    term: int
    size_bytes: int
    hash: str
    record_count: int
    first_timestamp_us: int
    last_timestamp_us: int
    min_timestamp_us: int
    max_timestamp_us: int
    footer_bytes: int
    sealed_us: int
    bundle: BundleInfo | None = None
    added_index: int = 0


class _Range(Protocol):
    @property
    def first_index(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    @property
    def base_offset(self) -> int: ...
    @property
    def end_offset(self) -> int: ...


def range_fault(value: _Range) -> str:
    """What is wrong with a run of whole entries, or ""."""
    if value.first_index > value.last_index or value.base_offset > value.end_offset:
        return (
            f"indexes [{value.first_index}, {value.last_index}] or offsets "
            f"[{value.base_offset}, {value.end_offset}) are the wrong way round"
        )
    return ""


BUNDLE: Final = Row(
    BundleInfo,
    {
        "key": KEY,
        "size_bytes": UINT63,
        "hash": HASH,
        "engine": NAME,
        "document_count": UINT63,
        "min_timestamp_us": INT64,
        "max_timestamp_us": INT64,
        "json_paths": TupleOf(Text(1024), JSON_PATHS_MAX),
        "json_paths_truncated": BOOLEAN,
    },
)
SEGMENT: Final = Row(
    SegmentInfo,
    {
        "key": KEY,
        "first_index": INDEX,
        "last_index": INDEX,
        "base_offset": UINT63,
        "end_offset": UINT63,
        "term": UINT63,
        "size_bytes": UINT63,
        "hash": HASH,
        "record_count": UINT63,
        "first_timestamp_us": INT64,
        "last_timestamp_us": INT64,
        "min_timestamp_us": INT64,
        "max_timestamp_us": INT64,
        "footer_bytes": UINT63,
        "sealed_us": INT64,
        "bundle": Optional(BUNDLE),
        "added_index": UINT63,
    },
    range_fault,
)
