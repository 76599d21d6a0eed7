"""Whole directories.

Place: in `fs`, over its one door. Promise: what is there when it begins is gone when it returns; an
OSError leaves a part, and another call goes on. Invariant: it decides nothing; callers have proof
that a directory may go.
"""

from __future__ import annotations

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
