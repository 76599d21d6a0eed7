"""A small log, sealed into a segment file on the real disk."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from chronik_store.format.manifest_file import SealedRange, SegmentInfo
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.objectstore.layout import segment_key
from chronik_store.segment.sealer import SegmentIdentity, write_segment
from chronik_store.segment.source import LocalFileSource, LocalSegments
from chronik_store.testing.sample_log import SampleLog

IDENTITY = SegmentIdentity("topic", 3, "ab" * 16)
KEY_OF = functools.partial(segment_key, IDENTITY.topic, IDENTITY.partition)


class BytesSource:
    """A segment's bytes in memory; counts the reads."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.ranges: list[tuple[int, int]] = []

    def read_range(self, start: int, length: int) -> bytes:
        self.ranges.append((start, length))
        return self.data[start : start + length]

    def read_tail(self, length: int) -> bytes:
        return self.read_range(max(0, len(self.data) - length), length)


@dataclass
class Sealed:
    """A sealed segment: what went in, what the manifest says, and the bytes."""

    log: SampleLog
    range: SealedRange
    info: SegmentInfo
    data: bytes
    source: BytesSource
    file: LocalFileSource
    identity: SegmentIdentity


@pytest.fixture
def seal(tmp_path: Any) -> Callable[..., Sealed]:
    """seal(log, producers=()): close the log's open segment and write it below tmp_path."""

    def write(log: SampleLog, producers: Sequence[ProducerEntry] = ()) -> Sealed:
        fs = PosixFileSystem()
        sealed = log.seal()
        entries = log.between(sealed.first_index, sealed.last_index)
        info = write_segment(fs, str(tmp_path), IDENTITY, sealed, entries, producers, key_of=KEY_OF)
        file = LocalSegments(fs, str(tmp_path)).source(info.key)
        data = file.read_range(0, info.size_bytes + 1)
        return Sealed(log, sealed, info, data, BytesSource(data), file, IDENTITY)

    return write
