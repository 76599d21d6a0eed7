"""A data directory that cannot be used as asked: an error that says why; what it holds stays."""

from __future__ import annotations

import errno
import re

import pytest

import chronik_store as chronik
from chronik_store.environment import Environment
from chronik_store.format.store_file import StoreIdentity
from chronik_store.repair import plan_repair
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.testing.tree import failure
from tests.bad_input.kept import CONFIG, opened, stored, values

STORED = [b"%d" % number for number in range(6)]
CHANGES = {"create", "make_directory", "rename", "link", "remove", "remove_directory", "write_at",
           "sync_data", "sync_all", "lock"}  # fmt: skip


def env_of(disk):
    return Environment(fs=disk, threads=MortalThreads())


def open_store(disk, *, path="/d", read_only=False, **changes):
    config = CONFIG.replace(
        disk_reserve_bytes=0, disk_throttle_bytes=0, cache_disk_bytes=0, **changes
    )
    return chronik.LogStore.open(
        path, object_store="file:///bucket", config=config, env=env_of(disk), read_only=read_only
    )


def fill(store, *, tiered=3):
    store.create_topic("t")
    log = store.partition("t")
    for value in STORED[:tiered]:
        log.append(value)
    log.seal()
    assert not log.run_pipeline_once().errors
    for value in STORED[tiered:]:
        log.append(value)


@pytest.fixture
def disk():
    disk = SimulatedDisk()
    with open_store(disk) as store:
        fill(store)
    return disk


def kept(disk):
    with open_store(disk) as store:
        return values(store.partition("t"))


# --- not a directory, not writable ----------------------------------------------------------------


@pytest.mark.parametrize("url", ["s3://bucket/p", "memory://x", "file:/x", b"s3:/bucket/p"])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_url_is_no_data_directory(url, read_only, tmp_path, monkeypatch):
    """A directory `s3:` was made here, and took what its owner believed to be in a bucket."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(chronik.ConfigError, match="it is a URL; give a path"):
        opened(url, read_only=read_only)

    assert [] == [*tmp_path.iterdir()]
    assert [] == stored(f"{tmp_path}/s3:/is/a/path")


def test_a_path_through_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    for path in (tmp_path / "file", tmp_path / "file" / "d", tmp_path / "file" / "d" / "e"):
        for options in ({}, {"read_only": True}):
            with pytest.raises(chronik.ConfigError, match="directory"):
                opened(path, **options)
    assert b"mine" == (tmp_path / "file").read_bytes()


@pytest.mark.parametrize("name", ["LOCK", "STORE", "TOPICS", "wal", "segments", "cache"])
def test_a_part_of_another_kind_is_a_typed_error(tmp_path, name):
    opened(tmp_path / "d").close()
    part = tmp_path / "d" / name
    aside = part.rename(tmp_path / "aside")
    part.mkdir() if aside.is_file() else part.write_bytes(b"")
    with pytest.raises(chronik.ChronikError):
        opened(tmp_path / "d").append(b"x")


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_directory_that_cannot_be_written_is_read(disk, code):
    def refuse(_number, operation, path):
        if operation in CHANGES:
            raise failure(code, path)

    disk.hook = refuse
    with pytest.raises(chronik.ReadOnlyError, match="right to write"):
        open_store(disk)
    with open_store(disk, read_only=True) as store:
        log = store.partition("t")
        assert STORED == values(log)
        assert log.verify(bucket=True, deep=True).ok
        with pytest.raises(chronik.ReadOnlyError):
            log.append(b"x")
    disk.hook = None
    assert STORED == kept(disk)


def test_a_new_directory_that_cannot_be_made_is_refused():
    disk = SimulatedDisk()
    disk.hook = fail_next("make_directory", errno.EACCES)
    with pytest.raises(chronik.ReadOnlyError, match="/d"):
        open_store(disk)
    open_store(disk).close()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EMFILE, errno.ESTALE, errno.ELOOP])
@pytest.mark.parametrize(
    "operation",
    ["open", "read_at", "list", "exists", "stat", "create", "lock", "write_at", "sync_data",
     "sync_all", "sync_directory", "rename", "usage", "size"],
)  # fmt: skip
def test_a_call_that_fails_once_is_a_typed_error_and_the_next_open_is_whole(disk, operation, code):
    disk.hook = fail_next(operation, code)
    failed = None
    try:
        with open_store(disk) as store:
            log = store.partition("t")
            log.append(b"6")
            log.seal()
            store.run_pipeline_once()
            store.status()
            list(log.scan())
    except chronik.ChronikError as error:
        failed = str(error)
    again = disk.kill()
    assert kept(again) in ([*STORED, b"6"], STORED if failed else None)


# --- somebody else's ------------------------------------------------------------------------------


def test_a_locked_directory_names_its_holder_and_is_read_beside_it(disk):
    with open_store(disk) as store:
        log = store.partition("t")
        rival = disk.another_process()
        with pytest.raises(chronik.DirectoryLockedError, match="read_only=True") as caught:
            open_store(rival)
        assert caught.value.retriable
        with open_store(rival, read_only=True) as reader:
            assert STORED == values(reader.partition("t"))
        log.append(b"6")
    assert [*STORED, b"6"] == kept(disk)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"[]", b'{"pid": "x"}', b"7", b"[" * 5000])
def test_an_unreadable_holder_is_no_reason_to_fail_otherwise(disk, content):
    with open_store(disk):
        disk.truncate("/d/LOCK", 0)
        stranger, rival = disk.another_process(), disk.another_process()
        file = stranger.open("/d/LOCK", write=True)
        file.write_at(0, [content])
        file.close()
        assert content == disk.peek("/d/LOCK")
        with pytest.raises(chronik.DirectoryLockedError, match="in another process: close"):
            open_store(rival)
        assert [] == rival.open_files
    assert STORED == kept(disk)


def test_the_directory_and_the_bucket_of_different_stores_do_not_mix(tmp_path):
    one, two = (f"file://{tmp_path}/{name}" for name in ("one", "two"))
    for path, url in ((tmp_path / "a", one), (tmp_path / "b", two)):
        with opened(path, object_store=url) as log:
            log.append(path.name.encode())
            log.seal()
            assert not log.run_pipeline_once().errors
    with pytest.raises(chronik.IdentityMismatchError, match="restore"):
        opened(tmp_path / "a", object_store=two)
    # The buckets change places behind the stores' backs.
    (tmp_path / "one").rename(tmp_path / "three")
    (tmp_path / "two").rename(tmp_path / "one")
    (tmp_path / "three").rename(tmp_path / "two")
    for path in (tmp_path / "a", tmp_path / "b"):
        with pytest.raises(chronik.IdentityMismatchError, match="belongs to store"):
            opened(path)
        with opened(path, read_only=True) as log, pytest.raises(chronik.ChronikError):
            values(log)  # the bucket has other objects at these offsets, or none
    (tmp_path / "one").rename(tmp_path / "three")
    (tmp_path / "two").rename(tmp_path / "one")
    (tmp_path / "three").rename(tmp_path / "two")
    assert [[b"a"], [b"b"]] == [stored(tmp_path / name) for name in ("a", "b")]


@pytest.mark.parametrize(
    ("owner", "way"), [("local", "chronik restore"), (f"{'ee' * 16}/1", "serve --join")]
)
def test_a_new_directory_that_names_another_stores_bucket_is_to_be_removed(tmp_path, owner, way):
    """Who mistyped a URL, or lost a node's disk, must not be told to take a cluster's bucket."""
    url = f"file://{tmp_path}/bucket"
    (tmp_path / "bucket").mkdir()
    identity = StoreIdentity(
        format_version=1, store_id="ab" * 16, url=url, created_us=0, owner=owner
    )
    (tmp_path / "bucket" / "STORE").write_bytes(identity.encode())

    with pytest.raises(chronik.IdentityMismatchError, match=way) as caught:
        opened(tmp_path / "new", object_store=url)
    assert f"{tmp_path}/new was made by this and holds nothing: remove it" in str(caught.value)
    assert ("chronik restore" in str(caught.value)) == (owner == "local")
    with pytest.raises(chronik.IdentityMismatchError) as again:
        opened(tmp_path / "new", object_store=url)
    assert "remove it" not in str(again.value)


def test_wal_files_of_another_log_are_not_taken_for_its_own(tmp_path):
    for name in ("a", "b"):
        with opened(tmp_path / name) as log:
            log.append(name.encode())
    (tmp_path / "a" / "wal").rename(tmp_path / "aside")
    (tmp_path / "b" / "wal").rename(tmp_path / "a" / "wal")
    with pytest.raises((chronik.IdentityMismatchError, chronik.CorruptionError)) as caught:
        opened(tmp_path / "a")
    assert "wal" in str(caught.value)
    (tmp_path / "a" / "wal").rename(tmp_path / "b" / "wal")
    (tmp_path / "aside").rename(tmp_path / "a" / "wal")
    assert [[b"a"], [b"b"]] == [stored(tmp_path / name) for name in ("a", "b")]


def test_wal_files_of_two_logs_of_one_topic_are_not_taken_for_one(disk):
    """A restore has made another log of the same topic, and somebody puts old files beside its."""
    restored = disk.another_process()
    chronik.restore("file:///bucket", "/new", config=CONFIG, env=env_of(restored))
    for path in restored.paths("/d/wal"):
        file = restored.create(path.replace("/d/", "/new/"))
        file.write_at(0, [restored.peek(path)])
        file.close()
    before = {path: restored.peek(path) for path in restored.paths("/new/wal")}

    with pytest.raises(chronik.IdentityMismatchError, match="put each log's files back"):
        open_store(restored, path="/new").partition("t")
    with pytest.raises(chronik.IdentityMismatchError, match="put each log's files back"):
        plan_repair("/new", config=CONFIG, env=env_of(restored))

    assert before == {path: restored.peek(path) for path in restored.paths("/new/wal")}


def test_a_wal_file_under_the_name_of_another_one_is_not_taken_for_it(disk):
    newest, renamed = disk.paths("/d/wal")[-1], f"/d/wal/t/0/wal_{99:020}.log"
    disk.rename(newest, renamed)
    with pytest.raises(chronik.CorruptionError, match=f"{renamed}: its header says it is file"):
        kept(disk)
    disk.rename(renamed, newest)
    assert STORED == kept(disk)


# --- written by a later version -------------------------------------------------------------------


def raise_version(disk, path, magic, *, nth=0):
    """Let the structure with this magic say a version that is not known yet; how to undo it."""
    places = [found.start() for found in re.finditer(re.escape(magic), disk.peek(path))]
    place = places[nth] + 4
    before = disk.peek(path)[place : place + 4]
    disk.overwrite(path, place, (2).to_bytes(4, "little"))
    return lambda: disk.overwrite(path, place, before)


def one_of(disk, below, end=""):
    return [path for path in disk.paths(below) if path.endswith(end)][-1]


def read_all(store):
    return values(store.partition("t"))


STRUCTURES = {
    "STORE": ("/d", "/d/STORE", b"\xf5CKI"),
    "TOPICS": ("/d", "/d/TOPICS", b"\xf5CKL"),
    "WAL file": ("/d/wal", ".log", b"\xf5CKW"),
}


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("name", STRUCTURES)
def test_a_later_version_in_the_directory_is_refused_by_name(disk, name, read_only):
    below, end, magic = STRUCTURES[name]
    path = one_of(disk, below, end)
    undo = raise_version(disk, path, magic)
    before = contents(disk)
    with (
        pytest.raises(chronik.FutureVersionError, match="upgrade") as caught,
        open_store(disk, read_only=read_only) as store,
    ):
        store.partition("t")
    assert (2, 1) == (caught.value.found, caught.value.supported)
    assert path in caught.value.path
    assert path in str(caught.value)
    assert before == contents(disk)
    undo()
    assert STORED == kept(disk)


def contents(disk):
    return {path: disk.peek(path) for path in disk.paths("/d") if not path.endswith("LOCK")}


def test_a_later_version_of_the_buckets_identity_is_refused(disk):
    undo = raise_version(disk, "/bucket/STORE", b"\xf5CKI")
    with pytest.raises(chronik.FutureVersionError, match="upgrade"):
        open_store(disk)
    with open_store(disk, read_only=True) as store:
        assert STORED == read_all(store)
    undo()
    assert STORED == kept(disk)


def test_a_later_version_of_a_manifest_is_refused_by_who_reads_it(disk):
    path = one_of(disk, "/bucket/manifests")
    undo = raise_version(disk, path, b"\xf5CKM")
    with pytest.raises(chronik.FutureVersionError, match="upgrade"):
        chronik.open_bucket("file:///bucket", topic="t", env=env_of(disk))
    with pytest.raises(chronik.FutureVersionError, match="upgrade"):
        chronik.restore("file:///bucket", "/new", config=CONFIG, env=env_of(disk))
    with open_store(disk) as store:
        assert STORED == read_all(store)
        log = store.partition("t")
        log.append(b"6")
        log.seal()
        log.run_pipeline_once()
    undo()
    assert [*STORED, b"6"] == kept(disk)


@pytest.mark.parametrize("magic", [b"\xf5CKS", b"\xf5CKT", b"\xf5CKZ", b"\xf5CKE", b"\xf5CKB"])
def test_a_later_version_inside_a_segment_is_not_guessed_at(disk, magic):
    path = one_of(disk, "/bucket/segments")
    undo = raise_version(disk, path, magic)
    with chronik.open_bucket("file:///bucket", topic="t", env=env_of(disk)) as log:
        assert not log.verify(deep=True).ok
        refused = None
        try:
            assert STORED[:3] == values(log)  # by a way that does not need this part
        except (chronik.FutureVersionError, chronik.CorruptionError) as error:
            refused = str(error)
        assert refused or magic == b"\xf5CKS"
    undo()
    assert STORED == kept(disk)


def test_a_bundle_that_cannot_be_read_is_missing_not_empty(disk):
    path = one_of(disk, "/bucket/indexes")
    whole = disk.peek(path)
    disk.overwrite(path, 0, b"\x1f\x8b" + bytes(len(whole) - 2))
    with chronik.open_bucket("file:///bucket", topic="t", env=env_of(disk)) as log:
        found = log.search("1")
        assert (1, True) == (found.total, found.complete) or not found.complete
        assert STORED[:3] == values(log)
