"""Fetches under way, and the runs of blocks that they bring.

Place: below `cache`. Promise: a flight ends once, with blocks or with an error, and whoever waits
for it gets exactly that. Invariant: an error of a fetch that somebody asked for reaches all who
wait; one of a fetch ahead of need, of a caller in a hurry, or of one that was interrupted, reaches
nobody else (who needs the blocks asks again).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from chronik_store.errors import ChronikError
from chronik_store.threads import Event


@dataclass(slots=True, eq=False)
class Flight:
    """A run of blocks that one thread fetches and others may wait for.

    One ahead of need is claimed before it starts; until then a reader that needs it takes it
    over (`started`, under the cache's lock) instead of waiting behind the others in the queue.
    """

    first: int
    stop: int
    background: bool
    started: bool
    done: Event
    blocks: dict[int, bytes] = field(default_factory=dict)
    error: BaseException | None = None

    @property
    def run(self) -> range:
        """The numbers of its blocks."""
        return range(self.first, self.stop)

    def blocks_in(self, wanted: range) -> dict[int, bytes]:
        """What it has brought of `wanted`."""
        return {block: data for block, data in self.blocks.items() if block in wanted}

    def wait(self, wanted: range) -> dict[int, bytes]:
        """Block until it ended; its blocks among `wanted`, none if who waits has to ask again.

        Raises:
            ChronikError: the fetch failed, as told to the thread that made it.
        """
        self.done.wait()
        error = self.error
        if error is None:
            return self.blocks_in(wanted)
        if self.background or not isinstance(error, ChronikError):
            return {}
        raise copy.copy(error) from error  # one exception must not be raised by two threads


def runs(blocks: Iterable[int]) -> Iterator[range]:
    """Ascending numbers as runs without gaps."""
    start = stop = -1
    for block in blocks:
        if block != stop:
            if stop > start:
                yield range(start, stop)
            start = block
        stop = block + 1
    if stop > start:
        yield range(start, stop)
