"""One run of the command line: which store, which bucket, which form of output.

Place: made by `main` from the options before the verb; every verb receives it. Promise: verbs that
only read open read-only, beside any writer, or (when the place given is a URL) from the bucket
alone; what was opened is closed on the way out.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from chronik_store.bucket_log import open_bucket
from chronik_store.bundles import Bundles
from chronik_store.cli import exits
from chronik_store.cli.terminal import Output, say
from chronik_store.clock import Clock, SystemClock
from chronik_store.config import LogConfig
from chronik_store.data_directory import STORE_NAME
from chronik_store.environment import Environment
from chronik_store.errors import (
    ChronikError,
    ConfigError,
    CorruptionError,
    ReadOnlyError,
    TopicNotFoundError,
    UnavailableError,
)
from chronik_store.lineage import lineage_of, survey
from chronik_store.log_identity import LOCAL_OWNER
from chronik_store.log_store import LogStore
from chronik_store.model import BundlesFound, BundlesRebuilt
from chronik_store.objectstore.layout import STORE_KEY
from chronik_store.objectstore.open import open_object_store
from chronik_store.partition_log import PartitionLog
from chronik_store.replicated import core_of, owner_of
from chronik_store.topic_list import TOPICS_NAME

T = TypeVar("T")
Lanes = list[tuple[int, PartitionLog]]
"""The partitions that a verb works on: (number, log)."""
Look = Callable[[Container[int]], Lanes]
"""The partitions that there are now, but for those of these numbers."""
Reasons = tuple[type[ChronikError], ...]
"""Errors of one partition behind which the others are shown."""


LOOK_SECONDS = 0.5
"""After this whoever waits for a look at many bundles hears how far it has come."""


class PartitionBundles(Protocol):
    """As `Bundles`, wherever the log is, a while at a time: `find` goes on at `next_offset`."""

    def find(self, offset: int, *, everything: bool) -> BundlesFound: ...
    def rebuild(self, keys: Sequence[str]) -> BundlesRebuilt: ...


class _Bundles(Bundles):
    """Those of a directory."""

    def find(
        self, offset: int = 0, *, everything: bool = False, seconds: float = LOOK_SECONDS
    ) -> BundlesFound:
        return super().find(offset, everything=everything, seconds=seconds)


@dataclass
class Session:
    """The options that stand before the verb, and the doors they open."""

    directory: str = "data"
    object_store: str | None = None
    as_json: bool = False
    clock: Clock = field(default_factory=SystemClock)
    is_remote: ClassVar[bool] = False
    """A server is asked, not a directory or a bucket."""
    has_copies: ClassVar[bool] = False
    """Whether topics are replicated where this run looks."""

    @cached_property
    def output(self) -> Output:
        """The way to stdout."""
        return Output(as_json=self.as_json)

    @property
    def in_bucket(self) -> bool:
        """The place given is a URL: read from the bucket alone."""
        return "://" in self.directory

    @property
    def place(self) -> str:
        """Where this run looks, for messages."""
        return self.directory

    def confirm_reads(self) -> None:
        """Have a quorum confirm each read. ConfigError: a directory has no leader that might be
        deposed.
        """
        raise ConfigError("--linearizable asks the leaders of a cluster: name a node with -s")

    @property
    def now_us(self) -> int:
        """The wall clock."""
        return self.clock.time_us()

    def config(self, **changes: Any) -> LogConfig:
        """Settings from the environment, with changes of this verb."""
        if self.object_store is not None:
            changes["object_store"] = self.object_store
        return LogConfig.from_env(**changes)

    def writing_config(self, **changes: Any) -> LogConfig:
        """The same of a verb that writes. ConfigError where what it uploads would go with it."""
        config = self.config(**changes)
        if config.object_store is not None and config.object_store.startswith("memory:"):
            raise ConfigError(
                f"{config.object_store} is memory of this process, and ends with it: records that "
                "the pipeline moves there would be lost; name another bucket, or none"
            )
        return config

    @contextmanager
    def reading_store(self, **changes: Any) -> Iterator[LogStore]:
        """The store, read-only."""
        self.must_be_there(self.own_directory())
        # A reader runs no pipeline; said here so that no environment variable starts one.
        config = self.config(pipeline_enabled=False, **changes)
        with LogStore.open(self.directory, config=config, read_only=True) as store:
            yield store

    @contextmanager
    def writing_store(self, *, make: bool = False, **changes: Any) -> Iterator[LogStore]:
        """The store, for writing; DirectoryLockedError when another writer has it.

        make: a directory that is not there yet is made; else ConfigError: its name is mistyped.
        That one is made for a bucket is said, since that is for good and its URL may be mistyped.
        """
        directory, config = self.own_directory(), self.writing_config(**changes)
        if not make:
            self.must_be_there(directory)
        self._must_be_ours(directory)
        is_new = not self.is_there(directory)
        with LogStore.open(self.directory, config=config) as store:
            if is_new and config.object_store is not None:
                say(
                    f"chronik: {directory} is a new data directory, and belongs to "
                    f"{config.object_store} for good; `chronik doctor` shows what is there"
                )
            yield store

    def bundles_of(self, store: LogStore, log: PartitionLog) -> PartitionBundles:
        """The search bundles of one partition of a store that is open for writing."""
        return _Bundles(store, core_of(log))

    @staticmethod
    def _must_be_ours(directory: str) -> None:
        """ReadOnlyError when it is a node's; also while it runs, lest it be stopped for this."""
        owner = owner_of(directory, Environment())
        if owner not in {None, LOCAL_OWNER}:
            cluster, _, node = str(owner).partition("/")
            raise ReadOnlyError(
                f"{directory} is of node {node} of cluster {cluster}, which alone writes there: "
                "ask its server, with -s HOST:PORT"
            )

    def own_directory(self) -> str:
        """The data directory. ConfigError when a bucket was named."""
        if self.in_bucket:
            raise ConfigError(
                f"this verb needs a data directory, and {self.directory} is a bucket: give one "
                "with -d (`chronik restore` makes one of a bucket)"
            )
        return self.directory

    @staticmethod
    def must_be_there(directory: str) -> None:
        """ConfigError when it is no data directory: its name is mistyped, and it is not made."""
        if not Session.is_there(directory):
            path = Path(directory)
            what = "is a file" if path.exists() else "is not there"
            what = "is no data directory" if path.is_dir() else what
            raise ConfigError(
                f"no data directory: {directory!r} {what}; give one with -d or CHRONIK_DATA_DIR, "
                "or make one with `chronik topic create NAME`"
            )

    @staticmethod
    def is_there(directory: str) -> bool:
        """It is a data directory. UnavailableError when nobody can look."""
        try:
            return any((Path(directory) / name).exists() for name in (STORE_NAME, TOPICS_NAME))
        except OSError as error:
            raise UnavailableError(f"cannot look into {directory}: {error.strerror}") from error

    def bucket_partitions(self, topic: str | None = None) -> dict[str, list[int]]:
        """Of the bucket that was named: its topics, or this one, and which partitions of each have
        published something. What is damaged counts as one of them, and says so when it is opened.
        ConfigError: nothing of Chronik is there, the prefix is mistyped.
        """
        config = self.config()
        store = open_object_store(
            self.directory, env=Environment(), s3=config.s3, read_only=True, must_exist=True
        )
        try:
            found, topics = survey(store, topic), dict[str, list[int]]()
            if topic is None and not found.partitions and store.head(STORE_KEY) is None:
                raise ConfigError(
                    f"{store.url} holds no Chronik store (no {STORE_KEY} object): check bucket and "
                    "prefix; a store appears here with its first upload"
                )
            for name, partition in found.partitions:
                try:
                    is_there = lineage_of(store, name, partition, found.deleted).head is not None
                except CorruptionError:
                    is_there = True
                if is_there:
                    topics.setdefault(name, []).append(partition)
            return topics
        finally:
            store.close()

    def ask(
        self,
        question: Callable[[str, int, PartitionLog], T],
        topic: str | None = None,
        partition: int | None = None,
        *,
        reasons: Reasons = (CorruptionError,),
    ) -> Iterator[tuple[str, int, T | ChronikError]]:
        """What `question` says of every partition of a directory or a bucket, or of those that are
        named, by name and number; or why it cannot, if it is one of these reasons; another ends
        it. Of a bucket one is open at a time.
        """
        if self.in_bucket:
            found = self.bucket_partitions(topic)
            yield from _answers(self._in_bucket, found, question, topic, partition, reasons)
            return
        with self.reading_store() as store:
            found = {
                info.name: list(range(info.partitions))
                for info in store.topics()
                if topic in {None, info.name}
            }

            def opening(name: str, number: int) -> AbstractContextManager[PartitionLog]:
                return nullcontext(store.partition(name, number))

            yield from _answers(opening, found, question, topic, partition, reasons)

    @contextmanager
    def reading_lanes(self, topic: str, partition: int | None) -> Iterator[Lanes]:
        """One partition of a topic, or all of them, for reading."""
        with self.looking_at(topic, partition) as look:
            yield look(())

    @contextmanager
    def looking_at(self, topic: str, partition: int | None) -> Iterator[Look]:
        """The same for who looks again: a topic may get more of them."""
        with ExitStack() as stack:
            if self.in_bucket:
                yield partial(self._bucket_lanes, stack, topic, partition)
            else:
                store = stack.enter_context(self.reading_store())
                yield partial(lanes_of, store, topic, partition)

    def outcome(self, lanes: Lanes) -> int:
        """The exit code of a verb that has shown what these have, up to their ends: of a log whose
        WAL is suspect that is what is good of it, and acknowledged records may be missing.
        """
        if not self.is_remote and any(log.recovery.verdict == "suspect" for _, log in lanes):
            return exits.CORRUPTION
        return exits.DONE

    def _bucket_lanes(
        self, stack: ExitStack, topic: str, partition: int | None, known: Container[int]
    ) -> Lanes:
        """Of the partitions that are there the one that is wanted, or all. A partition appears with
        its first published segment, so there may be gaps.
        """
        numbers = [partition]
        if partition is None:
            numbers = [*self.bucket_partitions(topic).get(topic, [0])]
        return [
            (number, stack.enter_context(self._in_bucket(topic, number)))
            for number in numbers
            if number is not None and number not in known
        ]

    def _in_bucket(self, topic: str, partition: int) -> PartitionLog:
        return open_bucket(self.directory, topic=topic, partition=partition, config=self.config())


def _answers(
    opening: Callable[[str, int], AbstractContextManager[PartitionLog]],
    found: dict[str, list[int]],
    question: Callable[[str, int, PartitionLog], T],
    topic: str | None,
    partition: int | None,
    reasons: Reasons,
) -> Iterator[tuple[str, int, T | ChronikError]]:
    if topic is not None and not found:
        found = {topic: [0]}  # opening it says what is not there
    for name, numbers in sorted(found.items()):
        for number in numbers if partition is None else [partition]:
            answer: T | ChronikError
            try:
                with opening(name, number) as log:
                    answer = question(name, number, log)
            except reasons as error:
                answer = error
            except TopicNotFoundError:
                if topic is not None or partition is not None:
                    raise
                continue  # it was deleted meanwhile
            yield name, number, answer


def lanes_of(
    store: LogStore, topic: str, partition: int | None, known: Container[int] = ()
) -> Lanes:
    """One partition of a topic of an open store, or all, but for those that are known already;
    TopicNotFoundError if there is none.
    """
    numbers: Sequence[int] = (0,) if partition is None else (partition,)
    for info in store.topics() if partition is None else ():
        if info.name == topic:
            numbers = range(info.partitions)
    return [(each, store.partition(topic, each)) for each in numbers if each not in known]
