"""Where search keeps what may be thrown away: unpacked bundles, tail indexes, builds.

Place: owned by `log_assembly` and `bucket_log`. Promise: a writer uses its data directory's
`scratch`, a reader that must not write there a temporary directory of its own, made by its first
search and removed at `close`. Invariant: nothing here is trusted after a restart, and it is always
a real disk, since Tantivy opens files itself: under a simulated one it is a temporary directory,
too.
"""

from __future__ import annotations

import shutil
import tempfile

from chronik_store.errors import UnavailableError
from chronik_store.fs.base import FileSystem
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.threads import Threads

KINDS = ("building", "tail")
"""What there is one of for each partition."""


class SearchScratch:
    """Scratch directories of one store. Thread-safe. `directory` None: a temporary one.

    UnavailableError, of each that names one: the temporary directory cannot be made.
    """

    def __init__(self, fs: FileSystem, threads: Threads, directory: str | None) -> None:
        self._lock = threads.lock()
        self._directory = directory if isinstance(fs, PosixFileSystem) else None
        self._temporary: str | None = None
        self.fs: FileSystem = PosixFileSystem() if self._directory is None else fs

    def _root(self) -> str:
        if self._directory is not None:
            return self._directory
        with self._lock:
            if self._temporary is None:
                try:
                    self._temporary = tempfile.mkdtemp(prefix="chronik-search-")
                except OSError as error:
                    raise UnavailableError(
                        f"no directory for what a search unpacks: {error}; TMPDIR names another"
                    ) from error
            return self._temporary

    def bundles(self) -> str:
        """Where bundles are unpacked."""
        return f"{self._root()}/bundles"

    def building(self) -> str:
        """Where bundles are made."""
        return f"{self._root()}/building"

    def tail(self, topic: str, partition: int) -> str:
        """Where the tail index of one partition lives."""
        return f"{self._root()}/tail/{topic}/{partition}"

    def left_of(self, topic: str, partition: int) -> tuple[str, ...]:
        """Where something may be left of a partition whose log is closed: a tail after a crash, a
        build that was never listed.
        """
        if self._directory is None:
            return ()
        return tuple(f"{self._directory}/{kind}/{topic}/{partition}" for kind in KINDS)

    def close(self) -> None:
        """Remove the temporary directory, if this one is."""
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
