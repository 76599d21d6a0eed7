"""The first record from a time on, by the records' own times.

Place: over `partition_log`; for verbs that take a time. Promise: the answer is that of a look at
each record in turn, from the batch on that `offset_for_timestamp` finds; segments whose records are
all older are not read, and batches of such are not taken apart. Invariant: times of the index never
go back, those of records may, so the index says where to begin, and no more.
"""

from __future__ import annotations

from chronik_store.partition_log import PartitionLog


def first_record_at(log: PartitionLog, time_us: int) -> int | None:
    """The first record, as they stand in the log, whose time is this or later; None: there is none.

    Errors as of `PartitionLog.read`.
    """
    offset = log.offset_for_timestamp(time_us)
    if offset is None:
        return None
    for segment in log._view.manifest.segments:
        if segment.end_offset > offset:
            if segment.max_timestamp_us >= time_us:
                found = _first_in(log, offset, segment.end_offset, time_us)
                if found is not None:
                    return found
            offset = segment.end_offset
    return _first_in(log, offset, None, time_us)


def _first_in(log: PartitionLog, start: int, stop: int | None, time_us: int) -> int | None:
    for batch in log.read_batches(start):
        if stop is not None and batch.base_offset >= stop:
            return None
        times = batch.timestamps_us
        if max(times) < time_us:
            continue
        skipped = max(0, start - batch.base_offset)
        for number in range(skipped, len(times)):
            if times[number] >= time_us:
                return batch.base_offset + number
    return None
