"""What a node remembers of its logs from one life to the next, in four small files.

Place: under `hosting`, which decides on it; over `chronik_store.replicated`, which writes the
files. Promise: what is noted is durable when the call returns, and is there again after `read`.
Invariant: FOLDED and TOLD only move on; what FOLDED is past and was not made stands in UNMADE
before that; before the first log that is lost is made anew, ANEW says so.

A fold is an offset of the metadata's log: it has every record below it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from chronik_store import replicated
from chronik_store.log_store import LogStore

Lane = tuple[str, int]
"""(topic, partition)"""

FOLDED_NAME = "FOLDED"
"""File of a data directory: up to which metadata record logs were made and removed."""
ANEW_NAME = "ANEW"
"""File of a data directory: 1 while lost logs are made anew in it, and may not be suspect yet."""
UNMADE_NAME = "UNMADE"
"""File of a data directory: ids (`Made`) of logs still to be made, though FOLDED is past that."""
TOLD_NAME = "TOLD"
"""File of a data directory: the metadata record up to which it told others what has ended here."""


class HostingNotes:
    """See the module. Belongs to the event loop; `tell` is called by one task, the others by the
    one that reconciles.

    run: calls a function that works on the disk, in another thread.
    """

    def __init__(self, store: LogStore, run: Callable[..., Awaitable[Any]]) -> None:
        self._store = store
        self._run = run
        self.folded = -1
        """-1: not read yet, nor is anything else."""
        self.told = 0
        self.lost: set[Lane] | None = set()
        """Logs that are made anew; None: an earlier process did that, and who knows with which."""
        self.unmade: frozenset[str] = frozenset()
        self.owed: set[str] = set()
        """What belongs into UNMADE as soon as FOLDED is past it."""

    async def read(self) -> None:
        """What earlier lives have promised. CorruptionError: this node cannot go on."""
        if self.folded < 0:
            was_anew = await self._run(replicated.remembered, self._store, ANEW_NAME)
            self.lost = None if was_anew else set()
            self.unmade = await self._run(replicated.remembered_ids, self._store, UNMADE_NAME)
            self.told = await self._run(replicated.remembered, self._store, TOLD_NAME)
            self.folded = await self._run(replicated.remembered, self._store, FOLDED_NAME)

    @property
    def acted_on(self) -> int:
        """The newest fold by which anything was made, removed or ended here."""
        return max(self.folded, self.told)

    @property
    def may_be_older(self) -> bool:
        """This node had logs before, or may have lost some."""
        return self.folded > 0 or self.lost != set()

    def may_be_lost(self, lane: Lane) -> bool:
        """This log may have been made anew in place of one that had something in it."""
        return self.lost is None or lane in self.lost

    async def fold(self, offset: int) -> None:
        """Logs are made and removed up to here, but for those that are owed."""
        if offset > self.folded:
            await self.keep_unmade(self.unmade | self.owed)
            await self._run(replicated.remember, self._store, FOLDED_NAME, offset)
            self.folded = offset

    async def tell(self, offset: int) -> None:
        """Others are about to be told of what has ended here, on this fold."""
        if offset > self.told:
            await self._run(replicated.remember, self._store, TOLD_NAME, offset)
            self.told = offset

    async def keep_unmade(self, ids: frozenset[str]) -> None:
        """These are still to be made, and no others."""
        if ids != self.unmade:
            await self._run(replicated.remember_ids, self._store, UNMADE_NAME, ids)
            self.unmade = ids

    async def lose(self, lane: Lane) -> None:
        """This log is about to be made anew."""
        if self.lost is not None:
            if not self.lost:
                await self._run(replicated.remember, self._store, ANEW_NAME, 1)
            self.lost.add(lane)

    async def all_suspect(self) -> None:
        """Each log that was made anew is suspect now, or has been used."""
        if self.lost != set():
            await self._run(replicated.remember, self._store, ANEW_NAME, 0)
            self.lost = set()
