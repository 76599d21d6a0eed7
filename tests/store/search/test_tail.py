"""The tail index: searchable behind each feed, bounded, given up by parts."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chronik_store.clock import SystemClock
from chronik_store.errors import (
    CorruptionError,
    DiskFullError,
    LogClosedError,
    UnavailableError,
)
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.model import Record
from chronik_store.search import coverage, tail
from chronik_store.search.engine import IndexBuilder
from chronik_store.search.query import check_query
from chronik_store.search.tail import TailIndex
from chronik_store.threads import SystemThreads
from tests.store.search import reference
from tests.store.search.reference import Clause
from tests.store.search.small_disk import SmallDisk

EVERYTHING = 2**63 - 1


class TickingClock:
    """Each look at the clock takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now

    def time_us(self) -> int:
        return int(self.now * 1e6)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def make(fs: PosixFileSystem, directory: Path | None = None, **options: int) -> TailIndex:
    place = None if directory is None else f"{directory}/tail"
    return TailIndex(SystemClock(), SystemThreads(), fs=fs, directory=place, **options)


def log_of(count: int) -> list[Record]:
    return [Record(b"word%d disk" % number, timestamp_us=number) for number in range(count)]


def offsets(index: TailIndex, query: str, start: int = 0, stop: int = EVERYTHING) -> list[int]:
    tree = check_query(query).tree
    found, _ = index.search(tree, start=start, stop=stop, limit=10_000, order="oldest")
    return [offset for offset, _ in found.hits]


@pytest.mark.parametrize("in_memory", [True, False])
def test_what_is_fed_is_found(fs: PosixFileSystem, tmp_path: Path, in_memory: bool) -> None:
    index = make(fs, None if in_memory else tmp_path)
    assert () == index.covered()
    assert 110 == index.feed(reference.batches_of(log_of(10), 100))
    assert 112 == index.feed(reference.batches_of(log_of(2), 110))

    assert ((100, 112),) == index.covered()
    assert 12 == index.document_count
    assert [100, 110] == offsets(index, "word0")
    assert list(range(103, 108)) == offsets(index, "disk", 103, 108)
    index.close()
    assert not (tmp_path / "tail").exists()


def test_before_the_first_feed_nothing_exists(fs: PosixFileSystem, tmp_path: Path) -> None:
    index = make(fs, tmp_path)

    assert [] == offsets(index, "disk")
    index.retain([(50, EVERYTHING)])
    index.close()
    assert [] == os.listdir(tmp_path)


def test_an_empty_feed_reaches_nothing(fs: PosixFileSystem) -> None:
    assert -1 == make(fs).feed([])


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")
def test_between_feeds_no_thread_is_held(fs: PosixFileSystem, tmp_path: Path) -> None:
    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    index = make(fs, tmp_path)
    before = threads()
    index.feed(reference.batches_of(log_of(100)))
    for _ in range(1000):  # Tantivy's threads end a moment after it has let go of them
        if threads() <= before:
            break
        time.sleep(0.01)

    assert threads() <= before
    assert [7] == offsets(index, "word7")


def test_the_first_feed_empties_the_directory(fs: PosixFileSystem, tmp_path: Path) -> None:
    left = tmp_path / "tail" / "part_000000"
    left.mkdir(parents=True)
    (left / "meta.json").write_bytes(b"junk")
    index = make(fs, tmp_path)
    index.feed(reference.batches_of(log_of(3)))

    assert [0, 1, 2] == offsets(index, "disk")


@given(log=reference.logs, clause=reference.queries, cut=st.integers(0, 12))
def test_the_tail_finds_what_a_scan_finds(log: list[Record], clause: Clause, cut: int) -> None:
    index = make(PosixFileSystem())
    batches = reference.batches_of(log)
    index.feed(batches[cut:])
    index.feed(batches[:cut])

    expected = reference.expected_offsets(reference.stored(log), clause)
    assert expected == offsets(index, clause.text)
    assert set(reference.every_leaf_path(reference.stored(log))) == index.paths()[0]


def test_what_is_covered_is_not_indexed_twice(fs: PosixFileSystem) -> None:
    index = make(fs)
    batches = reference.batches_of(log_of(12), size=4)
    assert 8 == index.feed(batches[1:2])
    assert 12 == index.feed(batches)
    assert 12 == index.feed(batches)

    assert list(range(12)) == offsets(index, "disk")
    assert 12 == index.document_count


def test_a_gap_between_batches_is_refused_and_what_came_before_is_kept(
    fs: PosixFileSystem,
) -> None:
    index = make(fs)
    batches = reference.batches_of(log_of(9))
    with pytest.raises(CorruptionError, match="where 3 comes next"):
        index.feed([batches[0], batches[2]])

    assert ((0, 3),) == index.covered()


def test_what_the_batches_raise_comes_out_and_what_came_before_is_kept(
    fs: PosixFileSystem,
) -> None:
    def batches() -> Iterator[StoredBatch]:
        yield reference.batches_of(log_of(3))[0]
        raise UnavailableError("the bucket is down")

    index = make(fs)
    with pytest.raises(UnavailableError, match="bucket is down"):
        index.feed(batches())

    assert [0, 1, 2] == offsets(index, "disk")
    assert 6 == index.feed(reference.batches_of(log_of(6)))


def test_a_deadline_ends_a_feed_at_a_record_that_is_searchable(fs: PosixFileSystem) -> None:
    clock = TickingClock()
    index = TailIndex(clock, SystemThreads(), fs=fs, directory=None)
    batches = reference.batches_of(log_of(3000), size=1000)

    reached = index.feed(batches, deadline=clock.now + 700)
    assert 0 < reached < 1000
    assert ((0, reached),) == index.covered()
    assert list(range(reached)) == offsets(index, "disk")

    while reached < 3000:
        before = reached
        reached = index.feed(batches[reached // 1000 :], deadline=clock.now + 700)
        assert reached > before
    assert list(range(3000)) == offsets(index, "disk")


def test_a_deadline_is_looked_at_behind_each_record(fs: PosixFileSystem) -> None:
    """A batch may be 64 records of 1 MiB, which take a second each if somebody wants them to."""
    clock = TickingClock()
    index = TailIndex(clock, SystemThreads(), fs=fs, directory=None)
    batches = reference.batches_of(log_of(64), size=64)

    reached = index.feed(batches, deadline=clock.now + 10)

    assert 0 < reached <= 10
    assert ((0, reached),) == index.covered()


def test_a_deadline_that_has_passed_feeds_nothing(fs: PosixFileSystem) -> None:
    index = make(fs)

    assert 0 == index.feed(reference.batches_of(log_of(3)), deadline=0.0)
    assert () == index.covered()


def test_a_full_tail_stops_and_goes_on_after_a_drop(fs: PosixFileSystem, tmp_path: Path) -> None:
    index = make(fs, tmp_path, text_bytes_max=30)
    batches = reference.batches_of(log_of(9))
    assert 3 == index.feed(batches)
    assert 3 == index.feed(batches)
    index.retain([(3, EVERYTHING)])

    assert 6 == index.feed(batches[1:])
    assert [3, 4, 5] == offsets(index, "disk")


def test_a_tail_stops_before_it_takes_what_is_kept_for_the_log(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path / "tail", 50_000)
    index = make(disk, tmp_path, reserve_bytes=50_000)
    batches = reference.batches_of(log_of(9))
    assert 0 == index.feed(batches)
    assert () == index.covered()
    assert 0 == disk.used_bytes

    disk.size_bytes = 50_000 + 2 * 3 * (len(b"word0 disk") + 32) + (64 << 10)
    assert 3 == index.feed(batches)  # for the next ones there is none
    assert 3 == index.feed(batches)
    assert [0, 1, 2] == offsets(index, "disk")

    disk.size_bytes = 1_000_000
    assert 9 == index.feed(batches)
    assert list(range(9)) == offsets(index, "disk")


def test_room_that_others_took_before_the_commit_costs_the_part(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path / "tail", 1_000_000)
    index = make(disk, tmp_path, reserve_bytes=50_000)
    batches = reference.batches_of(log_of(9))
    assert 3 == index.feed(batches[:1])

    def shrinking() -> Iterator[StoredBatch]:
        yield from batches[1:]
        disk.free_bytes = 50_000 + 6 * len(b"word0 disk")

    with pytest.raises(DiskFullError, match="no room for the tail index"):
        index.feed(shrinking())
    assert () == index.covered()
    assert [] == os.listdir(tmp_path / "tail")

    disk.free_bytes = None
    assert 9 == index.feed(batches)


def test_an_index_in_memory_asks_no_disk(tmp_path: Path) -> None:
    index = make(SmallDisk(tmp_path, 0), reserve_bytes=50_000)

    assert 9 == index.feed(reference.batches_of(log_of(9)))


def test_dropping_removes_whole_parts_and_their_files(
    fs: PosixFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "PART_TEXT_BYTES", 30)
    index = make(fs, tmp_path)
    index.feed(reference.batches_of(log_of(9)))
    assert 3 == len(os.listdir(tmp_path / "tail"))

    index.retain([(4, EVERYTHING)])
    assert ((3, 9),) == index.covered()
    assert 2 == len(os.listdir(tmp_path / "tail"))
    index.retain([(9, EVERYTHING)])
    assert () == index.covered()
    assert [] == os.listdir(tmp_path / "tail")
    assert 9 == index.feed(reference.batches_of(log_of(9)))


def test_retain_keeps_the_parts_that_are_still_wanted(fs: PosixFileSystem) -> None:
    index = make(fs)
    for base in (0, 10, 20):
        index.feed(reference.batches_of(log_of(3), base))
    index.retain([(11, 12), (22, 30)])

    assert ((10, 13), (20, 23)) == index.covered()


def test_a_search_goes_on_over_a_part_that_is_dropped_meanwhile(
    fs: PosixFileSystem, tmp_path: Path
) -> None:
    index = make(fs, tmp_path)
    index.feed(reference.batches_of(log_of(500), size=100))
    (part,) = index._parts
    view = part.search
    assert view is not None
    index.retain([(500, EVERYTHING)])

    tree = check_query("value:/word.*/ disk").tree
    assert 500 == view.search(tree, start=0, stop=500, limit=1).total
    assert [] == offsets(index, "disk")


def test_a_failing_index_costs_its_part_and_is_fed_again(
    fs: PosixFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make(fs)
    batches = reference.batches_of(log_of(9))
    index.feed(batches[:1])

    def broken(self: IndexBuilder) -> None:
        raise UnavailableError("the index writer was killed")

    with monkeypatch.context() as patched:
        patched.setattr(IndexBuilder, "commit", broken)
        with pytest.raises(UnavailableError, match="killed"):
            index.feed(batches[1:])
    assert () == index.covered()

    assert 9 == index.feed(batches)
    assert list(range(9)) == offsets(index, "disk")


def test_a_damaged_batch_costs_nothing_that_came_before_it(
    fs: PosixFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make(fs)
    batches = reference.batches_of(log_of(6))

    def damaged(self: StoredBatch) -> None:
        raise CorruptionError("record headers: not a list")

    index.feed(batches[:1])
    with monkeypatch.context() as patched:
        patched.setattr(StoredBatch, "headers", damaged)
        with pytest.raises(CorruptionError, match="not a list"):
            index.feed(batches[1:])

    assert [0, 1, 2] == offsets(index, "disk")
    assert 6 == index.feed(batches[1:])


def test_a_closed_tail_refuses(fs: PosixFileSystem) -> None:
    index = make(fs)
    index.feed(reference.batches_of(log_of(3)))
    index.close()
    index.close()

    with pytest.raises(LogClosedError):
        index.feed(reference.batches_of(log_of(3)))
    assert [] == offsets(index, "disk")


def test_many_threads_feed_and_search_one_tail(fs: PosixFileSystem, tmp_path: Path) -> None:
    index = make(fs, tmp_path, commit_bytes=200)
    batches = reference.batches_of(log_of(300), size=10)
    errors: list[BaseException] = []

    def guarded(work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)

    def look() -> None:
        for _ in range(50):
            tree = check_query("disk").tree
            found, searched = index.search(tree, start=0, stop=EVERYTHING, limit=1000)
            span = sum(high - low for low, high in searched)
            assert span == found.total == len(found.hits)

    feeders = [lambda: index.feed(batches), lambda: index.feed(batches[10:])]
    workers = [threading.Thread(target=guarded, args=(work,)) for work in (*feeders, look, look)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert [] == errors
    assert list(range(300)) == offsets(index, "disk")


class TailMachine(RuleBasedStateMachine):
    """Feeds, drops and searches in any order, against sets of offsets."""

    END = 40

    def __init__(self) -> None:
        super().__init__()
        self.index = make(PosixFileSystem(), commit_bytes=40)
        self.log = log_of(self.END)
        self.parts: list[tuple[int, int]] = []

    @rule(start=st.integers(0, END - 1), length=st.integers(1, 15), size=st.integers(1, 6))
    def feed(self, start: int, length: int, size: int) -> None:
        records = self.log[start : start + length]
        end = start + len(records)
        assert end == self.index.feed(reference.batches_of(records, start, size))
        assert ((start, end),) == coverage.covered(self.index.covered(), start, end)

    @precondition(lambda self: self.index.covered())
    @rule(offset=st.integers(0, END))
    def retain_from(self, offset: int) -> None:
        before = self.index.covered()
        self.index.retain([(offset, EVERYTHING)])
        after = self.index.covered()
        wanted = coverage.covered(before, offset, EVERYTHING)
        assert wanted == coverage.covered(after, offset, EVERYTHING)

    @invariant()
    def search_sees_exactly_what_is_covered(self) -> None:
        covered = self.index.covered()
        expected = [offset for low, high in covered for offset in range(low, high)]
        assert expected == offsets(self.index, "disk")
        assert len(expected) == self.index.document_count

    def teardown(self) -> None:
        self.index.close()


TestTailMachine = TailMachine.TestCase
TestTailMachine.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
