"""How the metadata of a cluster changes: one command a record.

Place: under `metadata`, which folds them; proposed by `steward` and by the verbs. Promise: each
names what it wants and carries what every node must see alike; whether its precondition holds is
decided when it is applied, identically everywhere. Invariant: a kind that this version does not
know is never passed over: whoever did would agree with the others on something else (decision
0035).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chronik_server.protocol.cluster import NodeState
from chronik_server.protocol.message import Optioned
from chronik_server.protocol.topics import NODES_MAX, PARTITIONS_MAX
from chronik_store.errors import CorruptionError, FutureVersionError
from chronik_store.format import cbor
from chronik_store.format.shape import (
    ID,
    NAME,
    PARTITION,
    TOPIC,
    UINT63,
    Integer,
    ShapeError,
    Text,
    TupleOf,
)


@dataclass(frozen=True, slots=True)
class AdmitNode:
    """A node may join under this id. Refused: the id was used before.

    state: "member" for the first nodes of a cluster, whose directories are bound later.
    """

    node_id: str
    address: str
    state: NodeState = "joining"


@dataclass(frozen=True, slots=True)
class BindNode:
    """A node's id belongs to this directory from now on. Refused: it belongs to another."""

    node_id: str
    node_uuid: str


@dataclass(frozen=True, slots=True)
class MoveNode:
    """A node has another address."""

    node_id: str
    address: str


@dataclass(frozen=True, slots=True)
class RetireNode:
    """A node leaves: nothing is placed on it any more. Refused: it is the last one."""

    node_id: str


@dataclass(frozen=True, slots=True)
class RemoveNode:
    """A node has left; its id is used up. Refused: it is not leaving, or still has something."""

    node_id: str


@dataclass(frozen=True, slots=True)
class MakeTopic:
    """A topic with one log for each partition. Refused: the name is taken.

    copies: as many replicas as there are nodes for, up to so many. placement: for each partition.
    """

    name: str
    topic_id: str
    log_ids: tuple[str, ...]
    copies: int
    placement: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class GrowTopic:
    """More partitions for a topic, behind those that it has. Refused: it has not `present` any
    more, since another one came first; or it goes.
    """

    topic_id: str
    present: int
    log_ids: tuple[str, ...]
    placement: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class DropTopic:
    """A topic goes. Refused: there is none of this id."""

    topic_id: str


@dataclass(frozen=True, slots=True)
class ForgetTopic:
    """Nothing of a topic is left anywhere. Refused: it is not being deleted."""

    topic_id: str


@dataclass(frozen=True, slots=True)
class PlacePartition:
    """The wish for a partition. Refused: it is that already, or the topic goes."""

    topic_id: str
    partition: int
    replicas: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SettlePartition:
    """The wish of this version came true: others need not hold it. Refused: it is another now."""

    topic_id: str
    partition: int
    version: int


@dataclass(frozen=True, slots=True)
class ClaimBucket:
    """The bucket of the cluster, for life. Refused: it has one.

    digest: of the STORE object in it. url: what the node that claimed it calls it.
    """

    digest: str
    url: str


Command = (
    AdmitNode
    | BindNode
    | MoveNode
    | RetireNode
    | RemoveNode
    | MakeTopic
    | GrowTopic
    | DropTopic
    | ForgetTopic
    | PlacePartition
    | SettlePartition
    | ClaimBucket
)

STATES = ("member", "joining", "leaving", "removed")
URL = Text(1 << 12)
_NODES = TupleOf(NAME, NODES_MAX)
_SHAPES: Mapping[str, Optioned[Any]] = {
    "admit_node": Optioned(
        AdmitNode, {"node_id": NAME, "address": NAME, "state": Text(16, choices=STATES)}
    ),
    "bind_node": Optioned(BindNode, {"node_id": NAME, "node_uuid": ID}),
    "move_node": Optioned(MoveNode, {"node_id": NAME, "address": NAME}),
    "retire_node": Optioned(RetireNode, {"node_id": NAME}),
    "remove_node": Optioned(RemoveNode, {"node_id": NAME}),
    "make_topic": Optioned(
        MakeTopic,
        {
            "name": TOPIC,
            "topic_id": ID,
            "log_ids": TupleOf(ID, PARTITIONS_MAX),
            "copies": Integer(1, NODES_MAX),
            "placement": TupleOf(_NODES, PARTITIONS_MAX),
        },
    ),
    "grow_topic": Optioned(
        GrowTopic,
        {
            "topic_id": ID,
            "present": Integer(1, PARTITIONS_MAX),
            "log_ids": TupleOf(ID, PARTITIONS_MAX),
            "placement": TupleOf(_NODES, PARTITIONS_MAX),
        },
    ),
    "drop_topic": Optioned(DropTopic, {"topic_id": ID}),
    "forget_topic": Optioned(ForgetTopic, {"topic_id": ID}),
    "place_partition": Optioned(
        PlacePartition, {"topic_id": ID, "partition": PARTITION, "replicas": _NODES}
    ),
    "settle_partition": Optioned(
        SettlePartition, {"topic_id": ID, "partition": PARTITION, "version": UINT63}
    ),
    "claim_bucket": Optioned(ClaimBucket, {"digest": NAME, "url": URL}),
}
_KIND = {shape.build: kind for kind, shape in _SHAPES.items()}


def encode(command: Command) -> bytes:
    """One record's value."""
    kind = _KIND[type(command)]
    return cbor.encode([kind, _SHAPES[kind].pack(command)])


def decode(value: bytes) -> Command:
    """The command of a record. FutureVersionError for a kind that this version does not know;
    CorruptionError when it is none.
    """
    item = cbor.decode(value, what="metadata")
    if type(item) is not list or len(item) != 2 or type(item[0]) is not str:
        raise CorruptionError("metadata: not a kind and a body")
    shape = _SHAPES.get(item[0])
    if shape is None:
        raise FutureVersionError(
            f"the cluster's metadata has a command of a newer version, {item[0][:40]!r}, that this "
            "one cannot follow: upgrade this node; it has lost nothing, and goes on then"
        )
    try:
        found: Command = shape.unpack(item[1], item[0])
    except ShapeError as error:
        raise CorruptionError(f"metadata: {error}") from error
    return found
