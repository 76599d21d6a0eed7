"""Paths on a simulated medium: what POSIX says about names, and its errors.

Place: between `medium`, which knows nodes, and `simulated_disk`, which knows calls. Promise: each
method is one step that succeeds whole or raises OSError and changes nothing. Invariant: the medium
changes only through `Medium.change` and `Medium.write`, so that a crash can undo it.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable, Iterator

from chronik_store.fs.base import FileStat
from chronik_store.testing.medium import DirectoryNode, Effect, FileNode, Medium, Node

_NAME_BYTES_MAX = 255


def failure(code: int, path: str) -> OSError:
    """An OSError of the class that belongs to `code`, worded as the system words it."""
    return OSError(code, os.strerror(code), path)


class Tree:
    """The files of a medium by path. Its callers hold the medium's guard.

    Args:
        medium: what the paths lead to.
        time_us: clock of modification times.
    """

    def __init__(self, medium: Medium, time_us: Callable[[], int]) -> None:
        self._medium = medium
        self._time_us = time_us

    def find(self, path: str) -> Node:
        """FileNotFoundError or NotADirectoryError if the path leads nowhere."""
        node: Node = self._medium.root
        for name in names_of(path):
            if isinstance(node, FileNode):
                raise failure(errno.ENOTDIR, path)
            if name not in node.entries:
                raise failure(errno.ENOENT, path)
            node = node.entries[name]
        return node

    def file(self, path: str) -> FileNode:
        node = self.find(path)
        if isinstance(node, DirectoryNode):
            raise failure(errno.EISDIR, path)
        return node

    def directory(self, path: str) -> DirectoryNode:
        node = self.find(path)
        if isinstance(node, FileNode):
            raise failure(errno.ENOTDIR, path)
        return node

    def durable_file(self, path: str) -> FileNode | None:
        """The file that the path leads to after a crash that loses all unsynced names."""
        node: Node | None = self._medium.root
        for name in names_of(path):
            node = node.durable.get(name) if isinstance(node, DirectoryNode) else None
        return node if isinstance(node, FileNode) else None

    def exists(self, path: str) -> bool:
        try:
            self.find(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def stat(self, path: str) -> FileStat:
        node = self.find(path)
        size_bytes = len(node.content) if isinstance(node, FileNode) else 0
        return FileStat(
            size_bytes=size_bytes,
            is_directory=isinstance(node, DirectoryNode),
            modified_us=node.modified_us,
            blocks_bytes=size_bytes + -size_bytes % 512,
        )

    def walk(self, path: str) -> Iterator[str]:
        """All file paths below a directory, depth first, sorted; nothing if absent."""
        if not self.exists(path):
            return
        for name, node in sorted(self.directory(path).entries.items()):
            below = posixpath.join(path, name)
            if isinstance(node, DirectoryNode):
                yield from self.walk(below)
            else:
                yield below

    def create(self, path: str) -> FileNode:
        directory, name = self._free_name(path)
        node = FileNode()
        node.modified_us = self._time_us()
        self._change(Effect(directory, name, node))
        return node

    def make_directory(self, path: str) -> None:
        """One level. One that is there already is no error, as another process may have made it."""
        directory, name = self._place(path)
        if not isinstance(directory.entries.get(name), DirectoryNode):
            self._free_name(path)
            self._change(Effect(directory, name, DirectoryNode()))

    def link(self, source: str, target: str) -> None:
        node = self.find(source)
        if isinstance(node, DirectoryNode):
            raise failure(errno.EPERM, source)
        directory, name = self._free_name(target)
        self._change(Effect(directory, name, node))

    def rename(self, source: str, target: str) -> None:
        node = self.find(source)
        old_place, new_place = self._place(source), self._place(target)
        replaced = new_place[0].entries.get(new_place[1])
        if replaced is node:
            return
        if isinstance(replaced, DirectoryNode):
            if isinstance(node, FileNode):
                raise failure(errno.EISDIR, target)
            if replaced.entries:
                raise failure(errno.ENOTEMPTY, target)
        elif replaced is not None and isinstance(node, DirectoryNode):
            raise failure(errno.ENOTDIR, target)
        # The new name first, so that the file is never without one and its space is not given back.
        self._change(Effect(*new_place, node), Effect(*old_place, None))

    def remove(self, path: str) -> None:
        self.file(path)
        self._change(Effect(*self._place(path), None))

    def remove_directory(self, path: str) -> None:
        if self.directory(path).entries:
            raise failure(errno.ENOTEMPTY, path)
        self._change(Effect(*self._place(path), None))

    def _free_name(self, path: str) -> tuple[DirectoryNode, str]:
        directory, name = self._place(path)
        if name in directory.entries:
            raise failure(errno.EEXIST, path)
        return directory, name

    def _place(self, path: str) -> tuple[DirectoryNode, str]:
        """The directory that has the last name of a path, or would have it, and that name."""
        names = names_of(path)
        if not names:
            raise failure(errno.EBUSY, path)
        if len(os.fsencode(names[-1])) > _NAME_BYTES_MAX:
            raise failure(errno.ENAMETOOLONG, path)
        return self.directory("/" + "/".join(names[:-1])), names[-1]

    def _change(self, *effects: Effect) -> None:
        self._medium.change(*effects)
        for effect in effects:
            effect.directory.modified_us = self._time_us()


def names_of(path: str) -> list[str]:
    """The names on the way from the root; ValueError if the path is not absolute."""
    if not path.startswith("/"):
        raise ValueError(f"the disk takes absolute paths, not {path!r}")
    return [name for name in posixpath.normpath(path).split("/") if name]
