"""Importing the package is light, and its names are the contract."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import pytest

import chronik_store as chronik

HEAVY = ("asyncio", "fsspec", "s3fs", "tantivy", "structlog", "rich", "raftos", "pyarrow", "click")


def test_importing_the_package_loads_nothing_heavy():
    program = f"import sys, chronik_store; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert "[]\n" == done.stdout


def test_every_public_name_is_there_and_documented():
    for name in chronik.__all__:
        thing = getattr(chronik, name)
        assert inspect.getdoc(thing), name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError):
        chronik.nonsense  # noqa: B018


SIGNATURES = {
    "LogStore.open": "path object_store config read_only env",
    "LogStore.create_topic": "self name partitions exist_ok",
    "LogStore.delete_topic": "self name",
    "LogStore.topics": "self",
    "LogStore.partition": "self topic partition",
    "LogStore.search": "self topic query options",
    "LogStore.run_pipeline_once": "self",
    "LogStore.status": "self",
    "LogStore.close": "self",
    "PartitionLog.open": "path topic partition object_store config read_only",
    "PartitionLog.append": "self records expected_offset",
    "PartitionLog.append_nowait": "self records expected_offset",
    "PartitionLog.read": "self offset max_records max_bytes wait_seconds",
    "PartitionLog.read_batches": "self offset max_bytes",
    "PartitionLog.scan": "self start stop follow",
    "PartitionLog.search": "self query since until start stop limit order deadline_seconds"
    " require_complete",
    "PartitionLog.offset_for_timestamp": "self time",
    "PartitionLog.cursor": "self name",
    "PartitionLog.drop_before": "self offset",
    "PartitionLog.seal": "self",
    "PartitionLog.run_pipeline_once": "self",
    "PartitionLog.verify": "self bucket deep progress",
    "PartitionLog.status": "self",
    "PartitionLog.close": "self",
    "Cursor.records": "self follow",
    "Cursor.batches": "self max_bytes",
    "Cursor.commit": "self next_offset reset",
    "RecordBatch.build": "values keys timestamps_us headers compression producer_id"
    " producer_epoch base_sequence",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_public_signature_changes_only_on_purpose(name):
    thing = chronik
    for part in name.split("."):
        thing = getattr(thing, part)
    assert SIGNATURES[name].split() == list(inspect.signature(thing).parameters)
