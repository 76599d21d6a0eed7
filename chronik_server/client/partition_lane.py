"""What a consumer has of one partition: answers that came, and how far they were handed out.

Place: under `consumer`. Promise: an answer is verified before anything of it is handed out, and
what somebody took a part of is given again without that part. Invariant: nothing is asked here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from itertools import repeat
from operator import length_hint
from typing import Final, NamedTuple

from chronik_server.client.fetching import batches_of, pieces
from chronik_server.protocol.data import Fetched
from chronik_store.errors import ChronikError, CorruptionError
from chronik_store.format.checksum import Buffer
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.model import StoredRecord, Tier

_NEW: Final = tuple.__new__


class Consumed(NamedTuple):
    """A record, the partition it is from, and the tier that gave it."""

    partition: int
    record: StoredRecord
    tier: Tier


class Run(NamedTuple):
    """Records of one partition that came together, in offset order; at least one."""

    partition: int
    records: list[StoredRecord]
    tier: Tier


class Answer(NamedTuple):
    """As it came, of what was asked for from `offset` on."""

    offset: int
    payload: Buffer
    found: Fetched


class Taken(NamedTuple):
    """A verified answer, of which [offset, stop) is to be handed out."""

    lane: PartitionLane
    batches: list[StoredBatch]
    offset: int
    stop: int
    tier: Tier

    def runs(self) -> Iterator[Run]:
        """Its records, a piece at a time, which counts as handed out when it is given."""
        lane, batches, offset, stop, tier = self
        for records in pieces(batches, offset, stop):
            if lane.left:
                return
            lane.end, lane.rest = records[-1].offset + 1, iter(())
            yield Run(lane.partition, records, tier)
        lane.taken = None

    def each(self) -> Iterator[Iterator[Consumed]]:
        """The same; each record counts as handed out when it is drawn."""
        lane = self.lane
        for partition, records, tier in self.runs():
            lane.rest = iter(records)
            fields = zip(repeat(partition), lane.rest, repeat(tier), strict=False)
            yield map(_NEW, repeat(Consumed), fields)  # what `_make` does, in half the time


class PartitionLane:
    """One partition: a task that fetches, what it has fetched, and what is being handed out."""

    def __init__(self, partition: int, offset: int, stop: int | None) -> None:
        self.partition = partition
        self.offset = offset  # to be fetched next
        self.stop = stop
        self.is_past_end = stop is not None and offset > stop  # until a node has been asked there
        self.ready: deque[Answer] = deque()
        self.task: asyncio.Task[None] | None = None
        self.taken: Taken | None = None
        self.rest: Iterator[StoredRecord] = iter(())  # of the piece that is being handed out
        self.end = offset  # of that piece
        self.behind_since: float | None = None  # nothing came, though there is more
        self.left = False  # somebody has called seek
        self.failed: ChronikError | None = None  # why nothing more is fetched

    @property
    def handed_out(self) -> int:
        """Everything below has been iterated."""
        return self.end - length_hint(self.rest)

    @property
    def at_end(self) -> bool:
        return self.stop is not None and self.offset >= self.stop and not self.is_past_end

    def next(self) -> Taken | None:
        """What is to be handed out now; None when it has not come yet. An answer of which somebody
        took a part and went away is given again, without that part.
        """
        taken, self.taken = self.taken, None
        if taken is not None and self.handed_out < taken.stop:
            self.taken = taken._replace(offset=self.handed_out)
        while self.taken is None and self.ready:
            self.taken = _opened(self, self.ready.popleft())
        return self.taken

    def leave(self) -> None:
        """Nothing more of this is handed out."""
        self.left = True
        deque(self.rest, maxlen=0)


def _opened(lane: PartitionLane, answer: Answer) -> Taken | None:
    """An answer, verified; None when nothing of it is wanted."""
    offset, payload, found = answer
    stop = found.next_offset if lane.stop is None else min(lane.stop, found.next_offset)
    batches = batches_of(payload, offset)
    ended = batches[-1].end_offset if batches else offset
    if ended != found.next_offset:
        raise CorruptionError(
            f"an answer ends at offset {ended} and says that {found.next_offset} is next",
            offset_range=(offset, found.next_offset),
        )
    return Taken(lane, batches, offset, stop, found.tier) if offset < stop else None
