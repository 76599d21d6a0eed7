"""The medium of the simulated disk: files and directories, each as it is and as a crash finds it.

Place: below `simulated_disk`, which adds calls, faults and processes. Promise: two states are kept
apart. What readers see (`content`, `entries`: the page cache) changes at once; what a power loss
leaves (`durable`) changes only by a sync of that file or that directory. Invariant: without
pending writes and name changes the two are equal, unless a failed sync has parted them for good.

    file       content  = durable + pending writes (in order, all of them)
    directory  entries  = durable + pending name changes (in order, all of them)

A failed sync does as Linux does: the pages count as clean, their bytes are readable until the
crash and are never written, and a later sync that succeeds does not help. Only a write into the
same page makes it dirty again, whole.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import NamedTuple

from chronik_store.testing.crash import CrashMode, PendingWrite, surviving_bytes

PAGE_BYTES = 4096


class FileNode:
    """A file without its names."""

    __slots__ = (
        "bad_ranges",
        "content",
        "durable",
        "links",
        "modified_us",
        "opens",
        "pending",
        "whole_pages",
    )

    def __init__(self, content: bytearray | None = None) -> None:
        self.content = bytearray() if content is None else content
        self.durable = bytearray(self.content)
        self.pending: list[PendingWrite] = []
        self.whole_pages = False
        """A sync has failed: the cache holds bytes that only a write to their page will bring."""
        self.bad_ranges: list[tuple[int, int]] = []
        self.links = 0
        self.opens = 0
        self.modified_us = 0

    def write(self, number: int, position: int, data: bytes | memoryview) -> None:
        """Into the page cache; heals unreadable sectors that it covers."""
        if not data:
            return
        end = position + len(data)
        if len(self.content) < position:
            self.content.extend(bytes(position - len(self.content)))
        self.content[position:end] = data
        if self.whole_pages:
            position -= position % PAGE_BYTES
            end = min(len(self.content), end + -end % PAGE_BYTES)
        self.pending.append(PendingWrite(number, position, bytes(self.content[position:end])))
        self.bad_ranges = [bad for bad in self.bad_ranges if bad[0] < position or bad[1] > end]

    def sync(self, mark: int) -> None:
        """Make the writes up to number `mark` durable."""
        for write in self.pending:
            if write.number <= mark:
                if len(self.durable) < write.position:
                    self.durable.extend(bytes(write.position - len(self.durable)))
                self.durable[write.position : write.position + len(write.data)] = write.data
        self.pending = [write for write in self.pending if write.number > mark]

    def fail_sync(self, mark: int) -> None:
        """Mark the pages of the writes up to number `mark` clean, without writing them."""
        self.pending = [write for write in self.pending if write.number > mark]
        self.whole_pages = True

    def damage(self, position: int, data: bytes) -> None:
        """Put other bytes into the cache, the medium and the writes on their way. A file that ends
        before the last of them is longer afterwards.
        """
        end = position + len(data)
        if end > len(self.content):
            self.content.extend(bytes(end - len(self.content)))
            self.durable.extend(bytes(end - len(self.durable)))
        _patch(self.content, 0, position, data)
        _patch(self.durable, 0, position, data)
        for number, write in enumerate(self.pending):
            patched = bytearray(write.data)
            _patch(patched, write.position, position, data)
            self.pending[number] = write._replace(data=bytes(patched))

    def cut(self, size_bytes: int) -> None:
        """Shorten the file, in the cache and on the medium."""
        del self.content[size_bytes:]
        del self.durable[size_bytes:]
        self.pending = [
            write._replace(data=write.data[: size_bytes - write.position])
            for write in self.pending
            if write.position < size_bytes
        ]

    def is_unreadable(self, position: int, length: int) -> bool:
        end = position + length
        return any(first < end and position < last for first, last in self.bad_ranges)

    def after_crash(self, mode: CrashMode, rng: random.Random) -> FileNode:
        survivor = FileNode(
            surviving_bytes(self.durable, len(self.content), self.pending, mode, rng)
        )
        survivor.bad_ranges = list(self.bad_ranges)
        survivor.modified_us = self.modified_us
        return survivor


class DirectoryNode:
    """A directory: names now, and names that a crash leaves."""

    __slots__ = ("durable", "entries", "modified_us")

    def __init__(self) -> None:
        self.entries: dict[str, Node] = {}
        self.durable: dict[str, Node] = {}
        self.modified_us = 0


Node = FileNode | DirectoryNode


class Effect(NamedTuple):
    """One entry that a name change sets (or takes away, with None)."""

    directory: DirectoryNode
    name: str
    node: Node | None


class NameChange(NamedTuple):
    """A create, link, rename or remove: all its effects survive a crash, or none."""

    number: int
    effects: tuple[Effect, ...]


class Medium:
    """One disk's tree. Its users take `guard` around each step, and never keep it over a hook."""

    def __init__(self, capacity_bytes: int | None) -> None:
        self.guard = threading.Lock()
        self.powered_off = False
        self.root = DirectoryNode()
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self.changes: list[NameChange] = []
        self.locked: list[FileNode] = []
        self._numbers = 0

    def next_number(self) -> int:
        """The place of a write or name change in the one order of this medium."""
        self._numbers += 1
        return self._numbers

    @property
    def mark(self) -> int:
        """The number of the newest write or name change."""
        return self._numbers

    @property
    def free_bytes(self) -> int:
        return (1 << 50 if self.capacity_bytes is None else self.capacity_bytes) - self.used_bytes

    def write(self, node: FileNode, position: int, data: memoryview) -> int:
        """Write as much as there is space for; returns the byte count."""
        before = len(node.content)
        room = before + self.free_bytes - position
        accepted = data[: max(0, room)]
        node.write(self.next_number(), position, accepted)
        self.used_bytes += len(node.content) - before
        return len(accepted)

    def damage(self, node: FileNode, position: int, data: bytes) -> None:
        """See `FileNode.damage`."""
        before = len(node.content)
        node.damage(position, data)
        self.used_bytes += len(node.content) - before

    def truncate(self, node: FileNode, size_bytes: int) -> None:
        """Shorten a file; durable at once, since nothing in the contract needs more."""
        self.used_bytes -= max(0, len(node.content) - size_bytes)
        node.cut(size_bytes)

    def change(self, *effects: Effect) -> None:
        """Apply a name change now, and remember it until its directory is synced."""
        self.changes.append(NameChange(self.next_number(), effects))
        for directory, name, node in effects:
            old = directory.entries.pop(name, None)
            if node is not None:
                directory.entries[name] = node
            if isinstance(node, FileNode):
                node.links += 1
            if isinstance(old, FileNode):
                old.links -= 1
                self.release_if_unused(old)

    def release_if_unused(self, node: FileNode) -> None:
        """Give back the space of a file that has neither a name nor an open handle."""
        if node.links == 0 and node.opens == 0:
            self.used_bytes -= len(node.content)

    def sync_directory(self, directory: DirectoryNode, mark: int) -> None:
        """Make its name changes up to number `mark` durable, and those that they build on."""
        wanted: set[tuple[int, str]] = set()
        settled: list[NameChange] = []
        for change in reversed(self.changes):
            keys = {(id(effect.directory), effect.name) for effect in change.effects}
            here = any(effect.directory is directory for effect in change.effects)
            if (here and change.number <= mark) or keys & wanted:
                wanted |= keys
                settled.append(change)
        for change in reversed(settled):
            _make_durable(change)
        numbers = {change.number for change in settled}
        self.changes = [change for change in self.changes if change.number not in numbers]

    def fail_sync_directory(self, directory: DirectoryNode, mark: int) -> None:
        """Forget its name changes: visible until the crash, and never durable."""
        self.changes = [
            change
            for change in self.changes
            if change.number > mark
            or all(effect.directory is not directory for effect in change.effects)
        ]

    def after_crash(self, mode: CrashMode, rng: random.Random) -> Medium:
        """A new medium with what a power loss leaves; this one is not changed."""
        left = Medium(self.capacity_bytes)
        names = _Names(self._surviving_changes(mode, rng))
        copies: dict[int, FileNode] = {}

        def copy(directory: DirectoryNode) -> DirectoryNode:
            survivor = DirectoryNode()
            survivor.modified_us = directory.modified_us
            for name, node in names.of(directory):
                if isinstance(node, DirectoryNode):
                    survivor.entries[name] = copy(node)
                else:
                    if id(node) not in copies:
                        copies[id(node)] = node.after_crash(mode, rng)
                        left.used_bytes += len(copies[id(node)].content)
                    survivor.entries[name] = copies[id(node)]
                    copies[id(node)].links += 1
            survivor.durable = dict(survivor.entries)
            return survivor

        left.root = copy(self.root)
        return left

    def _surviving_changes(self, mode: CrashMode, rng: random.Random) -> Iterator[NameChange]:
        """The unsynced name changes that made it: any, but none without what it builds on."""
        lost: set[tuple[int, str]] = set()
        for change in self.changes:
            keys = {(id(effect.directory), effect.name) for effect in change.effects}
            made_it = mode == "kept" or (mode != "lost" and rng.random() < 0.5)
            if made_it and not keys & lost:
                yield change
            else:
                lost |= keys


class _Names:
    """The names that each directory has after a crash."""

    def __init__(self, changes: Iterator[NameChange]) -> None:
        self._changed: dict[int, dict[str, Node | None]] = {}
        for change in changes:
            for directory, name, node in change.effects:
                self._changed.setdefault(id(directory), {})[name] = node

    def of(self, directory: DirectoryNode) -> list[tuple[str, Node]]:
        names: dict[str, Node | None] = {
            **directory.durable,
            **self._changed.get(id(directory), {}),
        }
        return [(name, node) for name, node in sorted(names.items()) if node is not None]


def _make_durable(change: NameChange) -> None:
    for directory, name, node in change.effects:
        if node is None:
            directory.durable.pop(name, None)
        else:
            directory.durable[name] = node


def _patch(image: bytearray, start: int, position: int, data: bytes) -> None:
    """Overwrite what `image`, which begins at `start` of its file, has of `data`'s range."""
    first = max(start, position)
    end = min(start + len(image), position + len(data))
    if first < end:
        image[first - start : end - start] = data[first - position : end - position]
