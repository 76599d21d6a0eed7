"""A partition in memory, a bucket and a disk that can crash, and an oracle over all three.

`World` is what survives a crash: the entries that were committed, the WAL files, the disk, the
bucket. `World.open()` gives a fresh incarnation of the process. Every effect (a proposal, a put, a
delete, a removed file) is a numbered step; `crash_at` ends the process right before or after one.
After each step the oracle checks that every acknowledged offset is somewhere safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest

from chronik_store.clock import SystemEntropy
from chronik_store.config import LogConfig
from chronik_store.environment import Environment
from chronik_store.errors import UnavailableError
from chronik_store.format.control import Command, Members, Noop
from chronik_store.format.entry import (
    Entry,
    EntryKind,
    decode_entry_header,
    encode_entry_header,
)
from chronik_store.format.manifest_file import Manifest
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.format.record_batch import RecordBatch
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.log_identity import LOCAL_OWNER
from chronik_store.manifest.state import FoldedState, OpenSegment
from chronik_store.model import PipelineReport
from chronik_store.objectstore.layout import parse_segment_key
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.pipeline import ByteBudget, Pipeline, SteadyTime, Tiering
from chronik_store.pipeline.contract import SteppedDownError
from chronik_store.segment.source import ByteSource
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.threads import SystemThreads
from tests.store.pipeline import effects
from tests.store.pipeline.effects import (
    Bucket,
    Crash,
    FileRow,
    ManualClock,
    Steps,
)

TOPIC_ID, LOG_ID = "aa" * 16, "bb" * 16


class World:
    """What outlives a process: committed entries, WAL files, disk, bucket, clock."""

    def __init__(self, **config: Any) -> None:
        values: dict[str, Any] = {
            "segment_bytes": 2000,
            "segment_age_seconds": 1800.0,
            "indexing_enabled": False,
            "garbage_seconds": 100.0,
            "disk_throttle_bytes": 0,
        }
        self.config = LogConfig(**(values | config))
        self.clock = ManualClock()
        self.objects = MemoryObjectStore(clock=self.clock)
        self.disk = SimulatedDisk(seed=1)
        self.entries: list[Entry] = []
        self.files = [FileRow(1, 1, 0, 0, 0)]
        self.acked: list[bytes] = []
        self.term = 0
        self.checked = 0
        self.index_directory: Callable[[], str] | None = None
        self.disk_of_indexes = PosixFileSystem()
        self.commit_lag = 0

    def open(self, **steps: int) -> Process:
        """A new process over what is there; the one before is gone."""
        self.disk = self.disk.crash("lost")
        self.term += 1
        return Process(self, Steps(**steps))

    def wal_offsets(self) -> set[int]:
        if not self.files:
            return set()
        first = min((each.first_index for each in self.files), default=0)
        held: set[int] = set()
        for entry in self.entries[first - 1 :]:
            held.update(range(entry.header.base_offset, entry.header.end_offset))
        return held

    def folded(self) -> FoldedState:
        """Folded from the log alone, as another replica would."""
        state = FoldedState(
            topic="t", partition=0, topic_id=TOPIC_ID, log_id=LOG_ID, producers_max=100
        )
        for entry in self.entries:
            state.on_entry(entry.header, entry.payload)
        state.commit(len(self.entries))
        return state

    def check(self) -> None:
        """The oracle: each acknowledged offset is in the WAL, or dropped, or safe in the bucket."""
        self.checked += 1
        manifest = self.folded().manifest
        safe = self.wal_offsets() | set(range(manifest.start_offset))
        for segment in manifest.segments:
            found = self.objects.head(segment.key)
            published = segment.added_index <= manifest.published_folded_to
            if published and found is not None and found.size_bytes == segment.size_bytes:
                safe.update(range(segment.base_offset, segment.end_offset))
            else:
                offsets = set(range(segment.base_offset, segment.end_offset))
                assert offsets - set(range(manifest.start_offset)) <= self.wal_offsets()
        missing = set(range(len(self.acked))) - safe
        assert not missing, f"acknowledged and nowhere safe: {sorted(missing)[:5]}"

    def named(self) -> set[str]:
        """Every key that the log names."""
        manifest = self.folded().manifest
        keys = {each.key for each in manifest.segments}
        keys |= {each.bundle.key for each in manifest.segments if each.bundle is not None}
        keys |= {each.key for each in manifest.garbage}
        return keys | {key for each in manifest.intents for key in each.keys}

    def object_keys(self, prefix: str = "") -> list[str]:
        return [each.key for each in self.objects.list(prefix, limit=10_000)]

    def ranges_in_bucket(self) -> list[tuple[int, int]]:
        runs = [parse_segment_key(key) for key in self.object_keys("segments/")]
        return [(run.base_offset, run.end_offset) for run in runs if run is not None]


class FakeWal:
    def __init__(self, process: Process) -> None:
        self.process = process
        self.world = process.world

    def files(self) -> Sequence[FileRow]:
        return [replace(each) for each in self.world.files]

    def read(self, first_index: int, last_index: int, max_bytes: int) -> list[Entry]:
        if first_index < self.world.files[0].first_index:
            raise IndexError(first_index)
        found: list[Entry] = []
        size = 0
        for entry in self.world.entries[first_index - 1 : last_index]:
            found.append(entry)
            size += entry.header.entry_bytes
            if size >= max_bytes:
                break
        return found

    def rotate(self) -> None:
        folded_to = self.process.state.folded_to - self.world.commit_lag
        self.process.steps.run("rotate", lambda: self._rotate(folded_to))

    def _rotate(self, folded_to: int) -> None:
        files = self.world.files
        files.append(
            FileRow(files[-1].seq + 1, files[-1].last_index + 1, files[-1].last_index, 0, folded_to)
        )

    def remove_files(self, through_seq: int) -> tuple[int, int]:
        result: tuple[int, int] = self.process.steps.run(
            f"remove through {through_seq}", lambda: self._remove(through_seq)
        )
        return result

    def _remove(self, through_seq: int) -> tuple[int, int]:
        going = [each for each in self.world.files if each.seq <= through_seq]
        assert 0 < len(going) < len(self.world.files)
        # What is left can be recovered: a later checkpoint knows all that the files knew.
        left = self.world.files[len(going) :]
        folded_to = max(each.folded_to for each in left)
        last_index = max(each.last_index for each in going)
        assert folded_to >= last_index
        for segment in self.process.manifest.segments:
            assert segment.first_index > last_index or folded_to >= segment.added_index
        del self.world.files[: len(going)]
        return len(going), sum(each.size_bytes for each in going)


class Process:
    """One incarnation: a partition and a pipeline over the world."""

    def __init__(self, world: World, steps: Steps) -> None:
        self.world = world
        self.steps = steps
        steps.watch = world.check
        self.bucket = Bucket(world.objects, steps)
        self.env = Environment(
            clock=world.clock, entropy=SystemEntropy(), threads=SystemThreads(), fs=world.disk
        )
        self.identity = _Identity()
        self.paths = _Paths()
        self.state = world.folded()
        self.wal = FakeWal(self)
        self.leads: int | None = world.term
        self.errors: dict[str, BaseException | None] = {}
        self.prepared = 0
        self.closed = False
        self._noop = False
        self.tiering = Tiering(
            env=self.env,
            config=world.config,
            store=self.bucket,
            budget=ByteBudget(self.env.threads, 1 << 20),
            time=SteadyTime(world.clock),
            prepare_bucket=self._prepare,
            open_object=self._open_object,
            index_fs=world.disk_of_indexes,
            index_directory=world.index_directory,
        )
        self.pipeline = Pipeline(self.tiering)

    # --- the partition core, as the pipeline sees it ---

    @property
    def manifest(self) -> Manifest:
        return self.state.manifest

    def members_at(self, _index: int) -> Members | None:
        return None

    def leader_term(self) -> int | None:
        return self.leads

    def propose(self, command: Command, *, term: int) -> int:
        if term != self.leads:
            raise SteppedDownError("stale")
        if not self._noop:
            self._noop = True
            self._add(int(EntryKind.NOOP), 0, Noop().encode())
        name = type(command).__name__
        index: int = self.steps.run(
            f"propose {name}", lambda: self._add(int(command.KIND), 0, command.encode())
        )
        return index

    def open_segment(self) -> OpenSegment:
        return self.state.open_segment(len(self.world.acked))

    def producers_at(self, last_index: int) -> tuple[ProducerEntry, ...]:
        return self.state.producers_at(last_index)

    def checkpoint(self) -> Any:
        return SimpleNamespace(manifest_folded_to=self.state.folded_to - self.world.commit_lag)

    def note_error(self, stage: str, error: BaseException | None) -> None:
        self.errors[stage] = error

    # --- what tests do ---

    def append(self, count: int = 1, size: int = 500, producer_id: int = 0) -> None:
        """`count` batches of one record each; acknowledged when this returns."""
        for _ in range(count):
            value = b"%06d" % len(self.world.acked) + b"v" * (size - 6)
            number = len(self.world.acked)
            batch = RecordBatch.build([value], producer_id=producer_id, base_sequence=number)
            self._add(int(EntryKind.RECORDS), 1, batch.buffer)
            self.world.acked.append(value)

    def run(self) -> PipelineReport:
        return self.pipeline.run_once(self)

    def drain(self, limit: int = 50) -> list[PipelineReport]:
        """Run until nothing is left to do; no error allowed."""
        reports = []
        for _ in range(limit):
            report = self.run()
            assert report.errors == ()
            if report.idle:
                return reports
            reports.append(report)
        raise AssertionError(f"not idle after {limit} runs: {reports[-1]}")

    def _add(self, kind: int, records: int, payload: bytes) -> int:
        world = self.world
        index = len(world.entries) + 1
        base = len(world.acked)
        before_us = world.entries[-1].header.timestamp_us if world.entries else 0
        timestamp_us = max(world.clock.wall_us, before_us)
        head = encode_entry_header(
            kind, self.leads or 0, index, base, records, timestamp_us, payload
        )
        header = decode_entry_header(head)
        world.entries.append(Entry(header, payload))
        row = world.files[-1]
        row.last_index = index
        row.records += records
        if records:
            batch = RecordBatch.from_buffer(payload, verify=False)
            self.state.note_records(header, batch, world.clock.wall_us)
        else:
            self.state.on_entry(header, payload)
        self.state.commit(index)
        return index

    def _prepare(self) -> None:
        self.prepared += 1

    def _open_object(self, info: Any) -> ByteSource:
        return _ObjectSource(self.bucket, info.key)


@dataclass
class _ObjectSource:
    store: Bucket
    key: str

    def read_range(self, start: int, length: int) -> bytes:
        return self.store.get_range(self.key, start, length)

    def read_tail(self, length: int) -> bytes:
        return self.store.get_range(self.key, -length, length)


@dataclass(frozen=True)
class _Identity:
    topic: str = "t"
    partition: int = 0
    topic_id: str = TOPIC_ID
    log_id: str = LOG_ID
    owner: str = LOCAL_OWNER


@dataclass(frozen=True)
class _Paths:
    segments: str = "/data/segments/t/0"
    scratch: str = "/data/scratch/t/0"


def crash_points(
    make: Callable[[], World], story: Callable[[Process], None], *, steps_max: int = 200
) -> Iterator[tuple[World, str]]:
    """Run `story` to its end once, then again with a crash before and after each of its steps."""
    process = make().open()
    story(process)
    total = process.steps.count
    assert 0 < total < steps_max
    for number in range(total):
        for moment in ("crash_before", "crash_after"):
            world = make()
            process = world.open(**{moment: number})
            with pytest.raises(Crash):
                story(process)
            yield world, f"{moment} step {number}: {process.steps.names[number]}"


def lost(_key: str) -> Exception:
    return UnavailableError("503 slow down", durability="unknown")


@pytest.fixture(name="kit")
def kit_fixture() -> Any:
    """The names above, since test files cannot import a conftest."""
    return SimpleNamespace(**vars(effects) | globals())
