"""What the stories share: a small store that seals soon, and what is asked of every log."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import chronik_store as chronik

CONFIG = chronik.LogConfig(
    pipeline_enabled=False,  # a story says when
    segment_bytes=4096,
    garbage_seconds=0,
    disk_reserve_bytes=0,
    disk_throttle_bytes=0,
)


def bucket() -> str:
    """The bucket's URL, in the story's own directory."""
    return f"file://{os.getcwd()}/bucket"


def opened(directory: str = "laptop", topic: str = "orders", **changes: Any) -> Any:
    return chronik.PartitionLog.open(
        directory, topic=topic, object_store=bucket(), config=CONFIG.replace(**changes)
    )


def order(number: int) -> bytes:
    return b'{"order": %d, "what": "%s"}' % (number, b"x" * 60)


def orders(numbers: Iterable[int]) -> list[bytes]:
    return [order(number) for number in numbers]


def values(log: Any) -> list[bytes]:
    return [record.value for record in log.scan()]


def settle(log: Any) -> None:
    """Seal what is there and run the pipeline until it has nothing to do."""
    log.seal()
    for _ in range(20):
        report = log.run_pipeline_once()
        assert report.errors == ()
        if report.idle:
            return
    raise AssertionError(f"it does not come to rest: {log.status()}")
