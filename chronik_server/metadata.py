"""What a cluster agrees on beside records: its nodes, its topics, and who should hold what.

Place: under `raft_backend`; the values of one Raft group whose log is a partition like any other.
Promise: a fold over its committed records alone, the same on every node; a command whose
precondition fails changes nothing. Invariant: a topic's id and its logs' ids are chosen once, in
the command that makes them, so all replicas derive the same keys (protocol 6, 12); a topic never
has fewer partitions than before; a node's id belongs to one directory for life, and one that was
removed never comes back.

Metadata holds the wish. Who is a member of a group, that group's own log says (protocol 12).

    node       joining > member (its directory is known) > leaving > removed
    topic      live (it may get more partitions) > deleting > forgotten
    partition  `replicas` is the wish; `holders` may have data: they keep it until the group's
               leader was seen with exactly the wished members
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from chronik_server.metadata_commands import (
    AdmitNode,
    BindNode,
    ClaimBucket,
    Command,
    DropTopic,
    ForgetTopic,
    GrowTopic,
    MakeTopic,
    MoveNode,
    PlacePartition,
    RemoveNode,
    RetireNode,
    SettlePartition,
)
from chronik_server.protocol.cluster import NodeState
from chronik_store.format.checksum import content_hash

METADATA_TOPIC = "__chronik_metadata"


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """A node of the registry. node_uuid: its directory; None until it was first heard."""

    node_id: str
    address: str
    node_uuid: str | None
    state: NodeState


class Made(NamedTuple):
    """The command that made partitions, together: its offset, and an id that no other one has: the
    topic's, or of those that were added later that of their first log.
    """

    at: int
    id: str


@dataclass(frozen=True, slots=True)
class Place:
    """Who should have a partition, and who may. version: the offset of the wish. since: that of the
    one by which each holder became one, the last time.
    """

    replicas: tuple[str, ...]
    holders: frozenset[str]
    version: int
    since: Mapping[str, int] = field(hash=False)
    made: Made

    @property
    def is_settled(self) -> bool:
        """Nobody but the wished nodes may have data of it."""
        return self.holders == set(self.replicas)

    def begins_on(self, node_id: str) -> bool:
        """A node is to have its log from the first, so that none of its votes can be lost."""
        return self.since.get(node_id) == self.made.at


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic. first: the members of each group while its log names none."""

    name: str
    topic_id: str
    log_ids: tuple[str, ...]
    copies: int
    first: tuple[tuple[str, ...], ...]
    places: tuple[Place, ...]

    @property
    def partitions(self) -> int:
        """How many."""
        return len(self.log_ids)

    @property
    def holders(self) -> frozenset[str]:
        """Every node that may have something of it."""
        return frozenset().union(*(place.holders for place in self.places))


def group_of(topic_id: str, partition: int) -> str:
    """The id of a partition's group."""
    return f"{topic_id}/{partition}"


def metadata_topic(cluster_id: str, first: tuple[str, ...]) -> Topic:
    """The same on every node of a cluster, but for who its log's first members are."""
    topic_id = content_hash(f"{cluster_id} topic".encode()) * 2
    return Topic(
        name=METADATA_TOPIC,
        topic_id=topic_id,
        log_ids=(content_hash(f"{cluster_id} log".encode()) * 2,),
        copies=1,
        first=(first,),
        places=_places((first,), Made(0, topic_id)),
    )


def _places(placement: Sequence[tuple[str, ...]], made: Made) -> tuple[Place, ...]:
    """Of partitions that are made now."""
    return tuple(
        Place(replicas, frozenset(replicas), made.at, dict.fromkeys(replicas, made.at), made)
        for replicas in placement
    )


class Metadata:
    """Folded up to the record before `offset`. Whoever reads the log changes it, nobody else."""

    def __init__(self) -> None:
        self.offset = 0
        self.nodes: dict[str, NodeEntry] = {}
        self.topics: dict[str, Topic] = {}
        """Live ones by name."""
        self.deleting: dict[str, Topic] = {}
        """By id."""
        self.bucket: ClaimBucket | None = None
        """The one bucket; None until its founder's claim is committed."""
        self.load: Counter[str] = Counter()
        """How many partitions each node is wished to hold."""
        self.endings = 0
        """How often somebody may have ceased to be a holder: grows with such a command."""
        self._names: dict[str, str] = {}  # topic id -> name, of live topics
        self._how: dict[type, Callable[[Any, int], None]] = {
            AdmitNode: self._admit,
            BindNode: self._bind,
            MoveNode: self._move,
            RetireNode: self._retire,
            RemoveNode: self._remove,
            MakeTopic: self._make,
            GrowTopic: self._grow,
            DropTopic: self._drop,
            ForgetTopic: self._forget,
            PlacePartition: self._place,
            SettlePartition: self._settle,
            ClaimBucket: self._claim,
        }

    def apply(self, command: Command, offset: int) -> None:
        """Take the command of the record at `offset` into account."""
        self._how[type(command)](command, offset)
        self.offset = offset + 1

    # --- questions -------------------------------------------------------------------------------

    def topic_of(self, topic_id: str) -> Topic | None:
        """A live topic by its id."""
        name = self._names.get(topic_id)
        return None if name is None else self.topics[name]

    def places(self) -> Iterator[Place]:
        """Of every partition of a live topic."""
        return (place for topic in self.topics.values() for place in topic.places)

    def place_of(self, topic_id: str, partition: int) -> Place | None:
        """Of a partition of a live topic; None, if it has none such."""
        topic = self.topic_of(topic_id)
        if topic is None or partition >= topic.partitions:
            return None
        return topic.places[partition]

    def holders_of(self, name: str, partition: int) -> frozenset[str]:
        """Nodes that may have something of a partition of a live topic; none, if it has none."""
        topic = self.topics.get(name)
        if topic is None or partition >= topic.partitions:
            return frozenset()
        return topic.places[partition].holders

    def state_of(self, node_id: str) -> NodeState | None:
        """None for a node that was never here."""
        node = self.nodes.get(node_id)
        return None if node is None else node.state

    def nodes_in(self, *states: NodeState) -> tuple[str, ...]:
        """Ids, sorted."""
        return tuple(sorted(n.node_id for n in self.nodes.values() if n.state in states))

    def has_data(self, node_id: str) -> bool:
        """Whether a node may hold a partition of a live topic."""
        return any(node_id in place.holders for place in self.places())

    # --- nodes -----------------------------------------------------------------------------------

    def _admit(self, command: AdmitNode, _offset: int) -> None:
        if command.node_id not in self.nodes:
            self.nodes[command.node_id] = NodeEntry(
                command.node_id, command.address, None, command.state
            )

    def _bind(self, command: BindNode, _offset: int) -> None:
        node = self.nodes.get(command.node_id)
        if node is not None and node.node_uuid is None:
            state: NodeState = "member" if node.state == "joining" else node.state
            self.nodes[node.node_id] = replace(node, node_uuid=command.node_uuid, state=state)

    def _move(self, command: MoveNode, _offset: int) -> None:
        node = self.nodes.get(command.node_id)
        if node is not None:
            self.nodes[node.node_id] = replace(node, address=command.address)

    def _retire(self, command: RetireNode, _offset: int) -> None:
        node = self.nodes.get(command.node_id)
        others = set(self.nodes_in("member")) - {command.node_id}
        if node is not None and node.state in {"joining", "member"} and others:
            self.nodes[node.node_id] = replace(node, state="leaving")

    def _remove(self, command: RemoveNode, _offset: int) -> None:
        node = self.nodes.get(command.node_id)
        if node is not None and node.state == "leaving" and not self.has_data(node.node_id):
            self.nodes[node.node_id] = replace(node, state="removed")

    def _claim(self, command: ClaimBucket, _offset: int) -> None:
        if self.bucket is None:
            self.bucket = command

    # --- topics ----------------------------------------------------------------------------------

    def _make(self, command: MakeTopic, offset: int) -> None:
        if command.name in self.topics or len(command.log_ids) != len(command.placement):
            return
        places = _places(command.placement, Made(offset, command.topic_id))
        self.topics[command.name] = Topic(
            command.name,
            command.topic_id,
            command.log_ids,
            command.copies,
            command.placement,
            places,
        )
        self._names[command.topic_id] = command.name
        for place in places:
            self.load.update(place.replicas)

    def _grow(self, command: GrowTopic, offset: int) -> None:
        topic = self.topic_of(command.topic_id)
        if topic is None or topic.partitions != command.present or not command.log_ids:
            return
        if len(command.log_ids) != len(command.placement):
            return
        places = _places(command.placement, Made(offset, command.log_ids[0]))
        self.topics[topic.name] = replace(
            topic,
            log_ids=(*topic.log_ids, *command.log_ids),
            first=(*topic.first, *command.placement),
            places=(*topic.places, *places),
        )
        for place in places:
            self.load.update(place.replicas)

    def _drop(self, command: DropTopic, _offset: int) -> None:
        name = self._names.pop(command.topic_id, None)
        if name is not None:
            self.endings += 1
            topic = self.deleting[command.topic_id] = self.topics.pop(name)
            for place in topic.places:
                self.load.subtract(place.replicas)

    def _forget(self, command: ForgetTopic, _offset: int) -> None:
        self.deleting.pop(command.topic_id, None)

    def _place(self, command: PlacePartition, offset: int) -> None:
        found = self.place_of(command.topic_id, command.partition)
        if found is not None and command.replicas and set(found.replicas) != set(command.replicas):
            holders = found.holders | set(command.replicas)
            since = {node: found.since.get(node, offset) for node in holders}
            place = Place(command.replicas, holders, offset, since, found.made)
            self._put_place(command.topic_id, command.partition, place)

    def _settle(self, command: SettlePartition, _offset: int) -> None:
        found = self.place_of(command.topic_id, command.partition)
        if found is not None and found.version == command.version:
            since = {node: found.since[node] for node in found.replicas}
            place = replace(found, holders=frozenset(since), since=since)
            self._put_place(command.topic_id, command.partition, place)

    def _put_place(self, topic_id: str, partition: int, place: Place) -> None:
        self.endings += 1
        topic = self.topics[self._names[topic_id]]
        self.load.subtract(topic.places[partition].replicas)
        self.load.update(place.replicas)
        places = (*topic.places[:partition], place, *topic.places[partition + 1 :])
        self.topics[topic.name] = replace(topic, places=places)
