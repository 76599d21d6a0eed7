"""What every file system under Chronik must do, as tests.

Place: shipped, so that another `fs.base.FileSystem` (a network disk, an encrypted one) is proved by
one subclass with one fixture; this module alone of the kit imports pytest for it.
Promise: each test is one sentence of the contract in `fs.base` that a test from outside can see.
What only a crash shows is not here: a file system that passes may still lie about `sync_data`.

    class TestMyFileSystem(FileSystemTests):
        @pytest.fixture
        def fs(self) -> FileSystem: ...
        @pytest.fixture
        def root(self, tmp_path) -> str: ...     # an absolute path to an empty directory
"""

from __future__ import annotations

import pytest

from chronik_store.fs.base import FileSystem


class FileSystemTests:
    """Subclass it and give it `fs` and `root`."""

    @pytest.fixture
    def fs(self) -> FileSystem:
        raise NotImplementedError("give this class the file system to test")

    @pytest.fixture
    def root(self) -> str:
        raise NotImplementedError("give this class an empty directory")

    # ------------------------------------------------------------------------------------- bytes

    def test_bytes_are_read_back_where_they_were_written(self, fs: FileSystem, root: str) -> None:
        file = fs.create(f"{root}/a")

        assert file.write_at(0, [b"hello"]) == 5
        assert file.write_at(5, [b" ", bytearray(b"wor"), memoryview(b"ld")]) == 6
        assert file.read_at(0, 11) == b"hello world"
        assert file.read_at(6, 5) == b"world"
        assert file.path == f"{root}/a"
        file.close()

    def test_a_read_is_shorter_only_at_the_end(self, fs: FileSystem, root: str) -> None:
        file = fs.create(f"{root}/a")
        file.write_at(0, [b"hello"])

        assert file.read_at(3, 100) == b"lo"
        assert file.read_at(5, 100) == b""
        assert file.read_at(900, 100) == b""
        assert file.read_at(0, 0) == b""
        file.close()

    def test_more_buffers_than_one_system_call_takes(self, fs: FileSystem, root: str) -> None:
        file = fs.create(f"{root}/a")
        buffers = [bytes([number % 251]) * (number % 3) for number in range(5000)]

        assert file.write_at(7, buffers) == sum(map(len, buffers))
        assert file.read_at(0, 1 << 20) == bytes(7) + b"".join(buffers)
        file.close()

    def test_large_and_small_buffers_in_one_write(self, fs: FileSystem, root: str) -> None:
        file = fs.create(f"{root}/a")
        buffers = [b"head", b"x" * 300_000, b"", b"middle", b"y" * 300_000, b"tail"]

        assert file.write_at(3, buffers) == 600_014
        assert file.read_at(3, 1 << 20) == b"".join(buffers)
        file.close()

    def test_nothing_written_is_nothing_changed(self, fs: FileSystem, root: str) -> None:
        file = fs.create(f"{root}/a")

        assert file.write_at(0, []) == 0
        assert file.write_at(100, [b"", memoryview(b"")]) == 0
        assert file.size() == 0
        file.close()

    def test_a_buffer_of_wide_items_counts_in_bytes(self, fs: FileSystem, root: str) -> None:
        file = fs.create(f"{root}/a")
        wide = memoryview(bytes(range(16))).cast("Q")

        assert file.write_at(0, [wide]) == 16
        assert file.write_at(16, [wide, wide]) == 32
        assert file.read_at(0, 48) == bytes(range(16)) * 3
        file.close()

    def test_a_write_past_the_end_leaves_zeros_between(self, fs: FileSystem, root: str) -> None:
        file = fs.create(f"{root}/a")
        file.write_at(1000, [b"x"])

        assert file.size() == 1001
        assert file.read_at(0, 1001) == bytes(1000) + b"x"
        file.close()

    def test_a_write_inside_changes_nothing_around_it(self, fs: FileSystem, root: str) -> None:
        file = fs.create(f"{root}/a")
        file.write_at(0, [b"abcdef"])
        file.write_at(2, [b"XY"])

        assert file.read_at(0, 10) == b"abXYef"
        file.close()

    def test_a_synced_file_reads_as_before(self, fs: FileSystem, root: str) -> None:
        file = fs.create(f"{root}/a")
        file.write_at(0, [b"x" * 5000])
        file.sync_data()
        file.sync_all()
        file.close()

        again = fs.open(f"{root}/a")
        assert again.read_at(0, 6000) == b"x" * 5000
        again.close()

    def test_what_is_reserved_reads_as_zeros(self, fs: FileSystem, root: str) -> None:
        file = fs.create(f"{root}/a")
        file.write_at(0, [b"x" * 100])

        if file.reserve(100, (1 << 20) - 100):
            assert file.size() == 1 << 20
            assert file.read_at(0, 1 << 21) == b"x" * 100 + bytes((1 << 20) - 100)
        else:
            assert file.size() == 100
        file.write_at(1 << 17, [b"y"])
        file.sync_data()
        file.close()
        again = fs.open(f"{root}/a")
        assert again.read_at(0, 100) == b"x" * 100
        assert again.read_at((1 << 17) - 1, 2) == b"\0y"
        again.close()

    def test_zeros_that_are_given_back_are_still_zeros(self, fs: FileSystem, root: str) -> None:
        file = fs.create(f"{root}/a")
        file.write_at(0, [b"x" * 100, bytes((1 << 20) - 100)])
        file.sync_all()

        file.give_back(1 << 16, (1 << 20) - (1 << 16))

        assert file.size() == 1 << 20
        assert file.read_at(0, 1 << 21) == b"x" * 100 + bytes((1 << 20) - 100)
        file.write_at(1 << 17, [b"y"])
        assert file.read_at((1 << 17) - 1, 3) == b"\0y\0"
        file.close()

    def test_a_map_is_the_whole_file(self, fs: FileSystem, root: str) -> None:
        file = fs.create(f"{root}/a")
        with file.map() as empty:
            assert len(empty) == 0
        file.write_at(0, [b"x" * 9000 + b"y"])
        with file.map() as view:
            assert len(view) == 9001
            assert view[9000] == ord("y")
            assert bytes(view[:3]) == b"xxx"
        file.close()

    def test_an_error_inside_a_map_comes_out_as_it_is(self, fs: FileSystem, root: str) -> None:
        file = fs.create(f"{root}/a")
        file.write_at(0, [b"x" * 100])

        def scan() -> None:
            with file.map() as view:
                part = view[10:20]
                raise LookupError(bytes(part))

        with pytest.raises(LookupError):
            scan()
        file.close()

    def test_two_handles_see_the_same_file(self, fs: FileSystem, root: str) -> None:
        writer = fs.create(f"{root}/a")
        reader = fs.open(f"{root}/a")
        writer.write_at(0, [b"news"])

        assert reader.read_at(0, 10) == b"news"
        assert reader.size() == 4
        writer.close()
        reader.close()

    def test_a_handle_for_reading_does_not_write(self, fs: FileSystem, root: str) -> None:
        fs.create(f"{root}/a").close()
        reader = fs.open(f"{root}/a")

        with pytest.raises(OSError):  # noqa: PT011  (which one is the system's business)
            reader.write_at(0, [b"x"])
        reader.close()
        writer = fs.open(f"{root}/a", write=True)
        assert writer.write_at(0, [b"x"]) == 1
        writer.close()

    def test_a_closed_file_refuses_and_closes_again(self, fs: FileSystem, root: str) -> None:
        file = fs.create(f"{root}/a")
        file.close()
        file.close()

        with pytest.raises(OSError):  # noqa: PT011
            file.write_at(0, [b"x"])
        with pytest.raises(OSError):  # noqa: PT011
            file.read_at(0, 1)
        with pytest.raises(OSError):  # noqa: PT011
            file.sync_data()

    # ------------------------------------------------------------------------------------- names

    def test_create_is_for_new_files_only(self, fs: FileSystem, root: str) -> None:
        fs.create(f"{root}/a").close()

        with pytest.raises(FileExistsError):
            fs.create(f"{root}/a")
        with pytest.raises(FileNotFoundError):
            fs.create(f"{root}/none/a")

    def test_what_is_absent_is_not_found(self, fs: FileSystem, root: str) -> None:
        absent = f"{root}/none"

        assert not fs.exists(absent)
        assert list(fs.walk(absent)) == []
        for call in (fs.open, fs.stat, fs.list, fs.remove, fs.remove_directory):
            with pytest.raises(FileNotFoundError):
                call(absent)
        for move in (fs.rename, fs.link):
            with pytest.raises(FileNotFoundError):
                move(absent, f"{root}/b")

    def test_nothing_is_below_a_file(self, fs: FileSystem, root: str) -> None:
        fs.create(f"{root}/a").close()

        assert not fs.exists(f"{root}/a/b")
        with pytest.raises(NotADirectoryError):
            fs.create(f"{root}/a/b")

    def test_stat_tells_files_from_directories(self, fs: FileSystem, root: str) -> None:
        file = fs.create(f"{root}/a")
        file.write_at(0, [b"12345"])
        file.close()

        assert fs.stat(f"{root}/a").size_bytes == 5
        assert not fs.stat(f"{root}/a").is_directory
        assert fs.stat(root).is_directory
        assert fs.stat(f"{root}/a").modified_us > 0

    def test_make_directories_makes_all_of_them_once(self, fs: FileSystem, root: str) -> None:
        fs.make_directories(f"{root}/a/b/c")
        fs.make_directories(f"{root}/a/b/c")
        fs.make_directories(f"{root}/a/b/d")

        assert fs.list(f"{root}/a/b") == ["c", "d"]
        fs.create(f"{root}/file").close()
        with pytest.raises(OSError):  # noqa: PT011
            fs.make_directories(f"{root}/file")

    def test_list_and_walk_are_sorted(self, fs: FileSystem, root: str) -> None:
        fs.make_directories(f"{root}/d/e")
        for name in ("b", "a", "d/y", "d/e/z", "d-", "c"):
            fs.create(f"{root}/{name}").close()

        assert fs.list(root) == ["a", "b", "c", "d", "d-"]
        assert [path.removeprefix(f"{root}/") for path in fs.walk(root)] == [
            *("a", "b", "c", "d/e/z", "d/y", "d-"),
        ]

    def test_rename_replaces_the_target(self, fs: FileSystem, root: str) -> None:
        _write(fs, f"{root}/a", b"new")
        _write(fs, f"{root}/b", b"old")
        fs.rename(f"{root}/a", f"{root}/b")
        fs.sync_directory(root)

        assert fs.list(root) == ["b"]
        assert _read(fs, f"{root}/b") == b"new"

    def test_rename_moves_a_directory(self, fs: FileSystem, root: str) -> None:
        fs.make_directories(f"{root}/a/sub")
        _write(fs, f"{root}/a/sub/file", b"x")
        fs.make_directories(f"{root}/q")
        fs.rename(f"{root}/a", f"{root}/q/b")

        assert list(fs.walk(root)) == [f"{root}/q/b/sub/file"]

    def test_link_never_replaces(self, fs: FileSystem, root: str) -> None:
        _write(fs, f"{root}/a", b"mine")
        fs.link(f"{root}/a", f"{root}/b")
        _write(fs, f"{root}/c", b"other")

        with pytest.raises(FileExistsError):
            fs.link(f"{root}/c", f"{root}/b")
        fs.remove(f"{root}/a")
        assert _read(fs, f"{root}/b") == b"mine"

    def test_a_removed_file_stays_readable_through_its_handle(
        self, fs: FileSystem, root: str
    ) -> None:
        _write(fs, f"{root}/a", b"still here")
        reader = fs.open(f"{root}/a")
        fs.remove(f"{root}/a")

        assert not fs.exists(f"{root}/a")
        assert reader.read_at(0, 100) == b"still here"
        reader.close()

    def test_only_an_empty_directory_is_removed(self, fs: FileSystem, root: str) -> None:
        fs.make_directories(f"{root}/a")
        _write(fs, f"{root}/a/file", b"")

        with pytest.raises(OSError):  # noqa: PT011
            fs.remove_directory(f"{root}/a")
        fs.remove(f"{root}/a/file")
        fs.remove_directory(f"{root}/a")
        assert not fs.exists(f"{root}/a")

    def test_usage_counts_what_is_free(self, fs: FileSystem, root: str) -> None:
        usage = fs.usage(root)

        assert 0 < usage.free_bytes <= usage.total_bytes

    # ------------------------------------------------------------------------------------- locks

    def test_a_lock_is_held_once(self, fs: FileSystem, root: str) -> None:
        lock = fs.lock(f"{root}/LOCK", b"pid 1 of an owner with a long name")

        with pytest.raises(BlockingIOError):
            fs.lock(f"{root}/LOCK", b"pid 2")
        assert _read(fs, f"{root}/LOCK") == b"pid 1 of an owner with a long name"
        lock.release()
        lock.release()
        again = fs.lock(f"{root}/LOCK", b"pid 2")
        assert _read(fs, f"{root}/LOCK") == b"pid 2"
        again.release()

    def test_locks_on_other_files_are_free(self, fs: FileSystem, root: str) -> None:
        first = fs.lock(f"{root}/LOCK", b"")
        second = fs.lock(f"{root}/LOCK2", b"")

        first.release()
        second.release()


def _write(fs: FileSystem, path: str, data: bytes) -> None:
    file = fs.create(path)
    file.write_at(0, [data])
    file.close()


def _read(fs: FileSystem, path: str) -> bytes:
    file = fs.open(path)
    data = file.read_at(0, file.size())
    file.close()
    return data
