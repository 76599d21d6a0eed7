"""Search tests run on the real disk: Tantivy opens its files by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from chronik_store.fs.posix import PosixFileSystem
from tests.store.search.partition import Partition, log_of


@pytest.fixture
def fs() -> PosixFileSystem:
    return PosixFileSystem()


@pytest.fixture
def partition(tmp_path: Path) -> Partition:
    """Offsets 0 to 12: two bundles, then four records that have none."""
    made = Partition(tmp_path, log_of(12))
    made.bundle(0, 4)
    made.bundle(4, 8)
    return made
