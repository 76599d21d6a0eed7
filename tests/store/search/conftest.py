"""Search tests run on the real disk: Tantivy opens its files by itself."""

from __future__ import annotations

import pytest

from chronik_store.fs.posix import PosixFileSystem


@pytest.fixture
def fs() -> PosixFileSystem:
    return PosixFileSystem()
