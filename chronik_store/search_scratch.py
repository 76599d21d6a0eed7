"""Where search keeps what may be thrown away: unpacked bundles, tail indexes, builds.

Place: owned by `log_assembly` and `bucket_log`. Promise: a writer uses its data directory's
`scratch`, a reader that must not write there a temporary directory of its own, removed at `close`.
Invariant: nothing here is trusted after a restart, and it is always a real disk, since Tantivy
opens files itself: under a simulated one it is a temporary directory, too.
"""

from __future__ import annotations

import shutil
import tempfile

from chronik_store.fs.base import FileSystem
from chronik_store.fs.posix import PosixFileSystem


class SearchScratch:
    """Scratch directories of one store. `directory` None: a temporary one."""

    def __init__(self, fs: FileSystem, directory: str | None) -> None:
        if directory is None or not isinstance(fs, PosixFileSystem):
            self._temporary: str | None = tempfile.mkdtemp(prefix="chronik-search-")
            self.directory = self._temporary
            self.fs: FileSystem = PosixFileSystem()
        else:
            self._temporary = None
            self.directory = directory
            self.fs = fs

    @property
    def bundles(self) -> str:
        """Where bundles are unpacked."""
        return f"{self.directory}/bundles"

    @property
    def building(self) -> str:
        """Where bundles are made."""
        return f"{self.directory}/building"

    def tail(self, topic: str, partition: int) -> str:
        """Where the tail index of one partition lives."""
        return f"{self.directory}/tail/{topic}/{partition}"

    def close(self) -> None:
        """Remove the temporary directory, if this one is."""
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
