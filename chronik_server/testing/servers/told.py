"""What the clients of a cluster were told, and therefore know for ever.

Place: under `story`, whose clients tell it every answer. Promise: an answer that
contradicts an earlier one, or what was offered, is a violation. Invariant: only what was certain
is a fact: what was answered while its topic was surely there, from the question to the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from chronik_store.model import StoredRecord

State = Literal["alive", "ending", "gone"]


@dataclass
class Lane:
    """One partition: value by offset. start: below it records may be dropped."""

    at: dict[int, bytes] = field(default_factory=dict)
    start: int = 0
    cursors: set[int] = field(default_factory=set)
    """Positions that its cursor was to be moved to."""

    @property
    def end(self) -> int:
        """Behind the last record that is known."""
        return max(self.at, default=-1) + 1


@dataclass(eq=False)
class Topic:
    """One topic, which is not another one of the same name."""

    name: str
    topic_id: str
    lanes: tuple[Lane, ...]
    state: State = "alive"

    def __str__(self) -> str:
        return f"{self.name} ({self.topic_id[:4]})"


@dataclass
class Offer:
    """A value that was to be appended."""

    name: str
    partition: int
    topic_id: str
    home: str = ""
    """Id of the topic in which it is known to be."""
    is_refused: bool = False
    """It was said to be certainly nowhere."""


class Told:
    """See the module. violate: called with what must not be."""

    def __init__(self, violate: Callable[[str], None]) -> None:
        self._violate = violate
        self.topics: list[Topic] = []
        self.limbo: dict[str, int] = {}
        """Names whose topic may have been made, and with how many partitions it was asked for."""
        self._offers: dict[bytes, Offer] = {}
        self.acknowledged = self.compared = 0

    def is_of_namesake(self, topic: Topic, value: bytes) -> bool:
        """It was meant for an older topic of that name."""
        offer = self._offers.get(value)
        return offer is not None and offer.name == topic.name and offer.topic_id != topic.topic_id

    # --- topics ----------------------------------------------------------------------------------

    def alive(self) -> list[Topic]:
        """Those that are surely there."""
        return [topic for topic in self.topics if topic.state == "alive"]

    def made(self, name: str, topic_id: str, partitions: int) -> None:
        """A topic was made, or is there."""
        self.limbo.pop(name, None)
        for topic in self.topics:
            if topic.topic_id == topic_id:
                if topic.state != "alive":
                    self._violate(f"topic {topic} is {topic.state}, and was given as made anew")
                return
            if topic.name == name and topic.state != "gone":
                self._violate(f"two topics of one name: {topic} and {topic_id[:4]}")
        self.topics.append(Topic(name, topic_id, tuple(Lane() for _ in range(partitions))))

    def cursors(self, name: str, partition: int) -> set[int]:
        """Where the cursor of a partition was to be moved to: by its topic's name, so that what
        was meant for an older one of it counts.
        """
        topics = [topic for topic in self.topics if topic.name == name]
        lanes = [topic.lanes[partition] for topic in topics if partition < len(topic.lanes)]
        return set[int]().union(*(lane.cursors for lane in lanes))

    def let_go(self, topic_id: str, partition: int, offset: int) -> None:
        """Retention may have dropped what is below."""
        for topic in self.topics:
            if topic.topic_id == topic_id:
                lane = topic.lanes[partition]
                lane.start = max(lane.start, offset)

    # --- records ---------------------------------------------------------------------------------

    def offer(self, topic: Topic, partition: int, count: int, size: int) -> list[bytes]:
        """Values that nobody has had before."""
        first = len(self._offers)
        numbers = range(first, first + count)
        values = [b"%d w%d " % (number, number % 3) + b"." * size for number in numbers]
        for value in values:
            self._offers[value] = Offer(topic.name, partition, topic.topic_id)
        return values

    def acknowledged_at(
        self, topic: Topic, partition: int, base_offset: int, values: Sequence[bytes]
    ) -> None:
        """They are there, durably."""
        if topic.state == "alive":
            self.acknowledged += len(values)
            for offset, value in enumerate(values, base_offset):
                self._learn(topic, partition, offset, value)

    def refused(self, values: Iterable[bytes]) -> None:
        """They are certainly nowhere, and never will be."""
        for value in values:
            offer = self._offers[value]
            offer.is_refused = True
            if offer.home:
                self._violate(f"{value!r} is said not to be stored, and was read before")

    def seen(
        self, topic: Topic, partition: int, offset: int, records: Iterable[StoredRecord]
    ) -> None:
        """They were read by the topic's name, from this offset on, one behind the other."""
        if topic.state == "alive":
            self.seen_in(topic, partition, offset, records)

    def seen_in(
        self, topic: Topic, partition: int, offset: int, records: Iterable[StoredRecord]
    ) -> None:
        """The same, of this topic and no other of its name, for the answers said so."""
        for record in records:
            if record.offset != offset:
                self._violate(f"{topic}/{partition}: {record.offset} was given as {offset}")
                return
            self.compared += 1
            self._learn(topic, partition, offset, bytes(record.value or b""))
            offset += 1

    def _learn(self, topic: Topic, partition: int, offset: int, value: bytes) -> None:
        where = f"{topic}/{partition} at {offset}"
        lane, offer = topic.lanes[partition], self._offers.get(value)
        known = lane.at.setdefault(offset, value)
        if known != value:
            self._violate(f"{where}: first {known!r}, then {value!r}")
        elif offer is None or (offer.name, offer.partition) != (topic.name, partition):
            self._violate(f"{where}: {value!r} was never offered there")
        elif offer.is_refused:
            self._violate(f"{where}: {value!r} was said not to be stored")
        elif offer.home not in {"", f"{topic.topic_id}/{offset}"}:
            self._violate(f"{where}: {value!r} is at {offer.home}, too")
        else:
            offer.home = f"{topic.topic_id}/{offset}"
