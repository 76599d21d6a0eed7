"""The real disk: the conformance kit, and what only POSIX shows."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chronik_store.fs import posix
from chronik_store.fs.base import FileSystem
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.testing.file_system_kit import FileSystemTests


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def fs() -> PosixFileSystem:
    return PosixFileSystem()


class TestPosixFileSystem(FileSystemTests):
    @pytest.fixture
    def fs(self) -> FileSystem:
        return PosixFileSystem()

    @pytest.fixture
    def root(self, tmp_path: Path) -> str:
        return str(tmp_path)


def at_most(count: int) -> Callable[[int, object, int], int]:
    """pwrite of a kernel that takes `count` bytes at a time."""

    def pwrite(descriptor: int, data: bytes, position: int) -> int:
        return real_pwrite(descriptor, bytes(data)[:count], position)

    return pwrite  # type: ignore[return-value]


real_pwrite = os.pwrite


def test_a_short_write_is_continued(
    fs: PosixFileSystem, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", at_most(3_000))
    monkeypatch.setattr(
        os, "pwritev", lambda fd, parts, at: real_pwrite(fd, b"".join(parts)[:5_000], at)
    )
    file = fs.create(f"{root}/a")

    for buffers in (
        [b"x" * 10_000],
        [b"x" * 5_000, b"y" * 4_000],
        [b"x" * 150_000, b"y" * 150_000],
    ):
        assert file.write_at(7, buffers) == len(b"".join(buffers))
        assert file.read_at(7, len(b"".join(buffers))) == b"".join(buffers)
    file.close()


def test_a_disk_that_takes_nothing_more_is_an_error(
    fs: PosixFileSystem, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda *call: 0)
    file = fs.create(f"{root}/a")

    with pytest.raises(OSError, match="no more bytes"):
        file.write_at(0, [b"x"])
    file.close()


def test_a_short_read_inside_the_file_is_continued(
    fs: PosixFileSystem, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_pread = os.pread
    file = fs.create(f"{root}/a")
    file.write_at(0, [bytes(range(100))])
    monkeypatch.setattr(os, "pread", lambda fd, n, at: real_pread(fd, min(n, 7), at))

    assert file.read_at(10, 50) == bytes(range(10, 60))
    assert file.read_at(90, 50) == bytes(range(90, 100))
    file.close()


def test_make_directories_syncs_each_new_name_in_its_parent(
    fs: PosixFileSystem, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(PosixFileSystem, "sync_directory", lambda self, path: synced.append(path))
    fs.make_directories(f"{root}/a/b")

    assert synced == [os.path.dirname(root), root, f"{root}/a"]


def test_make_directories_leaves_no_name_whose_sync_has_failed(
    fs: PosixFileSystem, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever came next would find it, and make nothing."""

    def fails(_self: PosixFileSystem, path: str) -> None:
        if path == f"{root}/a":
            raise OSError(errno.EIO, "no", path)

    with monkeypatch.context() as patch:
        patch.setattr(PosixFileSystem, "sync_directory", fails)
        with pytest.raises(OSError, match="no"):
            fs.make_directories(f"{root}/a/b")
    assert fs.list(f"{root}/a") == []
    fs.make_directories(f"{root}/a/b")
    assert fs.list(f"{root}/a") == ["b"]


def test_a_second_process_cannot_take_the_lock(fs: PosixFileSystem, root: str) -> None:
    code = (
        "import sys; from chronik_store.fs.posix import PosixFileSystem\n"
        "try: PosixFileSystem().lock(sys.argv[1], b'child')\n"
        "except BlockingIOError: print('refused')\n"
        "else: print('taken')"
    )

    def child() -> str:
        command = [sys.executable, "-c", code, f"{root}/LOCK"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    lock = fs.lock(f"{root}/LOCK", b"parent")
    assert child() == "refused"
    lock.release()
    assert child() == "taken"


def test_a_lock_is_not_taken_around_by_another_name(fs: PosixFileSystem, root: str) -> None:
    lock = fs.lock(f"{root}/LOCK", b"")
    os.link(f"{root}/LOCK", f"{root}/ALIAS")

    with pytest.raises(BlockingIOError):
        fs.lock(f"{root}/ALIAS", b"")
    lock.release()


def test_a_forked_child_does_not_keep_the_lock(fs: PosixFileSystem, root: str) -> None:
    lock = fs.lock(f"{root}/LOCK", b"")
    to_child, from_child = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        lock.release()  # what a `with` in the child might do: it is not the child's to give up
        os.write(from_child[1], b"x")
        os.read(to_child[0], 1)
        os._exit(0)
    try:
        os.read(from_child[0], 1)
        with pytest.raises(BlockingIOError):
            fs.lock(f"{root}/LOCK", b"")
        lock.release()
        fs.lock(f"{root}/LOCK", b"").release()
    finally:
        os.write(to_child[1], b"x")
        os.waitpid(child, 0)
        for descriptor in (*to_child, *from_child):
            os.close(descriptor)


def test_descriptors_are_not_inherited_by_programs(fs: PosixFileSystem, root: str) -> None:
    file = fs.create(f"{root}/a")
    reader = fs.open(f"{root}/a")
    lock = fs.lock(f"{root}/LOCK", b"")

    assert not any(os.get_inheritable(each._descriptor) for each in (file, reader, lock))
    file.close()
    reader.close()
    lock.release()


def test_errors_of_the_system_are_not_hidden(fs: PosixFileSystem, root: str) -> None:
    long_name = f"{root}/{'x' * 300}"

    with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)):
        fs.exists(long_name)


def test_a_slice_that_outlives_a_map_is_a_defect_that_shows(fs: PosixFileSystem, root: str) -> None:
    file = fs.create(f"{root}/a")
    file.write_at(0, [b"x" * 100])
    kept: list[memoryview] = []

    with pytest.raises(BufferError), file.map() as view:
        kept.append(view[5:10])
    kept.clear()
    file.close()


def refusing(*codes: int) -> Callable[..., int]:
    """fallocate that fails with these, one after the other, and is done after them."""
    left = list(codes)

    def call(*_: int) -> int:
        if not left:
            return 0
        ctypes.set_errno(left.pop(0))
        return -1

    return call


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.ENODEV])
def test_where_nothing_can_be_reserved_that_is_no_error(
    fs: PosixFileSystem, root: str, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    file = fs.create(f"{root}/a")
    monkeypatch.setattr(posix, "_fallocate", refusing(code, code))

    assert not file.reserve(0, 4096)
    file.give_back(0, 4096)
    assert 0 == file.size()
    file.close()


def test_a_disk_without_room_to_reserve_says_so(
    fs: PosixFileSystem, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fs.create(f"{root}/a")
    monkeypatch.setattr(posix, "_fallocate", refusing(errno.EINTR, errno.ENOSPC))

    with pytest.raises(OSError, match=f"{root}/a") as refused:
        file.reserve(0, 4096)
    assert errno.ENOSPC == refused.value.errno
    monkeypatch.setattr(posix, "_fallocate", refusing(errno.EINTR))
    assert file.reserve(0, 4096)
    file.close()


@pytest.mark.parametrize("write", [False, True])
def test_a_pipe_a_device_and_a_directory_are_no_files(tmp_path: Path, write: bool) -> None:
    """An open of a pipe waited for its other end, for ever; /dev/zero has no end."""
    fs, before = PosixFileSystem(), len(os.listdir("/dev/fd"))
    os.mkfifo(tmp_path / "pipe")
    os.symlink("/dev/zero", tmp_path / "device")
    for name in ("pipe", "device"):
        with pytest.raises(OSError, match="it is a pipe or a device, not a file"):
            fs.open(str(tmp_path / name), write=write)
    with pytest.raises(IsADirectoryError):
        fs.open(str(tmp_path), write=write)
    with pytest.raises(OSError, match="it is a pipe or a device, not a file"):
        fs.lock(str(tmp_path / "pipe"), b"mine")
    assert before == len(os.listdir("/dev/fd"))


def test_a_lock_is_not_taken_through_a_link(tmp_path: Path) -> None:
    """What the link names was cut, and the lock's content written over it."""
    (tmp_path / "precious").write_bytes(b"somebody else's")
    os.symlink(tmp_path / "precious", tmp_path / "LOCK")
    with pytest.raises(OSError, match="symbolic links"):
        PosixFileSystem().lock(str(tmp_path / "LOCK"), b"mine")
    assert b"somebody else's" == (tmp_path / "precious").read_bytes()
