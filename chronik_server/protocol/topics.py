"""Messages about topics: create, delete, list, describe.

Place: in `protocol`. Promise: a description names, for each partition, the node that led it when
the answering node last heard of it; a client treats that as a hint, never as the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chronik_server.protocol.message import LISTED_ITEMS_MAX, Codec, Optioned
from chronik_store.format.shape import (
    BOOLEAN,
    ID,
    NAME,
    PARTITION,
    TOPIC,
    UINT63,
    Integer,
    Optional,
    Row,
    TupleOf,
)
from chronik_store.model import TopicInfo

PARTITIONS_MAX: Final = 10_000
TOPICS_MAX: Final = 100_000
NODES_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class CreateTopic:
    """replicas None: as many as the cluster's default."""

    topic: str
    partitions: int = 1
    exist_ok: bool = False
    replicas: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteTopic:
    """All records of it, on every node and in the bucket."""

    topic: str


@dataclass(frozen=True, slots=True)
class ListTopics:
    """All of them."""


@dataclass(frozen=True, slots=True)
class Topics:
    """The answer of ListTopics, by name."""

    topics: tuple[TopicInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class DescribeTopic:
    """Where its partitions are."""

    topic: str


@dataclass(frozen=True, slots=True)
class PartitionPlace:
    """Who leads a partition, as far as the answering node knows, and who has a copy of it."""

    partition: int
    leader: str | None = None
    address: str | None = None
    term: int = 0
    replicas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic, and where its partitions are."""

    topic: str
    topic_id: str
    partitions: tuple[PartitionPlace, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """It is done, and durable where that means something."""


TOPIC_INFO: Final = Row(TopicInfo, {"name": TOPIC, "topic_id": ID, "partitions": PARTITION})
PLACE: Final = Optioned(
    PartitionPlace,
    {
        "partition": PARTITION,
        "leader": Optional(NAME),
        "address": Optional(NAME),
        "term": UINT63,
        "replicas": TupleOf(NAME, NODES_MAX),
    },
)
CREATE_TOPIC: Final = Codec(
    CreateTopic,
    {
        "topic": TOPIC,
        "partitions": Integer(1, PARTITIONS_MAX),
        "exist_ok": BOOLEAN,
        "replicas": Optional(Integer(1, NODES_MAX)),
    },
)
DELETE_TOPIC: Final = Codec(DeleteTopic, {"topic": TOPIC})
LIST_TOPICS: Final = Codec(ListTopics, {})
TOPICS: Final = Codec(
    Topics, {"topics": TupleOf(TOPIC_INFO, TOPICS_MAX)}, items_max=LISTED_ITEMS_MAX
)
DESCRIBE_TOPIC: Final = Codec(DescribeTopic, {"topic": TOPIC})
TOPIC_DESCRIPTION: Final = Codec(
    TopicDescription,
    {"topic": TOPIC, "topic_id": ID, "partitions": TupleOf(PLACE, PARTITIONS_MAX)},
    items_max=LISTED_ITEMS_MAX,
)
DONE: Final = Codec(Done, {})
