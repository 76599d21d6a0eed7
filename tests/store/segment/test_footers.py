"""The cache of footers and the sources under it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from chronik_store.errors import CorruptionError, UnavailableError
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.segment.footers import FooterCache
from chronik_store.segment.source import LocalSegments, SegmentAbsentError
from chronik_store.testing.sample_log import SampleLog
from chronik_store.threads import SystemThreads


def test_a_footer_is_loaded_once_and_serves_every_copy_of_the_segment(
    seal: Callable[..., Any],
) -> None:
    sealed = seal(SampleLog.mixed(8))
    cache = FooterCache(SystemThreads())
    first = cache.get(sealed.info, sealed.source)
    assert cache.get(sealed.info, sealed.file) is first
    assert len(sealed.source.ranges) == 1


def test_a_damaged_footer_is_not_kept(seal: Callable[..., Any]) -> None:
    sealed = seal(SampleLog.mixed(8))
    cache = FooterCache(SystemThreads())
    sealed.source.data = sealed.data[:-40] + bytes(40)
    with pytest.raises(CorruptionError):
        cache.get(sealed.info, sealed.source)
    sealed.source.data = sealed.data
    assert cache.get(sealed.info, sealed.source).record_count == sealed.info.record_count


def test_the_least_recently_used_footers_go_when_the_bytes_are_over(
    seal: Callable[..., Any],
) -> None:
    log = SampleLog()
    segments = []
    for number in range(3):
        log.append([b"%d" % number])
        segments.append(seal(log))
    cache = FooterCache(SystemThreads(), max_bytes=sum(s.info.footer_bytes for s in segments) - 1)
    for sealed in (segments[0], segments[1], segments[0], segments[2]):
        cache.get(sealed.info, sealed.source)
    for sealed in segments:
        sealed.source.ranges.clear()
    for sealed in (segments[0], segments[2], segments[1]):
        cache.get(sealed.info, sealed.source)
    assert [len(sealed.source.ranges) for sealed in segments] == [0, 1, 0]


def test_a_local_file_that_is_gone_is_absent_and_one_that_fails_is_unavailable(
    seal: Callable[..., Any], tmp_path: Any
) -> None:
    sealed = seal(SampleLog.mixed(8))
    segments = LocalSegments(PosixFileSystem(), str(tmp_path))
    assert segments.source(sealed.info.key).read_tail(4) == sealed.data[-4:]
    assert segments.source(sealed.info.key).read_tail(1 << 30) == sealed.data

    class Failing(PosixFileSystem):
        def open(self, path: str, *, write: bool = False) -> Any:
            raise OSError(errno.EIO, "no")

    failing = LocalSegments(Failing(), str(tmp_path)).source(sealed.info.key)
    with pytest.raises(UnavailableError, match="cannot read"):
        failing.read_range(0, 1)
    PosixFileSystem().remove(segments.path_of(sealed.info.key))
    with pytest.raises(SegmentAbsentError):
        segments.source(sealed.info.key).read_range(0, 1)
