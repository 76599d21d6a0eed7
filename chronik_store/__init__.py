"""Chronik: a durable, tiered, searchable partition log.

A log that a program opens like a database file: `append` returns when the bytes are on disk, and
old data moves itself to object storage, still readable by offset, by time and by full-text search.

    import chronik_store as chronik

    with chronik.PartitionLog.open("./data", topic="events") as log:
        log.append([b"first", b"second"])
        for record in log.scan():
            print(record.offset, record.value)

The plot line, which every part of the library keeps and every test checks:

    start <= indexed <= tiered <= sealed <= committed <= durable <= end

append moves `end`, the sync of the WAL moves `durable`, the log's own quorum moves `committed`, the
sealer `sealed`, the uploader `tiered`, the indexer `indexed`, retention `start`.

What it is not: a broker with consumer groups, a compacted key-value log, a message queue.

Importing this package loads neither asyncio nor fsspec, tantivy, structlog, rich or raftos: each is
loaded by the one module that owns it, on first use.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from chronik_store.bucket_log import open_bucket
from chronik_store.config import LogConfig, S3Options
from chronik_store.cursor import Cursor
from chronik_store.errors import (
    AccessDeniedError,
    BackpressureError,
    ChronikError,
    ConfigError,
    CorruptionError,
    DirectoryLockedError,
    DiskFullError,
    FencedError,
    ForkedError,
    FutureVersionError,
    IdentityMismatchError,
    LogClosedError,
    LogPoisonedError,
    NotReplicatedError,
    OffsetConflictError,
    OffsetOutOfRangeError,
    ProducerSequenceError,
    QueryError,
    ReadOnlyError,
    RecordTooLargeError,
    TopicExistsError,
    TopicNotFoundError,
    UnavailableError,
    UnsafeBucketError,
)
from chronik_store.format.record_batch import RecordBatch, StoredBatch
from chronik_store.log_store import LogStore
from chronik_store.model import (
    AppendResult,
    BundlesFound,
    BundlesRebuilt,
    Coverage,
    FetchResult,
    Finding,
    LogStatus,
    PipelineReport,
    Record,
    RecoveryReport,
    SearchHit,
    SearchResult,
    StoredRecord,
    StoreStatus,
    TopicInfo,
    VerifyReport,
    Watermarks,
)
from chronik_store.partition_log import PartitionLog

# Not on first use: loading the room `restore` would then hide its function of the same name.
from chronik_store.restore import RestoreReport, restore
from chronik_store.restore.takeover import RestoredLog

if TYPE_CHECKING:
    from chronik_store import aio
    from chronik_store.replica import Replica

__version__ = "0.1.0"

__all__ = [
    "AccessDeniedError",
    "AppendResult",
    "BackpressureError",
    "BundlesFound",
    "BundlesRebuilt",
    "ChronikError",
    "ConfigError",
    "CorruptionError",
    "Coverage",
    "Cursor",
    "DirectoryLockedError",
    "DiskFullError",
    "FencedError",
    "FetchResult",
    "Finding",
    "ForkedError",
    "FutureVersionError",
    "IdentityMismatchError",
    "LogClosedError",
    "LogConfig",
    "LogPoisonedError",
    "LogStatus",
    "LogStore",
    "NotReplicatedError",
    "OffsetConflictError",
    "OffsetOutOfRangeError",
    "PartitionLog",
    "PipelineReport",
    "ProducerSequenceError",
    "QueryError",
    "ReadOnlyError",
    "Record",
    "RecordBatch",
    "RecordTooLargeError",
    "RecoveryReport",
    "Replica",
    "RestoreReport",
    "RestoredLog",
    "S3Options",
    "SearchHit",
    "SearchResult",
    "StoreStatus",
    "StoredBatch",
    "StoredRecord",
    "TopicExistsError",
    "TopicInfo",
    "TopicNotFoundError",
    "UnavailableError",
    "UnsafeBucketError",
    "VerifyReport",
    "Watermarks",
    "aio",
    "open_bucket",
    "restore",
]

logging.getLogger("chronik_store").addHandler(logging.NullHandler())


if not TYPE_CHECKING:  # who checks types would take any name that is misspelt for one of these

    def __getattr__(name: str) -> object:
        """`aio` loads asyncio, `Replica` is rarely needed: imported when asked for."""
        import importlib

        if name == "aio":
            return importlib.import_module("chronik_store.aio")
        if name == "Replica":
            return importlib.import_module("chronik_store.replica").Replica
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
