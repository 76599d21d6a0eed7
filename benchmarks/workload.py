"""The records, and the same bytes written by hand.

Place: under the write and read benchmarks. Promise: values are distinct and known by their number,
so whatever comes back can be compared; the raw loop does what any log must at the least: one write
and one fdatasync per group, into a file whose blocks hold zeros already.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

from benchmarks.machine import sync
from chronik_store import LogConfig, PartitionLog

TOPIC = "bench"
ONE_KB = 1024
DISTINCT = 8192
_FILL = bytes(1 << 20)


def quiet_config(**changes: object) -> LogConfig:
    """The defaults, without the background pipeline: it would upload while we measure."""
    return LogConfig(pipeline_enabled=False, **changes)  # type: ignore[arg-type]


class Values:
    """Value number i, for any i: JSON-like text of one size, `DISTINCT` different ones."""

    def __init__(self, size_bytes: int = ONE_KB, seed: int = 7) -> None:
        chance = random.Random(seed)
        words = [f"{chance.getrandbits(36):x}" for _ in range(4000)]
        self.size_bytes = size_bytes
        self._pool = [_text(chance, words, number, size_bytes) for number in range(DISTINCT)]

    def __getitem__(self, number: int) -> bytes:
        return self._pool[number % DISTINCT]

    def range(self, first: int, count: int) -> list[bytes]:
        """Values [first, first + count)."""
        pool = self._pool
        return [pool[number % DISTINCT] for number in range(first, first + count)]

    def groups(self, count: int, size: int, first: int = 0) -> list[list[bytes]]:
        """`count` lists of `size` values, one after the other."""
        return [self.range(first + place * size, size) for place in range(count)]


def _text(chance: random.Random, words: list[str], number: int, size: int) -> bytes:
    text = f'{{"id": {chance.getrandbits(60)}, "n": {number}, "msg": "'
    while len(text) < size:
        text += chance.choice(words) + " "
    return (text[: size - 2] + '"}').encode()


def check_log(log: PartitionLog, values: Values, first: int, count: int) -> None:
    """Compare records [first, first + count) of the log with values 0, 1, 2 ..."""
    number = 0
    for batch in log.read_batches(first):
        skip = max(0, first - batch.base_offset)
        for value in batch.values()[skip:]:
            if value != values[number]:
                raise AssertionError(f"record {first + number} is not what was appended")
            number += 1
    if number != count:
        raise AssertionError(f"{count} records were appended, {number} came back")


class RawFile:
    """The yardstick: joined values, pwrite, fdatasync, into zeros that were written before."""

    def __init__(self, directory: str, size_bytes: int, *, name: str = "raw") -> None:
        self._path = os.path.join(directory, name)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self._end = 0
        for start in range(0, size_bytes, len(_FILL)):
            os.pwrite(self._descriptor, _FILL[: size_bytes - start], start)
        os.fsync(self._descriptor)

    def append(self, values: list[bytes]) -> None:
        """One durable group."""
        data = b"".join(values)
        os.pwrite(self._descriptor, data, self._end)
        sync(self._descriptor)
        self._end += len(data)

    def values(self, size_bytes: int) -> Iterator[bytes]:
        """Everything that was appended, read a megabyte at a time."""
        chunk = (1 << 20) // size_bytes * size_bytes
        for start in range(0, self._end, chunk):
            data = os.pread(self._descriptor, min(chunk, self._end - start), start)
            for place in range(0, len(data), size_bytes):
                yield data[place : place + size_bytes]

    def read(self, position: int, length: int) -> bytes:
        """Bytes anywhere."""
        return os.pread(self._descriptor, length, position)

    def check(self, values: Values, first: int = 0) -> None:
        """What was written is there: values from number `first` on."""
        for number, value in enumerate(self.values(values.size_bytes), first):
            if value != values[number]:
                raise AssertionError(f"raw record {number} is not what was written")

    def close(self) -> None:
        """Remove the file."""
        os.close(self._descriptor)
        os.unlink(self._path)
