"""Where search keeps what may be thrown away: unpacked bundles, tail indexes.

Place: owned by `log_assembly`. Promise: a writer uses its data directory's `scratch` and `cache`,
a reader that must not write there a temporary directory of its own, removed at `close`. Invariant:
nothing here is trusted after a restart.
"""

from __future__ import annotations

import shutil
import tempfile


class SearchScratch:
    """Scratch directories of one store. `directory` None: a temporary one."""

    def __init__(self, directory: str | None) -> None:
        self._own = None if directory else tempfile.mkdtemp(prefix="chronik-search-")
        self._directory = directory or self._own or ""

    @property
    def bundles(self) -> str:
        """Where bundles are unpacked."""
        return f"{self._directory}/bundles"

    def tail(self, topic: str, partition: int) -> str:
        """Where the tail index of one partition lives."""
        return f"{self._directory}/tail/{topic}/{partition}"

    def close(self) -> None:
        """Remove the temporary directory, if this one is."""
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
