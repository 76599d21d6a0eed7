"""The sealer at every crash point and with a failure in every call."""

from __future__ import annotations

import errno
import functools
from contextlib import suppress

import pytest

from chronik_store.errors import DiskFullError, UnavailableError
from chronik_store.format.manifest_file import SealedRange, SegmentInfo
from chronik_store.objectstore.layout import segment_key
from chronik_store.segment.check import check_segment
from chronik_store.segment.sealer import SegmentIdentity, write_segment
from chronik_store.segment.source import LocalSegments
from chronik_store.testing.crash import CrashError, CrashMode
from chronik_store.testing.disk_faults import crash_at, fail_at
from chronik_store.testing.sample_log import SampleLog
from chronik_store.testing.simulated_disk import SimulatedDisk

DIRECTORY = "/data/segments"
IDENTITY = SegmentIdentity("topic", 3, "ab" * 16)
LOG = SampleLog.mixed(20)
SEALED: SealedRange = LOG.seal()


def _write(disk: SimulatedDisk) -> SegmentInfo:
    key_of = functools.partial(segment_key, "topic", 3)
    return write_segment(disk, DIRECTORY, IDENTITY, SEALED, LOG.entries, (), key_of=key_of)


def _new_disk() -> SimulatedDisk:
    disk = SimulatedDisk(seed=5)
    disk.make_directories(DIRECTORY)
    return disk


def _calls() -> tuple[SegmentInfo, int]:
    disk = _new_disk()
    before = disk.calls
    return _write(disk), disk.calls - before


INFO, CALLS = _calls()


@pytest.mark.parametrize("mode", ["none", "all", "torn", "any"])
def test_a_crash_leaves_the_whole_segment_or_no_name_and_the_next_try_succeeds(
    mode: CrashMode,
) -> None:
    for call in range(1, CALLS + 2):
        disk = _new_disk()
        finished = False
        disk.hook = crash_at(disk.calls + call)
        with suppress(CrashError):
            finished = _write(disk) == INFO
        survivor = disk.crash(mode)
        segments = LocalSegments(survivor, DIRECTORY)
        if finished or segments.holds(INFO.key):
            assert check_segment(segments.source(INFO.key), INFO, IDENTITY) == len(LOG.entries)
        assert _write(survivor) == INFO
        assert survivor.list(DIRECTORY) == [INFO.key.rpartition("/")[2]]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_failure_of_any_call_is_typed_shows_no_half_segment_and_leaves_no_open_file(
    code: int,
) -> None:
    for call in range(1, CALLS + 1):
        disk = _new_disk()
        failing = fail_at(disk.calls + call, code)
        operations: list[str] = []

        def hook(number: int, operation: str, path: str) -> None:
            operations.append(operation)  # noqa: B023
            failing(number, operation, path)  # noqa: B023

        disk.hook = hook
        with pytest.raises(DiskFullError if code == errno.ENOSPC else UnavailableError):
            _write(disk)
        segments = LocalSegments(disk, DIRECTORY)
        if segments.holds(INFO.key):
            check_segment(segments.source(INFO.key), INFO, IDENTITY)
        if operations[call - 1] != "close":  # Nothing can be done about a close that fails.
            assert disk.open_files == []
        assert _write(disk) == INFO


def test_a_full_disk_is_refused_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chronik_store.segment.sealer.WRITE_BYTES", 100)
    for capacity_bytes in range(0, INFO.size_bytes, 501):
        disk = SimulatedDisk(seed=5, capacity_bytes=capacity_bytes)
        disk.make_directories(DIRECTORY)
        with pytest.raises(DiskFullError):
            _write(disk)
        assert disk.list(DIRECTORY) == []
        disk.capacity_bytes = None
        assert _write(disk) == INFO
