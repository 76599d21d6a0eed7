"""What of a leader's entries is new here: two logs compared (paper figure 2, rules 2 to 4).

Place: under `replica`, which stages what is new. Promise: pure look-ups; nothing is changed, no
disk is touched. Invariant: the WAL's lock is held by the caller, so that what is compared stays.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from chronik_store.errors import CorruptionError
from chronik_store.replica_values import Arrived, Conflict
from chronik_store.wal.wal import Wal


def find_conflict(wal: Wal, committed: int, prev_index: int, prev_term: int) -> Conflict | None:
    """Why entries behind (prev_index, prev_term) cannot be taken; None: they can.

    committed: the last committed index, inclusive.
    """
    if prev_index > wal.last_index:
        return Conflict(wal.last_index + 1, None)
    if prev_index < wal.base.index:
        return None  # behind the snapshot everything is committed, hence equal
    own = wal.term(prev_index)
    if own == prev_term:
        return None
    # Terms only grow along the log: the first entry of `own` is found by halving.
    floor = max(wal.base.index, committed) + 1
    first = bisect_left(range(floor, prev_index + 1), own, key=wal.term)
    return Conflict(min(floor + first, prev_index), own)


def skip_known(wal: Wal, entries: Sequence[Arrived]) -> Sequence[Arrived]:
    """The entries from the first one that is not here with its term."""
    for position, entry in enumerate(entries):
        index = entry.header.index
        if index <= wal.base.index:
            continue
        if index > wal.last_index or wal.term(index) != entry.header.term:
            return entries[position:]
    return ()


def check_offsets(wal: Wal, entries: Sequence[Arrived]) -> None:
    """CorruptionError unless their offsets follow what is in front of them here."""
    offset = wal.position_after(entries[0].header.index - 1).offset
    for header, _, _ in entries:
        if header.base_offset != offset:
            raise CorruptionError(
                f"entry {header.index} says offset {header.base_offset}, {offset} follows here"
            )
        offset = header.end_offset
