"""A log that a cluster owns, opened without a cluster: its replica face and entries to feed it.

The server will own such logs; until it does, and for schedules that need one node only, this is
how a test gets one. Several may stand in one process, each on a disk of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from chronik_store import LogConfig, PartitionLog
from chronik_store.disk_guard import DiskGuard
from chronik_store.environment import Environment
from chronik_store.format.control import Command, Noop
from chronik_store.format.entry import (
    Entry,
    EntryKind,
    decode_entry_header,
    encode_entry_header,
)
from chronik_store.format.manifest_file import LogBase
from chronik_store.format.record_batch import RecordBatch
from chronik_store.format.store_file import TopicEntry
from chronik_store.log_assembly import LogAssembly
from chronik_store.log_identity import LogPaths
from chronik_store.objectstore.base import ObjectStore
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.replica import Replica
from chronik_store.search_scratch import SearchScratch
from chronik_store.store_bucket import StoreBucket

TOPIC_ID = "7" * 32
LOG_ID = "1" * 32
CONFIG = LogConfig(
    wal_file_bytes=4096,
    segment_bytes=1 << 20,
    indexing_enabled=False,
    pipeline_enabled=False,
    cache_memory_bytes=1 << 16,
    cache_disk_bytes=0,
    tail_bytes_max=1 << 12,
    disk_reserve_bytes=0,
    disk_throttle_bytes=0,
)
PATHS = LogPaths(
    wal="/data/wal/t/0",
    segments="/data/segments/t/0",
    scratch="/data/scratch/t/0",
    quarantine="/data/quarantine/t/0",
)


class ReplicaLog:
    """One replica's log, open. `dispatch` brings synced-callbacks to their owner."""

    def __init__(
        self,
        env: Environment,
        *,
        bucket: ObjectStore | None = None,
        config: LogConfig = CONFIG,
        owner: str = "cluster c, node 1",
        dispatch: Callable[[Callable[[], None]], None] = lambda callback: callback(),
    ) -> None:
        env.fs.make_directories("/data")
        guard = DiskGuard(env.fs, env.clock, "/data", reserve_bytes=0, throttle_bytes=0)
        store = StoreBucket(
            env,
            config,
            MemoryObjectStore() if bucket is None else bucket,
            store_id="5" * 32,
            owner=owner,
            cache_directory=None,
        )
        scratch = SearchScratch(env.fs, env.threads, None)
        self.assembly = LogAssembly(
            env, config, store, guard, read_only=False, owner=owner, scratch=scratch
        )
        entry = TopicEntry("t", TOPIC_ID, 1, "live")
        if not self.assembly.has_wal(PATHS):
            for path in (PATHS.wal, PATHS.segments):
                env.fs.make_directories(path)
            core = self.assembly._core(entry, 0, PATHS, log_id=LOG_ID)
            core.begin()
            core.close()
        self.log: PartitionLog = self.assembly.open(entry, 0, PATHS, on_close=lambda: None)
        self.core: Any = self.log._core
        self.replica = Replica(self.core, dispatch)
        self.core.replica = self.replica

    @property
    def end(self) -> LogBase:
        """Where the log ends: index, term, offset and time of its last entry."""
        return self.core.wal._table.last()

    def entries(self) -> list[Entry]:
        """All that it holds."""
        replica = self.replica
        found: list[Entry] = []
        while (index := replica.first_index + len(found)) <= replica.last_index:
            found += replica.entries(index, 1 << 20)
        return found

    def close(self) -> None:
        self.assembly.close(self.log)
        self.assembly.close_services()


class Author:
    """Makes entries that follow one another: what a leader of some term would send."""

    def __init__(self, end: LogBase, term: int) -> None:
        self.term = term
        self.index = end.index
        self.offset = end.offset
        self.timestamp_us = end.timestamp_us

    def records(self, values: Sequence[bytes], **batch: Any) -> Entry:
        """One batch."""
        body = RecordBatch.build(list(values), **batch).buffer
        return self._entry(EntryKind.RECORDS, body, len(values))

    def control(self, command: Command | None = None) -> Entry:
        """One control entry (None: a NOOP)."""
        command = Noop() if command is None else command
        return self._entry(command.KIND, command.encode(), 0)

    def _entry(self, kind: EntryKind, payload: bytes, count: int) -> Entry:
        self.index += 1
        head = encode_entry_header(
            int(kind), self.term, self.index, self.offset, count, self.timestamp_us, payload
        )
        self.offset += count
        return Entry(decode_entry_header(head), payload)
