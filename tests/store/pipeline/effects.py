"""What a pipeline does to the world outside, as numbered steps: any of them may be the last.

A bucket whose calls are steps and fail when told to, a clock that stands, rows that stand for WAL
files. `conftest` makes a partition of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from chronik_store.objectstore.base import Buffer, ObjectInfo, PutOutcome
from chronik_store.objectstore.memory import MemoryObjectStore

SECOND = 1_000_000
START_US = 1_700_000_000 * SECOND


class Crash(BaseException):
    """The process is gone."""


class ManualClock:
    """Time that stands until a test moves it; wall and monotonic apart."""

    def __init__(self) -> None:
        self.wall_us = START_US
        self.steady = 1000.0

    def monotonic(self) -> float:
        return self.steady

    def time_us(self) -> int:
        return self.wall_us

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.steady += seconds
        self.wall_us += int(seconds * SECOND)


@dataclass
class FileRow:
    """A WAL file: entries [first_index, last_index]."""

    seq: int
    first_index: int
    last_index: int
    records: int
    folded_to: int
    size_bytes: int = 1000


@dataclass
class Steps:
    """Counts effects; ends the process at one of them."""

    crash_before: int = -1
    crash_after: int = -1
    count: int = 0
    names: list[str] = field(default_factory=list)
    watch: Callable[[], None] = lambda: None

    def run(self, name: str, effect: Callable[[], Any]) -> Any:
        number = self.count
        self.count += 1
        self.names.append(name)
        if number == self.crash_before:
            raise Crash
        result = effect()
        self.watch()
        if number == self.crash_after:
            raise Crash
        return result


class Bucket:
    """A bucket whose calls are steps; `fail` makes calls of one kind fail."""

    def __init__(self, inner: MemoryObjectStore, steps: Steps) -> None:
        self.inner = inner
        self.steps = steps
        self.fail: dict[str, Callable[[str], Exception | None]] = {}
        self.puts: list[str] = []
        self.calls: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return self.inner.url

    def _try(self, verb: str, key: str) -> None:
        self.calls.append((verb, key))
        error = self.fail[verb](key) if verb in self.fail else None
        if error is not None:
            raise error

    def put_if_absent(self, key: str, data: Buffer) -> PutOutcome:
        self._try("put", key)
        outcome: PutOutcome = self.steps.run(
            f"put {key}", lambda: self.inner.put_if_absent(key, data)
        )
        if outcome is PutOutcome.CREATED:
            self.puts.append(key)
        self._try("reply", key)
        return outcome

    def get(self, key: str) -> bytes:
        self._try("get", key)
        return self.inner.get(key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        self._try("get", key)
        return self.inner.get_range(key, start, length)

    def head(self, key: str) -> ObjectInfo | None:
        self._try("head", key)
        return self.inner.head(key)

    def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> list[ObjectInfo]:
        self._try("list", prefix)
        return self.inner.list(prefix, start_after=start_after, limit=limit)

    def delete(self, keys: Sequence[str]) -> None:
        self._try("delete", keys[0])
        self.steps.run(f"delete {len(keys)}", lambda: self.inner.delete(keys))

    def close(self) -> None:
        pass
