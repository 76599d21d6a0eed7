"""From what an application appends to one batch within its limits.

Place: under `partition_log`. Promise: what is refused is refused before anything is queued, with
the limit named; a RecordBatch is taken as it is. Invariant: one append is one batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chronik_store.clock import Clock
from chronik_store.config import LogConfig
from chronik_store.errors import RecordTooLargeError
from chronik_store.format.batch_encoding import SMALL_BYTES
from chronik_store.format.record_batch import RecordBatch, batch_of_one
from chronik_store.model import Record

Appendable = Record | bytes | RecordBatch | Iterable[Record | bytes]
"""What `append` takes."""


class Batching:
    """Builds batches for one log. Thread-safe."""

    def __init__(self, config: LogConfig, clock: Clock) -> None:
        self._clock = clock
        self._compression = config.compression
        self._small_bytes = SMALL_BYTES if config.compression in {None, "none"} else -1
        self._batch_bytes_max = config.batch_bytes_max
        self._record_bytes_max = config.record_bytes_max

    def batch(self, records: Appendable) -> RecordBatch | None:
        """One batch, or None for an empty iterable.

        TypeError for anything but bytes and Records; RecordTooLargeError over a limit.
        """
        if type(records) is RecordBatch:
            batch = records
        elif type(records) is bytes and len(records) <= self._small_bytes:
            batch = batch_of_one(records)
        else:
            items = items_of(records)
            if not items:
                return None
            # One record is never half timed: what has no time gets that of its append.
            now_us = None if len(items) == 1 else self._clock.time_us()
            batch = RecordBatch.from_records(items, now_us=now_us, compression=self._compression)
        if len(batch.buffer) > self._batch_bytes_max:
            raise RecordTooLargeError(
                f"the batch has {batch.nbytes} bytes, batch_bytes_max is {self._batch_bytes_max}: "
                "append it in parts",
                size_bytes=batch.nbytes,
                limit_bytes=self._batch_bytes_max,
            )
        largest = batch.largest_record_bytes
        if largest > self._record_bytes_max:
            raise RecordTooLargeError(
                f"a record has {largest} bytes, record_bytes_max is {self._record_bytes_max}: "
                "split it, or raise the limit",
                size_bytes=largest,
                limit_bytes=self._record_bytes_max,
            )
        return batch


def items_of(records: Any) -> list[Record | bytes]:
    """The records to append; what each of them is, `RecordBatch` checks."""
    if isinstance(records, (bytes, Record)):
        return [records]
    if isinstance(records, str):
        raise TypeError("a record's value is bytes, not str: pass text.encode()")
    if isinstance(records, (bytearray, memoryview)):
        raise TypeError(
            f"a record's value is bytes, not {type(records).__name__}: pass bytes(value)"
        )
    if isinstance(records, Mapping):
        raise TypeError("records are no mapping, whose values would be lost: make Records of it")
    if not isinstance(records, Iterable):
        raise TypeError(
            f"append takes bytes, a Record, a RecordBatch or an iterable of the first two, not "
            f"{type(records).__name__}"
        )
    return list(records)
