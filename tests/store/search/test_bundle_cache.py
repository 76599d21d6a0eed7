"""The cache of open bundles: fetched once, bounded, never closed under a user."""

from __future__ import annotations

import dataclasses
import errno
import os
import threading
from pathlib import Path

import pytest

from chronik_store.errors import (
    CorruptionError,
    DiskFullError,
    LogClosedError,
    UnavailableError,
)
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.model import Record
from chronik_store.search import bundle_cache
from chronik_store.search.bundle import build_bundle
from chronik_store.search.bundle_cache import BundleCache, BundleRef
from chronik_store.search.engine import UnreadableIndexError
from chronik_store.search.query import check_query
from chronik_store.threads import SystemThreads
from tests.store.search import reference
from tests.store.search.small_disk import SmallDisk


class Bucket:
    """Bundles by key, and how often each was fetched."""

    def __init__(self, fs: PosixFileSystem, directory: Path) -> None:
        self.fs = fs
        self.directory = directory
        self.objects: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.down = False

    def ref(self, base: int, count: int = 3) -> BundleRef:
        log = [Record(b"word%d disk" % number) for number in range(count)]
        built = build_bundle(
            reference.batches_of(log, base),
            fs=self.fs,
            directory=f"{self.directory}/build",
            base_offset=base,
            end_offset=base + count,
        )
        key = f"bundle-{base}"
        self.objects[key] = Path(built.path).read_bytes()
        info = dataclasses.replace(built.info, key=key)

        def read_range(start: int, length: int) -> bytes:
            if self.down:
                raise UnavailableError("the bucket is down")
            if start == 0:
                self.fetched.append(key)
            return self.objects[key][start : start + length]

        return BundleRef(base, base + count, info, read_range)


@pytest.fixture
def bucket(fs: PosixFileSystem, tmp_path: Path) -> Bucket:
    return Bucket(fs, tmp_path)


def make(fs: PosixFileSystem, tmp_path: Path, **bounds: int) -> BundleCache:
    return BundleCache(fs, lambda: f"{tmp_path}/cache", SystemThreads(), **bounds)


def total(cache: BundleCache, ref: BundleRef) -> int:
    with cache.lease(ref) as search:
        return search.search(check_query("disk").tree, start=0, stop=1 << 60, limit=1).total


def test_a_bundle_is_fetched_once(fs: PosixFileSystem, tmp_path: Path, bucket: Bucket) -> None:
    cache, ref = make(fs, tmp_path), bucket.ref(0)

    assert [3, 3] == [total(cache, ref), total(cache, ref)]
    assert ["bundle-0"] == bucket.fetched
    cache.close()
    assert not (tmp_path / "cache").exists()


def test_an_unused_cache_touches_nothing(fs: PosixFileSystem, tmp_path: Path) -> None:
    make(fs, tmp_path).close()

    assert [] == os.listdir(tmp_path)


def test_the_first_use_empties_the_directory(
    fs: PosixFileSystem, tmp_path: Path, bucket: Bucket
) -> None:
    left = tmp_path / "cache" / "bundle_000000"
    left.mkdir(parents=True)
    (left / "meta.json").write_bytes(b"junk")

    assert 3 == total(make(fs, tmp_path), bucket.ref(0))


def test_one_more_than_may_be_kept_pushes_none_out(
    fs: PosixFileSystem, tmp_path: Path, bucket: Bucket
) -> None:
    cache = make(fs, tmp_path, count_max=2)
    refs = [bucket.ref(base) for base in (0, 10, 20)]
    for place in (0, 1, 0, 2, 0, 1):
        total(cache, refs[place])

    assert ["bundle-0", "bundle-10", "bundle-20"] == bucket.fetched
    assert 2 == len(os.listdir(tmp_path / "cache"))


def test_a_search_over_all_of_a_log_finds_its_bundles_again(
    fs: PosixFileSystem, tmp_path: Path, bucket: Bucket
) -> None:
    cache = make(fs, tmp_path)
    refs = [bucket.ref(base) for base in range(0, 400, 10)]
    for ref in refs * 2:
        total(cache, ref)

    assert 40 == len(bucket.fetched)


def test_a_search_over_twice_as_much_as_may_be_kept_finds_half_of_it_again(
    fs: PosixFileSystem, tmp_path: Path, bucket: Bucket
) -> None:
    """They are asked for in turn: the least recently used is what comes next."""
    refs = [bucket.ref(base) for base in range(0, 400, 10)]
    need = unpacked_bytes(fs, tmp_path, refs[-1])
    cache = make(fs, tmp_path, bytes_max=need * 20)
    bucket.fetched.clear()
    for ref in refs * 5:
        total(cache, ref)

    assert 40 + 4 * 20 <= len(bucket.fetched) <= 40 + 4 * 23
    assert cache.open_bytes <= need * 20


def test_a_search_over_more_than_the_disk_has_room_for_finds_some_again(
    tmp_path: Path, bucket: Bucket
) -> None:
    """Room for one more was made by letting go of all that nobody used."""
    refs = [bucket.ref(base) for base in range(0, 100, 10)]
    need = max(unpacked_bytes(bucket.fs, tmp_path, ref) for ref in refs)
    disk = SmallDisk(tmp_path / "cache", RESERVE + need * 5)
    cache = make(disk, tmp_path, reserve_bytes=RESERVE)
    bucket.fetched.clear()
    for ref in refs * 4:
        total(cache, ref)

    assert len(bucket.fetched) <= 10 + 3 * 7
    assert disk.used_bytes <= need * 5


def test_bytes_are_bounded(fs: PosixFileSystem, tmp_path: Path, bucket: Bucket) -> None:
    cache = make(fs, tmp_path, bytes_max=1)
    for base in (0, 10, 20):
        assert 3 == total(cache, bucket.ref(base))

    assert 0 == cache.open_bytes
    assert [] == os.listdir(tmp_path / "cache")


def test_a_bundle_in_use_outlives_eviction_and_close(
    fs: PosixFileSystem, tmp_path: Path, bucket: Bucket
) -> None:
    cache = make(fs, tmp_path, count_max=1)
    tree = check_query("disk").tree
    first, second = bucket.ref(0), bucket.ref(10)
    with cache.lease(first) as search:
        total(cache, second)
        assert 3 == search.search(tree, start=0, stop=99, limit=9).total
        cache.close()
        assert 3 == search.search(tree, start=0, stop=99, limit=9).total

    with pytest.raises(LogClosedError):
        total(cache, first)
    assert not (tmp_path / "cache").exists()


def test_many_threads_share_one_fetch(fs: PosixFileSystem, tmp_path: Path, bucket: Bucket) -> None:
    cache, ref = make(fs, tmp_path), bucket.ref(0, 200)
    totals: list[int] = []
    threads = [threading.Thread(target=lambda: totals.append(total(cache, ref))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [200] * 8 == totals
    assert ["bundle-0"] == bucket.fetched


def test_many_threads_over_a_small_cache(
    fs: PosixFileSystem, tmp_path: Path, bucket: Bucket
) -> None:
    cache = make(fs, tmp_path, count_max=1)
    refs = [bucket.ref(base) for base in (0, 10, 20, 30)]
    totals: list[int] = []

    def work() -> None:
        totals.extend(total(cache, ref) for ref in refs * 3)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [3] * 48 == totals
    assert len(os.listdir(tmp_path / "cache")) <= 1


def test_an_outage_is_passed_on_and_tried_again(
    fs: PosixFileSystem, tmp_path: Path, bucket: Bucket
) -> None:
    cache, ref = make(fs, tmp_path), bucket.ref(0)
    bucket.down = True
    for _ in range(3):
        with pytest.raises(UnavailableError, match="bucket is down"):
            total(cache, ref)
    bucket.down = False

    assert 3 == total(cache, ref)
    assert cache.refused(ref.info.key) is None


def test_wrong_bytes_are_fetched_twice_and_no_more(
    fs: PosixFileSystem, tmp_path: Path, bucket: Bucket
) -> None:
    cache, ref = make(fs, tmp_path), bucket.ref(0)
    good = bucket.objects["bundle-0"]
    bucket.objects["bundle-0"] = bytes(len(good))
    for _ in range(4):
        with pytest.raises(CorruptionError):
            total(cache, ref)

    assert ["bundle-0"] * 2 == bucket.fetched
    assert isinstance(cache.refused(ref.info.key), CorruptionError)


def test_a_flip_on_the_way_is_forgiven_once(
    fs: PosixFileSystem, tmp_path: Path, bucket: Bucket
) -> None:
    cache, ref = make(fs, tmp_path), bucket.ref(0)
    good = bucket.objects["bundle-0"]
    bucket.objects["bundle-0"] = bytes(len(good))
    with pytest.raises(CorruptionError):
        total(cache, ref)
    bucket.objects["bundle-0"] = good

    assert 3 == total(cache, ref)


def test_an_unreadable_bundle_is_never_fetched(
    fs: PosixFileSystem, tmp_path: Path, bucket: Bucket
) -> None:
    cache, ref = make(fs, tmp_path), bucket.ref(0)
    other = dataclasses.replace(ref, info=dataclasses.replace(ref.info, engine="another"))
    for _ in range(2):
        with pytest.raises(UnreadableIndexError):
            total(cache, other)

    assert [] == bucket.fetched


RESERVE = 10_000


def unpacked_bytes(fs: PosixFileSystem, tmp_path: Path, ref: BundleRef) -> int:
    cache = BundleCache(fs, lambda: f"{tmp_path}/other", SystemThreads())
    total(cache, ref)
    size_bytes = cache.open_bytes
    cache.close()
    return size_bytes


def test_what_is_kept_for_the_log_is_not_taken(tmp_path: Path, bucket: Bucket) -> None:
    ref = bucket.ref(0)
    need = unpacked_bytes(bucket.fs, tmp_path, ref)
    disk = SmallDisk(tmp_path / "cache", RESERVE + need - 1)
    cache = make(disk, tmp_path, reserve_bytes=RESERVE)
    for _ in range(3):
        with pytest.raises(DiskFullError, match="bundle-0 beside the 10000 bytes"):
            total(cache, ref)
    assert 0 == disk.used_bytes == cache.open_bytes

    disk.size_bytes += 1  # it is not held against the bundle
    assert 3 == total(cache, ref)


def test_bundles_that_nobody_uses_make_room(tmp_path: Path, bucket: Bucket) -> None:
    refs = [bucket.ref(base) for base in (0, 10, 20)]
    need = max(unpacked_bytes(bucket.fs, tmp_path, ref) for ref in refs)
    disk = SmallDisk(tmp_path / "cache", RESERVE + need * 2)
    cache = make(disk, tmp_path, reserve_bytes=RESERVE)
    with cache.lease(refs[0]):
        assert [3, 3] == [total(cache, ref) for ref in refs[1:]]
        assert 3 == total(cache, refs[0])

    assert ["bundle-0", "bundle-10", "bundle-20"] == bucket.fetched[3:]
    assert need * 2 >= disk.used_bytes


def test_two_that_are_unpacked_at_once_do_not_count_on_the_same_room(
    tmp_path: Path, bucket: Bucket
) -> None:
    first, second = bucket.ref(0), bucket.ref(10)
    need = [unpacked_bytes(bucket.fs, tmp_path, ref) for ref in (first, second)]
    disk = SmallDisk(tmp_path / "cache", RESERVE + sum(need) - 1)
    cache = make(disk, tmp_path, reserve_bytes=RESERVE)
    refused = []

    def meanwhile(_path: str) -> None:
        disk.on_create = lambda _path: None
        with pytest.raises(DiskFullError) as error:
            total(cache, second)
        refused.append(error)

    disk.on_create = meanwhile
    assert 3 == total(cache, first)
    assert 1 == len(refused)


class Slow:
    """A bundle whose requests, of 100 bytes each, wait until they are let go on."""

    def __init__(self, ref: BundleRef) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.requests: list[int] = []

        def read_range(start: int, length: int) -> bytes:
            self.requests.append(start)
            self.asked.set()
            assert self.go_on.wait(30)
            return ref.read_range(start, min(length, 100))

        self.ref = dataclasses.replace(ref, read_range=read_range)


def give_up(cache: BundleCache, slow: Slow) -> None:
    with (
        pytest.raises(UnavailableError, match="still being fetched"),
        cache.lease(slow.ref, lambda: 0.0 if slow.asked.is_set() else 1.0),
    ):
        pytest.fail("it is not there")


def test_a_fetch_goes_on_without_whoever_began_it_and_is_kept(
    fs: PosixFileSystem, tmp_path: Path, bucket: Bucket
) -> None:
    cache, slow = make(fs, tmp_path, count_max=1), Slow(bucket.ref(0))
    give_up(cache, slow)
    assert 3 == total(cache, bucket.ref(10))  # nothing under way is evicted for it

    slow.go_on.set()
    assert 3 == total(cache, slow.ref)
    assert ["bundle-10", "bundle-0"] == bucket.fetched
    cache.close()
    assert not (tmp_path / "cache").exists()


def test_a_failure_that_nobody_waits_for_is_logged(
    fs: PosixFileSystem, tmp_path: Path, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    cache, slow = make(fs, tmp_path), Slow(bucket.ref(0))
    give_up(cache, slow)
    bucket.down = True
    slow.go_on.set()
    while cache._fetching:
        pass
    cache.close()

    assert "bundle-0, which nobody waits for any more: the bucket is down" in caplog.text


def assert_closing_waits(cache: BundleCache, slow: Slow) -> None:
    """For what is fetched, and no longer."""
    closing = threading.Thread(target=cache.close, daemon=True)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    slow.go_on.set()
    closing.join(30)

    assert not closing.is_alive()


def test_close_waits_for_the_request_under_way_and_no_other_comes(
    fs: PosixFileSystem, tmp_path: Path, bucket: Bucket
) -> None:
    cache, slow = make(fs, tmp_path), Slow(bucket.ref(0))
    give_up(cache, slow)
    assert_closing_waits(cache, slow)
    assert [0] == slow.requests
    assert not (tmp_path / "cache").exists()


def test_without_a_thread_for_it_a_bundle_is_unavailable_and_tried_again(
    fs: PosixFileSystem, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, ref = make(fs, tmp_path), bucket.ref(0)

    def refuse(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(SystemThreads, "spawn", refuse)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="no thread to fetch it"):
                total(cache, ref)

    assert 3 == total(cache, ref)
    cache.close()


@pytest.mark.parametrize("waits", [True, False], ids=["waited for", "given up"])
def test_what_was_unpacked_in_vain_does_not_stay(
    fs: PosixFileSystem,
    tmp_path: Path,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    waits: bool,
) -> None:
    """The disk refuses to say how much it takes, when all of it is there."""
    may_fail, failed = threading.Event(), threading.Event()

    def refuses(*_: object) -> int:
        may_fail.wait(10)
        failed.set()
        raise OSError(errno.EIO, "no answer")

    monkeypatch.setattr(bundle_cache, "used_bytes", refuses)
    cache = make(fs, tmp_path)
    if waits:
        may_fail.set()
    with (
        pytest.raises((OSError, UnavailableError)),
        cache.lease(bucket.ref(0), None if waits else lambda: 0.0),
    ):
        pass
    may_fail.set()
    while cache._fetching:
        pass

    assert failed.is_set()
    assert [] == os.listdir(tmp_path / "cache")
