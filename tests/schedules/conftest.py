"""One store on a simulated disk and a bucket with a door that can fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.harness import Life, close_quietly, reachable_buckets


@pytest.fixture
def life() -> Iterator[Life]:
    """Opened, empty. `life.fails(mode)` is the life after a power loss or a kill."""
    with reachable_buckets():
        life = Life(1)
        life.open()
        yield life
        close_quietly(life)
