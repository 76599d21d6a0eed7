"""Ctrl-C amid a search: the next search misses nothing, and `close` ends."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import FrameType

import pytest

from chronik_store.errors import UnavailableError
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.search.bundle_cache import BundleCache, BundleRef
from chronik_store.threads import SystemThreads
from tests.store.search import reference, test_bundle_cache, test_tail
from tests.store.search.test_bundle_cache import Bucket, Slow, assert_closing_waits, total
from tests.store.search.test_tail import log_of, offsets
from tests.store.test_threads import gets_through


def interrupted(use: Callable[[], object], number: int) -> bool:
    """Whether Ctrl-C came at the so many-th place where the interpreter looks for signals: where a
    function begins, and behind each call into C. In the callbacks of a WeakSet, which come when
    garbage is collected, an interrupt is nobody's: the interpreter prints it, and goes on.
    """
    places = 0

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal places
        if frame.f_globals.get("__name__") == "_weakrefset":
            return
        places += event in {"call", "c_return"}
        if places == number:
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        use()
    except (KeyboardInterrupt, RuntimeError, UnavailableError):
        pass  # `threading` makes a RuntimeError of some, and the cache of some of those its own
    finally:
        sys.setprofile(None)
    return places >= number


@pytest.fixture
def bucket(fs: PosixFileSystem, tmp_path: Path) -> Bucket:
    return Bucket(fs, tmp_path)


def interrupt_spawn(
    cache: BundleCache, ref: BundleRef, before: Callable[[Callable[[], None]], object]
) -> None:
    """Ctrl-C comes out of the call that starts the thread; before: what became of the thread."""

    def spawn(target: Callable[[], None], *, name: str) -> None:
        assert name
        before(target)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SystemThreads, "spawn", staticmethod(spawn))
        with pytest.raises(KeyboardInterrupt), cache.lease(ref):
            pytest.fail("it is not there")


@pytest.mark.parametrize("thread", ["never runs", "runs later", "has run"])
def test_an_interrupt_while_a_thread_starts_leaves_no_fetch_behind(
    fs: PosixFileSystem, tmp_path: Path, bucket: Bucket, thread: str
) -> None:
    cache, ref = test_bundle_cache.make(fs, tmp_path), bucket.ref(0)
    started: list[Callable[[], None]] = []
    interrupt_spawn(cache, ref, lambda run: run() if thread == "has run" else started.append(run))
    if thread == "runs later":
        started[0]()

    assert 3 == total(cache, ref)
    assert ["bundle-0"] == bucket.fetched
    assert gets_through(cache.close)
    assert not (tmp_path / "cache").exists()


def test_close_waits_for_a_fetch_whose_start_was_interrupted(
    fs: PosixFileSystem, tmp_path: Path, bucket: Bucket
) -> None:
    cache, slow = test_bundle_cache.make(fs, tmp_path), Slow(bucket.ref(0))

    def start(run: Callable[[], None]) -> None:
        threading.Thread(target=run, daemon=True).start()
        assert slow.asked.wait(30)

    interrupt_spawn(cache, slow.ref, start)
    assert_closing_waits(cache, slow)
    assert not (tmp_path / "cache").exists()


def test_a_lease_may_be_interrupted_anywhere(
    fs: PosixFileSystem, tmp_path: Path, bucket: Bucket
) -> None:
    ref = bucket.ref(0, 1)

    def is_interrupted(number: int) -> bool:
        cache = test_bundle_cache.make(fs, tmp_path)
        was_cut = interrupted(lambda: total(cache, ref), number)
        totals: list[int] = []
        assert gets_through(lambda: totals.append(total(cache, ref))), number
        assert [1] == totals, number
        assert gets_through(cache.close), number
        return was_cut

    assert next(number for number in count(1) if not is_interrupted(number)) > 20


def test_a_feed_may_be_interrupted_anywhere(fs: PosixFileSystem) -> None:
    batches = reference.batches_of(log_of(1))

    def is_interrupted(number: int) -> bool:
        index = test_tail.make(fs)
        was_cut = interrupted(lambda: index.feed(batches), number)
        reached: list[int] = []
        assert gets_through(lambda: reached.append(index.feed(batches))), number
        assert [1] == reached, number
        assert [0] == offsets(index, "disk"), number
        assert gets_through(index.close), number
        return was_cut

    assert next(number for number in count(1) if not is_interrupted(number)) > 20


def test_an_interrupted_feed_gives_back_no_turn_of_another(fs: PosixFileSystem) -> None:
    index, batches = test_tail.make(fs), reference.batches_of(log_of(6))
    feeds, go_on = threading.Event(), threading.Event()
    reached: list[int] = []

    def slow() -> Iterator[StoredBatch]:
        yield batches[0]
        feeds.set()
        assert go_on.wait(30)
        yield batches[1]

    feeder = threading.Thread(target=lambda: reached.append(index.feed(slow())), daemon=True)
    feeder.start()
    assert feeds.wait(30)
    late = [interrupted(lambda: index.feed(batches, deadline=0.0), each) for each in range(1, 20)]
    assert late[0]
    assert not late[-1]
    assert -1 == index.feed(batches, deadline=0.0)
    assert () == index.covered()
    go_on.set()
    feeder.join(30)

    assert [6] == reached
    assert list(range(6)) == offsets(index, "disk")
    assert gets_through(index.close)
