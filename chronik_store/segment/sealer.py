"""Sealing: the entries up to a SEAL become one immutable local file.

Place: the writing half of the `segment` room; the pipeline streams entries in and puts the file
into the bucket. Promise: deterministic (no clock, no chance, no host in the bytes), so a successor
derives the same key and adopts finished work; bounded memory (one buffer, one entry, the footer);
what is written was verified and runs on in index and offset without a gap. Invariant: the final
name appears only after every byte is durable (temporary name, fsync, rename, directory fsync).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from chronik_store.errors import ChronikError, CorruptionError, DiskFullError, UnavailableError
from chronik_store.format.checksum import Buffer, Hasher
from chronik_store.format.entry import Entry, EntryKind, pack_header, verify_payload
from chronik_store.format.manifest_file import SealedRange, SegmentInfo
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.format.segment_file import SegmentHeader
from chronik_store.fs.base import SYNC_BYTES
from chronik_store.segment.sparse import FooterBuilder

WRITE_BYTES = 1 << 20
"""Entries are gathered to at least this much before a write."""
_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNFINISHED = ".tmp"

NameSegment = Callable[[int, int, int, str], str]
"""(base_offset, end_offset, term, content_hash) -> object key."""


class SegmentFile(Protocol):
    """What is asked of the file that a segment is written into: a part of `fs.base.File`."""

    def write_at(self, position: int, buffers: Sequence[Buffer], /) -> int: ...
    def sync_data(self) -> None: ...
    def sync_all(self) -> None: ...
    def close(self) -> None: ...


class SegmentDirectory(Protocol):
    """What is asked of the file system around it: a part of `fs.base.FileSystem`."""

    def create(self, path: str, /) -> SegmentFile: ...
    def remove(self, path: str, /) -> None: ...
    def rename(self, source: str, target: str, /) -> None: ...
    def sync_directory(self, path: str, /) -> None: ...


class SegmentIdentity(NamedTuple):
    """Whose segment it is. The topic id keeps namesakes' bytes, hashes and keys apart."""

    topic: str
    partition: int
    topic_id: str


def write_segment(
    fs: SegmentDirectory,
    directory: str,
    identity: SegmentIdentity,
    sealed: SealedRange,
    entries: Iterable[Entry],
    producers: Sequence[ProducerEntry],
    *,
    key_of: NameSegment,
) -> SegmentInfo:
    """Write the sealed range into `directory` (which exists) and return what the manifest needs.

    `entries` are exactly those of `sealed`, the SEAL last; `producers` the state as of the SEAL.
    Blocks; one call per directory at a time (a leftover temporary file is replaced).
    Errors: CorruptionError (entries damaged, missing or out of order), DiskFullError,
    UnavailableError, and what `entries` raises; after any of them nothing new is visible.
    """
    temporary = f"{directory}/sealing-{sealed.base_offset:020}{_UNFINISHED}"
    try:
        with suppress(FileNotFoundError):
            fs.remove(temporary)
        writer = _Writer(fs.create(temporary))
        try:
            info = _write(writer, identity, sealed, entries, producers, key_of, temporary)
        except BaseException:
            writer.file.close()
            _forget(fs, temporary)
            raise
        writer.file.close()
        fs.rename(temporary, f"{directory}/{info.key.rpartition('/')[2]}")
        fs.sync_directory(directory)
    except OSError as error:
        raise _translated(error, temporary) from error
    return info


def is_unfinished(name: str) -> bool:
    """A file of `write_segment` that is no segment yet: being written, or left by a crash."""
    return name.startswith("sealing-") and name.endswith(_UNFINISHED)


class _Writer:
    """A file and the hash of all that went into it; buffers are gathered, never copied."""

    def __init__(self, file: SegmentFile) -> None:
        self.file = file
        self.hasher = Hasher()
        self.position = 0
        self._synced_to = 0
        self._buffers: list[Buffer] = []
        self._pending_bytes = 0

    def add(self, buffer: Buffer) -> None:
        self.hasher.update(buffer)
        self._buffers.append(buffer)
        self._pending_bytes += len(buffer)
        if self._pending_bytes >= WRITE_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._buffers:
            self.position += self.file.write_at(self.position, self._buffers)
            self._buffers = []
            self._pending_bytes = 0
        if self.position - self._synced_to >= SYNC_BYTES:
            self.file.sync_data()
            self._synced_to = self.position


def _write(
    writer: _Writer,
    identity: SegmentIdentity,
    sealed: SealedRange,
    entries: Iterable[Entry],
    producers: Sequence[ProducerEntry],
    key_of: NameSegment,
    path: str,
) -> SegmentInfo:
    header = SegmentHeader(
        *identity,
        first_index=sealed.first_index,
        last_index=sealed.last_index,
        base_offset=sealed.base_offset,
        end_offset=sealed.end_offset,
        term=sealed.term,
        sealed_us=sealed.sealed_us,
    ).encode()
    writer.add(header)
    builder = FooterBuilder(sealed.first_index, sealed.base_offset, len(header))
    last: Entry | None = None
    for entry in entries:
        verify_payload(entry.header, entry.payload, path=path)
        builder.add(entry.header, entry.payload, path=path)
        writer.add(pack_header(entry.header))
        writer.add(entry.payload)
        last = entry
    _check_end(sealed, last, builder, path)
    footer = builder.footer(tuple(producers))
    footer_bytes = footer.encode()
    writer.add(footer_bytes)
    writer.flush()
    writer.file.sync_all()
    digest = writer.hasher.digest_hex()
    return SegmentInfo(
        key=key_of(sealed.base_offset, sealed.end_offset, sealed.term, digest),
        first_index=sealed.first_index,
        last_index=sealed.last_index,
        base_offset=sealed.base_offset,
        end_offset=sealed.end_offset,
        term=sealed.term,
        size_bytes=writer.position,
        hash=digest,
        record_count=footer.record_count,
        first_timestamp_us=footer.first_timestamp_us,
        last_timestamp_us=footer.last_timestamp_us,
        min_timestamp_us=footer.min_timestamp_us,
        max_timestamp_us=footer.max_timestamp_us,
        footer_bytes=len(footer_bytes),
        sealed_us=sealed.sealed_us,
    )


def _check_end(sealed: SealedRange, last: Entry | None, builder: FooterBuilder, path: str) -> None:
    """The SEAL itself must come last, where the sealed range says, in the term it says."""
    ends = (builder.next_index - 1, builder.next_offset)
    if last is None or ends != (sealed.last_index, sealed.end_offset):
        raise CorruptionError(
            f"{path}: the entries end at index {ends[0]}, offset {ends[1]}; the SEAL is at index "
            f"{sealed.last_index}, offset {sealed.end_offset}",
            path=path,
            offset_range=(sealed.base_offset, sealed.end_offset),
        )
    if last.header.kind != EntryKind.SEAL or last.header.term != sealed.term:
        raise CorruptionError(
            f"{path}: entry {last.header.index} is of kind {last.header.kind} and term "
            f"{last.header.term}, expected the SEAL of term {sealed.term}",
            path=path,
            offset_range=(sealed.base_offset, sealed.end_offset),
        )


def _forget(fs: SegmentDirectory, temporary: str) -> None:
    """Remove the half-written file; the error under way says more than one from here would."""
    with suppress(OSError):
        fs.remove(temporary)


def _translated(error: OSError, path: str) -> ChronikError:
    if error.errno in _FULL:
        return DiskFullError(f"{path}: no space to write the segment; it is written again later")
    return UnavailableError(f"{path}: the disk refused the segment: {error}")
