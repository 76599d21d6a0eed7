"""A log all of whose records are in its bucket, and the ranges that are read of it there.

Place: under `bench_cache` and `bench_cold`. Promise: when `fill` returns, every record is in the
bucket and listed; each range that a store is asked for is counted once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.workload import TOPIC, Values, quiet_config
from chronik_store import PartitionLog
from chronik_store.format.manifest_file import SegmentInfo
from chronik_store.objectstore.base import ObjectStore


def fill(
    path: str,
    url: str,
    values: Values,
    records: int,
    *,
    segments: int,
    group: int,
    **changes: object,
) -> tuple[SegmentInfo, ...]:
    """So many records as so many segments, in batches of `group`. changes: of the settings."""
    config = quiet_config(indexing_enabled=False, **changes)
    share = records // segments
    with PartitionLog.open(path, topic=TOPIC, object_store=url, config=config) as log:
        for number in range(segments):
            for batch in values.groups(share // group, group, first=number * records // segments):
                log.append(batch)
            log.seal()
        report = log.run_pipeline_once()
        if report.errors or log.watermarks.tiered != records:
            raise AssertionError(f"not all is in the bucket: {report}")
        core = log._core
        assert core is not None
        return core.manifest.segments


@contextmanager
def ranges_counted(kind: type[ObjectStore], latency_seconds: float = 0.0) -> Iterator[list[int]]:
    """The length of each range that such stores are asked for; each takes so much longer."""
    lengths: list[int] = []
    original = kind.get_range

    def counting(store: ObjectStore, key: str, start: int, length: int) -> bytes:
        lengths.append(length)
        if latency_seconds:
            time.sleep(latency_seconds)
        return original(store, key, start, length)

    kind.get_range = counting  # type: ignore[method-assign]
    try:
        yield lengths
    finally:
        kind.get_range = original  # type: ignore[method-assign]
