"""Which bucket is the cluster's, and whether this node has it.

Place: under `raft_backend`, over `metadata_group`. Promise: the first node that leads the metadata
claims the bucket for the cluster, once; every node finds that very claim in its own bucket, at
every start, before it uploads anything. One that has another bucket ends with
IdentityMismatchError. Invariant: a bucket that does not answer is no other bucket: it is asked
again, and nothing is uploaded until it has answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from chronik_server.metadata_commands import ClaimBucket
from chronik_server.metadata_group import MetadataGroup
from chronik_store import replicated
from chronik_store.errors import IdentityMismatchError
from chronik_store.log_store import LogStore


class SharedBucket:
    """See the module. Belongs to the event loop; one task calls `tick`."""

    def __init__(
        self, group: MetadataGroup, store: LogStore, *, on_fatal: Callable[[BaseException], None]
    ) -> None:
        self._group = group
        self._store = store
        self._on_fatal = on_fatal
        self._is_done = False

    async def tick(self) -> None:
        """One step, unless it is known. What keeps the bucket from being asked is raised."""
        if self._is_done:
            return
        loop, agreed = asyncio.get_running_loop(), self._group.state.bucket
        if agreed is not None:
            try:
                await loop.run_in_executor(
                    None, replicated.agree_on_bucket, self._store, agreed.digest, agreed.url
                )
            except IdentityMismatchError as error:
                self._on_fatal(error)
            self._is_done = True
            return
        if self._group.part.consensus.is_ready and self._group.is_current:
            digest, url = await loop.run_in_executor(None, replicated.claim_bucket, self._store)
            await self._group.command(ClaimBucket(digest, url))
