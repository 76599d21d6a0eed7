"""The chain over the real WAL, the real local object store and the real cache."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from chronik_store.clock import SystemClock
from chronik_store.environment import Environment
from chronik_store.errors import OffsetOutOfRangeError
from chronik_store.format.checkpoint import Checkpoint
from chronik_store.format.control import Noop, Seal
from chronik_store.format.entry import Entry, EntryKind, decode_entry_header, encode_entry_header
from chronik_store.format.manifest_file import LogBase, Manifest, SealedRange, SegmentInfo
from chronik_store.format.record_batch import RecordBatch
from chronik_store.model import Position
from chronik_store.objectstore.cache import BlockCache
from chronik_store.objectstore.layout import segment_key
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.objectstore.verified import put_verified
from chronik_store.read_chain import CachedObjects, ReadChain
from chronik_store.segment.check import check_segment
from chronik_store.segment.footers import FooterCache
from chronik_store.segment.sealer import SegmentIdentity, write_segment
from chronik_store.segment.source import LocalSegments
from chronik_store.wal.services import WalServices
from chronik_store.wal.settings import WalIdentity, WalSettings
from chronik_store.wal.wal import Wal

TOPIC_ID, LOG_ID = "ab" * 16, "cd" * 16
IDENTITY = SegmentIdentity("t", 0, TOPIC_ID)


class _Nobody:
    """A replayer for logs that are new."""

    def on_checkpoint(self, checkpoint: Checkpoint) -> None: ...
    def on_entry(self, header: Any, payload: memoryview) -> None: ...
    def on_truncate(self, index: int) -> None: ...
    def on_hard_state(self, term: int, vote: str) -> None: ...
    def lacks(self, base_index: int, committed_index: int) -> Literal[""]:
        return ""

    def on_nothing(self) -> None: ...


class Log:
    """As little of a partition as it takes: append, seal, upload, prune, read."""

    def __init__(self, root: str) -> None:
        self.env = Environment()
        self.services = WalServices.create(self.env, tail_bytes=20_000)
        self.manifest = Manifest("t", 0, TOPIC_ID, LOG_ID)
        self.wal = Wal.recover(
            self.env,
            f"{root}/wal",
            WalIdentity("t", 0, TOPIC_ID),
            WalSettings(file_bytes=30_000),
            _Nobody(),
            services=self.services,
        )
        self.wal.checkpoint_source = self.checkpoint
        self.wal.start(self.checkpoint())
        self.env.fs.make_directories(f"{root}/segments")
        self.local = LocalSegments(self.env.fs, f"{root}/segments")
        self.store = MemoryObjectStore()
        self.cache = BlockCache(
            threads=self.env.threads,
            fs=self.env.fs,
            directory=f"{root}/cache",
            memory_bytes=1 << 20,
            disk_bytes=1 << 20,
            read_ahead_bytes=1 << 17,
        )
        self.chain = ReadChain(
            wal=self.wal,
            manifest=lambda: self.manifest,
            refresh=lambda: self.manifest,
            local=self.local,
            objects=CachedObjects(self.cache, self.store),
            footers=FooterCache(self.env.threads),
            clock=SystemClock(),
        )
        self.values: list[bytes] = []
        self.times: list[int] = []

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            log_id=LOG_ID,
            term=1,
            vote="",
            base=LogBase(0, 0, 0, 0),
            committed_index=0,
            manifest=self.manifest,
            manifest_folded_to=0,
        )

    @property
    def limit(self) -> Position:
        return self.wal.durable

    def append(self, values: list[bytes], time: int) -> None:
        self._put(EntryKind.RECORDS, len(values), time, RecordBatch.build(values).buffer)
        self.values += values
        self.times += [time] * len(values)

    def control(self, command: Any) -> None:
        self._put(command.KIND, 0, self.wal.last_timestamp_us, command.encode())

    def _put(self, kind: int, count: int, time: int, payload: bytes) -> None:
        with self.wal.lock:
            head = encode_entry_header(
                kind, 1, self.wal.last_index + 1, self.wal.end_offset, count, time, payload
            )
            self._seq = self.wal.stage_entry(head, decode_entry_header(head), payload)

    def sync(self) -> None:
        self.wal.lead(self._seq)
        with self.wal.lock:
            self.wal.commit_mark = self.wal.last_index

    def entries(self, first_index: int) -> Iterator[Entry]:
        """What the WAL holds from here on, in pieces."""
        while first_index <= self.wal.last_index:
            entries = self.wal.read(first_index, self.wal.last_index, 5_000)
            yield from entries
            first_index += len(entries)

    def seal(self) -> SegmentInfo:
        first_index, base = self.manifest.next.index + 1, self.manifest.next.offset
        self.control(Seal(first_index, "admin", 7))
        self.sync()
        last = self.wal.last_index
        sealed = SealedRange(
            first_index, last, base, self.wal.end_offset, 1, 7, self.wal.last_timestamp_us
        )
        info = write_segment(
            self.env.fs,
            self.local.directory,
            IDENTITY,
            sealed,
            self.entries(first_index),
            (),
            key_of=functools.partial(segment_key, "t", 0),
        )
        source = self.local.source(info.key)
        check_segment(source, info, IDENTITY)
        put_verified(self.store, info.key, source.read_range(0, info.size_bytes))
        self.manifest = dataclasses.replace(
            self.manifest,
            segments=(*self.manifest.segments, info),
            next=LogBase(last, 1, sealed.end_offset, sealed.timestamp_us),
            generation=last,
        )
        return info

    def prune(self) -> None:
        covered = self.manifest.next.index
        files = [f for f in self.wal.files() if f.last_index <= covered]
        if files:
            self.wal.remove_files(files[-1].seq)

    def evict(self, info: SegmentInfo) -> None:
        self.env.fs.remove(self.local.path_of(info.key))

    def close(self) -> None:
        self.cache.close()
        self.wal.close()
        self.services.close()
        self.store.close()


@pytest.fixture
def log(tmp_path: Any) -> Iterator[Log]:
    log = Log(str(tmp_path))
    yield log
    log.close()


def _fill(log: Log, batches: int) -> None:
    for number in range(batches):
        base = len(log.values)
        log.append([b"%d" % (base + each) * 30 for each in range(number % 4 + 1)], base // 3)
        if number % 5 == 0:
            log.control(Noop())
    log.sync()


def _check_everything(log: Log) -> None:
    start = log.manifest.start_offset
    records = list(log.chain.scan(start, limit=lambda: log.limit))
    assert [record.value for record in records] == log.values[start:]
    assert [record.offset for record in records] == list(range(start, len(log.values)))
    for offset in range(start, len(log.values), 7):
        answer = log.chain.read(offset, max_records=3, limit=log.limit)
        assert [record.value for record in answer] == log.values[offset : offset + 3]
    for time in range(0, log.times[-1] + 2, 3):
        later = [at for at in range(start, len(log.values)) if log.times[at] >= time]
        found = log.chain.offset_for_timestamp(time, limit=lambda: log.limit)
        assert found == (later[0] if later else None)


def test_the_log_reads_the_same_at_every_stage_of_tiering(log: Log) -> None:
    tiers = set()
    for stage in range(4):
        _fill(log, 150)
        _check_everything(log)
        info = log.seal()
        _check_everything(log)
        log.prune()
        _check_everything(log)
        if stage % 2:
            log.evict(info)
            _check_everything(log)
        tiers |= {
            log.chain.read(offset, max_records=1, limit=log.limit).tier
            for offset in range(0, len(log.values), 5)
        }
    assert len(log.wal.files()) < 4
    _fill(log, 150)
    _check_everything(log)
    tiers |= {
        log.chain.read(offset, max_records=1, limit=log.limit).tier
        for offset in range(len(log.values))
    }
    assert tiers == {"wal_tail", "wal", "local_segment", "object_store"}


def test_a_cold_record_costs_one_get_and_then_none(log: Log) -> None:
    _fill(log, 400)
    info = log.seal()
    _fill(log, 100)
    log.prune()
    log.evict(info)
    log.chain.read(0, max_records=1, limit=log.limit)
    before = log.cache.stats().fetches
    middle = info.end_offset * 3 // 4
    assert log.chain.read(middle, max_records=1, limit=log.limit).tier == "object_store"
    assert log.cache.stats().fetches <= before + 1
    again = log.cache.stats().fetches
    assert log.chain.read(middle, max_records=1, limit=log.limit).tier == "object_store"
    assert log.cache.stats().fetches == again


def test_an_object_collected_under_a_reader_gives_the_new_start(log: Log) -> None:
    _fill(log, 300)
    first = log.seal()
    _fill(log, 300)
    second = log.seal()
    log.prune()
    log.evict(first)
    log.evict(second)
    scan = log.chain.scan(0, limit=lambda: log.limit, chunk_bytes=2_000)
    assert next(scan).offset == 0
    start = first.end_offset + 3
    collected = log.manifest
    log.manifest = dataclasses.replace(
        collected, start_offset=start, segments=(second,), generation=collected.generation + 1
    )
    log.store.delete([first.key])
    log.cache.forget(first.key)
    with pytest.raises(OffsetOutOfRangeError) as caught:
        list(scan)
    assert caught.value.first_offset == start
    _check_everything(log)


def test_damaged_wal_files_are_read_around_once_their_segment_is_there(log: Log) -> None:
    _fill(log, 400)
    log.seal()
    oldest = log.wal.files()[0]
    with open(oldest.path, "r+b") as file:
        data = bytearray(file.read())
        for position in range(6_000, len(data), 4_000):
            data[position] ^= 0x40
        file.seek(0)
        file.write(data)
    _check_everything(log)
