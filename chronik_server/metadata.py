"""What a cluster agrees on beside records: its nodes, its topics.

Place: under `raft_backend`; the values of one Raft group whose log is a partition like any other.
Promise: a fold over its committed records alone, the same on every node; a command whose
precondition fails changes nothing. Invariant: a topic's id and its logs' ids are chosen once, in
the command that creates it, so all replicas derive the same keys (protocol 6, 12).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chronik_server.protocol.message import Optioned
from chronik_server.protocol.topics import NODES_MAX, PARTITIONS_MAX
from chronik_store.errors import CorruptionError
from chronik_store.format import cbor
from chronik_store.format.shape import ID, NAME, TOPIC, ShapeError, TupleOf

METADATA_TOPIC = "__chronik_metadata"


@dataclass(frozen=True, slots=True)
class RegisterNode:
    """A node's id belongs to one directory for life. Refused: the id is another directory's."""

    node_id: str
    address: str
    node_uuid: str


@dataclass(frozen=True, slots=True)
class MakeTopic:
    """A topic with one log for each partition. Refused: the name is taken."""

    name: str
    topic_id: str
    log_ids: tuple[str, ...]
    replicas: tuple[str, ...]

    @property
    def partitions(self) -> int:
        """How many."""
        return len(self.log_ids)


@dataclass(frozen=True, slots=True)
class DropTopic:
    """A topic goes. Refused: there is none of this id."""

    topic_id: str


Command = RegisterNode | MakeTopic | DropTopic

_SHAPES: Mapping[str, Optioned[Any]] = {
    "register_node": Optioned(RegisterNode, {"node_id": NAME, "address": NAME, "node_uuid": ID}),
    "make_topic": Optioned(
        MakeTopic,
        {
            "name": TOPIC,
            "topic_id": ID,
            "log_ids": TupleOf(ID, PARTITIONS_MAX),
            "replicas": TupleOf(NAME, NODES_MAX),
        },
    ),
    "drop_topic": Optioned(DropTopic, {"topic_id": ID}),
}
_KIND = {shape.build: kind for kind, shape in _SHAPES.items()}


def encode(command: Command) -> bytes:
    """One record's value."""
    kind = _KIND[type(command)]
    return cbor.encode([kind, _SHAPES[kind].pack(command)])


def decode(value: bytes) -> Command | None:
    """The command of a record; None for a kind that this version does not know.

    CorruptionError when it is none.
    """
    item = cbor.decode(value, what="metadata")
    if type(item) is not list or len(item) != 2 or type(item[0]) is not str:
        raise CorruptionError("metadata: not a kind and a body")
    shape = _SHAPES.get(item[0])
    if shape is None:
        return None
    try:
        found: Command = shape.unpack(item[1], item[0])
    except ShapeError as error:
        raise CorruptionError(f"metadata: {error}") from error
    return found


@dataclass(frozen=True, slots=True)
class Metadata:
    """Folded up to the record before `offset`."""

    offset: int = 0
    nodes: Mapping[str, RegisterNode] = field(default_factory=dict)
    topics: Mapping[str, MakeTopic] = field(default_factory=dict)

    def apply(self, command: Command | None, offset: int) -> Metadata:
        """With the command of the record at `offset`."""
        found = dataclasses.replace(self, offset=offset + 1)
        if isinstance(command, RegisterNode):
            known = self.nodes.get(command.node_id)
            if known is None or known.node_uuid == command.node_uuid:
                nodes = {**self.nodes, command.node_id: command}
                return dataclasses.replace(found, nodes=nodes)
        elif isinstance(command, MakeTopic):
            if command.name not in self.topics:
                topics = {**self.topics, command.name: command}
                return dataclasses.replace(found, topics=topics)
        elif isinstance(command, DropTopic):
            topics = {n: t for n, t in self.topics.items() if t.topic_id != command.topic_id}
            return dataclasses.replace(found, topics=topics)
        return found
