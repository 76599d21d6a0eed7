"""The metadata group as one node sees it: what is committed, applied; what is asked, proposed.

Place: under `raft_backend`, over one `RaftPartition` whose log holds `metadata` commands. Promise:
`state` is the fold of a committed prefix; whoever proposes waits until its commands are applied
here. Invariant: one task applies; another makes what runs here what the fold says, and may take
as long as a disk does: nobody who waits for a command waits for that. The fold never goes past a
command that this version does not know: then the node ends, and has noted nothing behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from chronik_server import metadata_commands as commands
from chronik_server.metadata import Metadata
from chronik_server.raft_partition import RaftPartition
from chronik_store.errors import ChronikError, FutureVersionError, UnavailableError
from chronik_store.format.record_batch import RecordBatch

logger = logging.getLogger("chronik_server.metadata")

APPLY_SECONDS = 1.0
"""How often a node looks at its metadata without being told that it moved."""
APPLIED_SECONDS = 10.0


class MetadataGroup:
    """See the module. Belongs to the event loop.

    folded: takes notice of a change before anybody is told of it. reconcile: makes what runs here
    what `state` says; called after each change, and now and then. on_fatal: this process must end.
    """

    def __init__(
        self,
        part: RaftPartition,
        *,
        folded: Callable[[Metadata], None],
        reconcile: Callable[[Metadata], Awaitable[None]],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.part = part
        self.state = Metadata()
        self._folded = folded
        self._reconcile = reconcile
        self._on_fatal = on_fatal
        self._moved = asyncio.Event()
        self._applied = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        part.consensus.on_commit(lambda _index: self._moved.set())

    def start(self) -> None:
        """Begin to follow."""
        self._tasks += [
            asyncio.create_task(_again(self._apply, self._moved)),
            asyncio.create_task(_again(self._act, self._changed)),
        ]

    async def stop(self) -> None:
        """Follow no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def is_current(self) -> bool:
        """Everything that is known to be committed is applied."""
        return self.state.offset >= self.part.log.watermarks.committed

    async def _apply(self) -> None:
        log = self.part.log
        while self.state.offset < log.watermarks.committed:
            try:
                for record in await log.read(self.state.offset):
                    self.state.apply(commands.decode(record.value), record.offset)
            except FutureVersionError as error:
                self._on_fatal(error)
                raise
            self._folded(self.state)
            self._changed.set()
        async with self._applied:
            self._applied.notify_all()

    async def _act(self) -> None:
        await self._reconcile(self.state)

    async def command(self, *wanted: commands.Command) -> None:
        """Commit commands, together, and wait until they are applied here. NotLeaderError
        elsewhere. Whether their preconditions held shows in `state`.
        """
        batch = RecordBatch.build([commands.encode(each) for each in wanted])
        offset = (await self.part.produce(batch, "quorum", None)).end_offset
        self._moved.set()
        try:
            async with asyncio.timeout(APPLIED_SECONDS), self._applied:
                await self._applied.wait_for(lambda: self.state.offset >= offset)
        except TimeoutError as error:
            raise UnavailableError(
                f"it is committed, and not in force here after {APPLIED_SECONDS:g} s"
            ) from error


async def _again(step: Callable[[], Awaitable[None]], news: asyncio.Event) -> None:
    """Whenever there are news, and now and then without."""
    while True:
        news.clear()
        try:
            await step()
        except ChronikError as error:
            logger.warning("metadata: %s", error)
        except Exception:
            logger.exception("metadata")
        try:
            async with asyncio.timeout(APPLY_SECONDS):
                await news.wait()
        except TimeoutError:
            pass  # look anyway: a step may have failed
