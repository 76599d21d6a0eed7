"""WAL file header, checkpoint, manifest, producers, segment file, store file: what is their own."""

from __future__ import annotations

import dataclasses

import pytest

from chronik_store.errors import CorruptionError
from chronik_store.format import store_file
from chronik_store.format.checkpoint import decode_checkpoint
from chronik_store.format.envelope import Kind, seal, seal_value
from chronik_store.format.manifest_file import ManifestObject, decode_manifest_object
from chronik_store.format.producer_state import (
    ProducerEntry,
    decode_producers,
    encode_producers,
)
from chronik_store.format.segment_file import (
    SEGMENT_TRAILER_BYTES,
    SegmentFooter,
    SegmentHeader,
    decode_segment_footer,
    decode_segment_header,
    decode_segment_trailer,
    sparse_index,
)
from chronik_store.format.store_file import TopicCatalog, TopicEntry, decode_topic_catalog
from chronik_store.format.wal_file import WalFileHeader, WalLog, decode_wal_file_header
from tests.format.samples import CHECKPOINT, LOG_ID, MANIFEST, PRODUCERS, SEGMENT, TOPIC_ID

WAL_HEADER = WalFileHeader(5, 1, "t", 0, TOPIC_ID, LOG_ID, "local")


def test_a_wal_header_takes_whole_sectors() -> None:
    long = dataclasses.replace(
        WAL_HEADER,
        topic="x" * 200,
        owner="y" * 255,
        logs=tuple(WalLog(n, "t", n, TOPIC_ID, LOG_ID) for n in range(1, 20)),
    )

    assert 512 == WAL_HEADER.header_bytes == len(WAL_HEADER.encode())
    assert 0 == long.header_bytes % 512
    for header in (WAL_HEADER, long):
        frames = header.encode() + b"frames"
        assert header == decode_wal_file_header(frames)
        assert b"frames" == frames[decode_wal_file_header(frames).header_bytes :]


def test_a_wal_header_with_something_in_its_padding_is_refused() -> None:
    data = bytearray(WAL_HEADER.encode())
    data[-1] = 1

    with pytest.raises(CorruptionError, match="padding"):
        decode_wal_file_header(data)


def test_a_wal_header_not_as_we_would_write_it_is_refused() -> None:
    data = WAL_HEADER.encode()
    body = data[24 : 24 + int.from_bytes(data[16:24], "little")]
    longer = body.replace(b"\x67file_id\x05", b"\x67file_id\x18\x05")  # 5 in two bytes
    resealed = seal(Kind(data[:4], 1, ""), longer)

    assert len(longer) == len(body) + 1
    with pytest.raises(CorruptionError, match="canonical"):
        decode_wal_file_header(resealed + bytes(-len(resealed) % 512))


def test_the_first_checkpoint_has_nothing_before_it() -> None:
    first = dataclasses.replace(CHECKPOINT, previous_end=None, members=None, producers=())

    assert first == decode_checkpoint(first.encode())


def test_cursors_out_of_order_are_neither_written_nor_read() -> None:
    wrong = dataclasses.replace(MANIFEST, cursors=(("b", 1), ("a", 2)))

    with pytest.raises(ValueError, match="cursors are not sorted"):
        ManifestObject(wrong, 1, 1, "0" * 16).encode()


def test_a_manifest_of_many_segments_comes_back() -> None:
    segments = tuple(
        dataclasses.replace(SEGMENT, first_index=n, last_index=n) for n in range(1, 300)
    )
    published = ManifestObject(
        dataclasses.replace(MANIFEST, segments=segments), 1, 1, "0" * 16, producers=PRODUCERS
    )

    assert published == decode_manifest_object(memoryview(published.encode()))


def test_producers_are_written_in_order_of_their_id() -> None:
    data = encode_producers(reversed(PRODUCERS))

    assert PRODUCERS == decode_producers(data)
    assert () == decode_producers(encode_producers([]))


def test_the_last_batches_of_one_producer_stand_in_order_of_index() -> None:
    batches = tuple(
        ProducerEntry(7, epoch, sequence, sequence, index, index + 1, index)
        for index, (epoch, sequence) in enumerate([(0, 8), (0, 9), (1, 0), (1, 1), (1, 2)], 1)
    )

    assert batches == decode_producers(encode_producers(reversed(batches)))


@pytest.mark.parametrize(
    "entries",
    [
        [PRODUCERS[0], PRODUCERS[0]],
        [PRODUCERS[0]._replace(producer_id=0)],
        [PRODUCERS[0]._replace(producer_id=1 << 64)],
        [PRODUCERS[0]._replace(epoch=-1)],
        [PRODUCERS[0]._replace(index=1 << 63)],
    ],
    ids=["twice", "no id", "id too large", "negative", "too large"],
)
def test_producers_that_no_reader_takes_are_not_written(entries: list[ProducerEntry]) -> None:
    with pytest.raises(ValueError, match=r"producer|2\*\*63"):
        encode_producers(entries)


def test_producers_out_of_order_or_cut_are_refused() -> None:
    kind = Kind(b"\xf5CKP", 1, "")
    raw = encode_producers(PRODUCERS)[24:]

    for body in (raw[56:] + raw[:56], raw[:-1], raw[:56] + raw[:56]):
        with pytest.raises(CorruptionError, match="producer state"):
            decode_producers(seal(kind, body))


POINTS = [(0, 1, 50, 150), (0, 2, 50, 200), (9, 3, 60, 999)]
FOOTER = SegmentFooter(1, 5, 0, 12, 5, 12, 50, 70, 1, 2, 150, 2000, sparse_index(POINTS))


def test_a_footer_is_found_from_the_end_of_the_file() -> None:
    tail = FOOTER.encode()
    file = bytes(2000) + tail

    assert (len(tail), len(file)) == decode_segment_trailer(file[-SEGMENT_TRAILER_BYTES:])
    found = decode_segment_footer(memoryview(file)[-len(tail) :])
    assert found == FOOTER
    assert [0, 0, 9] == found.index.offsets.tolist()
    assert [1, 2, 3] == found.index.indexes.tolist()
    assert [50, 50, 60] == found.index.timestamps_us.tolist()
    assert [150, 200, 999] == found.index.positions.tolist()


def test_a_footer_of_another_length_than_its_trailer_says_is_refused() -> None:
    with pytest.raises(CorruptionError, match="segment footer"):
        decode_segment_footer(b"\0" + FOOTER.encode())
    with pytest.raises(CorruptionError, match="segment trailer"):
        decode_segment_trailer(FOOTER.encode()[-SEGMENT_TRAILER_BYTES - 1 :][:-1])


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(0, 1, 50, 151)],
        [(1, 1, 50, 150)],
        [(0, 2, 50, 150)],
        [*POINTS, (9, 3, 60, 1000)],
        [*POINTS, (8, 4, 60, 1000)],
        [*POINTS, (9, 4, 59, 1000)],
        [*POINTS, (9, 4, 60, 999)],
        [*POINTS, (9, 6, 60, 1000)],
        [*POINTS, (13, 5, 60, 1000)],
        [*POINTS, (9, 5, 60, 2000)],
    ],
    ids=lambda points: str(points[-1:]),
)
def test_a_sparse_index_that_misleads_is_not_written(points: list) -> None:
    with pytest.raises(ValueError, match="sparse index"):
        dataclasses.replace(FOOTER, index=sparse_index(points)).encode()


def test_a_point_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="out of range"):
        sparse_index([(0, 1, 1 << 63, 0)])


def test_a_segment_header_says_where_the_entries_start() -> None:
    header = SegmentHeader("t", 0, TOPIC_ID, 1, 3, 0, 3, 4, 5)
    data = header.encode()

    assert (header, len(data)) == decode_segment_header(data + b"entries")
    with pytest.raises(ValueError, match="wrong way round"):
        dataclasses.replace(header, first_index=4).encode()


@pytest.mark.parametrize(
    "names", [["b", "a"], ["a", "a"]], ids=["out of order", "twice the same entry"]
)
def test_a_catalog_is_sorted_and_says_nothing_twice(names: list[str]) -> None:
    catalog = TopicCatalog(tuple(TopicEntry(name, TOPIC_ID, 1, "live") for name in names))

    with pytest.raises(ValueError, match="sorted and different"):
        catalog.encode()


@pytest.mark.parametrize("count", [0, 1, 23, 24, 255, 256, 1000])
def test_a_catalog_that_is_put_together_is_what_the_shape_says(count: int) -> None:
    topics = [TopicEntry(f"t{n:05}", f"{n:032x}", n + 1, "live") for n in range(count)]
    catalog = TopicCatalog(tuple(topics))
    kind, shape = store_file._CATALOG_KIND, store_file._CATALOG
    assert seal_value(kind, shape, catalog) == catalog.encode()
    assert catalog == decode_topic_catalog(catalog.encode())


def test_of_a_catalog_only_what_is_new_is_encoded() -> None:
    """Each topic that is made writes it anew: encoding all of them made a thousand quadratic."""
    topics: tuple[TopicEntry, ...] = ()
    before = store_file._entry_bytes.cache_info().misses
    for number in range(100):
        topics = (*topics, TopicEntry(f"u{number:05}", f"{number:032x}", 1, "live"))
        TopicCatalog(topics).encode()
    assert 100 == store_file._entry_bytes.cache_info().misses - before


def test_namesakes_differ_in_their_id() -> None:
    catalog = TopicCatalog(
        (TopicEntry("a", TOPIC_ID, 1, "deleting"), TopicEntry("a", LOG_ID, 1, "live"))
    )

    assert catalog == decode_topic_catalog(catalog.encode())
