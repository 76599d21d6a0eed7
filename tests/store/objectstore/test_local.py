import errno
import os
import stat

import pytest

from chronik_store.clock import SystemClock, SystemEntropy
from chronik_store.errors import AccessDeniedError, UnavailableError
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.objectstore.base import (
    ObjectNotFoundError,
    ObjectStoreRefusedError,
    PutOutcome,
)
from chronik_store.objectstore.local import INCOMING, LocalObjectStore
from chronik_store.testing.object_store_kit import ObjectStoreTests


class FailingFileSystem:
    """The real disk, except that one named call raises, before or after its effect."""

    def __init__(self, call, *, error=errno.EIO, after=False):
        self._inner = PosixFileSystem()
        self._call, self._error, self._after = call, error, after
        self.armed = False

    def __getattr__(self, name):
        method = getattr(self._inner, name)

        def wrapped(*args, **kwargs):
            failing = self.armed and name == self._call
            if failing and not self._after:
                raise OSError(self._error, os.strerror(self._error))
            result = method(*args, **kwargs)
            if failing:
                raise OSError(self._error, os.strerror(self._error))
            return result

        return wrapped


class OffsetClock(SystemClock):
    def __init__(self, seconds):
        self._seconds = seconds

    def time_us(self):
        return super().time_us() + int(self._seconds * 1e6)


def open_store(path, fs=None, clock=None, **options):
    return LocalObjectStore(
        fs or PosixFileSystem(),
        str(path),
        entropy=SystemEntropy(),
        clock=clock or SystemClock(),
        **options,
    )


class TestLocalObjectStore(ObjectStoreTests):
    @pytest.fixture
    def store(self, tmp_path):
        return open_store(tmp_path / "store with space")


def incoming(path):
    return sorted(os.listdir(path / INCOMING))


def test_nothing_temporary_is_left_by_put(tmp_path):
    store = open_store(tmp_path)
    store.put_if_absent("a/b", b"x")
    store.put_if_absent("a/b", b"y")
    assert incoming(tmp_path) == []


def test_temporary_files_are_not_listed(tmp_path):
    store = open_store(tmp_path)
    (tmp_path / INCOMING / "half").write_bytes(b"half an obj")
    store.put_if_absent("whole", b"x")
    assert [info.key for info in store.list("")] == ["whole"]


def test_open_removes_stale_temporary_files_and_keeps_young_ones(tmp_path):
    open_store(tmp_path)
    (tmp_path / INCOMING / "half").write_bytes(b"half an obj")
    open_store(tmp_path)
    assert incoming(tmp_path) == ["half"]
    open_store(tmp_path, clock=OffsetClock(3601))
    assert incoming(tmp_path) == []


def test_a_read_only_open_writes_nothing(tmp_path):
    open_store(tmp_path / "absent", read_only=True)
    assert not (tmp_path / "absent").exists()


def test_a_missing_directory_is_unavailable_not_empty(tmp_path):
    store = open_store(tmp_path / "unmounted", read_only=True)
    with pytest.raises(UnavailableError):
        store.list("")
    with pytest.raises(UnavailableError):
        store.head("a")
    with pytest.raises(UnavailableError):
        store.delete(["a"])


@pytest.mark.parametrize("call", ["make_directories", "create"])
def test_a_failure_before_the_link_is_certainly_not_done(tmp_path, call):
    fs = FailingFileSystem(call)
    store = open_store(tmp_path, fs)
    fs.armed = True
    with pytest.raises(UnavailableError) as caught:
        store.put_if_absent("a/b", b"x")
    fs.armed = False
    assert caught.value.durability == "not_durable"
    assert store.head("a/b") is None
    assert incoming(tmp_path) == []


@pytest.mark.parametrize("error", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links_is_named(tmp_path, error):
    """Linux says EPERM of a FAT: that was called a lack of rights on the directory."""
    fs = FailingFileSystem("link", error=error)
    store = open_store(tmp_path, fs)
    fs.armed = True
    with pytest.raises(ObjectStoreRefusedError, match="no hard links") as caught:
        store.put_if_absent("a/b", b"x")
    assert caught.value.durability == "not_durable"
    assert incoming(tmp_path) == []


@pytest.mark.parametrize("call", ["link", "remove", "sync_directory"])
@pytest.mark.parametrize("after", [False, True])
def test_a_failure_from_the_link_on_is_unknown_and_a_retry_settles_it(tmp_path, call, after):
    fs = FailingFileSystem(call, after=after)
    store = open_store(tmp_path, fs)
    fs.armed = True
    with pytest.raises(UnavailableError) as caught:
        store.put_if_absent("a/b", b"x")
    fs.armed = False
    assert caught.value.durability == "unknown"
    assert incoming(tmp_path) == [] or call == "remove"
    linked = not (call == "link" and not after)
    expected = PutOutcome.EXISTS if linked else PutOutcome.CREATED
    assert store.put_if_absent("a/b", b"x") is expected
    assert store.get("a/b") == b"x"


def test_an_adopted_object_has_a_durable_name(tmp_path):
    """The rival that linked it may die before its own directory sync."""
    synced = []

    class Watching(PosixFileSystem):
        def sync_directory(self, path):
            synced.append(path)
            super().sync_directory(path)

    open_store(tmp_path).put_if_absent("a/b", b"x")
    store = open_store(tmp_path, Watching())
    synced.clear()
    assert store.put_if_absent("a/b", b"x") is PutOutcome.EXISTS
    assert f"{tmp_path}/a" in synced


def test_permission_denied_names_what_to_check(tmp_path):
    fs = FailingFileSystem("link", error=errno.EACCES)
    store = open_store(tmp_path, fs)
    fs.armed = True
    with pytest.raises(AccessDeniedError, match="owner and mode") as caught:
        store.put_if_absent("a", b"x")
    assert not caught.value.retriable


def test_a_folder_is_not_an_object(tmp_path):
    store = open_store(tmp_path)
    store.put_if_absent("a/b", b"x")
    assert store.head("a") is None
    with pytest.raises(ObjectNotFoundError):
        store.get("a")
    assert store.head("a/b/c") is None
    with pytest.raises(ObjectNotFoundError):
        store.get("a/b/c")


def test_objects_are_not_writable_by_their_group(tmp_path):
    open_store(tmp_path).put_if_absent("a", b"x")
    assert not stat.S_IMODE((tmp_path / "a").stat().st_mode) & 0o022
