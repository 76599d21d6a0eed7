"""One partition over four tiers, each of which can be told to lose, damage or refuse things."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import pytest

from chronik_store.clock import SystemClock
from chronik_store.errors import CorruptionError, OffsetOutOfRangeError, UnavailableError
from chronik_store.format.entry import Entry, EntryKind
from chronik_store.format.manifest_file import LogBase, Manifest, SegmentInfo
from chronik_store.model import Position
from chronik_store.objectstore.base import ObjectNotFoundError
from chronik_store.objectstore.layout import segment_key
from chronik_store.read_chain import ReadChain
from chronik_store.segment.footers import FooterCache
from chronik_store.segment.sealer import SegmentIdentity, write_segment
from chronik_store.segment.source import LocalSegments
from chronik_store.testing.sample_log import SampleLog
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.threads import SystemThreads

TOPIC_ID = "ab" * 16
IDENTITY = SegmentIdentity("t", 0, TOPIC_ID)


class FakeWal:
    """The Wal's reading face over a SampleLog: pruned below `first_index`, tail in memory."""

    def __init__(self, log: SampleLog) -> None:
        self.log = log
        self.first_index = log.first_index
        self.tail_first_index = log.first_index
        self.damaged: set[int] = set()
        self.reads: list[tuple[int, int, int]] = []
        self.before_read: Callable[[], None] = lambda: None
        self.before_time_lookup: Callable[[], None] = lambda: None

    def prune(self, first_index: int) -> None:
        self.first_index = first_index
        self.tail_first_index = max(self.tail_first_index, first_index)

    @property
    def last_index(self) -> int:
        return self.log.last_index

    @property
    def end_offset(self) -> int:
        return self.log.end_offset

    @property
    def base(self) -> LogBase:
        index, offset = self.first_index - 1, self.position_after(self.first_index - 1).offset
        return LogBase(index, 1, offset, 0)

    def position_after(self, index: int) -> Position:
        if not self.first_index - 1 <= index <= self.last_index:
            raise IndexError(index)
        if index < self.log.first_index:
            return Position(index + 1, self.log.base_offset)
        return Position(index + 1, self.log.between(index, index)[0].header.end_offset)

    def index_for_offset(self, offset: int) -> int:
        if offset < self.base.offset:
            raise OffsetOutOfRangeError("", offset=offset, first_offset=0, end_offset=0)
        found = [
            entry.header.index
            for entry in self.log.between(self.first_index, self.last_index)
            if entry.header.base_offset <= offset
        ]
        return found[-1]

    def index_for_timestamp(self, timestamp_us: int, low_index: int = 0) -> int | None:
        self.before_time_lookup()
        for entry in self.log.between(max(low_index, self.first_index), self.last_index):
            if entry.header.timestamp_us >= timestamp_us:
                return entry.header.index
        return None

    def read(self, first_index: int, last_index: int, max_bytes: int) -> list[Entry]:
        self.before_read()
        self.reads.append((first_index, last_index, max_bytes))
        if not self.first_index <= first_index <= self.last_index:
            raise IndexError(first_index)
        entries: list[Entry] = []
        size = 0
        for entry in self.log.between(first_index, min(last_index, self.last_index)):
            size += entry.header.entry_bytes
            if entries and size > max_bytes:
                break
            if entry.header.index in self.damaged:
                raise CorruptionError(f"WAL entry {entry.header.index}")
            entries.append(entry)
        return entries


class FakeObjects:
    """A bucket of segment objects."""

    def __init__(self, before_read: Callable[[], None]) -> None:
        self.before_read = before_read
        self.objects: dict[str, bytes] = {}
        self.cached: dict[str, bytes] = {}
        """What a cache would answer, where it differs."""
        self.down = False
        self.reads: list[tuple[str, int, int]] = []
        self.prefetched: list[str] = []

    def source(self, info: SegmentInfo) -> FakeObject:
        return FakeObject(self, info.key)

    def forget(self, info: SegmentInfo) -> None:
        self.cached.pop(info.key, None)

    def prefetch(self, info: SegmentInfo, length: int) -> None:
        assert length > 0
        self.prefetched.append(info.key)


class FakeObject:
    def __init__(self, bucket: FakeObjects, key: str) -> None:
        self.bucket, self.key = bucket, key

    def read_range(self, start: int, length: int) -> bytes:
        self.bucket.before_read()
        self.bucket.reads.append((self.key, start, length))
        if self.bucket.down:
            raise UnavailableError("the bucket does not answer")
        data = self.bucket.cached.get(self.key) or self.bucket.objects.get(self.key)
        if data is None:
            raise ObjectNotFoundError(self.key)
        return data[start : start + length]

    def read_tail(self, length: int) -> bytes:
        size = len(self.bucket.objects.get(self.key, b""))
        return self.read_range(max(0, size - length), length)


class Partition:
    """A log, its tiers, and a chain over them."""

    def __init__(self, log: SampleLog | None = None) -> None:
        self.before_call: Callable[[], None] = lambda: None
        """Runs before each call into the WAL, the disk or the bucket."""
        self.fs = SimulatedDisk()
        self.fs.make_directories("/segments")
        self.fs.hook = self._before_open
        self.log = SampleLog() if log is None else log
        self.wal = FakeWal(self.log)
        self.wal.before_read = self._before
        self.local = LocalSegments(self.fs, "/segments")
        self.bucket = FakeObjects(self._before)
        base = LogBase(self.log.first_index - 1, 0, self.log.base_offset, 0)
        self.manifest = Manifest(
            "t", 0, TOPIC_ID, "cd" * 16, next=base, start_offset=self.log.base_offset
        )
        self.newer_manifest: Manifest | None = None
        """What a refresh finds."""
        self.refreshes = 0
        self.committed: Position | None = None
        self.chain = self.new_chain()

    def _before(self) -> None:
        self.before_call()

    def _before_open(self, _number: int, operation: str, _path: str) -> None:
        if operation == "open":
            self.before_call()

    def new_chain(self, *, wal: bool = True, local: bool = True) -> ReadChain:
        return ReadChain(
            wal=self.wal if wal else None,
            manifest=lambda: self.manifest,
            refresh=self.refresh,
            local=self.local if local else None,
            objects=self.bucket,
            footers=FooterCache(SystemThreads()),
            clock=SystemClock(),
        )

    def refresh(self) -> Manifest:
        self.refreshes += 1
        if self.newer_manifest is not None:
            self.manifest, self.newer_manifest = self.newer_manifest, None
        return self.manifest

    @property
    def limit(self) -> Position:
        return self.committed or Position(self.log.last_index + 1, self.log.end_offset)

    def seal(self, *, upload: bool = True, local: bool = True, prune: bool = False) -> SegmentInfo:
        """Close the open segment and put it into the tiers that are named."""
        sealed = self.log.seal()
        info = write_segment(
            self.fs,
            self.local.directory,
            IDENTITY,
            sealed,
            self.log.between(sealed.first_index, sealed.last_index),
            (),
            key_of=functools.partial(segment_key, "t", 0),
        )
        if upload:
            self.bucket.objects[info.key] = self.local.source(info.key).read_range(
                0, info.size_bytes
            )
        if not local:
            self.evict(info)
        self.manifest = dataclasses.replace(
            self.manifest,
            segments=(*self.manifest.segments, info),
            next=LogBase(sealed.last_index, sealed.term, sealed.end_offset, sealed.timestamp_us),
            generation=self.log.last_index,
        )
        if prune:
            self.wal.prune(sealed.last_index + 1)
        return info

    def evict(self, info: SegmentInfo) -> None:
        self.fs.remove(self.local.path_of(info.key))

    def dropped(self, offset: int) -> Manifest:
        """The manifest after retention has dropped everything below `offset`."""
        return dataclasses.replace(
            self.manifest,
            start_offset=offset,
            segments=tuple(s for s in self.manifest.segments if s.end_offset > offset),
            generation=self.manifest.generation + 1,
        )

    def flip(self, info: SegmentInfo, position: int = -1, *, local: bool = True) -> None:
        """Damage a byte (the middle one) of a copy."""
        at = info.size_bytes // 2 if position < 0 else position
        if local:
            file = self.fs.open(self.local.path_of(info.key), write=True)
            file.write_at(at, [bytes([file.read_at(at, 1)[0] ^ 0x10])])
            file.close()
        else:
            data = bytearray(self.bucket.objects[info.key])
            data[at] ^= 0x10
            self.bucket.objects[info.key] = bytes(data)

    def read(self, offset: int, **options: Any) -> Any:
        return self.chain.read(offset, limit=self.limit, **options)

    def read_all(self, chain: ReadChain | None = None) -> list[bytes]:
        chain = chain or self.chain
        start = self.manifest.start_offset
        return [record.value for record in chain.scan(start, limit=lambda: self.limit)]

    def records_entry(self, number: int) -> Entry:
        """The number-th record entry of the log."""
        return [e for e in self.log.entries if e.header.kind == EntryKind.RECORDS][number]


@pytest.fixture
def partition() -> Partition:
    return Partition()


@pytest.fixture
def new_partition() -> Callable[..., Partition]:
    return Partition


def _tiered(partition: Partition) -> Partition:
    """Offsets 0-9 in the bucket only, 10-19 on the local disk too, 20-29 in WAL files (and a
    segment), 30-39 in the memory tail."""
    for number in range(4):
        partition.log.control()
        for batch in range(5):
            base = number * 10 + batch * 2
            partition.log.append([b"%d" % base, b"%d" % (base + 1)], timestamp_us=100 + base)
            partition.log.control()
        if number < 3:
            partition.seal(local=number > 0, prune=number < 2)
    partition.wal.tail_first_index = partition.wal.index_for_offset(30)
    return partition


@pytest.fixture
def tiered(partition: Partition) -> Partition:
    """A partition with ten records in each tier."""
    return _tiered(partition)


@pytest.fixture
def make_tiered() -> Callable[[], Partition]:
    """Any number of such partitions."""
    return lambda: _tiered(Partition())
