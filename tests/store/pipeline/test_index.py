"""Each segment gets one listed bundle; what loses or fails is named and goes."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chronik_store.format.checksum import content_hash
from chronik_store.fs.base import DiskUsage
from chronik_store.fs.posix import PosixFile, PosixFileSystem


@pytest.fixture(name="make")
def make_fixture(kit: Any, tmp_path: Path) -> Any:
    def make(**config: Any) -> Any:
        world = kit.World(**({"indexing_enabled": True} | config))
        world.index_directory = lambda: str(tmp_path / "index")
        return world

    return make


def bundles(world: Any) -> list[str]:
    return world.object_keys("indexes/")


def listed(process: Any) -> list[str]:
    return [each.bundle.key for each in process.manifest.segments if each.bundle is not None]


def test_a_segment_is_indexed_in_the_run_that_uploads_it(make: Any) -> None:
    world = make()
    process = world.open()
    process.append(5)
    report = process.run()
    assert report.errors == ()
    assert report.indexed == 1
    assert bundles(world) == listed(process)
    [segment] = process.manifest.segments
    assert segment.bundle.document_count == 5
    assert content_hash(world.objects.get(segment.bundle.key)) == segment.bundle.hash
    assert world.disk.paths("/data/segments") == []
    assert process.run().idle
    assert [name for _, _, files in os.walk(world.index_directory()) for name in files] == []


def test_nothing_waits_for_a_build_and_what_it_built_is_published_in_the_same_run(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import chronik_store.pipeline.index as index_room

    world = make()
    process = world.open()
    process.append(5)
    meanwhile = []
    build = index_room.build_bundle

    def watched(*arguments: Any, **options: Any) -> Any:
        manifest = process.manifest
        meanwhile.append((manifest.published_number, world.wal_offsets()))
        return build(*arguments, **options)

    monkeypatch.setattr(index_room, "build_bundle", watched)
    report = process.run()
    assert meanwhile == [(1, set())]
    assert (report.indexed, report.published, report.errors) == (1, 2, ())
    assert process.manifest.generation <= process.manifest.published_folded_to
    assert process.run().idle


def test_switched_off_it_stands_still_and_holds_nothing_up(make: Any) -> None:
    """Protocol 7, S4."""
    world = make(indexing_enabled=False)
    process = world.open()
    process.append(5)
    process.drain()
    assert bundles(world) == []
    assert world.wal_offsets() == set()


def test_switched_on_later_it_indexes_from_the_bucket_oldest_first(make: Any) -> None:
    world = make(indexing_enabled=False)
    process = world.open()
    for _ in range(3):
        process.append(5)
        process.drain()
    world.config = world.config.replace(indexing_enabled=True)
    again = world.open()
    report = again.run()
    assert report.errors == ()
    assert report.indexed == 3
    assert listed(again) == sorted(bundles(world))


def count_builds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has an item for each bundle that is built from now on."""
    import chronik_store.pipeline.index as index_room

    built: list[int] = []
    build = index_room.build_bundle

    def counting(*arguments: Any, **options: Any) -> Any:
        built.append(1)
        return build(*arguments, **options)

    monkeypatch.setattr(index_room, "build_bundle", counting)
    return built


def test_a_bucket_that_is_down_costs_one_build(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built = count_builds(monkeypatch)
    world = make()
    process = world.open()
    process.append(5)
    process.bucket.fail["put"] = lambda key: make_error() if key.startswith("indexes/") else None
    for _ in range(4):
        assert "index" in process.run().errors[0]
    entries = len(world.entries)
    process.run()
    assert len(world.entries) == entries
    process.bucket.fail.clear()
    process.drain()
    assert len(built) == 1
    assert len(listed(process)) == 1


class Unreadable(PosixFileSystem):
    """A disk that does not give back the bundles on it, while `fails` is set."""

    fails = False

    def open(self, path: str, *, write: bool = False) -> PosixFile:
        if self.fails and path.endswith(".tar.gz"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return super().open(path, write=write)


def test_a_bundle_that_cannot_be_read_back_is_built_anew(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = count_builds(monkeypatch)
    world = make()
    world.disk_of_indexes = disk = Unreadable()
    process = world.open()
    process.append(5)
    process.bucket.fail["put"] = lambda key: make_error() if key.startswith("indexes/") else None
    process.run()
    process.bucket.fail.clear()
    disk.fails = True
    assert "the next run builds it anew" in process.run().errors[0]
    disk.fails = False
    process.drain()
    assert len(built) == 2
    assert len(listed(process)) == 1


def make_error() -> Exception:
    from chronik_store.errors import UnavailableError

    return UnavailableError("503", durability="unknown")


def test_a_failing_index_stalls_neither_publish_nor_prune(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import chronik_store.pipeline.index as index_room

    def broken(*_arguments: Any, **_options: Any) -> Any:
        raise RuntimeError("the engine fell over")

    monkeypatch.setattr(index_room, "build_bundle", broken)
    world = make()
    process = world.open()
    process.append(5)
    report = process.run()
    assert [each.split(":")[0] for each in report.errors] == ["t/0 index"]
    assert "RuntimeError: the engine fell over" in report.errors[0]
    assert report.published == 1
    assert world.wal_offsets() == set()


class Short(PosixFileSystem):
    """The disk of the indexes: `free` is asked for the free bytes, with the number of the look."""

    def __init__(self, free: Callable[[int], int]) -> None:
        super().__init__()
        self.free = free
        self.looks = 0

    def usage(self, path: str) -> DiskUsage:
        Path(path).stat()
        self.looks += 1
        return DiskUsage(10**9, self.free(self.looks))


RESERVE = 100_000


def with_disk(make: Any, disk: Short) -> tuple[Any, Any]:
    world = make(disk_reserve_bytes=RESERVE)
    world.disk_of_indexes = disk
    return world, world.open()


def test_a_build_leaves_alone_what_is_kept_for_the_log(make: Any) -> None:
    disk = Short(lambda _: RESERVE + 2 * 2500)  # a segment takes some more
    world, process = with_disk(make, disk)
    process.append(5)
    first, second = process.run(), process.run()
    assert "no room for the search index of segments/t/0/0" in first.errors[0]
    assert first.errors == second.errors  # in the same words: it is logged once
    assert (first.published, first.indexed, bundles(world)) == (1, 0, [])
    assert not Path(world.index_directory()).exists()

    disk.free = lambda _: RESERVE + 2 * 5000
    process.drain()
    assert len(listed(process)) == 1


def test_a_build_that_takes_more_than_it_seemed_to_is_given_up(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import chronik_store.pipeline.index as index_room

    monkeypatch.setattr(index_room, "READ_BYTES", 1)  # a look at each batch
    disk = Short(lambda look: RESERVE + (100_000 if look < 5 else 40_000))
    world, process = with_disk(make, disk)
    process.append(5)
    assert "no room for the search index of" in process.run().errors[0]
    assert disk.looks == 5
    assert [name for _, _, files in os.walk(world.index_directory()) for name in files] == []

    disk.free = lambda _: 10**6
    process.drain()
    assert len(listed(process)) == 1


def test_a_bundle_of_another_engine_is_built_anew_and_the_old_one_collected(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import chronik_store.pipeline.index as index_room

    world = make()
    process = world.open()
    process.append(5)
    process.drain()
    [old] = listed(process)
    readable = index_room.is_readable
    monkeypatch.setattr(index_room, "is_readable", lambda info: info.key != old and readable(info))
    again = world.open()
    assert again.run().indexed == 1
    assert listed(again) != [old]
    world.clock.advance(101)
    again.drain()
    assert bundles(world) == listed(again)


def test_a_segment_that_retention_took_meanwhile_leaves_its_bundle_as_garbage(make: Any) -> None:
    from chronik_store.format.control import DropPrefix

    world = make()
    process = world.open()
    process.append(5)

    def drop(key: str) -> None:
        if key.startswith("indexes/"):
            process.bucket.fail.clear()
            process.propose(DropPrefix(offset=5, reason="test", clock_us=0), term=world.term)

    process.bucket.fail["put"] = drop
    report = process.run()
    assert report.errors == ()
    assert report.indexed == 0
    assert set(bundles(world)) <= world.named()
    world.clock.advance(101)
    process.drain()
    assert world.object_keys("segments/") == bundles(world) == []


@pytest.mark.parametrize("how", ["damaged", "unreadable"])
def test_a_local_copy_that_is_no_use_is_indexed_from_the_bucket(make: Any, how: str) -> None:
    world = make()
    process = world.open()
    process.append(5)

    def damage(key: str) -> None:
        if key.startswith("segments/"):
            [path] = world.disk.paths("/data/segments")
            if how == "damaged":
                world.disk.flip_bit(path, 900)
            else:
                world.disk.make_unreadable(path, 0, 4096)

    # The stage after upload in the same run reads the file: damage it right behind the put.
    process.bucket.fail["reply"] = damage
    report = process.run()
    assert report.errors == ()
    assert report.indexed == 1


def quick_bundle(batches: Any, *, fs: Any, directory: str, **_options: Any) -> Any:
    """Other bytes each time, as the engine's are, in a thousandth of the time."""
    from chronik_store.format.manifest_file import BundleInfo
    from chronik_store.search.bundle import BuiltBundle

    count = sum(batch.record_count for batch in batches)
    body = os.urandom(64)
    Path(directory).mkdir(parents=True, exist_ok=True)
    path = Path(directory) / f"{content_hash(body)}.tar.gz"
    path.write_bytes(body)
    info = BundleInfo("", len(body), content_hash(body), "engine", count, 0, 0, (), False)
    return BuiltBundle(str(path), info, fs, directory)


def test_every_crash_point_ends_with_one_listed_bundle_for_each_segment(
    kit: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protocol 8, S5."""
    import chronik_store.pipeline.index as index_room

    monkeypatch.setattr(index_room, "build_bundle", quick_bundle)
    monkeypatch.setattr(index_room, "is_readable", lambda _info: True)

    def story(process: Any) -> None:
        process.append(5)
        process.run()
        process.append(5)
        process.drain()

    for world, where in kit.crash_points(make, story):
        again = world.open()
        again.append(10 - len(world.acked))
        again.drain()
        world.clock.advance(101)
        again.drain()
        last = world.open()
        last.append(1)
        last.run()
        world.clock.advance(101)
        last.drain()
        segments = last.manifest.segments
        assert all(each.bundle is not None for each in segments), where
        assert sorted(bundles(world)) == sorted(listed(last)), where
        bases = sorted(world.ranges_in_bucket())
        assert len(bases) == len(set(bases)) == len(segments), where


def test_the_key_ends_in_the_hash_of_the_bundles_own_bytes(make: Any) -> None:
    world = make()
    process = world.open()
    process.append(5)
    process.drain()
    [segment] = process.manifest.segments
    assert segment.bundle.key.endswith(f"-{segment.bundle.hash}.tar.gz")
    assert dataclasses.replace(segment.bundle, key="").key == ""
