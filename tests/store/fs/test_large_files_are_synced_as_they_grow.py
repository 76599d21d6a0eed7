"""Whoever writes a large file beside a log never has much of it unsynced: a sync of the log on the
same disk would wait for all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from chronik_store.clock import SystemClock, SystemEntropy
from chronik_store.fs.base import SYNC_BYTES, Buffer
from chronik_store.fs.posix import PosixFile, PosixFileSystem
from chronik_store.objectstore.base import PutOutcome
from chronik_store.objectstore.local import LocalObjectStore
from chronik_store.segment import sealer
from chronik_store.segment.sealer import SegmentIdentity, write_segment
from chronik_store.testing.sample_log import SampleLog


class Counted:
    """A file that knows how much of it was written and not synced, at most."""

    most = 0

    def __init__(self, file: PosixFile) -> None:
        self._file = file
        self._unsynced = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write_at(self, position: int, buffers: Sequence[Buffer]) -> int:
        written = self._file.write_at(position, buffers)
        self._unsynced += written
        Counted.most = max(Counted.most, self._unsynced)
        return written

    def sync_data(self) -> None:
        self._file.sync_data()
        self._unsynced = 0

    def sync_all(self) -> None:
        self._file.sync_all()
        self._unsynced = 0


class Disk(PosixFileSystem):
    def create(self, path: str) -> Any:
        return Counted(super().create(path))


SIZE = 3 * SYNC_BYTES + 5


def an_object(directory: Path) -> bytes:
    store = LocalObjectStore(Disk(), str(directory), entropy=SystemEntropy(), clock=SystemClock())
    body = bytes(range(256)) * (SIZE // 256 + 1)
    assert store.put_if_absent("a/b", body) is PutOutcome.CREATED
    assert store.get("a/b") == body
    return body


def a_segment(directory: Path) -> bytes:
    log = SampleLog()
    while sum(each.header.payload_bytes for each in log.entries) < SIZE:
        log.append([b"x" * (1 << 20)])
    sealed = log.seal()
    identity = SegmentIdentity("topic", 0, "ab" * 16)
    info = write_segment(
        Disk(), str(directory), identity, sealed, log.entries, (), key_of=lambda *_: "a/segment"
    )
    assert info.size_bytes > SIZE
    return (directory / "segment").read_bytes()


@pytest.mark.parametrize("write", [an_object, a_segment])
def test_not_much_is_unsynced_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], bytes]
) -> None:
    monkeypatch.setattr(Counted, "most", 0)

    assert len(write(tmp_path)) >= SIZE
    assert SYNC_BYTES // 2 < Counted.most <= SYNC_BYTES + 2 * sealer.WRITE_BYTES
