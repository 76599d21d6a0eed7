"""Several names at once: a directory that goes, files that are moved out of the way.

Place: in `fs`, over its one door. Promise: what is there when it begins is gone when it returns; an
OSError leaves a part of a directory, and another call goes on; of files that are moved it leaves
all where they were. Invariant: it decides nothing; callers have proof that a directory may go.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from chronik_store.fs.base import FileSystem


def remove_tree(fs: FileSystem, path: str) -> None:
    """Remove a directory and all below it; absent is fine. OSError."""
    if not fs.exists(path):
        return
    for name in fs.list(path):
        child = f"{path}/{name}"
        if fs.stat(child).is_directory:
            remove_tree(fs, child)
        else:
            fs.remove(child)
    fs.remove_directory(path)


def move_files(fs: FileSystem, paths: Sequence[str], directory: str) -> None:
    """Move files, in this order, to names in `directory` that are free: nothing there is replaced.
    The names are durable when it returns; that the old ones are gone is for the caller to sync.

    OSError: they are moved back. A name whose sync failed is never durable (decision 0011), and any
    later sync of the old directory would leave the file without one.
    """
    fs.make_directories(directory)
    moved: list[tuple[str, str]] = []
    try:
        for path in paths:
            target = _free_name(fs, directory, path.rpartition("/")[2])
            fs.rename(path, target)
            moved.append((path, target))
        fs.sync_directory(directory)
    except OSError:
        for path, target in reversed(moved):
            with suppress(OSError):  # the first error is the one to tell
                fs.rename(target, path)
        raise


def _free_name(fs: FileSystem, directory: str, name: str) -> str:
    number, path = 0, f"{directory}/{name}"
    while fs.exists(path):
        number += 1
        path = f"{directory}/{name}.{number}"
    return path
