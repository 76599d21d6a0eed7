"""The metadata group as one node sees it: what is committed, applied; what is asked, proposed.

Place: under `raft_backend`, over one `RaftPartition` whose log holds `metadata` commands. Promise:
`state` is the fold of a committed prefix; whoever proposes waits until its command is applied
here. Invariant: one task applies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from chronik_server import metadata
from chronik_server.addresses import Address
from chronik_server.metadata import Metadata
from chronik_server.protocol.greeting import PeerIdentity
from chronik_server.raft_partition import RaftPartition
from chronik_store.errors import ChronikError, UnavailableError
from chronik_store.format.record_batch import RecordBatch

logger = logging.getLogger("chronik_server.metadata")

APPLY_SECONDS = 1.0
"""How often a node looks at its metadata without being told that it moved."""
APPLIED_SECONDS = 10.0


class MetadataGroup:
    """See the module. Belongs to the event loop.

    reconcile: makes what runs here what `state` says; called after each change, and now and then.
    nodes: every node that has greeted, this one included.
    """

    def __init__(
        self,
        part: RaftPartition,
        addresses: dict[str, Address],
        *,
        reconcile: Callable[[], Awaitable[None]],
        nodes: Callable[[], Iterable[PeerIdentity]],
    ) -> None:
        self.part = part
        self.state = Metadata()
        self._addresses = addresses
        self._reconcile = reconcile
        self._nodes = nodes
        self._moved = asyncio.Event()
        self._applied = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        part.consensus.on_commit(lambda _index: self._moved.set())

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Follow no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            self._moved.clear()
            try:
                await self._apply()
                await self._reconcile()
                await self._register()
            except ChronikError as error:
                logger.warning("metadata: %s", error)
            except Exception:
                logger.exception("metadata")
            try:
                async with asyncio.timeout(APPLY_SECONDS):
                    await self._moved.wait()
            except TimeoutError:
                pass  # look anyway: a reconciliation may have failed

    async def _apply(self) -> None:
        log = self.part.log
        while self.state.offset < log.watermarks.committed:
            for record in await log.read(self.state.offset):
                command = metadata.decode(record.value)
                self.state = self.state.apply(command, record.offset)
        async with self._applied:
            self._applied.notify_all()

    async def _register(self) -> None:
        """The leader writes down which directory each node id belongs to."""
        if not self.part.consensus.is_ready:
            return
        for node in self._nodes():
            if node.node_id not in self.state.nodes and node.node_id in self._addresses:
                address = str(self._addresses[node.node_id])
                await self._propose(metadata.RegisterNode(node.node_id, address, node.node_uuid))

    async def _propose(self, command: metadata.Command) -> int:
        batch = RecordBatch.build([metadata.encode(command)])
        return (await self.part.produce(batch, "quorum", None)).end_offset

    async def command(self, command: metadata.Command) -> None:
        """Commit a command and wait until it is applied here. NotLeaderError elsewhere.

        Whether its precondition held shows in `state`.
        """
        offset = await self._propose(command)
        self._moved.set()
        try:
            async with asyncio.timeout(APPLIED_SECONDS), self._applied:
                await self._applied.wait_for(lambda: self.state.offset >= offset)
        except TimeoutError as error:
            raise UnavailableError(
                f"it is committed, and not in force here after {APPLIED_SECONDS:g} s"
            ) from error
