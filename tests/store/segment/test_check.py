"""The full check: no byte of the file can change without it saying so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from chronik_store.errors import ChronikError, CorruptionError, FutureVersionError
from chronik_store.segment.check import check_segment
from chronik_store.testing.sample_log import SampleLog


def test_a_healthy_file_passes_and_its_entries_are_counted(seal: Callable[..., Any]) -> None:
    sealed = seal(SampleLog.mixed(50))
    assert check_segment(sealed.file, sealed.info, sealed.identity) == len(sealed.log.entries)


def test_a_flip_of_any_byte_is_found(seal: Callable[..., Any]) -> None:
    sealed = seal(SampleLog.mixed(8))
    for position in range(len(sealed.data)):
        data = bytearray(sealed.data)
        data[position] ^= 1 << position % 8
        sealed.source.data = bytes(data)
        with pytest.raises((CorruptionError, FutureVersionError)):
            check_segment(sealed.source, sealed.info, sealed.identity)


def test_a_healthy_file_of_other_content_or_identity_is_refused(seal: Callable[..., Any]) -> None:
    sealed = seal(SampleLog.mixed(8))
    info = sealed.info
    for changed, identity in (
        (dataclasses.replace(info, hash="0" * 16), sealed.identity),
        (dataclasses.replace(info, term=9), sealed.identity),
        (dataclasses.replace(info, sealed_us=9), sealed.identity),
        (info, sealed.identity._replace(topic_id="cd" * 16)),
        (info, sealed.identity._replace(partition=4)),
    ):
        with pytest.raises(CorruptionError) as caught:
            check_segment(sealed.source, changed, identity, path="/there")
        assert caught.value.path == "/there"
        assert caught.value.offset_range == (info.base_offset, info.end_offset)


def test_bytes_behind_the_footer_or_missing_before_it_are_refused(seal: Callable[..., Any]) -> None:
    sealed = seal(SampleLog.mixed(8))
    for data in (sealed.data + b"\0", sealed.data[:-1], sealed.data[1:]):
        sealed.source.data = data
        with pytest.raises(ChronikError):
            check_segment(sealed.source, sealed.info, sealed.identity)
