"""How far a `verify` has come, in bytes.

Place: the bottom of `verify`. Promise: what was expected is reached when all of it was looked at,
and is about right before: the pipeline goes on meanwhile. Invariant: nothing is read for it.
"""

from __future__ import annotations

from chronik_store.environment import Environment
from chronik_store.format.manifest_file import Manifest
from chronik_store.model import Progress
from chronik_store.segment.source import ByteSource


class Looked:
    """Counts what one run has looked at, and tells whoever wants to know."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._done = self._expected = 0

    def expect(self, size_bytes: int) -> None:
        """So many bytes more will be looked at."""
        self._expected += size_bytes

    def at(self, size_bytes: int) -> None:
        """So many of them have been. What is damaged, and so is read again, ends there, too."""
        self._done = min(self._done + size_bytes, self._expected)
        if self._progress is not None:
            self._progress(self._done, self._expected)

    def through(self, source: ByteSource) -> ByteSource:
        """The source, each range of which counts as looked at."""
        return _Watched(source, self)


class _Watched:
    """A source whose ranges are counted. Its tail is read twice, and is counted as a range."""

    def __init__(self, source: ByteSource, looked: Looked) -> None:
        self._source = source
        self._looked = looked

    def read_range(self, start: int, length: int) -> bytes:
        data = self._source.read_range(start, length)
        self._looked.at(len(data))
        return data

    def read_tail(self, length: int) -> bytes:
        return self._source.read_tail(length)


def local_bytes(manifest: Manifest, env: Environment, directory: str, *, deep: bool) -> int:
    """What will be read of the local copies of segments. A disk that cannot say is a finding of
    whoever reads them.
    """
    try:
        names = frozenset(env.fs.list(directory))
    except OSError:
        return 0
    return sum(
        each.size_bytes if deep else each.footer_bytes
        for each in manifest.segments
        if each.key.rpartition("/")[2] in names
    )


def bucket_bytes(manifest: Manifest, *, deep: bool) -> int:
    """What will be read of the objects that are listed."""
    return sum(
        (each.size_bytes if deep else each.footer_bytes)
        + (each.bundle.size_bytes if deep and each.bundle is not None else 0)
        for each in manifest.segments
    )
