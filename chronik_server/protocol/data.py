"""Messages about records: produce, fetch, offsets, cursors, search.

Place: in `protocol`. Promise: batches and entries travel as payload, byte for byte as their
producer made them; only what a node must know to route and to answer stands in the header.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from chronik_server.protocol.message import LISTED_ITEMS_MAX, Codec, Optioned
from chronik_store.format.shape import (
    BOOLEAN,
    ID,
    INT64,
    NAME,
    NOTE,
    PARTITION,
    TOPIC,
    UINT63,
    Fixed,
    Integer,
    Optional,
    Row,
    Shape,
    ShapeError,
    Text,
    TupleOf,
)
from chronik_store.model import Coverage, Tier, Watermarks

Acks = Literal["none", "leader", "quorum"]
"""What an append waits for: nothing; the leader's disk; the disks of a quorum."""
Order = Literal["newest", "oldest", "score"]
Consistency = Literal["committed", "linearizable"]
FETCH_BYTES_MAX: Final = 1 << 30
WAIT_MS_MAX: Final = 10 * 60 * 1000
HITS_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class Produce:
    """One batch, the payload. Its producer id, epoch and sequence stand in the batch itself."""

    topic: str
    partition: int = 0
    acks: Acks = "quorum"
    expected_offset: int | None = None


@dataclass(frozen=True, slots=True)
class Produced:
    """Where the batch is: offsets [base_offset, end_offset). `duplicate`: it was there before."""

    base_offset: int
    end_offset: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Fetch:
    """Records from `offset` on. Waits up to `wait_ms` until `min_bytes` are there, or others need
    the room that what is there takes.

    consistency "linearizable": the leader, confirmed by a quorum round, answers. topic_id: of this
    topic, and of none that was made under its name since.
    """

    topic: str
    partition: int = 0
    offset: int = 0
    max_bytes: int = 1 << 20
    min_bytes: int = 1
    wait_ms: int = 0
    consistency: Consistency = "committed"
    topic_id: str | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """The payload is entries of records, back to back; the first may begin before `offset`.

    next_offset: where to go on. tier: which one gave the first entry. elapsed_us: how long the
    server took, waiting left out. staleness_ms: how long ago this node heard its leader; None on
    the leader itself.
    """

    next_offset: int
    start_offset: int
    committed_offset: int
    tier: Tier
    elapsed_us: int
    staleness_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Offsets:
    """The limits of a partition and, if asked, the first offset at or after a time. `topic_id`: as
    in `Fetch`.
    """

    topic: str
    partition: int = 0
    timestamp_us: int | None = None
    topic_id: str | None = None


@dataclass(frozen=True, slots=True)
class OffsetsFound:
    """`watermarks`: the plot line. `offset`: of the time asked for, None when there is none.
    `staleness_ms`: as in `Fetched`. `topic_id`: whose they are; None from a node that cannot say.
    """

    watermarks: Watermarks
    offset: int | None = None
    staleness_ms: int | None = None
    topic_id: str | None = None


@dataclass(frozen=True, slots=True)
class GetCursor:
    """Where a named reader stands. `topic_id`: as in `Fetch`."""

    topic: str
    partition: int
    name: str
    topic_id: str | None = None


@dataclass(frozen=True, slots=True)
class CursorPlace:
    """Its offset, None if it was never committed; the log's start; `staleness_ms` of `Fetched`."""

    offset: int | None
    start_offset: int
    staleness_ms: int | None = None


@dataclass(frozen=True, slots=True)
class CommitCursor:
    """Everything below `next_offset` is done. Moves back only with `reset`. `topic_id`: as in
    `Fetch`.
    """

    topic: str
    partition: int
    name: str
    next_offset: int
    reset: bool = False
    topic_id: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteCursor:
    """Forget it."""

    topic: str
    partition: int
    name: str


@dataclass(frozen=True, slots=True)
class CursorDeleted:
    """Whether there was one."""

    existed: bool


@dataclass(frozen=True, slots=True)
class Search:
    """Full-text search of one partition, or of all of a topic (None), merged."""

    topic: str
    query: str
    partition: int | None = None
    since_us: int | None = None
    until_us: int | None = None
    start: int | None = None
    stop: int | None = None
    limit: int = 10
    order: Order = "newest"
    deadline_ms: int | None = None
    require_complete: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """One record found; the record itself is at the same place in the payload's batch."""

    partition: int
    offset: int
    score: float


@dataclass(frozen=True, slots=True)
class Searched:
    """The payload is one record batch with the hits' records in order; empty without hits."""

    total: int
    total_is_exact: bool
    elapsed_us: int
    hits: tuple[Hit, ...] = ()
    coverage: tuple[Coverage, ...] = ()
    unknown_paths: tuple[str, ...] = ()


class Real:
    """A finite or infinite float; an integer is taken for one."""

    def pack(self, value: float) -> float:
        return self.unpack(value, "it")

    def unpack(self, item: object, what: str) -> float:
        if type(item) not in {float, int}:
            raise ShapeError(f"{what} is not a number: {item!r:.80}")
        return float(item)  # type: ignore[arg-type]


class ProducedCodec(Codec[Produced]):
    """The answer that is given most often, by hand: the same bytes, ten times as fast."""

    def __init__(self) -> None:
        fields: dict[str, Shape[Any]] = {"base_offset": UINT63, "end_offset": UINT63}
        fields["duplicate"] = BOOLEAN
        super().__init__(Produced, fields)

    def encode(self, message: Produced) -> bytes:
        base, end = message.base_offset, message.end_offset
        if message.duplicate or not 0 <= base <= end < 1 << 63:
            return super().encode(message)
        return b"".join((_END_KEY, _unsigned(end), _BASE_KEY, _unsigned(base)))

    def decode(self, header: bytes) -> Produced:
        if header.startswith(_END_KEY):
            end, at = _read_unsigned(header, len(_END_KEY))
            if at and header.startswith(_BASE_KEY, at):
                base, at = _read_unsigned(header, at + len(_BASE_KEY))
                if at == len(header):
                    return Produced(base, end)
        return super().decode(header)


_END_KEY: Final = b"\xa2\x6aend_offset"
_BASE_KEY: Final = b"\x6bbase_offset"


def _unsigned(value: int) -> bytes:
    """CBOR's shortest form of an unsigned integer below 2**63."""
    if value < 24:
        return bytes((value,))
    width = 0 if value < 1 << 8 else 1 if value < 1 << 16 else 2 if value < 1 << 32 else 3
    return bytes((24 + width,)) + value.to_bytes(1 << width, "big")


def _read_unsigned(data: bytes, at: int) -> tuple[int, int]:
    """The unsigned integer at `at` and where it ends; end 0 when there is none."""
    head = data[at] if at < len(data) else 0xFF
    if head < 24:
        return head, at + 1
    end = at + 1 + (1 << (head - 24)) if head < 28 else len(data) + 1
    value = int.from_bytes(data[at + 1 : end], "big")
    return (value, end) if end <= len(data) and value < 1 << 63 else (0, 0)


_RANGES: Final = TupleOf(Fixed(UINT63, UINT63), 1 << 20)
_LINE: Final = ("start", "indexed", "tiered", "sealed", "committed", "durable", "end")


def _watermarks(*limits: int) -> Watermarks:
    if list(limits) != sorted(limits):
        raise ShapeError(f"limits {limits} do not rise")
    return Watermarks(*limits)


WATERMARKS: Final[Shape[Watermarks]] = Row(_watermarks, dict.fromkeys(_LINE, UINT63))
REASONS_MAX: Final = 64
PATHS_MAX: Final = 1024
NOTE_BYTES_MAX: Final = NOTE.limit
COVERAGE: Final = Optioned(
    Coverage,
    {
        "searched": _RANGES,
        "missing": _RANGES,
        "partition": PARTITION,
        "reasons": TupleOf(NOTE, REASONS_MAX),
    },
)
_WHERE: Final[dict[str, Shape[Any]]] = {"topic": TOPIC, "partition": PARTITION}
_WHOSE: Final[dict[str, Shape[Any]]] = {"topic_id": Optional(ID)}
_POSITIVE: Final = Integer(0, FETCH_BYTES_MAX)

PRODUCE: Final = Codec(
    Produce,
    {
        **_WHERE,
        "acks": Text(8, choices=("none", "leader", "quorum")),
        "expected_offset": Optional(UINT63),
    },
).remembering()
PRODUCED: Final = ProducedCodec()
FETCH: Final = Codec(
    Fetch,
    {
        **_WHERE,
        "offset": UINT63,
        "max_bytes": Integer(1, FETCH_BYTES_MAX),
        "min_bytes": _POSITIVE,
        "wait_ms": Integer(0, WAIT_MS_MAX),
        "consistency": Text(16, choices=("committed", "linearizable")),
        **_WHOSE,
    },
)
FETCHED: Final = Codec(
    Fetched,
    {
        "next_offset": UINT63,
        "start_offset": UINT63,
        "committed_offset": UINT63,
        "tier": Text(16, choices=("none", "wal_tail", "wal", "local_segment", "object_store")),
        "elapsed_us": UINT63,
        "staleness_ms": Optional(UINT63),
    },
)
OFFSETS: Final = Codec(Offsets, {**_WHERE, "timestamp_us": Optional(INT64), **_WHOSE})
OFFSETS_FOUND: Final = Codec(
    OffsetsFound,
    {
        "watermarks": WATERMARKS,
        "offset": Optional(UINT63),
        "staleness_ms": Optional(UINT63),
        **_WHOSE,
    },
)
GET_CURSOR: Final = Codec(GetCursor, {**_WHERE, "name": NAME, **_WHOSE})
CURSOR_PLACE: Final = Codec(
    CursorPlace,
    {"offset": Optional(UINT63), "start_offset": UINT63, "staleness_ms": Optional(UINT63)},
)
COMMIT_CURSOR: Final = Codec(
    CommitCursor, {**_WHERE, "name": NAME, "next_offset": UINT63, "reset": BOOLEAN, **_WHOSE}
)
DELETE_CURSOR: Final = Codec(DeleteCursor, {**_WHERE, "name": NAME})
CURSOR_DELETED: Final = Codec(CursorDeleted, {"existed": BOOLEAN})
SEARCH: Final = Codec(
    Search,
    {
        "topic": TOPIC,
        "query": Text(64 << 10),
        "partition": Optional(PARTITION),
        "since_us": Optional(INT64),
        "until_us": Optional(INT64),
        "start": Optional(UINT63),
        "stop": Optional(UINT63),
        "limit": Integer(1, HITS_MAX),
        "order": Text(8, choices=("newest", "oldest", "score")),
        "deadline_ms": Optional(UINT63),
        "require_complete": BOOLEAN,
    },
)
SEARCHED: Final = Codec(
    Searched,
    {
        "total": UINT63,
        "total_is_exact": BOOLEAN,
        "elapsed_us": UINT63,
        "hits": TupleOf(
            Row(Hit, {"partition": PARTITION, "offset": UINT63, "score": Real()}), HITS_MAX
        ),
        "coverage": TupleOf(COVERAGE, 1 << 14),
        "unknown_paths": TupleOf(NOTE, PATHS_MAX),
    },
    items_max=LISTED_ITEMS_MAX,
)
