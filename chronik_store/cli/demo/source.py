"""The demo's input: lines of files that every machine has.

Place: read by the writing child and, to compare, by the parent. Promise: the same lines in the
same order every time; line N of the input is the record at offset N.
"""

from __future__ import annotations

import itertools
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_NOT_OURS = {"site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True)
class Source:
    """Lines of files. `limit`: use only so many, from the first on."""

    root: Path
    files: tuple[Path, ...]
    limit: int | None = None

    def records(self, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
        """(key, value): the file's name and a line without its newline, from line `start` on."""
        return itertools.islice(self._all(), start, self.limit)

    def _all(self) -> Iterator[tuple[bytes, bytes]]:
        for path in self.files:
            key = str(path.relative_to(self.root)).encode("utf-8", "surrogateescape")
            for line in _lines(path):
                yield key, line

    def measure(self) -> tuple[int, int]:
        """(lines, bytes of their values)."""
        count = size_bytes = 0
        for _, value in self.records():
            count += 1
            size_bytes += len(value)
        return count, size_bytes


def _lines(path: Path) -> list[bytes]:
    lines = path.read_bytes().split(b"\n")
    if not lines[-1]:
        lines.pop()  # what stands behind the last newline is no line
    return lines


def standard_library() -> Source:
    """The sources of this Python's standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    files = (path for path in root.rglob("*.py") if not _NOT_OURS & set(path.parts))
    return Source(root, tuple(sorted(path for path in files if path.is_file())))


def source_of(paths: Sequence[str]) -> Source:
    """The files given, and those below the directories given; else the standard library."""
    if not paths:
        return standard_library()
    files: list[Path] = []
    for given in (Path(path).resolve() for path in paths):
        found = sorted(given.rglob("*")) if given.is_dir() else [given]
        files += [path for path in found if path.is_file() and not _NOT_OURS & set(path.parts)]
    root = Path(*_common([path.parent.parts for path in files])) if files else Path("/")
    return Source(root, tuple(dict.fromkeys(files)))


def _common(all_parts: Sequence[tuple[str, ...]]) -> list[str]:
    together = zip(*all_parts, strict=False)
    return [parts[0] for parts in itertools.takewhile(lambda it: len(set(it)) == 1, together)]
