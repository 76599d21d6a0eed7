"""`-s HOST:PORT`: the embedded verbs, unchanged, over a server.

Place: between `chronik_store.cli`, whose verbs call a store and its logs, and `client`, which asks
a server. Promise: each verb takes the same flags and prints the same as with a directory. What has
no meaning over the wire (`verify`, `repair`, `export` of a file's bytes) says so. Invariant: this
is a face: names and arguments of `LogStore` and `PartitionLog`, no behaviour of its own.
"""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

from chronik_server.client import Client, ClientOptions
from chronik_server.client.blocking import Appender
from chronik_server.errors import CertificateError, NotLeaderError
from chronik_server.protocol.cluster import StatusFound
from chronik_server.protocol.data import Consistency
from chronik_store.batching import Appendable
from chronik_store.cli.session import Lanes, Look, PartitionBundles, Session, lanes_of
from chronik_store.cli.terminal import say
from chronik_store.errors import (
    BackpressureError,
    ChronikError,
    ConfigError,
    TopicNotFoundError,
    UnavailableError,
)
from chronik_store.log_store import LogStore
from chronik_store.model import (
    AppendResult,
    BundlesFound,
    BundlesRebuilt,
    FetchResult,
    LogStatus,
    SearchResult,
    StoredRecord,
    StoreStatus,
    TopicInfo,
    Watermarks,
)
from chronik_store.partition_log import PartitionLog

IN_FLIGHT_MAX = 16
RETRY_SECONDS = 10.0
"""A person waits: shorter than a program's client."""
SAY_SECONDS = 1.0
"""So long after a first failure it is said what is waited for."""
FOLLOW_SECONDS = 1.0
SCAN_RECORDS = 10_000
NEVER_SECONDS = 1e9
"""A node that has not heard another one lead in this life says so much."""


def _needs_directory(name: str) -> ConfigError:
    return ConfigError(
        f"{name!r} looks at files and works on a data directory only: run the verb on the node, "
        "with -d DIR"
    )


class RemoteCursor:
    """`Cursor` over a server."""

    def __init__(self, log: RemoteLog, name: str) -> None:
        self._log = log
        self.name = name

    @property
    def committed_offset(self) -> int | None:
        """As `Cursor.committed_offset`."""
        log = self._log
        return log.client.cursor_offset(log.topic, self.name, partition=log.partition)

    @property
    def offset(self) -> int:
        """As `Cursor.offset`."""
        committed = self.committed_offset
        return self._log.watermarks.start if committed is None else committed

    def commit(self, next_offset: int, *, reset: bool = False) -> None:
        """As `Cursor.commit`."""
        log = self._log
        log.client.commit_cursor(
            log.topic, self.name, next_offset, partition=log.partition, reset=reset
        )

    def delete(self) -> None:
        """As `Cursor.delete`."""
        log = self._log
        log.client.delete_cursor(log.topic, self.name, partition=log.partition)


class RemoteLog:
    """`PartitionLog` over a server, as far as verbs use it."""

    def __init__(
        self, client: Client, topic: str, partition: int, consistency: Consistency = "committed"
    ) -> None:
        self.client = client
        self._consistency = consistency
        self.topic = topic
        self.partition = partition
        self._appender: Appender | None = None
        self._in_flight: deque[concurrent.futures.Future[AppendResult]] = deque()

    def __getattr__(self, name: str) -> Any:
        raise _needs_directory(name)

    def append_nowait(self, records: Appendable) -> concurrent.futures.Future[AppendResult]:
        """As `PartitionLog.append_nowait`; appends of one log keep their order."""
        while self._in_flight and self._in_flight[0].done():
            self._in_flight.popleft()
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            raise BackpressureError(f"{IN_FLIGHT_MAX} batches are on their way")
        if self._appender is None:
            self._appender = self.client.appender(self.topic, partition=self.partition)
        future = self._appender.append_nowait(records)
        self._in_flight.append(future)
        return future

    def read(self, offset: int, **options: Any) -> FetchResult:
        """As `PartitionLog.read`."""
        return self.client.read(
            self.topic, offset, partition=self.partition, consistency=self._consistency, **options
        )

    def scan(
        self, start: int | None = None, stop: int | None = None, *, follow: bool = False
    ) -> Iterator[StoredRecord]:
        """As `PartitionLog.scan`."""
        line = self.watermarks
        offset = line.start if start is None else start
        end = line.committed if stop is None and not follow else stop
        while end is None or offset < end:
            count = SCAN_RECORDS if end is None else min(SCAN_RECORDS, end - offset)
            wait = FOLLOW_SECONDS if follow else 0.0
            found = self.read(offset, max_records=count, max_bytes=4 << 20, wait_seconds=wait)
            yield from found
            if not found.records and not follow:
                if offset < line.committed:
                    raise UnavailableError(
                        f"{self.topic}/{self.partition} ends at offset {offset} for the node that "
                        f"answers now, and at {line.committed} for the one that was asked first: "
                        "too few of its nodes are up to know the rest"
                    )
                return
            offset = found.next_offset

    def search(self, query: str, **options: Any) -> SearchResult:
        """As `PartitionLog.search`."""
        return self.client.search(self.topic, query, partition=self.partition, **options)

    def offset_for_timestamp(self, time: int) -> int | None:
        """As `PartitionLog.offset_for_timestamp`."""
        return self.client.offset_for_timestamp(self.topic, time, partition=self.partition)

    def cursor(self, name: str) -> RemoteCursor:
        """As `PartitionLog.cursor`."""
        return RemoteCursor(self, name)

    @property
    def watermarks(self) -> Watermarks:
        """As `PartitionLog.watermarks`."""
        line = self.client.watermarks(self.topic, partition=self.partition)
        if self._consistency == "linearizable":
            # Its end is as good as its leader, which a quorum confirms before it gives this.
            self.read(line.committed, max_records=1)
            line = self.client.watermarks(self.topic, partition=self.partition)
        return line

    def status(self) -> LogStatus:
        """As `PartitionLog.status`, of the node that answers."""
        for part in _partitions(self.client, self.topic):
            if part.partition == self.partition:
                return part
        raise TopicNotFoundError(
            f"no partition {self.partition} of {self.topic!r} there", topic=self.topic
        )


class RemoteBundles:
    """`Bundles` over a server, which works on them at the partition's leader."""

    def __init__(self, log: RemoteLog) -> None:
        self._log = log

    def find(self, offset: int, *, everything: bool) -> BundlesFound:
        """As `Bundles.find`."""
        log = self._log
        return log.client.find_bundles(
            log.topic, offset, partition=log.partition, everything=everything
        )

    def rebuild(self, keys: Sequence[str]) -> BundlesRebuilt:
        """As `Bundles.rebuild`."""
        log = self._log
        return log.client.rebuild_bundles(log.topic, keys, partition=log.partition)


class RemoteStore:
    """`LogStore` over a server, as far as verbs use it."""

    def __init__(self, client: Client, consistency: Consistency = "committed") -> None:
        self._client = client
        self._consistency = consistency

    def __getattr__(self, name: str) -> Any:
        raise _needs_directory(name)

    def topics(self) -> tuple[TopicInfo, ...]:
        """As `LogStore.topics`."""
        return self._client.topics()

    def create_topic(
        self, name: str, *, partitions: int = 1, exist_ok: bool = False, replicas: int | None = None
    ) -> TopicInfo:
        """As `LogStore.create_topic`; replicas: how many nodes of the cluster have a copy."""
        found = self._client.create_topic(
            name, partitions=partitions, exist_ok=exist_ok, replicas=replicas
        )
        return TopicInfo(found.topic, found.topic_id, len(found.partitions))

    def delete_topic(self, name: str) -> None:
        """As `LogStore.delete_topic`."""
        self._client.delete_topic(name)

    def partition(self, topic: str, partition: int = 0) -> RemoteLog:
        """As `LogStore.partition`."""
        described = self._client.describe_topic(topic)
        if partition >= len(described.partitions):
            # By a node that may not have heard of it yet: who knows says whether it is there.
            self._client.watermarks(topic, partition=partition)
        return RemoteLog(self._client, topic, partition, self._consistency)

    def status(self) -> StoreStatus:
        """As `LogStore.status`, of the node that answers, and of others for partitions that it
        does not have; their `notes` say what the node that told is to them.
        """
        found = self._client.status()
        return replace(found.store, partitions=_partitions(self._client))


def _partitions(client: Client, topic: str | None = None) -> tuple[LogStatus, ...]:
    """Every partition of a topic, or of all, from the first node that has it."""
    answer = client.status(topic)
    found = _told(answer)
    missing = {
        (info.name, number)
        for info in client.topics()
        if topic in {None, info.name}
        for number in range(info.partitions)
    } - set(found)
    nodes = client.cluster().nodes if missing else ()
    for node in nodes:
        if not missing:
            break
        if node.state == "removed" or node.node_id == answer.node_id:
            continue  # its address may be anybody's by now; or it has told what it has
        with Client(node.address, options=replace(_options(), retry_seconds=0.0)) as other:
            try:
                more = _told(other.status(topic))
            except (UnavailableError, NotLeaderError, CertificateError):
                continue  # away, behind, or not believed: another has a copy, or nobody tells of it
        found = {**more, **found}
        missing -= set(more)
    return tuple(part for _, part in sorted(found.items()))


def _told(found: StatusFound) -> dict[tuple[str, int], LogStatus]:
    """Partitions as one node sees them; who does not lead one says who does."""
    roles = {(role.topic, role.partition): role for role in found.roles}
    parts = {}
    for part in found.store.partitions:
        role = roles.get((part.topic, part.partition))
        if role is not None and role.role != "leader":
            note = f"{role.role} here; leader: {role.leader or 'none'}"
            part = replace(part, notes=(note, *part.notes))  # noqa: PLW2901
        parts[part.topic, part.partition] = part
    return parts


@dataclass
class RemoteSession(Session):
    """A run of the command line whose stores are at a server."""

    server: str = ""
    consistency: Consistency = "committed"
    is_remote = True
    has_copies = True

    @property
    def place(self) -> str:
        """See `Session`."""
        return self.server

    def confirm_reads(self) -> None:
        """Have a quorum confirm each read."""
        self.consistency = "linearizable"

    @contextmanager
    def _store(self) -> Iterator[LogStore]:
        with remote_client(self) as client:
            # A face with the names that verbs use; what it lacks, no verb for -s asks for.
            yield cast("LogStore", RemoteStore(client, self.consistency))

    @contextmanager
    def reading_store(self, **_: Any) -> Iterator[LogStore]:
        """The store at the server."""
        with self._store() as store:
            yield store

    @contextmanager
    def writing_store(self, **_: Any) -> Iterator[LogStore]:
        """The store at the server."""
        with self._store() as store:
            yield store

    def bundles_of(self, store: LogStore, log: PartitionLog) -> PartitionBundles:
        """The search bundles of one partition, at its leader."""
        return RemoteBundles(cast("RemoteLog", log))

    @contextmanager
    def looking_at(self, topic: str, partition: int | None) -> Iterator[Look]:
        """One partition of a topic, or all of them, now and later."""
        with remote_client(self) as client:
            store = cast("LogStore", RemoteStore(client, self.consistency))

            def look(known: Container[int]) -> Lanes:
                lanes = lanes_of(store, topic, partition, known)
                if self.consistency == "committed":
                    for number, _ in lanes:
                        _say_if_stale(client, topic, number)
                return lanes

            yield look


def _say_if_stale(client: Client, topic: str, partition: int) -> None:
    """What one node knows is shown while no majority is there, but never as if it were all."""
    # Not by the description: for a moment it still names a leader that is dead.
    seconds = client.staleness_seconds(topic, partition=partition)
    if seconds is None:
        return
    heard = f"it heard a leader {seconds:.0f} s ago" if seconds < NEVER_SECONDS else (
        "it has heard no other node lead since it started"
    )  # fmt: skip
    say(
        f"chronik: nobody leads {topic}/{partition} (too few of its nodes are up?): what follows "
        f"is what one node knows to be committed; {heard}, so newer records may be missing"
    )


def _options() -> ClientOptions:
    return replace(ClientOptions.from_env(), retry_seconds=RETRY_SECONDS)


@contextmanager
def remote_client(session: Session, *others: str) -> Iterator[Client]:
    """A client of the server that -s names (and of others). ConfigError without one."""
    if not isinstance(session, RemoteSession):
        raise ConfigError("this verb asks a cluster: name one of its nodes with -s HOST:PORT")
    with Client(",".join((session.server, *others)), options=_options()) as client:
        client.on_wait(_Waiting().told)
        yield client


class _Waiting:
    """Says what is waited for, once: whoever sees nothing takes it for a program that hangs."""

    def __init__(self) -> None:
        self._is_said = False

    def told(self, error: ChronikError, seconds: float) -> None:
        """It is asked again, and has been for so long."""
        if seconds >= SAY_SECONDS and not self._is_said:
            self._is_said = True
            say(f"chronik: {error}; it is asked again, for {RETRY_SECONDS:g} s altogether")


def session(server: str) -> Session:
    """What `-s` means; `options.remote_session`."""
    if not server:
        raise ConfigError("-s: name a server, HOST:PORT")
    return RemoteSession(server=server)
