"""The writing half of the room: bytes, checks, durability."""

from __future__ import annotations

import errno
import functools
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from chronik_store.errors import ChronikError, CorruptionError, DiskFullError, UnavailableError
from chronik_store.format.checksum import content_hash
from chronik_store.format.control import Seal
from chronik_store.format.entry import (
    Entry,
    EntryKind,
    decode_entry_header,
    encode_entry_header,
    iter_entries,
)
from chronik_store.format.manifest_file import SealedRange
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.format.segment_file import decode_segment_header
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.objectstore.layout import segment_key
from chronik_store.segment.reader import SegmentReader
from chronik_store.segment.sealer import SegmentIdentity, write_segment
from chronik_store.segment.source import LocalSegments
from chronik_store.testing.sample_log import SampleLog

IDENTITY = SegmentIdentity("topic", 3, "ab" * 16)
KEY_OF = functools.partial(segment_key, "topic", 3)
PRODUCERS = (
    ProducerEntry(7, 1, 9, 5, 0, 5, 2),
    ProducerEntry(9, 2, 19, 15, 5, 10, 3),
)


def _log(batches: int = 5) -> SampleLog:
    log = SampleLog()
    log.control()
    for number in range(batches):
        log.append([b"%d" % number] * 3, timestamp_us=100 + number)
    return log


def _write(log: SampleLog, directory: Any, fs: Any = None, **changes: Any) -> Any:
    sealed = changes.pop("sealed", None) or log.seal()
    entries = changes.pop("entries", log.entries)
    identity = changes.pop("identity", IDENTITY)
    return write_segment(
        fs or PosixFileSystem(), str(directory), identity, sealed, entries, PRODUCERS, key_of=KEY_OF
    )


def test_equal_entries_give_equal_bytes_and_one_name(tmp_path: Any) -> None:
    infos = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        infos.append(_write(_log(), tmp_path / name))
    assert infos[0] == infos[1]
    files = [[each.name for each in (tmp_path / name).iterdir()] for name in ("a", "b")]
    assert [[infos[0].key.rpartition("/")[2]]] * 2 == files
    contents = [(tmp_path / name / files[0][0]).read_bytes() for name in ("a", "b")]
    assert contents[0] == contents[1]


def test_namesake_topics_give_different_bytes_and_keys(tmp_path: Any) -> None:
    other = IDENTITY._replace(topic_id="cd" * 16)
    assert _write(_log(), tmp_path).key != _write(_log(), tmp_path, identity=other).key


def test_the_file_holds_the_entries_verbatim_between_header_and_footer(tmp_path: Any) -> None:
    log = _log()
    info = _write(log, tmp_path)
    data = (tmp_path / info.key.rpartition("/")[2]).read_bytes()
    header, start = decode_segment_header(data)
    assert ("topic", 3, "ab" * 16, 1, 7, 0, 15) == (
        *(header.topic, header.partition, header.topic_id, header.first_index, header.last_index),
        *(header.base_offset, header.end_offset),
    )
    stored = data[start : info.size_bytes - info.footer_bytes]
    assert b"".join(entry.encode() for entry in log.entries) == stored
    assert len(log.entries) == len(list(iter_entries(stored)))


def test_info_says_what_the_file_is(tmp_path: Any) -> None:
    log = SampleLog(term=4)
    log.append([b"a", b"b"], timestamp_us=50)
    log.append([b"c"], timestamp_us=60, timestamps_us=[7])
    log.append([b"d"], timestamp_us=70, timestamps_us=[700])
    info = _write(log, tmp_path)
    data = (tmp_path / info.key.rpartition("/")[2]).read_bytes()
    assert len(data) == info.size_bytes
    assert content_hash(data) == info.hash
    assert segment_key("topic", 3, 0, 4, 4, info.hash) == info.key
    assert (1, 4, 0, 4, 4, 4) == (
        *(info.first_index, info.last_index, info.base_offset, info.end_offset),
        *(info.term, info.record_count),
    )
    assert (50, 70, 7, 700) == (
        *(info.first_timestamp_us, info.last_timestamp_us),
        *(info.min_timestamp_us, info.max_timestamp_us),
    )


def test_the_footer_carries_the_producers_as_of_the_seal(tmp_path: Any) -> None:
    info = _write(_log(), tmp_path)
    source = LocalSegments(PosixFileSystem(), str(tmp_path)).source(info.key)
    assert PRODUCERS == SegmentReader.open(source, info).footer.producers


def test_memory_is_bounded_by_the_write_buffer_not_by_the_segment(tmp_path: Any) -> None:
    payload = SampleLog().append([b"x" * 10_000]).payload
    count = 3000

    def stream() -> Iterator[Entry]:
        for index in range(1, count + 1):
            yield _entry(EntryKind.RECORDS, index, index - 1, 1, payload)
        yield _entry(EntryKind.SEAL, count + 1, count, 0, Seal(1, "admin", 0).encode())

    sealed = SealedRange(1, count + 1, 0, count, term=1, sealed_us=0, timestamp_us=5)
    tracemalloc.start()
    info = _write(SampleLog(), tmp_path, sealed=sealed, entries=stream())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert info.size_bytes > 30_000_000
    assert peak < 4_000_000


def _entry(kind: int, index: int, offset: int, count: int, payload: Any, time: int = 5) -> Entry:
    head = encode_entry_header(kind, 1, index, offset, count, time, payload)
    return Entry(decode_entry_header(head), payload)


def _missing_entry(entries: list[Entry]) -> list[Entry]:
    return entries[:2] + entries[3:]


def _swapped_entries(entries: list[Entry]) -> list[Entry]:
    return [entries[0], entries[2], entries[1], *entries[3:]]


def _without_seal(entries: list[Entry]) -> list[Entry]:
    return entries[:-1]


def _without_first(entries: list[Entry]) -> list[Entry]:
    return entries[1:]


def _flipped_payload(entries: list[Entry]) -> list[Entry]:
    payload = bytearray(entries[2].payload)
    payload[-1] ^= 1
    return [*entries[:2], entries[2]._replace(payload=bytes(payload)), *entries[3:]]


def _one_too_many(entries: list[Entry]) -> list[Entry]:
    last = entries[-1].header
    return [*entries, _entry(EntryKind.NOOP, last.index + 1, last.end_offset, 0, b"", 200)]


def _time_goes_back(entries: list[Entry]) -> list[Entry]:
    header = entries[3].header
    early = _entry(EntryKind.RECORDS, header.index, header.base_offset, 3, entries[3].payload, 1)
    return [*entries[:3], early, *entries[4:]]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_missing_entry, "expected entry 3"),
        (_swapped_entries, "expected entry 2"),
        (_without_seal, "the entries end at index 6"),
        (_without_first, "expected entry 1"),
        (_flipped_payload, "checksum"),
        (_one_too_many, "the entries end at index 8"),
        (_time_goes_back, "goes back"),
        (lambda _entries: [], "the entries end at index 0"),
    ],
)
def test_what_is_not_the_sealed_range_is_refused_and_leaves_nothing(
    tmp_path: Any, spoil: Any, says: str
) -> None:
    log = _log()
    sealed = log.seal()
    with pytest.raises(CorruptionError, match=says) as caught:
        _write(log, tmp_path, sealed=sealed, entries=spoil(log.entries))
    assert caught.value.path
    assert [] == list(tmp_path.iterdir())


def test_a_last_entry_that_is_no_seal_of_that_term_is_refused(tmp_path: Any) -> None:
    log = _log()
    sealed = log.seal()._replace(term=2)
    with pytest.raises(CorruptionError, match="expected the SEAL of term 2"):
        _write(log, tmp_path, sealed=sealed)
    log = _log()
    log.control()
    sealed = _log().seal()
    with pytest.raises(CorruptionError, match="expected the SEAL"):
        _write(log, tmp_path, sealed=sealed)


class _FailingFile:
    def __init__(self, file: Any, failing: str, error: OSError) -> None:
        self._file, self._failing, self._error = file, failing, error

    def __getattr__(self, name: str) -> Any:
        if name == self._failing:
            raise self._error
        return getattr(self._file, name)


class _FailingDisk(PosixFileSystem):
    def __init__(self, failing: str, error: OSError) -> None:
        self.failing, self.error = failing, error

    def create(self, path: str) -> Any:
        return _FailingFile(super().create(path), self.failing, self.error)

    def rename(self, source: str, target: str) -> None:
        if self.failing == "rename":
            raise self.error
        super().rename(source, target)

    def sync_directory(self, path: str) -> None:
        if self.failing == "sync_directory":
            raise self.error
        super().sync_directory(path)


@pytest.mark.parametrize("failing", ["write_at", "sync_all", "rename", "sync_directory"])
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, DiskFullError),
        (errno.EDQUOT, DiskFullError),
        (errno.EIO, UnavailableError),
    ],
)
def test_a_failing_disk_gives_a_typed_error_and_the_next_try_succeeds(
    tmp_path: Any, failing: str, number: int, expected: type[ChronikError]
) -> None:
    log = _log()
    sealed = log.seal()
    with pytest.raises(expected) as caught:
        _write(log, tmp_path, _FailingDisk(failing, OSError(number, "no")), sealed=sealed)
    assert isinstance(caught.value.__cause__, OSError)
    info = _write(log, tmp_path, sealed=sealed)
    assert [info.key.rpartition("/")[2]] == [each.name for each in tmp_path.iterdir()]


def test_an_error_of_the_entries_leaves_as_it_is_and_nothing_behind(tmp_path: Any) -> None:
    log = _log()
    sealed = log.seal()

    def stream() -> Any:
        yield log.entries[0]
        raise UnavailableError("the WAL cannot be read")

    with pytest.raises(UnavailableError, match="the WAL cannot be read"):
        _write(log, tmp_path, sealed=sealed, entries=stream())
    assert [] == list(tmp_path.iterdir())


def test_a_leftover_temporary_file_and_an_earlier_result_are_replaced(tmp_path: Any) -> None:
    log = _log()
    sealed = log.seal()
    leftover = tmp_path / "sealing-00000000000000000000.tmp"
    leftover.write_bytes(b"half")
    first = _write(log, tmp_path, sealed=sealed)
    assert not leftover.exists()
    assert first == _write(log, tmp_path, sealed=sealed)
    assert 1 == len(list(tmp_path.iterdir()))


def test_small_entries_are_gathered_into_few_writes(tmp_path: Any) -> None:
    writes = []

    class Counting(_FailingDisk):
        def create(self, path: str) -> Any:
            file = PosixFileSystem.create(self, path)
            original = file.write_at

            class Wrapper(_FailingFile):
                def write_at(self, position: int, buffers: Any) -> int:
                    writes.append(len(buffers))
                    return original(position, buffers)

            return Wrapper(file, "", OSError())

    _write(_log(500), tmp_path, Counting("", OSError()))
    assert 1 == len(writes)


def test_sealed_us_is_the_seals_clock_and_part_of_the_identity(tmp_path: Any) -> None:
    log = _log()
    sealed = log.seal()
    one = _write(log, tmp_path, sealed=sealed)
    other = _write(log, tmp_path, sealed=sealed._replace(sealed_us=sealed.sealed_us + 1))
    assert sealed.sealed_us == one.sealed_us
    assert one.hash != other.hash
