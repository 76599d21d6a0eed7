"""The full check of one segment: every byte, not only those that a read needs.

Place: used by `verify --deep` and before a file is uploaded. Promise: returns only when the file
is exactly what its manifest entry says: content hash, identity, every entry, and a footer equal to
the one that its entries give. Memory: one chunk and the footer.
"""

from __future__ import annotations

from chronik_store.errors import FROM_A_COPY, CorruptionError
from chronik_store.format.checksum import Hasher
from chronik_store.format.manifest_file import SegmentInfo
from chronik_store.format.segment_file import SegmentHeader, decode_segment_header
from chronik_store.segment.reader import SegmentReader
from chronik_store.segment.sealer import SegmentIdentity
from chronik_store.segment.source import ByteSource
from chronik_store.segment.sparse import FooterBuilder


class _HashingSource:
    """Reads ranges in order and hashes what goes by."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.hasher = Hasher()

    def read_range(self, start: int, length: int) -> bytes:
        data = self._source.read_range(start, length)
        self.hasher.update(data)
        return data

    def read_tail(self, length: int) -> bytes:
        return self._source.read_tail(length)


def check_segment(
    source: ByteSource, info: SegmentInfo, identity: SegmentIdentity, *, path: str = ""
) -> int:
    """Verify the whole file against the manifest; returns the number of entries.

    Errors: CorruptionError with path and offset range, and those of the source.
    """
    path = path or info.key
    reading = _HashingSource(source)
    reader = SegmentReader.open(reading, info, path=path)
    footer = reader.footer
    found, end = decode_segment_header(reading.read_range(0, footer.entries_start), path=path)
    expected = SegmentHeader(
        *identity,
        first_index=info.first_index,
        last_index=info.last_index,
        base_offset=info.base_offset,
        end_offset=info.end_offset,
        term=info.term,
        sealed_us=info.sealed_us,
    )
    if found != expected or end != footer.entries_start:
        raise _differs(info, path, f"its header says {found}, expected {expected}")
    builder = FooterBuilder(info.first_index, info.base_offset, end)
    for entry in reader.iterate():
        builder.add(entry.header, entry.payload, path=path)
    reading.read_range(footer.entries_end, info.footer_bytes)
    if builder.footer(footer.producers) != footer:
        raise _differs(info, path, "its footer is not that of its entries")
    if reading.hasher.digest_hex() != info.hash:
        raise _differs(
            info, path, f"its content hash is {reading.hasher.digest_hex()}, expected {info.hash}"
        )
    return footer.entry_count


def _differs(info: SegmentInfo, path: str, message: str) -> CorruptionError:
    return CorruptionError(
        f"{path}: {message}",
        path=path,
        offset_range=(info.base_offset, info.end_offset),
        advice=FROM_A_COPY,
    )
