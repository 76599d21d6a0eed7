"""Where search keeps what may be thrown away."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

import chronik_store as chronik
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
