"""A log that a cluster owns, built from its rooms, with a committer that a test steps.

Place: in the test kit, over everything that a log is made of; worlds of clusters and tests of the
Raft side open one for each node. Promise: `open_cluster_log` recovers what the disk of `env` has in
/data, or begins; `batch`, `record_entry` and their like make what a leader would. Invariant:
nothing reaches the disk but in a step of the committer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from chronik_store.commit.committer import CommitTarget
from chronik_store.config import LogConfig
from chronik_store.disk_guard import DiskGuard
from chronik_store.environment import Environment
from chronik_store.format.control import Members, Noop
from chronik_store.format.entry import Entry, EntryKind, decode_entry_header, encode_entry_header
from chronik_store.format.manifest_file import SealedRange
from chronik_store.format.record_batch import RecordBatch
from chronik_store.format.segment_info import SegmentInfo
from chronik_store.log_core import LogCore
from chronik_store.log_identity import LogIdentity, LogPaths
from chronik_store.manifest.state import FoldedState
from chronik_store.replica import Replica
from chronik_store.testing.crash import MortalThreads
from chronik_store.wal.descriptors import DescriptorCache
from chronik_store.wal.services import WalServices
from chronik_store.wal.settings import WalIdentity, WalSettings
from chronik_store.wal.tail import TailBudget
from chronik_store.wal.wal import Wal

TOPIC_ID, LOG_ID = "ab" * 16, "cd" * 16
PATHS = LogPaths("/data/wal", "/data/segments", "/data/scratch", "/data/quarantine")


class SteppedCommitter:
    """Commits when the test says so: `notify` only remembers, unless `schedule` is given."""

    def __init__(self, schedule: Callable[[Callable[[], None]], None] | None = None) -> None:
        self.targets: list[CommitTarget] = []
        self._schedule = schedule

    def notify(self, target: CommitTarget) -> None:
        if target in self.targets:
            return
        self.targets.append(target)
        if self._schedule is not None:
            self._schedule(self.step)

    def step(self) -> None:
        """One group of each target that asked."""
        targets, self.targets = self.targets, []
        for target in targets:
            if target.commit_group():
                self.notify(target)

    def flush(self) -> None:
        while self.targets:
            self.step()

    def close(self) -> None:
        pass


class NoFiller:
    """Files are filled as they are written."""

    def notify(self, _target: Any) -> None:
        raise AssertionError("filling is off")

    def close(self) -> None:
        pass


def open_cluster_log(
    env: Environment,
    committer: Any,
    *,
    dispatch: Callable[[Callable[[], None]], None] = lambda call: call(),
    owner: str = "test/n1",
    config: LogConfig | None = None,
    file_bytes: int = 1 << 20,
    tail_bytes: int = 1 << 20,
) -> tuple[LogCore, Replica]:
    """Recover (or begin) the log in /data of this disk."""
    config = LogConfig() if config is None else config
    services = WalServices(
        committer,
        NoFiller(),  # type: ignore[arg-type]
        DescriptorCache(env.fs, env.threads, 8),
        TailBudget(env.threads, tail_bytes),
    )
    state = FoldedState(
        topic="events", partition=0, topic_id=TOPIC_ID, log_id=LOG_ID, producers_max=100
    )
    wal = Wal.recover(
        env,
        PATHS.wal,
        WalIdentity("events", 0, TOPIC_ID, owner, LOG_ID),
        WalSettings(file_bytes=file_bytes, fill_bytes_max=0),
        state,
        services=services,
        quarantine=PATHS.quarantine,
        accept_suspect=True,
    )
    core = LogCore(
        env=env,
        config=config,
        identity=LogIdentity("events", 0, TOPIC_ID, LOG_ID, owner),
        paths=PATHS,
        wal=wal,
        state=state,
        committer=committer,
        guard=DiskGuard(
            env.fs, env.clock, os.path.dirname(PATHS.wal), reserve_bytes=0, throttle_bytes=0
        ),
        on_unsworn=lambda _core: None,
        on_sealed=lambda _core: None,
        read_only=False,
    )
    core.start()
    core.replica = Replica(core, dispatch)
    return core, core.replica


def stepped(disk: Any, **options: Any) -> tuple[LogCore, Replica, SteppedCommitter]:
    """A log on this disk whose groups reach it when `flush` is called."""
    committer = SteppedCommitter()
    env = Environment(threads=MortalThreads(), fs=disk)
    core, replica = open_cluster_log(env, committer, **options)
    return core, replica, committer


def batch(*values: bytes, **options: Any) -> RecordBatch:
    """A batch of these values."""
    return RecordBatch.build(list(values), **options)


def record_entry(term: int, index: int, base_offset: int, *values: bytes) -> Entry:
    """One batch, as it stands in a log."""
    payload = batch(*values).buffer
    encoded = encode_entry_header(
        int(EntryKind.RECORDS), term, index, base_offset, len(values), 0, payload
    )
    return Entry(decode_entry_header(encoded), payload)


def control_entry(
    term: int,
    index: int,
    base_offset: int,
    command: Noop | Members | Any = Noop(),  # noqa: B008
) -> Entry:
    """A command, as it stands in a log."""
    payload = command.encode()
    encoded = encode_entry_header(int(command.KIND), term, index, base_offset, 0, 0, payload)
    return Entry(decode_entry_header(encoded), payload)


def segment_of(sealed: SealedRange) -> SegmentInfo:
    """What the uploader would say of a sealed range, of a segment that is in no bucket."""
    low, high = sealed.base_offset, sealed.end_offset
    return SegmentInfo(
        key=f"segments/events/0/{low:020}-{high:020}-1-ab.seg",
        first_index=sealed.first_index,
        last_index=sealed.last_index,
        base_offset=low,
        end_offset=high,
        term=sealed.term,
        size_bytes=100,
        hash="ab" * 8,
        record_count=high - low,
        first_timestamp_us=0,
        last_timestamp_us=0,
        min_timestamp_us=0,
        max_timestamp_us=0,
        footer_bytes=10,
        sealed_us=0,
    )


def run_of(terms: Sequence[int], *, first: int = 1, offset: int = 0) -> list[Entry]:
    """Entries of one record each, with these terms, from index `first` on."""
    return [
        record_entry(term, first + n, offset + n, b"t%d i%d" % (term, first + n))
        for n, term in enumerate(terms)
    ]
