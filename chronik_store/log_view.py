"""What the reading half of `PartitionLog` needs of a log, wherever it lives.

Place: satisfied by `log_core.LogCore` (a data directory) and by `bucket_log.BucketView` (the
bucket alone). Promise: `committed` and `manifest` are a consistent pair of frozen values, never an
empty stand-in for something unknown.
"""

from __future__ import annotations

from typing import Protocol

from chronik_store.format.manifest_file import Manifest
from chronik_store.manifest.fold import sealed_end
from chronik_store.model import LogStatus, Position, RecoveryReport, Watermarks


class LogView(Protocol):
    """A readable log. Thread-safe."""

    @property
    def manifest(self) -> Manifest: ...
    @property
    def committed(self) -> Position: ...
    @property
    def durable(self) -> Position: ...
    @property
    def end_offset(self) -> int: ...
    @property
    def recovery(self) -> RecoveryReport: ...

    def check_open(self) -> None:
        """LogClosedError or ForkedError when the log cannot be used from here."""
        ...

    def refresh(self) -> Position:
        """Look for what a writer elsewhere has committed since; returns `committed`."""
        ...

    def wait_offset(self, offset: int, timeout_seconds: float) -> bool:
        """Block until `offset` is committed; False when the time is up."""
        ...

    def status(self) -> LogStatus: ...


def watermarks_of(view: LogView) -> Watermarks:
    """The plot line. Read right to left, so that limits that move right keep their order.

    Nothing is sealed, tiered or indexed here beyond what is committed here, although the manifest
    may say so: a snapshot's knows of seals whose entries are still to come to this replica, and
    another thread that folds what a reader beside the writer has found moves it first.
    """
    manifest = view.manifest
    start = manifest.start_offset
    committed = max(start, view.committed.offset)
    durable = max(view.durable.offset, committed)
    end = max(view.end_offset, durable)
    _, sealed = sealed_end(manifest)

    def shown(limit: int) -> int:
        return max(start, min(limit, committed))

    return Watermarks(
        start=start,
        indexed=shown(indexed_offset(manifest)),
        tiered=shown(manifest.next.offset),
        sealed=shown(sealed),
        committed=committed,
        durable=durable,
        end=end,
    )


def indexed_offset(manifest: Manifest) -> int:
    """Everything below has a bundle."""
    for segment in manifest.segments:
        if segment.bundle is None:
            return segment.base_offset
    return manifest.next.offset
