"""The values that cross room borders and the public API.

Place: a low room, above `errors` only. Promise: every value here is frozen, compares by value,
pickles and copies. Invariant: the plot line

    start <= indexed <= tiered <= sealed <= committed <= durable <= end

holds in every `Watermarks`; its constructor refuses anything else. Offsets are integers from 0,
limits are exclusive, times are integer microseconds since 1970 UTC.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

Headers = tuple[tuple[str, bytes], ...]
Tier = Literal["none", "wal_tail", "wal", "local_segment", "object_store"]
"""Which tier answered; "none" when there was nothing to read."""

Progress = Callable[[int, int], object]
"""Called with how much is done by then, and of how much."""

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Position(NamedTuple):
    """A point between entries: everything below `index` and, with it, below `offset`.

    `index` is exclusive here: Position(1, 0) is the empty log.
    """

    index: int  # type: ignore[assignment]
    offset: int


class _Fields:
    """The one memory layout of all record classes, so that __class__ may be assigned among them."""

    __slots__ = ("headers", "key", "offset", "timestamp_us", "value")
    value: bytes
    key: bytes | None
    timestamp_us: int | None
    headers: Headers
    offset: int


def _pairs(headers: Any) -> Headers:
    if isinstance(headers, Mapping):
        raise TypeError("headers are pairs (str, bytes), not a mapping: pass headers.items()")
    return tuple(headers)


class Record(_Fields):
    """What an application appends: a value and, if wanted, a key, a time and headers.

    value: bytes. key: bytes or None (None is not b""). timestamp_us: microseconds since 1970 UTC,
    None means "now, when appended". headers: pairs of (str, bytes), repeats allowed, order kept.
    """

    __slots__ = ()

    def __init__(
        self,
        value: bytes,
        key: bytes | None = None,
        timestamp_us: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        put = object.__setattr__
        put(self, "value", value)
        put(self, "key", key)
        put(self, "timestamp_us", timestamp_us)
        put(self, "headers", headers if type(headers) is tuple else _pairs(headers))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: cannot delete {name!r}")

    def _state(self) -> tuple[Any, ...]:
        return self.value, self.key, self.timestamp_us, self.headers

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._state() == other._state()

    def __hash__(self) -> int:
        return hash(self._state())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._state()

    def __repr__(self) -> str:
        parts = [repr(self.value)]
        if self.key is not None:
            parts.append(f"key={self.key!r}")
        if self.timestamp_us is not None:
            parts.append(f"timestamp_us={self.timestamp_us}")
        if self.headers:
            parts.append(f"headers={self.headers!r}")
        return f"{type(self).__name__}({', '.join(parts)})"


class StoredRecord(Record):
    """A record with its place in the log. `timestamp_us` is always set."""

    __slots__ = ()
    timestamp_us: int

    def __init__(
        self,
        value: bytes,
        key: bytes | None,
        timestamp_us: int,
        headers: Sequence[tuple[str, bytes]],
        offset: int,
    ) -> None:
        super().__init__(value, key, timestamp_us, headers)
        object.__setattr__(self, "offset", offset)

    def _state(self) -> tuple[Any, ...]:
        return self.value, self.key, self.timestamp_us, self.headers, self.offset

    @property
    def time(self) -> dt.datetime:
        """The timestamp as an aware datetime in UTC; OverflowError outside years 1 to 9999."""
        return EPOCH + dt.timedelta(microseconds=self.timestamp_us)

    def __repr__(self) -> str:
        head = f"StoredRecord(offset={self.offset}, value={self.value!r}"
        tail = f", headers={self.headers!r})" if self.headers else ")"
        return f"{head}, key={self.key!r}, timestamp_us={self.timestamp_us}{tail}"


class OpenStoredRecord(_Fields):
    """A StoredRecord under construction: assignable, then closed by assigning `__class__`.

    The decoder's door: 0.3 us a record, against 1.3 through a frozen __init__.
    """

    __slots__ = ()


class AppendResult(NamedTuple):
    """Where an append went: offsets [base_offset, end_offset). `duplicate`: it was there before."""

    base_offset: int
    end_offset: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class FetchResult:
    """The answer of `read`: records in offset order, and where to go on. Iterates its records."""

    records: tuple[StoredRecord, ...]
    next_offset: int
    tier: Tier
    elapsed_seconds: float

    def __iter__(self) -> Iterator[StoredRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One record found. `score` is comparable within one bundle only."""

    record: StoredRecord
    offset: int
    score: float
    topic: str = ""
    partition: int = 0


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which offsets were searched, and which were not. `missing` is empty when all was."""

    searched: tuple[tuple[int, int], ...]
    missing: tuple[tuple[int, int], ...]
    partition: int = 0
    reasons: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Nothing in the range asked for was left out."""
        return not self.missing


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer of `search`. Iterates its hits."""

    hits: tuple[SearchHit, ...]
    total: int
    total_is_exact: bool
    coverage: tuple[Coverage, ...]
    unknown_paths: tuple[str, ...]
    elapsed_seconds: float

    def __iter__(self) -> Iterator[SearchHit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    @property
    def complete(self) -> bool:
        """Every offset asked for was searched."""
        return all(part.complete for part in self.coverage)


@dataclass(frozen=True, slots=True)
class Watermarks:
    """The plot line in offsets: seven exclusive limits, printed left to right."""

    start: int
    indexed: int
    tiered: int
    sealed: int
    committed: int
    durable: int
    end: int

    def __post_init__(self) -> None:
        line = [self.start, self.indexed, self.tiered, self.sealed]
        line += [self.committed, self.durable, self.end]
        if any(left > right for left, right in itertools.pairwise(line)):
            raise AssertionError(f"the plot line is broken: {self}")

    def __str__(self) -> str:
        return (
            f"start {self.start} <= indexed {self.indexed} <= tiered {self.tiered} <= "
            f"sealed {self.sealed} <= committed {self.committed} <= durable {self.durable} <= "
            f"end {self.end}"
        )


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic: its name, its id (hex, 32 digits; namesakes differ in it), its partitions."""

    name: str
    topic_id: str
    partitions: int


Verdict = Literal["clean", "torn", "suspect"]


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What opening found and did. Byte and entry counts are of this partition's WAL."""

    verdict: Verdict
    files: int = 0
    bytes_scanned: int = 0
    entries: int = 0
    first_index: int = 1
    last_index: int = 0
    end_offset: int = 0
    committed_offset: int = 0
    cut_bytes: int = 0
    copied_bytes: int = 0
    elapsed_seconds: float = 0.0
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PipelineReport:
    """What one `run_pipeline_once` did, summed over partitions. `errors` stalled a stage there."""

    sealed: int = 0
    uploaded: int = 0
    adopted: int = 0
    indexed: int = 0
    published: int = 0
    pruned_files: int = 0
    pruned_bytes: int = 0
    dropped_segments: int = 0
    collected_objects: int = 0
    uploaded_bytes: int = 0
    errors: tuple[str, ...] = ()
    elapsed_seconds: float = 0.0

    def __add__(self, other: PipelineReport) -> PipelineReport:
        names = [field.name for field in fields(self)]
        return PipelineReport(*(getattr(self, name) + getattr(other, name) for name in names))

    @property
    def idle(self) -> bool:
        """Nothing was done and nothing failed."""
        return self == PipelineReport(elapsed_seconds=self.elapsed_seconds)


BUNDLE_KEYS_MAX = 1000
"""So many search bundles are found, or asked for, at a time."""


@dataclass(frozen=True, slots=True)
class BundlesFound:
    """Keys of search bundles that shall be built anew. next_offset: where to go on looking; None:
    that was all.
    """

    keys: tuple[str, ...]
    next_offset: int | None = None


@dataclass(frozen=True, slots=True)
class BundlesRebuilt:
    """What became of search bundles that were to be built anew. rebuilt: how many have a successor
    that the log lists. waiting: keys of those that have none yet; the others' segments were
    dropped. errors: what keeps them from being built, or published.
    """

    rebuilt: int
    waiting: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


Severity = Literal["note", "warning", "corruption"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that `verify` saw."""

    severity: Severity
    where: str
    message: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` checked and found. `ok`: no finding above a note."""

    findings: tuple[Finding, ...] = ()
    files_checked: int = 0
    objects_checked: int = 0
    entries_checked: int = 0
    bytes_checked: int = 0
    elapsed_seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Nothing worse than a note was found."""
        return all(finding.severity == "note" for finding in self.findings)


@dataclass(frozen=True, slots=True)
class LogStatus:
    """One partition at a glance. Byte counts are of local files; `notes` name what stands still."""

    topic: str
    partition: int
    topic_id: str
    log_id: str
    watermarks: Watermarks
    writable: bool
    wal_files: int
    wal_bytes: int
    local_segment_bytes: int
    segments: int
    bundles: int
    segment_bytes: int
    published_number: int
    fenced: bool
    cursors: Mapping[str, int] = field(default_factory=dict)
    last_error: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """A data directory at a glance. `unavailable`: why partitions could not be opened; `damaged`:
    those of these reasons that are damage (CorruptionError), which no second try cures.
    """

    path: str
    store_id: str
    object_store: str
    read_only: bool
    disk_total_bytes: int
    disk_free_bytes: int
    cache_memory_bytes: int
    cache_disk_bytes: int
    partitions: tuple[LogStatus, ...]
    unavailable: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


def to_us(time: dt.datetime | int) -> int:
    """Microseconds since 1970 UTC; ValueError for a naive datetime, TypeError for other types."""
    if isinstance(time, dt.datetime):
        if time.utcoffset() is None:  # a tzinfo that does not know says as little as none
            raise ValueError(
                "a naive datetime does not say which time it means: add a time zone, for example "
                "datetime.now(timezone.utc)"
            )
        delta = time - EPOCH
        return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    if type(time) is not int:
        raise TypeError(f"a time is an aware datetime or integer microseconds, not {time!r}")
    return time
