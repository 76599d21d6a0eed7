"""The reading half of a partition, the same on one node and in a cluster.

Place: under `local_backend` and `raft_backend`, over `chronik_store.aio`. Promise: only committed
records are shown; entries go out verbatim, with the tier that gave them and how long it took.
Invariant: a long poll holds no thread, only a place in the log's list of listeners.
"""

from __future__ import annotations

import asyncio
import functools

from chronik_server.answer_room import Share
from chronik_server.backend import FetchOptions
from chronik_server.protocol.data import CursorPlace, Fetched, OffsetsFound
from chronik_store.aio import AsyncPartitionLog
from chronik_store.errors import ChronikError, OffsetOutOfRangeError
from chronik_store.format.checksum import Buffer
from chronik_store.format.entry import pack_header
from chronik_store.model import Tier


class PartitionReads:
    """Reads of one open log, on the event loop that opened it."""

    def __init__(self, log: AsyncPartitionLog) -> None:
        self.log = log

    async def fetch(
        self, offset: int, options: FetchOptions, *, staleness_ms: int | None = None
    ) -> tuple[Fetched, list[Buffer]]:
        """Entries from the one that holds `offset`; waits for `min_bytes` up to `wait_seconds`, but
        with some of them only while nobody else waits for their room.

        OffsetOutOfRangeError below the start and past the committed end.
        """
        loop = asyncio.get_running_loop()
        deadline, room = loop.time() + options.wait_seconds, options.room
        following, tier, size, busy_seconds = offset, "none", 0, 0.0
        buffers: list[Buffer] = []
        while True:
            wanted = options.max_bytes - size
            is_there = following < self.log.watermarks.committed
            if is_there and room is not None and not await room.take(wanted, more=bool(buffers)):
                break
            begun = loop.time()
            try:
                run = await self.log.read_entries(following, max_bytes=wanted)
            except ChronikError:
                if not buffers:
                    raise
                break  # what is there is given; the next fetch starts at the fault
            busy_seconds += loop.time() - begun
            for header, payload in run.entries:
                buffers += (pack_header(header), payload)
                size += header.entry_bytes
                following = header.end_offset
            if room is not None:
                room.keep(size)
            if run.entries and tier == "none":
                tier = run.tier
            if run.entries and size < options.max_bytes // 2:
                continue  # over the border of a tier: one answer comes from one
            left = deadline - loop.time()
            if size >= min(options.min_bytes, options.max_bytes) or left <= 0:
                break
            if not run.entries and not await self._wait(following, left, room):
                break  # others wait for the room of what is there
        line = self.log.watermarks
        found = Fetched(
            next_offset=following,
            start_offset=line.start,
            committed_offset=max(line.committed, following),
            tier=tier_of(tier),
            elapsed_us=round(busy_seconds * 1_000_000),
            staleness_ms=staleness_ms,
        )
        return found, buffers

    async def _wait(self, offset: int, seconds: float, room: Share | None) -> bool:
        """For an entry at `offset`. False: not any longer with what is held."""
        wait = functools.partial(self.log.wait_offset, offset, seconds)
        if room is not None:
            return await room.wait(wait)
        await wait()
        return True

    async def offsets(
        self, timestamp_us: int | None, *, topic_id: str, staleness_ms: int | None = None
    ) -> OffsetsFound:
        """The plot line, and the first committed offset at or after a time. None: there was none
        below the committed end that is given, so who begins there leaves out nothing.
        """
        line, offset = self.log.watermarks, None  # before the look: a record may come meanwhile
        if timestamp_us is not None:
            offset = await self.log.offset_for_timestamp(timestamp_us)
        if offset is not None:
            line = self.log.watermarks  # it may be that record
        return OffsetsFound(line, offset, staleness_ms, topic_id)

    async def cursor(self, name: str, *, staleness_ms: int | None = None) -> CursorPlace:
        """Where a named reader stands."""
        committed = self.log.cursor(name).committed_offset
        return CursorPlace(committed, self.log.watermarks.start, staleness_ms)

    def check_committed(self, offset: int) -> None:
        """OffsetOutOfRangeError past the committed end."""
        line = self.log.watermarks
        if offset > line.committed:
            raise OffsetOutOfRangeError(
                f"offset {offset} is outside [{line.start}, {line.committed}]",
                offset=offset,
                first_offset=line.start,
                end_offset=line.committed,
            )


def tier_of(name: str) -> Tier:
    """The name as a Tier; it comes from the read chain, which knows no others."""
    return name  # type: ignore[return-value]
