"""Every partition of a store asked one thing, while topics come and go.

Place: part of `log_store`. Promise: an answer, or why there is none, for each partition that is
here from the question to its end. Invariant: what has gone meanwhile, with its topic or to another
node, is no failure; a log that another thread closed meanwhile is opened again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from chronik_store.data_directory import DataDirectory
from chronik_store.errors import ChronikError, CorruptionError, LogClosedError
from chronik_store.format.store_file import TopicEntry
from chronik_store.partition_log import PartitionLog

T = TypeVar("T")


def damage_of(failures: Iterable[ChronikError]) -> tuple[str, ...]:
    """Those that say that bytes are damaged, as `StoreStatus.damaged` has them."""
    return tuple(str(each) for each in failures if isinstance(each, CorruptionError))


class EachPartition:
    """All partitions of one store. Thread-safe.

    open_one: the partition's log, opened if need be; is_elsewhere: other nodes have it, not this.
    """

    def __init__(
        self,
        directory: DataDirectory,
        open_one: Callable[[str, int], PartitionLog],
        is_elsewhere: Callable[[TopicEntry, int], bool],
        *,
        read_only: bool,
    ) -> None:
        self._directory = directory
        self._open_one = open_one
        self._is_elsewhere = is_elsewhere
        self._read_only = read_only

    def ask(self, question: Callable[[PartitionLog], T]) -> list[T | ChronikError]:
        """What `question` says of every partition, or why it cannot; by topic and number."""
        if self._read_only:
            self._directory.topics.look()
        entries = [each for each in self._directory.topics.all if each.state == "live"]
        places = [(entry, number) for entry in entries for number in range(entry.partitions)]
        answers = (self._ask_one(*place, question) for place in places)
        return [answer for answer in answers if answer is not None]

    def _ask_one(
        self, entry: TopicEntry, partition: int, question: Callable[[PartitionLog], T]
    ) -> T | ChronikError | None:
        """None: it is not here, or not any more."""
        while not self._is_elsewhere(entry, partition):
            log = None
            try:
                log = self._open_one(entry.name, partition)
                return question(log)
            except ChronikError as error:
                if self._has_gone(entry, partition):
                    return None
                if log is None or not isinstance(error, LogClosedError):
                    return error
        return None

    def _has_gone(self, entry: TopicEntry, partition: int) -> bool:
        if self._read_only:
            self._directory.topics.reload()
        now = self._directory.topics.get(entry.name)
        return now is None or now.topic_id != entry.topic_id or self._is_elsewhere(entry, partition)
