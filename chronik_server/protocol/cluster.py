"""Messages about nodes and upkeep: status, pipeline, members, leadership.

Place: in `protocol`. Promise: a status says of each partition what `chronik_store` says of it, and
what this node is to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from chronik_server.protocol.data import WATERMARKS
from chronik_server.protocol.message import LISTED_ITEMS_MAX, Codec, Optioned
from chronik_server.protocol.topics import NODES_MAX
from chronik_store.format.shape import (
    BOOLEAN,
    ID,
    KEY,
    NAME,
    PARTITION,
    TOPIC,
    UINT63,
    Optional,
    Row,
    ShapeError,
    Text,
    TupleOf,
)
from chronik_store.model import (
    BUNDLE_KEYS_MAX,
    BundlesFound,
    BundlesRebuilt,
    LogStatus,
    PipelineReport,
    StoreStatus,
)

GroupRole = Literal["leader", "follower", "candidate", "learner", "none"]
_LONG: Final = Text(1 << 16)
_LINES: Final = TupleOf(_LONG, 10_000)


@dataclass(frozen=True, slots=True)
class Status:
    """This node's partitions: of one topic, or all."""

    topic: str | None = None


@dataclass(frozen=True, slots=True)
class PartitionRole:
    """What the answering node is to a partition's group."""

    topic: str
    partition: int
    role: GroupRole
    term: int = 0
    leader: str | None = None


@dataclass(frozen=True, slots=True)
class StatusFound:
    """A data directory at a glance, and this node's part in each group."""

    store: StoreStatus
    roles: tuple[PartitionRole, ...] = ()
    node_id: str = ""


@dataclass(frozen=True, slots=True)
class Seal:
    """Close the open segment now."""

    topic: str
    partition: int = 0


@dataclass(frozen=True, slots=True)
class Sealed:
    """The log is sealed up to this offset."""

    offset: int


@dataclass(frozen=True, slots=True)
class DropBefore:
    """Delete all records below `offset`."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class RunPipeline:
    """One pipeline step on the answering node, for every partition that it leads."""


@dataclass(frozen=True, slots=True)
class PipelineRun:
    """What that did."""

    report: PipelineReport


@dataclass(frozen=True, slots=True)
class FindBundles:
    """Which search bundles of the segments from that of `offset` on are absent or damaged in the
    bucket; everything: all that there are. Answered by the leader, with `BundlesFound`.
    """

    topic: str
    partition: int = 0
    offset: int = 0
    everything: bool = False


@dataclass(frozen=True, slots=True)
class RebuildBundles:
    """Have these built anew, by one pipeline step of the leader. Answered with `BundlesRebuilt`."""

    topic: str
    partition: int
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DescribeCluster:
    """Who is there?"""


NodeState = Literal["member", "joining", "leaving", "removed"]


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node of the cluster. `address`: HOST:PORT that clients and nodes connect to."""

    node_id: str
    address: str
    node_uuid: str | None = None
    state: NodeState = "member"


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    """The nodes, and who leads the metadata group as far as the answering node knows.

    alone: a server of its own, in no cluster. bucket: digest of the STORE object in the cluster's
    bucket, "" while none is claimed. bucket_url: what the node that claimed it calls it.
    """

    cluster_id: str
    node_id: str
    nodes: tuple[NodeInfo, ...]
    leader: str | None = None
    alone: bool = False
    bucket: str = ""
    bucket_url: str = ""


@dataclass(frozen=True, slots=True)
class AddNode:
    """A node may join: under this id, at this address."""

    node_id: str
    address: str


@dataclass(frozen=True, slots=True)
class RemoveNode:
    """A node leaves: its partitions move away, then it is no member any more."""

    node_id: str


@dataclass(frozen=True, slots=True)
class TransferLeader:
    """Hand a partition over to a node, or to any other (None). topic "": the metadata group."""

    topic: str
    partition: int = 0
    to: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """The members of this partition's group are those of the wish of this version, committed."""

    topic_id: str
    partition: int
    version: int


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What a node tells the one that leads the metadata, again and again until it is recorded.

    cleared: topics that are being deleted and of which this node has nothing left. stopped: those
    of whose groups none will ever run there again. acted_on: up to which metadata record it has
    acted, if it knows of fewer now.
    """

    settled: tuple[Settled, ...] = ()
    cleared: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    acted_on: int = 0


class NamedOffsets:
    """A mapping of cursor names to offsets, as a map."""

    def pack(self, value: Mapping[str, int]) -> Any:
        return {NAME.pack(name): UINT63.pack(offset) for name, offset in value.items()}

    def unpack(self, item: Any, what: str) -> dict[str, int]:
        if type(item) is not dict:
            raise ShapeError(f"{what} is not a map")
        return {NAME.unpack(key, what): UINT63.unpack(value, what) for key, value in item.items()}


class Seconds:
    """A duration in float seconds, as integer microseconds."""

    def pack(self, value: float) -> Any:
        return max(0, round(value * 1_000_000))

    def unpack(self, item: Any, what: str) -> float:
        return UINT63.unpack(item, what) / 1_000_000


LOG_STATUS: Final = Optioned(
    LogStatus,
    {
        "topic": TOPIC,
        "partition": PARTITION,
        "topic_id": ID,
        "log_id": ID,
        "watermarks": WATERMARKS,
        "writable": BOOLEAN,
        "wal_files": UINT63,
        "wal_bytes": UINT63,
        "local_segment_bytes": UINT63,
        "segments": UINT63,
        "bundles": UINT63,
        "segment_bytes": UINT63,
        "published_number": UINT63,
        "fenced": BOOLEAN,
        "cursors": NamedOffsets(),
        "last_error": Optional(_LONG),
        "notes": _LINES,
    },
)
STORE_STATUS: Final = Optioned(
    StoreStatus,
    {
        "path": _LONG,
        "store_id": NAME,
        "object_store": _LONG,
        "read_only": BOOLEAN,
        "disk_total_bytes": UINT63,
        "disk_free_bytes": UINT63,
        "cache_memory_bytes": UINT63,
        "cache_disk_bytes": UINT63,
        "partitions": TupleOf(LOG_STATUS, 1 << 20),
        "unavailable": _LINES,
        "damaged": _LINES,
    },
)
_COUNTS: Final = (
    "sealed", "uploaded", "adopted", "indexed", "published", "pruned_files", "pruned_bytes",
    "dropped_segments", "collected_objects", "uploaded_bytes",
)  # fmt: skip
PIPELINE_REPORT: Final = Optioned(
    PipelineReport,
    {**dict.fromkeys(_COUNTS, UINT63), "errors": _LINES, "elapsed_seconds": Seconds()},
)
ROLE: Final = Optioned(
    PartitionRole,
    {
        "topic": TOPIC,
        "partition": PARTITION,
        "role": Text(16, choices=("leader", "follower", "candidate", "learner", "none")),
        "term": UINT63,
        "leader": Optional(NAME),
    },
)
NODE: Final = Optioned(
    NodeInfo,
    {
        "node_id": NAME,
        "address": NAME,
        "node_uuid": Optional(ID),
        "state": Text(16, choices=("member", "joining", "leaving", "removed")),
    },
)
SETTLED: Final = Row(Settled, {"topic_id": ID, "partition": PARTITION, "version": UINT63})
_WHERE: Final[dict[str, Any]] = {"topic": TOPIC, "partition": PARTITION}

STATUS: Final = Codec(Status, {"topic": Optional(TOPIC)})
STATUS_FOUND: Final = Codec(
    StatusFound,
    {"store": STORE_STATUS, "roles": TupleOf(ROLE, 1 << 20), "node_id": NAME},
    items_max=LISTED_ITEMS_MAX,
)
SEAL: Final = Codec(Seal, _WHERE)
SEALED: Final = Codec(Sealed, {"offset": UINT63})
DROP_BEFORE: Final = Codec(DropBefore, {**_WHERE, "offset": UINT63})
RUN_PIPELINE: Final = Codec(RunPipeline, {})
PIPELINE_RUN: Final = Codec(PipelineRun, {"report": PIPELINE_REPORT})
_KEYS: Final = TupleOf(KEY, BUNDLE_KEYS_MAX)
FIND_BUNDLES: Final = Codec(FindBundles, {**_WHERE, "offset": UINT63, "everything": BOOLEAN})
BUNDLES_FOUND: Final = Codec(BundlesFound, {"keys": _KEYS, "next_offset": Optional(UINT63)})
REBUILD_BUNDLES: Final = Codec(RebuildBundles, {**_WHERE, "keys": _KEYS})
BUNDLES_REBUILT: Final = Codec(
    BundlesRebuilt, {"rebuilt": UINT63, "waiting": _KEYS, "errors": _LINES}
)
DESCRIBE_CLUSTER: Final = Codec(DescribeCluster, {})
CLUSTER_DESCRIPTION: Final = Codec(
    ClusterDescription,
    {
        "cluster_id": NAME,
        "node_id": NAME,
        "nodes": TupleOf(NODE, NODES_MAX),
        "leader": Optional(NAME),
        "alone": BOOLEAN,
        "bucket": NAME,
        "bucket_url": _LONG,
    },
)
ADD_NODE: Final = Codec(AddNode, {"node_id": NAME, "address": NAME})
REMOVE_NODE: Final = Codec(RemoveNode, {"node_id": NAME})
TRANSFER_LEADER: Final = Codec(TransferLeader, {**_WHERE, "to": Optional(NAME)})
REPORTED_MAX: Final = 1000
"""Of each kind in one report; the rest follows in the next."""
NODE_REPORT: Final = Codec(
    NodeReport,
    {
        "settled": TupleOf(SETTLED, REPORTED_MAX),
        "cleared": TupleOf(ID, REPORTED_MAX),
        "stopped": TupleOf(ID, REPORTED_MAX),
        "acted_on": UINT63,
    },
)
