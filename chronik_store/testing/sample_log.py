"""A log in memory, built by hand: entries that run on in index and offset, and what they hold.

Place: in the test kit, above `format`; feeds whoever needs entries without a WAL or a consensus.
Promise: `entries` are exactly what a log would store, checksums included; `values` and
`timestamps_us` are the reference answers, one per offset. Invariant: nothing is random here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chronik_store.format.control import Command, Noop, Seal
from chronik_store.format.entry import (
    Entry,
    EntryKind,
    decode_entry_header,
    encode_entry_header,
)
from chronik_store.format.manifest_file import SealedRange
from chronik_store.format.record_batch import RecordBatch


class SampleLog:
    """Entries from index 1 and offset 0 (or from where it is told). Not thread-safe."""

    def __init__(self, *, term: int = 1, first_index: int = 1, base_offset: int = 0) -> None:
        self.term = term
        self.entries: list[Entry] = []
        self.values: list[bytes] = []
        self.timestamps_us: list[int] = []
        """Index timestamps, by offset."""
        self.first_index = first_index
        self.base_offset = base_offset
        self._open_index = first_index
        self._open_offset = base_offset
        self._clock_us = 0

    @classmethod
    def mixed(cls, batches: int, *, first_index: int = 1, base_offset: int = 0) -> SampleLog:
        """Control entries among batches of one to seven records, some with keys, times, headers,
        equal index timestamps or empty values. Open: nothing is sealed.
        """
        log = cls(first_index=first_index, base_offset=base_offset)
        log.control()
        for number in range(batches):
            count = number % 7 + 1
            values = [b"%d/%d" % (number, each) * (number % 5) for each in range(count)]
            columns: dict[str, Any] = {}
            if number % 3 == 0:
                columns["keys"] = [b"k" if each % 2 else None for each in range(count)]
            if number % 4 == 0:
                columns["timestamps_us"] = [1_000_000 - number + each for each in range(count)]
            if number % 5 == 0:
                columns["headers"] = [(("h", b"v"),)] * count
            log.append(values, timestamp_us=10 * (number // 3), **columns)
            if number % 6 == 0:
                log.control()
        return log

    @property
    def last_index(self) -> int:
        """The index of the last entry; first_index - 1 when there is none."""
        return self.first_index + len(self.entries) - 1

    @property
    def end_offset(self) -> int:
        """The offset behind the last record."""
        return self.base_offset + len(self.values)

    def append(
        self, values: Sequence[bytes], *, timestamp_us: int | None = None, **columns: Any
    ) -> Entry:
        """One batch as one entry; `timestamp_us` is its index timestamp (None: one more than the
        last), `columns` go to `RecordBatch.build`.
        """
        batch = RecordBatch.build(values, **columns)
        time = self._clock_us + 1 if timestamp_us is None else timestamp_us
        self._clock_us = max(self._clock_us, time)
        entry = self._add(EntryKind.RECORDS, batch.buffer, len(values))
        self.values.extend(values)
        self.timestamps_us.extend([self._clock_us] * len(values))
        return entry

    def control(self, command: Command | None = None) -> Entry:
        """One control entry (None: a NOOP)."""
        command = Noop() if command is None else command
        return self._add(command.KIND, command.encode(), 0)

    def seal(self) -> SealedRange:
        """Close the open segment with a SEAL entry."""
        first_index, base_offset = self._open_index, self._open_offset
        self.control(Seal(first_index, "admin", self._clock_us))
        self._open_index, self._open_offset = self.last_index + 1, self.end_offset
        return SealedRange(
            first_index=first_index,
            last_index=self.last_index,
            base_offset=base_offset,
            end_offset=self.end_offset,
            term=self.term,
            sealed_us=self._clock_us,
            timestamp_us=self._clock_us,
        )

    def between(self, first_index: int, last_index: int) -> list[Entry]:
        """The entries [first_index, last_index]."""
        return self.entries[first_index - self.first_index : last_index - self.first_index + 1]

    def _add(self, kind: EntryKind, payload: bytes, record_count: int) -> Entry:
        head = encode_entry_header(
            kind,
            self.term,
            self.last_index + 1,
            self.end_offset,
            record_count,
            self._clock_us,
            payload,
        )
        entry = Entry(decode_entry_header(head), payload)
        self.entries.append(entry)
        return entry
