"""Search bundles built anew on request, on the node that leads their partition.

Place: under `raft_partition` and `local_backend`, over `chronik_store.bundles`. Promise: one such
request works at a time on a node, in a thread; the others wait for their turn, in order. It reads
whole bundles, or builds them: more at once would take the processor from those who append.
Invariant: who is gone before an answer gives up the wait only; the turn ends with the work.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from chronik_store.bundles import Bundles
from chronik_store.log_core import LogCore
from chronik_store.log_store import LogStore
from chronik_store.model import BundlesFound, BundlesRebuilt

T = TypeVar("T")
logger = logging.getLogger("chronik_server.bundles")
LOOK_SECONDS = 5.0
"""One request looks at bundles for so long; whoever asked goes on where it ended."""


class BundleUpkeep:
    """See the module. Belongs to the event loop. Errors: those of `Bundles`."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._turn = asyncio.Lock()

    async def find(self, core: LogCore, offset: int, *, everything: bool) -> BundlesFound:
        """As `Bundles.find`, for LOOK_SECONDS."""
        find = Bundles(self._store, core).find
        look = functools.partial(find, offset, everything=everything, seconds=LOOK_SECONDS)
        return await self._in_turn(look)

    async def rebuild(self, core: LogCore, keys: Sequence[str]) -> BundlesRebuilt:
        """As `Bundles.rebuild`."""
        rebuild = Bundles(self._store, core).rebuild
        return await self._in_turn(functools.partial(rebuild, keys))

    async def _in_turn(self, call: Callable[[], T]) -> T:
        await self._turn.acquire()
        try:
            work = asyncio.get_running_loop().run_in_executor(None, call)
        except BaseException:
            self._turn.release()
            raise
        work.add_done_callback(self._ended)
        return await asyncio.shield(work)

    def _ended(self, work: asyncio.Future[T]) -> None:
        self._turn.release()
        if not work.cancelled() and (error := work.exception()) is not None:
            logger.info("search bundles are not built anew: %s", error)  # who asked may be gone
