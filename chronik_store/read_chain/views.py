"""What the chain asks of a write-ahead log.

Place: the bottom of the read chain. Promise: `wal.Wal` satisfies it as it is; so does whatever a
test puts in its place.
"""

from __future__ import annotations

from typing import Protocol

from chronik_store.format.entry import Entry
from chronik_store.format.manifest_file import LogBase
from chronik_store.model import Position


class WalView(Protocol):
    """What the chain asks of a `wal.Wal`. Only `read` does I/O."""

    @property
    def first_index(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    @property
    def end_offset(self) -> int: ...
    @property
    def base(self) -> LogBase: ...
    @property
    def tail_first_index(self) -> int: ...
    def index_for_offset(self, offset: int) -> int:
        """The entry that holds `offset`; OffsetOutOfRangeError below the first stored one."""
        ...

    def index_for_timestamp(self, timestamp_us: int, low_index: int = 0) -> int | None:
        """The first entry from `low_index` on whose index timestamp is at least this."""
        ...

    def position_after(self, index: int) -> Position:
        """The position behind an entry, or behind the base."""
        ...

    def read(self, first_index: int, last_index: int, max_bytes: int) -> list[Entry]:
        """At least one verified entry; IndexError when `first_index` is pruned."""
        ...
