"""Files that are moved out of the way are there, or where they were: never in neither place."""

from __future__ import annotations

import errno
import itertools
import random

import pytest

from chronik_store.fs.tree import move_files
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.testing.tree import failure

FILES = {"/log/1": b"one", "/log/2": b"two"}


def moved(disk: SimulatedDisk) -> dict[str, bytes]:
    return {path.replace("/kept/", "/log/"): disk.peek(path) for path in disk.paths("/kept")}


def filled() -> SimulatedDisk:
    disk = SimulatedDisk()
    disk.make_directories("/log")
    for path, content in FILES.items():
        file = disk.create(path)
        file.write_at(0, [content])
        file.sync_all()
        file.close()
    disk.sync_directory("/log")
    return disk


def test_files_are_moved_whichever_call_failed_the_first_time() -> None:
    """After a failed sync they stood under names that no later sync kept, and the next one of their
    old directory took them from the disk.
    """
    for number in itertools.count():
        disk = filled()
        calls = itertools.count()

        def fails(_number: int, _operation: str, path: str, calls=calls, number=number) -> None:
            if next(calls) == number:
                raise failure(errno.EIO, path)

        disk.hook = fails
        try:
            move_files(disk, list(FILES), "/kept")
        except OSError:
            assert sorted(FILES) == [path for path in disk.paths("/log") if path in FILES]
            assert {} == moved(disk)
            move_files(disk, list(FILES), "/kept")
        disk.hook = None
        disk.sync_directory("/log")
        assert moved(disk.crash("lost", random.Random(number))) == FILES
        if next(calls) <= number:
            break
    assert number > 5


@pytest.mark.parametrize("there", [1, 2])
def test_what_is_there_is_not_replaced(there: int) -> None:
    disk = filled()
    disk.make_directories("/kept")
    for name in ["1", "1.1"][:there]:
        disk.create(f"/kept/{name}").close()
    move_files(disk, ["/log/1"], "/kept")
    assert disk.peek(f"/kept/1.{there}") == b"one"
    assert disk.paths("/log") == ["/log/2"]
