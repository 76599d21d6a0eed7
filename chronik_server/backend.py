"""What stands behind a server's handlers: one node alone, or one of a cluster.

Place: between `handlers`, which call it, and `local_backend`, `raft_backend`, which are it.
Promise: every method runs on the server's event loop and never blocks it; what fails raises a
typed ChronikError, NotLeaderError naming the leader where another node must be asked. Invariant: a
produce returns only once its records are acknowledged as asked; cancelling the wait never cancels
the write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from chronik_server.answer_room import Share
from chronik_server.protocol.cluster import ClusterDescription, PartitionRole, StatusFound
from chronik_server.protocol.data import (
    Acks,
    Consistency,
    CursorPlace,
    Fetched,
    OffsetsFound,
    Search,
)
from chronik_server.protocol.greeting import PeerIdentity
from chronik_server.protocol.topics import CreateTopic, TopicDescription
from chronik_server.turn import Turn
from chronik_store.format.checksum import Buffer
from chronik_store.format.record_batch import RecordBatch
from chronik_store.model import (
    AppendResult,
    BundlesFound,
    BundlesRebuilt,
    LogStatus,
    PipelineReport,
    SearchResult,
    TopicInfo,
)


class NodeIdentity(NamedTuple):
    """Who this node is. `boot_id` is random in each start (protocol 9, 12)."""

    cluster_id: str
    node_id: str
    node_uuid: str
    boot_id: str


class NodeRemovedError(Exception):
    """This node is no member of its cluster any more: its process ends, as asked."""


class StoppedError(Exception):
    """This node was asked to end before it could serve: its process ends, as asked."""


class FetchOptions(NamedTuple):
    """How much to read, and how long to wait for it. room: where what is read is counted."""

    max_bytes: int
    min_bytes: int
    wait_seconds: float
    consistency: Consistency
    room: Share | None = None


class PartitionBackend(Protocol):
    """One partition, as this node can serve it."""

    @property
    def topic_id(self) -> str:
        """Of its topic: namesakes differ in it."""
        ...

    async def produce(
        self, batch: RecordBatch, acks: Acks, expected_offset: int | None
    ) -> AppendResult:
        """Append one batch; acks "none" returns once it is queued. Every error has a
        `durability`.
        """
        ...

    def produce_nowait(
        self,
        batch: RecordBatch,
        acks: Acks,
        expected_offset: int | None,
        done: Callable[[AppendResult | BaseException], None],
    ) -> bool:
        """As `produce`, without a task: `done` gets the outcome, later. False: nothing was begun,
        since something is in its way; `produce` waits for that. What refuses it is raised.
        """
        ...

    async def fetch(self, offset: int, options: FetchOptions) -> tuple[Fetched, list[Buffer]]:
        """Entries of records from `offset` on, verbatim."""
        ...

    async def offsets(self, timestamp_us: int | None) -> OffsetsFound: ...
    async def cursor(self, name: str) -> CursorPlace: ...
    async def commit_cursor(self, name: str, next_offset: int, *, reset: bool) -> None: ...
    async def delete_cursor(self, name: str) -> bool: ...
    async def seal(self) -> int: ...
    async def drop_before(self, offset: int) -> None: ...
    async def find_bundles(self, offset: int, *, everything: bool) -> BundlesFound:
        """Which are lost or damaged: for some seconds, and one is looked at in any case."""
        ...

    async def rebuild_bundles(self, keys: Sequence[str]) -> BundlesRebuilt:
        """One step: may take as long as `run_pipeline`, for this partition alone."""
        ...

    def role(self) -> PartitionRole: ...


class Check(NamedTuple):
    """One thing that readiness asks: its name, and what is wrong with it (or "")."""

    name: str
    fault: str


def fault_of(part: LogStatus) -> str:
    """What stands still in one partition, and why; "" when nothing does.

    Whoever met that the bucket was taken over has it as an error, until the next start; the other
    nodes, and every later start, know it by the log alone.
    """
    said = part.last_error
    if said is None and part.fenced:
        said = next((note for note in part.notes if note.startswith("fenced")), "fenced")
    return "" if said is None else f"{part.topic}/{part.partition}: {said}"


class Link(Protocol):
    """The connection of another node, towards it. Belongs to the event loop."""

    def tell(self, message: Any, payload: Sequence[Buffer] = ()) -> None:
        """Say something one way, the payload in parts; lost with the connection, silently."""
        ...

    @property
    def backlog_bytes(self) -> int:
        """What waits to be sent."""
        ...

    def close(self) -> None: ...
    def abort(self) -> None:
        """Hang up without sending what waits: nobody takes it."""
        ...


class Backend(Protocol):
    """One node."""

    @property
    def identity(self) -> NodeIdentity: ...
    @property
    def turn(self) -> Turn:
        """In which everything of this node speaks."""
        ...

    @property
    def has_peers(self) -> bool:
        """It is a node of a cluster: others call it."""
        ...

    async def start(self, address: str) -> None:
        """Begin to work; `address` is what others reach this node at."""
        ...

    async def create_topic(self, request: CreateTopic) -> TopicDescription: ...
    async def delete_topic(self, topic: str) -> None: ...
    async def topics(self) -> tuple[TopicInfo, ...]: ...
    async def describe_topic(self, topic: str) -> TopicDescription: ...

    def known_partition(self, topic: str, partition: int) -> PartitionBackend | None:
        """The partition if it is open already: the short way of every produce."""
        ...

    async def partition(
        self, topic: str, partition: int, topic_id: str | None = None
    ) -> PartitionBackend:
        """The partition, opened if need be; of this topic alone, if an id is given.
        TopicNotFoundError.
        """
        ...

    async def search(self, request: Search) -> SearchResult: ...
    async def status(self, topic: str | None) -> StatusFound: ...
    async def run_pipeline(self) -> PipelineReport: ...
    async def describe_cluster(self) -> ClusterDescription: ...
    async def add_node(self, node_id: str, address: str) -> None: ...
    async def remove_node(self, node_id: str) -> None: ...
    async def transfer_leader(self, topic: str, partition: int, to: str | None) -> None: ...

    def greet(self, peer: PeerIdentity, link: Link) -> PeerIdentity:
        """Another node calls: what this one says of itself. UnauthenticatedError or
        IdentityMismatchError refuse it.
        """
        ...

    def lost(self, peer: PeerIdentity, link: Link) -> None:
        """The connection of a node that was greeted has ended."""
        ...

    def told(self, peer: PeerIdentity, link: Link, message: Any, payload: Buffer) -> None:
        """A one-way message of a node that was greeted, on this connection. Never raises, never
        blocks.
        """
        ...

    async def checks(self) -> tuple[Check, ...]:
        """Is this node ready: WAL writable, caught up, bucket reachable. A ChronikError says that
        it cannot be known, and so that it is not.
        """
        ...

    async def hand_over(self) -> None:
        """Let others lead what is led here, bit by bit, while it is served as before. It need not
        be all: `close` does the rest.
        """
        ...

    async def close(self) -> None:
        """Acknowledge what is in flight, hand over what is led, release everything."""
        ...
