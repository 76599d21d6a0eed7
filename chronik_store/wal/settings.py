"""The values at the border of the room: who a WAL is, how it behaves, what it tells and asks.

Place: the bottom of `wal`. Promise: frozen values and protocols only. Invariant: sizes are bytes,
indexes are inclusive here unless a Position says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from chronik_store.format.checkpoint import Checkpoint
from chronik_store.format.entry import EntryHeader

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True)
class WalIdentity:
    """Whose log this is. `log_id` None: take what the files say, or the first checkpoint."""

    topic: str
    partition: int
    topic_id: str
    owner: str = "local"
    log_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WalSettings:
    """file_bytes: where a file is rotated (one larger group still fits). group_bytes: the most
    that one write takes, a single larger frame excepted. fill_bytes_min/max: chunks of zeros
    written ahead, doubling with the write rate; max 0 switches filling off.
    fill_keep_free_bytes: no zeros are written that would leave less free on the disk.
    """

    file_bytes: int = 64 * MIB
    group_bytes: int = 8 * MIB
    fill_bytes_min: int = 64 * KIB
    fill_bytes_max: int = 16 * MIB
    fill_keep_free_bytes: int = 0


class WalFileInfo(NamedTuple):
    """One WAL file. first_index..last_index: its live entries (none: last < first); records: how
    many records they hold; folded_to: the index to which its own checkpoint has folded manifest
    and producers; damaged: it holds bytes that recovery could not use and goes to quarantine.
    """

    seq: int
    path: str
    size_bytes: int
    first_index: int
    last_index: int
    records: int
    folded_to: int
    sealed: bool
    damaged: bool


Lack = Literal["", "segments", "records"]
"""Of what stood before a log's first entry: which segments there were ("segments"); the segments
are known, and they do not hold all of it ("records"); nothing is lacking ("").
"""


class Replayer(Protocol):
    """Whoever folds the log. Called by `recover` and `refresh`, in physical order.

    Truncations are explicit: an entry at or below the last index is preceded by `on_truncate`, a
    checkpoint that replaces the log by `on_truncate` of all of it. Each file starts with a
    checkpoint; the first is where folding starts. `on_nothing` takes all of it back.
    """

    def on_checkpoint(self, checkpoint: Checkpoint, /) -> None: ...
    def on_entry(self, header: EntryHeader, payload: memoryview, /) -> None:
        """The payload is valid during the call only."""
        ...

    def on_truncate(self, index: int, /) -> None:
        """Entries at or above `index` are gone."""
        ...

    def on_hard_state(self, term: int, vote: str, /) -> None: ...
    def lacks(self, base_index: int, committed_index: int, /) -> Lack:
        """What is not known of the entries up to `base_index`, which the log does not hold, when
        all up to `committed_index` is folded.
        """
        ...

    def on_nothing(self) -> None:
        """What was replayed does not stand: a log of which nothing is known, but its hard state."""
        ...
