"""What is inside a file of Chronik's: its structures, one after the other, as plain values.

Place: under `inspect`; reads bytes through `format`, opens nothing. Promise: every structure is
checked as it is taken apart; damage is an item of its own, with its place, and what can be read
behind it is still shown. The first eight bytes of a file say what it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from chronik_store.cli.rendering import json_of
from chronik_store.errors import ChronikError, ConfigError, CorruptionError
from chronik_store.format.checkpoint import decode_checkpoint
from chronik_store.format.checksum import Hasher
from chronik_store.format.control import decode_command
from chronik_store.format.entry import EntryHeader, EntryKind, iter_entries
from chronik_store.format.frame import (
    FrameHeader,
    FrameKind,
    decode_frame,
    decode_hard_state,
    decode_suspect,
    decode_truncate,
    find_frame,
    first_nonzero,
    frame_entry,
    frame_payload,
)
from chronik_store.format.manifest_file import decode_manifest_object
from chronik_store.format.record_batch import StoredBatch
from chronik_store.format.segment_file import (
    SEGMENT_TRAILER_BYTES,
    decode_segment_footer,
    decode_segment_header,
    decode_segment_trailer,
)
from chronik_store.format.store_file import decode_store_identity, decode_topic_catalog
from chronik_store.format.wal_file import decode_wal_file_header
from chronik_store.objectstore.layout import INDEXES_PREFIX, parse_bundle_key
from chronik_store.search.archive import Unpacker
from chronik_store.search.bundle import head_of

Item = tuple[str, dict[str, Any]]
"""(what it is, its fields)"""
DAMAGE = "damage"


def items_of(data: bytes, path: str) -> Iterator[Item]:
    """The structures of one file. ConfigError when the file is none of ours."""
    reader = _READERS.get(data[:4])
    if reader is None and data[:2] == b"\x1f\x8b":
        reader = _bundle
    if reader is None:
        raise ConfigError(
            f"{path} is no WAL file, segment, manifest, bundle, STORE or catalog of Chronik's "
            f"(it starts with {data[:8].hex(' ') or 'nothing'})"
        )
    try:
        yield from reader(data, path)
    except CorruptionError as error:
        yield DAMAGE, {"message": str(error)}


def records_of(data: bytes, path: str) -> Iterator[Item]:
    """The records of a WAL file, as `consume --json` shows them, and its damage; what stands behind
    damage is no part of the log any more, and is shown all the same.

    ConfigError when it is no WAL file.
    """
    if _READERS.get(data[:4]) is not _wal:
        raise ConfigError(f"{path} is no WAL file: records are taken out of one only by --records")
    header = decode_wal_file_header(data, path=path)
    for what, fields in items_of(data, path):
        if what == DAMAGE:
            yield what, fields
        elif fields.get("entry") == EntryKind.RECORDS.name:
            frame = decode_frame(memoryview(data), fields["position"], file_id=header.file_id)
            assert frame is not None
            entry, payload = frame_entry(memoryview(data), frame, path=path)
            for record in StoredBatch(payload, entry.base_offset, entry.timestamp_us).records():
                yield "record", json_of(record, header.topic, header.partition)


def plain(value: Any) -> Any:
    """A decoded value as JSON can carry it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(item) for name, item in value._asdict().items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, memoryview):
        return f"{len(value)} values"
    if isinstance(value, bytes):
        return value.hex()
    return value


# --- WAL files -----------------------------------------------------------------------------------


def _wal(data: bytes, path: str) -> Iterator[Item]:
    header = decode_wal_file_header(data, path=path)
    yield "WAL file", plain(header)
    view = memoryview(data)
    position = header.header_bytes
    while position < len(view):
        frame = decode_frame(view, position, file_id=header.file_id)
        if frame is not None:
            yield _frame(view, frame, path)
            position = frame.next_position
            continue
        if first_nonzero(view, position) is None:
            yield "zeros", {"position": position, "bytes": len(view) - position}
            return
        found = find_frame(view, position + 8, file_id=header.file_id)
        end = len(view) if found is None else found.position
        yield DAMAGE, {"position": position, "bytes": end - position, "message": "no valid frame"}
        position = end


def _frame(view: memoryview, frame: FrameHeader, path: str) -> Item:
    fields: dict[str, Any] = {
        "position": frame.position,
        "seq": frame.seq,
        "synced_seq": frame.synced_seq,
        "committed_index": frame.committed_index,
    }
    kind = FrameKind(frame.kind)
    payload = frame_payload(view, frame)
    try:
        if kind is FrameKind.ENTRY:
            return f"frame {kind.name}", fields | _entry(*frame_entry(view, frame, path=path), path)
        if kind is FrameKind.HARD_STATE:
            fields["term"], fields["vote"] = decode_hard_state(payload, path=path)
        elif kind is FrameKind.TRUNCATE:
            fields["index"] = decode_truncate(payload, path=path)
        elif kind is FrameKind.SUSPECT:
            fields["suspect"] = decode_suspect(payload, path=path)
        elif kind is FrameKind.CHECKPOINT:
            fields["checkpoint"] = plain(decode_checkpoint(payload, path=path))
    except ChronikError as error:
        return DAMAGE, fields | {"frame": kind.name, "message": str(error)}
    return f"frame {kind.name}", fields


def _entry(header: EntryHeader, payload: memoryview, path: str) -> dict[str, Any]:
    kind = EntryKind(header.kind)
    fields: dict[str, Any] = {
        "entry": kind.name,
        "index": header.index,
        "term": header.term,
        "base_offset": header.base_offset,
        "record_count": header.record_count,
        "timestamp_us": header.timestamp_us,
        "payload_bytes": header.payload_bytes,
    }
    if kind is not EntryKind.RECORDS:
        fields["command"] = plain(decode_command(header.kind, payload, path=path))
    return fields


# --- objects -------------------------------------------------------------------------------------


def _segment(data: bytes, path: str) -> Iterator[Item]:
    header, start = decode_segment_header(data, path=path)
    yield "segment", plain(header)
    footer_bytes, file_bytes = decode_segment_trailer(data[-SEGMENT_TRAILER_BYTES:], path=path)
    if file_bytes != len(data):
        raise CorruptionError(f"the file has {len(data)} bytes, its trailer says {file_bytes}")
    footer = decode_segment_footer(data[-footer_bytes:], path=path)
    for entry, payload in iter_entries(memoryview(data)[start : footer.entries_end], path=path):
        yield "entry", _entry(entry, payload, path)
    yield "segment footer", plain(footer)


def _one(what: str, decode: Callable[..., Any]) -> Callable[[bytes, str], Iterator[Item]]:
    def read(data: bytes, path: str) -> Iterator[Item]:
        yield what, plain(decode(data, path=path))

    return read


def _bundle(data: bytes, path: str) -> Iterator[Item]:
    try:
        yield from _unpacked(data, path)
    except CorruptionError as error:
        advice = "run `chronik rebuild-index`, with -s if a node has the directory"
        raise CorruptionError(error.finding, path=path, advice=advice) from error


def _unpacked(data: bytes, path: str) -> Iterator[Item]:
    """What a bundle says of itself, then whether that is so: it is unpacked as for a search."""
    unpacker = Unpacker([data], path=path)
    head = head_of(unpacker, path=path)
    yield "search bundle", {**plain(head), "members": len(head.members)}
    for member in head.members:
        yield "file", {"name": member.name, "bytes": member.size_bytes, "hash": member.hash}
    nowhere: Any = _Nowhere()
    unpacker.extract(nowhere, "", head.members)
    hasher = Hasher()
    hasher.update(data)
    # gzip has a checksum of what is packed, not of the bytes that it is packed in.
    named = parse_bundle_key(path[max(0, path.rfind(INDEXES_PREFIX)) :])
    if named is not None and named.content_hash != hasher.digest_hex():
        raise CorruptionError(
            f"its bytes are not those that it is named by: their hash is {hasher.digest_hex()}",
            path=path,
        )


class _Nowhere:
    """The file system that what is only checked is unpacked into."""

    def create(self, _path: str) -> _Nowhere:
        return self

    def write_at(self, _position: int, buffers: Sequence[bytes]) -> int:
        return sum(map(len, buffers))

    def close(self) -> None:
        """Nothing was opened."""


_READERS: dict[bytes, Callable[[bytes, str], Iterator[Item]]] = {
    b"\xf5CKW": _wal,
    b"\xf5CKS": _segment,
    b"\xf5CKM": _one("manifest", decode_manifest_object),
    b"\xf5CKI": _one("STORE", decode_store_identity),
    b"\xf5CKL": _one("topic catalog", decode_topic_catalog),
}
