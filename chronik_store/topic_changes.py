"""Creating and deleting topics: one change at a time, each durable when it returns.

Place: part of `log_store`. Promise: a topic is listed only after all its partitions have a durable
WAL; a deleted one is gone for every reader once it is marked, and its data follows (protocol 6).
Nothing that no catalog names is deleted: what stands in a new topic's way is set aside whole.
Invariant: no lock is held over the I/O of a change; a deletion that waits for the bucket keeps no
other topic from being made; when the directory is given up, no change of it is under way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from chronik_store.data_directory import DataDirectory
from chronik_store.disk_errors import errors_of_new_logs
from chronik_store.environment import Environment
from chronik_store.errors import (
    ChronikError,
    ConfigError,
    LogClosedError,
    TopicExistsError,
    TopicNotFoundError,
    UnavailableError,
)
from chronik_store.format.store_file import PARTITIONS_MAX, TopicEntry
from chronik_store.fs.tree import move_files
from chronik_store.log_assembly import LogAssembly
from chronik_store.objectstore.layout import check_topic_name, check_topic_type
from chronik_store.open_logs import OpenLogs
from chronik_store.store_bucket import StoreBucket
from chronik_store.threads import Threads
from chronik_store.topic_deletion import OwnFilesError, delete_topic_data

logger = logging.getLogger("chronik_store.topics")
T = TypeVar("T")


class _Taken:
    """A turn that somebody has."""

    is_over = False


class _Turn:
    """One at a time; it is a flag, so that the I/O within it holds no lock."""

    def __init__(self, threads: Threads) -> None:
        self._changed = threads.condition()
        self._taken: _Taken | None = None
        self._is_over = False
        self._when_over: Callable[[], None] | None = None

    def during(self, change: Callable[[], T]) -> T:
        """What `change` returns, which is called when none other is under way any more.
        LogClosedError once `end` has been called.
        """
        mine = _Taken()
        try:
            self._take(mine)
            return change()
        finally:
            mine.is_over = True  # in one step, wherever Ctrl-C comes: nobody else could say it
            self._tell()

    def _take(self, mine: _Taken) -> None:
        with self._changed:
            self._wait_locked()
            if self._is_over:
                raise LogClosedError("the store is closed; open it again")
            self._taken = mine

    def _wait_locked(self) -> None:
        while self._taken is not None and not self._taken.is_over:
            self._changed.wait(1.0)  # an interrupt may have swallowed the wake-up

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()
            call = self._when_over
            if call is None or not (self._taken is None or self._taken.is_over):
                return
        call()
        self._when_over = None  # not before: who was interrupted leaves it to the next

    def end(self) -> None:
        """There is no further one; returns when the one under way is over."""
        with self._changed:
            self._is_over = True
            self._wait_locked()

    def when_over(self, call: Callable[[], None]) -> None:
        """After `end`: call this once none is under way any more, mostly at once. It may be called
        more than once.
        """
        with self._changed:
            self._is_over = True
            self._when_over = call
        self._tell()


class TopicChanges(_Turn):
    """The topics of one store. Thread-safe. `during` is for who changes their list."""

    def __init__(
        self,
        env: Environment,
        directory: DataDirectory,
        bucket: StoreBucket,
        assembly: LogAssembly,
        logs: OpenLogs,
    ) -> None:
        super().__init__(env.threads)
        self._env = env
        self._directory = directory
        self._bucket = bucket
        self._assembly = assembly
        self._logs = logs
        self._deleting = _Turn(env.threads)

    def end(self) -> None:
        """Refuse further changes; return when those under way are over.

        An interrupt ends that wait only: see `when_over`.
        """
        self._deleting.end()
        super().end()

    def when_over(self, call: Callable[[], None]) -> None:
        """After `end`: call this once no change is under way any more, mostly at once."""
        over = super().when_over
        self._deleting.when_over(lambda: over(call))

    def create(self, name: str, partitions: int, *, exist_ok: bool) -> TopicEntry:
        """Create a topic, or add partitions to it. See `LogStore.create_topic`."""
        check_topic_name(name)
        if type(partitions) is not int or not 1 <= partitions <= PARTITIONS_MAX:
            raise ConfigError(f"partitions is {partitions!r}; use 1 to {PARTITIONS_MAX}")
        while True:
            if self._is_deleting(name):
                # Its directories carry the same name: they must be gone first.
                self.finish_deletions(name)
            entry = self.during(lambda: self._create(name, partitions, exist_ok=exist_ok))
            if entry is not None:
                return entry

    def _is_deleting(self, name: str) -> bool:
        return any(each.name == name and each.state == "deleting" for each in self._topics())

    def _create(self, name: str, partitions: int, *, exist_ok: bool) -> TopicEntry | None:
        """None: whoever had the turn before has begun to delete a namesake."""
        if self._is_deleting(name):
            return None
        entry = self._directory.topics.get(name)
        if entry is not None and not exist_ok:
            self._directory.topics.check_sure(name)
            raise TopicExistsError(
                f"topic {name!r} exists with {entry.partitions} partitions; pass "
                "exist_ok=True to use it",
                topic=name,
            )
        first = 0 if entry is None else entry.partitions
        topic_id = self._env.entropy.token_bytes(16).hex() if entry is None else entry.topic_id
        wanted = TopicEntry(name, topic_id, max(first, partitions), "live")
        if wanted != entry or name in self._directory.topics.in_doubt:
            self._create_partitions(wanted, first)
            self._directory.topics.put(wanted)
        return wanted

    def _create_partitions(self, entry: TopicEntry, first: int) -> None:
        with errors_of_new_logs(self._directory.path, "create a topic in"):
            for partition in range(first, entry.partitions):
                paths = self._directory.paths(entry.name, partition)
                if self._assembly.has_wal(paths):
                    # Of a creation that a crash cut short, or of a list that was lost: keep it.
                    self.set_aside(paths.wal, f"{paths.quarantine}/unlisted-{entry.topic_id}")
                self._assembly.create(entry, partition, paths)

    def set_aside(self, source: str, target: str) -> None:
        """Keep the files of a log that no list names out of the way. Within a turn of ours."""
        fs = self._env.fs
        move_files(fs, [f"{source}/{name}" for name in fs.list(source)], target)
        fs.sync_directory(source)
        logger.warning("%s was not listed in TOPICS; its files are in %s now", source, target)

    def delete(self, name: str, not_found: Callable[[str], TopicNotFoundError]) -> None:
        """Mark the topic, then carry the deletion out as far as the bucket lets it."""
        check_topic_type(name)

        def mark() -> None:
            entry = self._directory.topics.get(name)
            if entry is None:
                raise not_found(name)
            self.mark_deleting(entry)

        self.during(mark)
        try:
            self.finish_deletions(name)
        except UnavailableError as error:
            logger.warning("topic %s is deleted; the rest of it is tried again: %s", name, error)
        except LogClosedError:
            logger.info("topic %s is deleted; its data goes when the store is open again", name)

    def mark_deleting(self, entry: TopicEntry) -> None:
        """Close what is open of a topic, then mark it, durably. Within a turn of ours.

        Closed first: from the moment at which the mark may be on disk nothing is acknowledged.
        """
        keys = [(entry.name, partition) for partition in range(entry.partitions)]
        marked = entry._replace(state="deleting")
        self._logs.while_closed(keys, lambda: self._directory.topics.put(marked))

    def finish_deletions(self, name: str | None = None) -> None:
        """Carry deletions to their end, all or those of this name: bucket, directories, list.

        Raises what stops one; what is the matter with one topic alone does not stop the others.
        """
        failures: list[ChronikError] = []
        for entry in self._topics():
            if entry.state == "deleting" and name in {None, entry.name}:
                try:
                    self._deleting.during(partial(self._finish, entry))
                except OwnFilesError as error:
                    failures.append(error)
                except UnavailableError:
                    raise  # the bucket, mostly: each of the others would wait for it as long
                except ChronikError as error:
                    failures.append(error)
        if failures:
            raise failures[0]

    def _finish(self, entry: TopicEntry) -> None:
        if entry not in self._topics():
            return  # another thread has carried it out: a namesake may have the directories now
        delete_topic_data(self._env, self._directory, self._bucket, self._assembly, entry)
        self.during(lambda: self._directory.topics.forget(entry.topic_id))

    def _topics(self) -> tuple[TopicEntry, ...]:
        return self._directory.topics.all
