"""One value of each structure that Chronik stores, with its codec: subjects of the golden files.

A sample's bytes stand in `golden/v1/<name>.bin`. They were written once and are never rewritten:
a later Chronik must read them, and write the same bytes, for as long as it knows version 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chronik_store.errors import CorruptionError
from chronik_store.format import control, frame
from chronik_store.format.checkpoint import Checkpoint, decode_checkpoint
from chronik_store.format.checksum import Buffer
from chronik_store.format.control import Command, decode_command
from chronik_store.format.entry import Entry, EntryKind, encode_entry_header, iter_entries
from chronik_store.format.frame import FrameKind, Marks
from chronik_store.format.manifest_file import (
    EMPTY_BASE,
    GarbageItem,
    IntentItem,
    LogBase,
    Manifest,
    ManifestObject,
    SealedRange,
    decode_manifest_object,
)
from chronik_store.format.producer_state import (
    ProducerEntry,
    decode_producers,
    encode_producers,
)
from chronik_store.format.record_batch import RecordBatch
from chronik_store.format.segment_file import (
    SegmentFooter,
    SegmentHeader,
    decode_segment_footer,
    decode_segment_header,
    sparse_index,
)
from chronik_store.format.segment_info import BundleInfo, SegmentInfo
from chronik_store.format.store_file import (
    StoreIdentity,
    TopicCatalog,
    TopicEntry,
    decode_store_identity,
    decode_topic_catalog,
)
from chronik_store.format.wal_file import WalFileHeader, WalLog, decode_wal_file_header

TOPIC_ID = "00112233445566778899aabbccddeeff"
LOG_ID = "f0e1d2c3b4a5968778695a4b3c2d1e0f"
NOON_US = 1_700_000_000_000_000
FILE_ID = 0x0123_4567_89AB_CDEF


@dataclass(frozen=True)
class Sample:
    """A value, how it is written, how it is read. `trailing`: other bytes may follow it."""

    name: str
    value: Any
    encode: Callable[[], bytes]
    decode: Callable[[Buffer], Any]
    trailing: bool = False
    reproducible: bool = True


def batch(**options: Any) -> RecordBatch:
    return RecordBatch.build([b"first", b"", b"the third value"], **options)


FULL_BATCH = batch(
    keys=[b"key", None, b""],
    timestamps_us=[NOON_US, NOON_US - 5, NOON_US + 1_000_000],
    headers=[(("trace", b"\x01\x02"), ("trace", b"")), (), (("größe", b"3"),)],
    producer_id=7,
    producer_epoch=2,
    base_sequence=41,
)
BUNDLE = BundleInfo(
    key="indexes/orders/partition-0/0-3-4-89abcdef01234567.tar.gz",
    size_bytes=3456,
    hash="89abcdef01234567",
    engine="0.27.0",
    document_count=3,
    min_timestamp_us=NOON_US - 5,
    max_timestamp_us=NOON_US + 1_000_000,
    json_paths=("level", "user.id"),
    json_paths_truncated=False,
)
SEGMENT = SegmentInfo(
    key="segments/orders/0/0-3-4-0123456789abcdef.seg",
    first_index=1,
    last_index=3,
    base_offset=0,
    end_offset=3,
    term=4,
    size_bytes=1234,
    hash="0123456789abcdef",
    record_count=3,
    first_timestamp_us=NOON_US,
    last_timestamp_us=NOON_US + 1_000_000,
    min_timestamp_us=NOON_US - 5,
    max_timestamp_us=NOON_US + 1_000_000,
    footer_bytes=321,
    sealed_us=NOON_US + 2_000_000,
    bundle=BUNDLE,
    added_index=5,
)
PRODUCERS = (
    ProducerEntry(7, 2, 43, 41, 0, 3, 2),
    ProducerEntry((1 << 64) - 1, 0, 0, 0, 3, 4, 4),
)
MEMBERS = control.Members(("node-1", "node-2", "node-3"), ("node-4",))
FENCED = control.Fenced(TOPIC_ID, 9, "restored elsewhere")
MANIFEST = Manifest(
    topic="orders",
    partition=0,
    topic_id=TOPIC_ID,
    log_id=LOG_ID,
    generation=9,
    start_offset=1,
    next=LogBase(3, 4, 3, NOON_US + 1_000_000),
    segments=(SEGMENT,),
    sealed=(SealedRange(4, 6, 3, 8, 4, NOON_US + 3_000_000, NOON_US + 2_500_000),),
    garbage=(GarbageItem("segments/orders/0/old.seg", NOON_US, 2),),
    intents=(IntentItem(("segments/orders/0/new.seg",), 4, 4, 7, NOON_US),),
    published_number=8,
    published_folded_to=7,
    published_hash="fedcba9876543210",
    published_generation=7,
    fenced=FENCED,
    cursors=(("billing", 2), ("search", 3)),
    open_first_index=7,
)
COMMANDS: tuple[Command, ...] = (
    control.Noop(),
    control.Seal(1, "size", NOON_US),
    control.Intent((SEGMENT.key, BUNDLE.key), NOON_US, 1),
    control.AddSegment(SEGMENT),
    control.AddIndex(SEGMENT.key, None, BUNDLE, NOON_US),
    control.Published(8, 7, "fedcba9876543210", NOON_US),
    control.DropPrefix(3, "retention", NOON_US),
    control.Collected(("segments/orders/0/old.seg",)),
    control.CursorSet("billing", 3, reset=True),
    MEMBERS,
    FENCED,
)
MARKS = Marks(synced_seq=40, synced_file=17, synced_position=8192, committed_index=2)
CHECKPOINT = Checkpoint(
    log_id=LOG_ID,
    term=4,
    vote="node-2",
    base=LogBase(3, 4, 3, NOON_US),
    committed_index=7,
    manifest=MANIFEST,
    manifest_folded_to=7,
    producers=PRODUCERS,
    producers_folded_to=7,
    members=MEMBERS,
    members_index=6,
    previous_end=(17, 40, 8192),
    suspect=True,
    owner="cluster-a/node-1",
    boot_id="5e1f",
)


def entry(kind: EntryKind, payload: Buffer, index: int = 2) -> bytes:
    count = 3 if kind is EntryKind.RECORDS else 0
    return encode_entry_header(kind, 4, index, 0, count, NOON_US, payload) + bytes(payload)


def decode_entry(data: Buffer) -> Entry:
    entries = [Entry(header, bytes(payload)) for header, payload in iter_entries(data)]
    if len(entries) != 1:
        raise CorruptionError(f"{len(entries)} entries")
    return entries[0]


def command_sample(command: Command) -> Sample:
    name = f"entry_{command.KIND.name.lower()}"

    def decode(data: Buffer) -> Command:
        header, payload = decode_entry(data)
        return decode_command(header.kind, payload)

    return Sample(name, command, lambda: entry(command.KIND, command.encode()), decode)


def frame_sample(kind: FrameKind, payload: bytes, value: Any, read: Callable[..., Any]) -> Sample:
    """In a file of its own at position 0."""

    def encode() -> bytes:
        return frame.encode_frame(kind, 0, 41, 0, MARKS, FILE_ID, payload)

    def decode(data: Buffer) -> Any:
        view = memoryview(data)
        found = frame.decode_frame(view, 0, file_id=FILE_ID)
        if found is None or found.next_position > len(view):
            raise CorruptionError("no frame")
        return found.kind, found.seq, found.marks, read(view, found)

    return Sample(f"frame_{kind.name.lower()}", (kind, 41, MARKS, value), encode, decode, True)


def batch_sample(
    name: str, make: Callable[[], RecordBatch], *, reproducible: bool = True
) -> Sample:
    return Sample(
        name,
        make(),
        lambda: make().buffer,
        RecordBatch.from_buffer,
        reproducible=reproducible,
    )


SAMPLES = (
    batch_sample("batch_one", lambda: RecordBatch.build([b"hello"])),
    batch_sample("batch_three", batch),
    batch_sample("batch_full", lambda: FULL_BATCH),
    batch_sample(
        "batch_zstd",
        lambda: RecordBatch.build([b"again and again "] * 12, compression="zstd"),
        reproducible=False,  # other versions of zstd find other bytes
    ),
    Sample(
        "entry_records",
        decode_entry(entry(EntryKind.RECORDS, FULL_BATCH.buffer)),
        lambda: entry(EntryKind.RECORDS, FULL_BATCH.buffer),
        decode_entry,
    ),
    *map(command_sample, COMMANDS),
    frame_sample(
        FrameKind.ENTRY,
        entry(EntryKind.RECORDS, FULL_BATCH.buffer),
        FULL_BATCH.buffer,
        lambda view, found: bytes(frame.frame_entry(view, found)[1]),
    ),
    frame_sample(
        FrameKind.HARD_STATE,
        frame.encode_hard_state(4, "node-2"),
        (4, "node-2"),
        lambda view, found: frame.decode_hard_state(frame.frame_payload(view, found)),
    ),
    frame_sample(
        FrameKind.TRUNCATE,
        frame.encode_truncate(12),
        12,
        lambda view, found: frame.decode_truncate(frame.frame_payload(view, found)),
    ),
    frame_sample(
        FrameKind.CHECKPOINT,
        CHECKPOINT.encode(),
        CHECKPOINT,
        lambda view, found: decode_checkpoint(frame.frame_payload(view, found)),
    ),
    frame_sample(FrameKind.MARK, b"", None, lambda view, found: None),
    frame_sample(
        FrameKind.SUSPECT,
        frame.encode_suspect(True),
        True,
        lambda view, found: frame.decode_suspect(frame.frame_payload(view, found)),
    ),
    Sample("checkpoint", CHECKPOINT, CHECKPOINT.encode, decode_checkpoint),
    Sample(
        "checkpoint_first",
        (
            first := Checkpoint(
                log_id=LOG_ID,
                term=1,
                vote="",
                base=EMPTY_BASE,
                committed_index=0,
                manifest=Manifest("orders", 0, TOPIC_ID, LOG_ID),
                manifest_folded_to=0,
            )
        ),
        first.encode,
        decode_checkpoint,
    ),
    Sample(
        "wal_file_header",
        (
            header := WalFileHeader(
                file_id=FILE_ID,
                file_seq=41,
                topic="orders",
                partition=0,
                topic_id=TOPIC_ID,
                log_id=LOG_ID,
                owner="local",
                logs=(WalLog(1, "orders", 1, TOPIC_ID, TOPIC_ID),),
            )
        ),
        header.encode,
        decode_wal_file_header,
        trailing=True,
    ),
    Sample(
        "manifest",
        (
            published := ManifestObject(
                manifest=MANIFEST,
                term=4,
                folded_to=9,
                predecessor_hash="fedcba9876543210",
                successor=TOPIC_ID,
                producers=PRODUCERS,
                members=MEMBERS,
            )
        ),
        published.encode,
        decode_manifest_object,
    ),
    Sample(
        "manifest_empty",
        (
            empty := ManifestObject(
                Manifest("orders", 0, TOPIC_ID, LOG_ID), 1, 0, "0000000000000000"
            )
        ),
        empty.encode,
        decode_manifest_object,
    ),
    Sample("producers", PRODUCERS, lambda: encode_producers(PRODUCERS), decode_producers),
    Sample(
        "segment_header",
        (segment_header := SegmentHeader("orders", 0, TOPIC_ID, 1, 3, 0, 3, 4, NOON_US)),
        segment_header.encode,
        lambda data: decode_segment_header(data)[0],
        trailing=True,
    ),
    Sample(
        "segment_footer",
        (
            footer := SegmentFooter(
                first_index=1,
                last_index=3,
                base_offset=0,
                end_offset=3,
                entry_count=3,
                record_count=3,
                first_timestamp_us=NOON_US,
                last_timestamp_us=NOON_US + 1_000_000,
                min_timestamp_us=NOON_US - 5,
                max_timestamp_us=NOON_US + 1_000_000,
                entries_start=150,
                entries_end=913,
                index=sparse_index(
                    [(0, 1, NOON_US, 150), (0, 2, NOON_US, 223), (3, 3, NOON_US, 800)]
                ),
                producers=PRODUCERS,
            )
        ),
        footer.encode,
        decode_segment_footer,
    ),
    Sample(
        "store_identity",
        (identity := StoreIdentity(1, TOPIC_ID, "s3://bucket/prefix", NOON_US, "cluster-a/node-1")),
        identity.encode,
        decode_store_identity,
    ),
    Sample(
        "topic_catalog",
        (
            catalog := TopicCatalog(
                (
                    TopicEntry("clicks", LOG_ID, 64, "deleting"),
                    TopicEntry("orders", TOPIC_ID, 3, "live"),
                )
            )
        ),
        catalog.encode,
        decode_topic_catalog,
    ),
)
