"""Where search keeps what may be thrown away."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

import pytest

import chronik_store as chronik
from chronik_store import search_scratch
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.search_scratch import SearchScratch
from chronik_store.threads import SystemThreads

CONFIG = chronik.LogConfig(pipeline_enabled=False)


@pytest.fixture(name="temporary")
def temporary_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "temporary"
    found.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(found))
    return found


def written(directory: Path) -> str:
    with chronik.PartitionLog.open(directory, topic="t", config=CONFIG) as log:
        log.append([b"one fish", b"two fish"])
        log.seal()
        assert log.run_pipeline_once().indexed == 1
    return (directory / "object_store").as_uri()


def test_a_reader_makes_its_directory_with_its_first_search(
    tmp_path: Path, temporary: Path
) -> None:
    bucket = written(tmp_path / "data")
    with chronik.open_bucket(bucket, topic="t") as log:
        assert [record.value for record in log.scan()] == [b"one fish", b"two fish"]
        assert list(temporary.iterdir()) == []
        assert log.search("two").hits[0].record.value == b"two fish"
        [made] = temporary.iterdir()
        assert made.stat().st_mode & 0o077 == 0, "others can read what was unpacked"
    assert list(temporary.iterdir()) == []


def test_a_reader_beside_the_writer_too(tmp_path: Path, temporary: Path) -> None:
    written(tmp_path / "data")
    with chronik.LogStore.open(tmp_path / "data", read_only=True) as store:
        log = store.partition("t")
        assert len(list(log.scan())) == 2
        assert list(temporary.iterdir()) == []
        assert log.search("fish").total == 2
        assert len(list(temporary.iterdir())) == 1
    assert list(temporary.iterdir()) == []


def test_a_writer_uses_its_data_directory(tmp_path: Path, temporary: Path) -> None:
    scratch = SearchScratch(PosixFileSystem(), SystemThreads(), str(tmp_path))
    assert scratch.bundles() == f"{tmp_path}/bundles"
    assert scratch.building() == f"{tmp_path}/building"
    assert scratch.tail("t", 3) == f"{tmp_path}/tail/t/3"
    scratch.close()
    assert list(temporary.iterdir()) == []


def test_no_room_for_it_is_unavailable_and_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(chronik.UnavailableError, match="TMPDIR"):
        SearchScratch(PosixFileSystem(), SystemThreads(), None).bundles()


# --- what a killed reader left --------------------------------------------------------------------


def scratch_of(*, fs: PosixFileSystem | None = None) -> tuple[SearchScratch, Path]:
    """A reader's scratch, in which a bundle was unpacked."""
    scratch = SearchScratch(fs or PosixFileSystem(), SystemThreads(), None)
    bundles = Path(scratch.bundles())
    (bundles / "bundle_000001").mkdir(parents=True)
    (bundles / "bundle_000001" / "meta.json").write_bytes(b"x")
    return scratch, bundles.parent


def dead() -> Path:
    """As a reader that was killed leaves it: the kernel has freed its lock."""
    scratch, path = scratch_of()
    assert scratch._held is not None
    scratch._held.release()
    return path


def test_what_a_dead_reader_left_goes_with_the_next_that_is_made(temporary: Path) -> None:
    left = [dead(), dead()]
    scratch, path = scratch_of()

    assert not any(each.exists() for each in left)
    assert [path] == list(temporary.iterdir())
    scratch.close()
    assert [] == list(temporary.iterdir())


def test_what_is_in_use_stays(temporary: Path) -> None:
    scratches = [scratch_of() for _ in range(3)]

    assert sorted(path for _, path in scratches) == sorted(temporary.iterdir())
    assert all((path / "bundles" / "bundle_000001").exists() for _, path in scratches)
    for scratch, _ in scratches:
        scratch.close()
    assert [] == list(temporary.iterdir())


def test_what_was_never_locked_stays(temporary: Path) -> None:
    """Of a system without locks: there is no telling."""
    path = dead()
    (path / "LOCK").unlink()
    scratch_of()

    assert (path / "bundles" / "bundle_000001").exists()


def test_an_empty_one_is_nobody_s(temporary: Path) -> None:
    """Its maker, or its remover, was killed between two calls."""
    path = dead()
    shutil.rmtree(path)
    path.mkdir(mode=0o700)
    scratch_of()

    assert not path.exists()


def test_what_is_of_another_host_stays(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(search_scratch, "_prefix", lambda: "chronik-search-elsewhere-")
        path = dead()
    scratch_of()

    assert path.exists()


def test_what_is_of_another_user_stays(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dead()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        patch.setattr(search_scratch, "_only_owners_remove", lambda _: True)
        scratch_of()
    assert path.exists()

    scratch_of()
    assert not path.exists()


def test_what_others_can_write_into_stays(temporary: Path) -> None:
    path = dead()
    path.chmod(0o770)
    scratch_of()

    assert path.exists()


def test_where_others_can_change_names_nothing_is_removed(temporary: Path) -> None:
    path = dead()
    temporary.chmod(0o777)
    scratch_of()
    assert path.exists()

    temporary.chmod(0o1777)  # as /tmp is
    scratch_of()
    assert not path.exists()


@pytest.mark.parametrize("what", ["directory", "bundles"])
def test_no_link_is_followed(tmp_path: Path, temporary: Path, what: str) -> None:
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    for name in ("LOCK", "file"):
        (precious / name).write_bytes(b"kept")
    path = dead()
    if what == "directory":
        shutil.rmtree(path)
        path.symlink_to(precious)
    else:
        shutil.rmtree(path / "bundles")
        (path / "bundles").symlink_to(precious)
    scratch_of()

    assert {b"kept"} == {(precious / name).read_bytes() for name in ("LOCK", "file")}
    assert path.is_symlink() == (what == "directory")


def test_who_loses_a_new_one_to_a_sweep_makes_another(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its making and its lock: once the other has the lock, once it is done."""
    locking, times = PosixFileSystem.lock, []

    def lock(fs: PosixFileSystem, path: str, content: bytes) -> object:
        times.append(path)
        if len(times) == 1:
            held = locking(fs, path, content)
            with pytest.raises(BlockingIOError):
                locking(fs, path, content)
            held.release()
            shutil.rmtree(Path(path).parent)
            raise BlockingIOError
        if len(times) == 2:
            shutil.rmtree(Path(path).parent)
        held = locking(fs, path, content)
        if len(times) == 3:
            shutil.rmtree(Path(path).parent)
        return held

    monkeypatch.setattr(PosixFileSystem, "lock", lock)
    scratch, path = scratch_of()

    assert 4 == len(set(times))  # a sweep asks for its own, too
    assert [path] == list(temporary.iterdir())
    scratch.close()


def test_where_there_are_no_locks_nothing_is_removed(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    path = dead()
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        scratch, second = scratch_of()
        assert path.exists()
        assert not (second / "LOCK").exists()
    third, _ = scratch_of()
    assert (path.exists(), second.exists()) == (False, True)
    scratch.close()
    third.close()
    assert [] == list(temporary.iterdir())


def test_a_sweep_that_is_cut_off_is_taken_up_by_the_next(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The LOCK goes last: without it nobody would dare."""
    path = dead()

    def cut_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", cut_off)
        with pytest.raises(KeyboardInterrupt):
            scratch_of()
    assert (path / "LOCK").exists()

    scratch_of()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["tail", "building", "bundles"])
def test_a_topic_may_be_called_as_the_scratch_of_others_is(tmp_path: Path, kind: str) -> None:
    with chronik.LogStore.open(tmp_path / "data", config=CONFIG) as store:
        for name in ("0", kind):
            store.create_topic(name)
        log = store.partition("0")
        log.append(b"one fish")
        assert log.search("fish").total == 1
        store.partition(kind).append(b"another")
        log.append(b"two fish")
        found = log.search("fish")
        assert (found.total, found.complete) == (2, True)
        store.delete_topic(kind)
        log.append(b"three fish")
        found = log.search("fish")
        assert (found.total, found.complete) == (3, True)


def test_what_a_crash_left_goes_with_the_next_open_or_with_the_topic(tmp_path: Path) -> None:
    scratch = tmp_path / "data" / "scratch"
    left = [scratch / kind / "t" / "0" / "left" for kind in ("tail", "building")]
    written(tmp_path / "data")

    def leave() -> None:
        for path in left:
            path.mkdir(parents=True)
            (path / "file").write_bytes(b"x")

    leave()
    with chronik.LogStore.open(tmp_path / "data", config=CONFIG) as store:
        assert all(path.exists() for path in left)
        store.partition("t")
        assert not any(path.exists() for path in left)
        leave()
        store.delete_topic("t")
        assert not any(path.exists() for path in left)
