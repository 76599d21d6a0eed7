from __future__ import annotations

import pytest

from chronik_store.errors import CorruptionError
from chronik_store.format import frame
from chronik_store.format.entry import EntryKind, encode_entry_header
from chronik_store.format.frame import FRAME_HEADER_BYTES, FrameKind, Marks
from chronik_store.format.record_batch import RecordBatch

FILE_ID = 0xFEED_F00D_DEAD_BEEF
MARKS = Marks(1, 2, 3, 4)
BATCH = RecordBatch.build([b"hello"])
ENTRY = encode_entry_header(EntryKind.RECORDS, 1, 9, 5, 1, 7, BATCH.buffer) + BATCH.buffer


def encoded(position: int, *, kind: int = FrameKind.ENTRY, payload: bytes = ENTRY) -> bytes:
    return frame.encode_frame(kind, 0, 11, position, MARKS, FILE_ID, payload)


def at(position: int, data: bytes, behind: int = 0) -> memoryview:
    return memoryview(bytes(position) + data + bytes(behind))


def test_a_frame_is_what_was_written() -> None:
    file = at(512, encoded(512), 100)
    found = frame.decode_frame(file, 512, file_id=FILE_ID)

    assert found is not None
    assert (FrameKind.ENTRY, 0, len(ENTRY), 11, 512) == found[:5]
    assert MARKS == found.marks
    assert 512 + FRAME_HEADER_BYTES == found.payload_start
    assert ENTRY == frame.frame_payload(file, found)
    assert 0 == found.next_position % 8
    assert found.next_position == 512 + len(encoded(512))
    header, payload = frame.frame_entry(file, found)
    assert (9, BATCH.buffer) == (header.index, payload)


def test_a_frame_of_another_file_or_place_is_none() -> None:
    data = encoded(512)

    assert frame.decode_frame(at(512, data), 512, file_id=FILE_ID + 1) is None
    assert frame.decode_frame(at(504, data), 504, file_id=FILE_ID) is None


@pytest.mark.parametrize("kind", list(FrameKind))
def test_every_flipped_byte_under_the_checksum_ends_the_frame(kind: FrameKind) -> None:
    data = encoded(0, kind=kind)
    covered = FRAME_HEADER_BYTES + (64 if kind is FrameKind.ENTRY else len(ENTRY))
    for place in range(covered):
        changed = bytearray(data)
        changed[place] ^= 4
        assert frame.decode_frame(memoryview(changed), 0, file_id=FILE_ID) is None


def test_the_rest_of_an_entry_is_proved_by_the_entry() -> None:
    changed = bytearray(encoded(0))
    changed[FRAME_HEADER_BYTES + len(ENTRY) - 1] ^= 4
    file = memoryview(changed)
    found = frame.decode_frame(file, 0, file_id=FILE_ID)

    assert found is not None
    with pytest.raises(CorruptionError, match="checksum"):
        frame.frame_entry(file, found)


def test_an_entry_shorter_than_its_frame_is_refused() -> None:
    file = memoryview(encoded(0, payload=ENTRY + b"\0"))
    found = frame.decode_frame(file, 0, file_id=FILE_ID)

    assert found is not None
    with pytest.raises(CorruptionError, match="frame 11"):
        frame.frame_entry(file, found)


def test_a_frame_that_runs_past_the_end_is_none_but_its_header_can_be_proved() -> None:
    file = memoryview(encoded(0)[: FRAME_HEADER_BYTES + 70])
    peeked = frame.peek_frame(file, 0)

    assert frame.decode_frame(file, 0, file_id=FILE_ID) is None
    assert peeked is not None
    assert frame.is_proved(file, peeked, FILE_ID)


@pytest.mark.parametrize("length", range(FRAME_HEADER_BYTES))
def test_less_than_a_header_is_none(length: int) -> None:
    assert frame.decode_frame(memoryview(encoded(0)[:length]), 0, file_id=FILE_ID) is None


@pytest.mark.parametrize("gap", [0, 8, 65528, 65536, 131072])
def test_the_next_frame_is_found_behind_any_damage(gap: int) -> None:
    file = at(gap, encoded(gap))
    found = frame.find_frame(file, 0, file_id=FILE_ID)

    assert found is not None
    assert gap == found.position
    assert frame.find_frame(file, gap + 1, file_id=FILE_ID) is None


def test_magics_in_the_damage_are_looked_behind() -> None:
    noise = frame.FRAME_MAGIC * 1000
    file = at(0, noise + encoded(len(noise)))

    found = frame.find_frame(file, 0, file_id=FILE_ID)
    assert found is not None
    assert len(noise) == found.position


def test_a_magic_across_two_chunks_is_found() -> None:
    for gap in range(65536 - 8, 65536 + 16, 8):
        found = frame.find_frame(at(gap, encoded(gap)), 8, file_id=FILE_ID)
        assert found is not None
        assert gap == found.position


@pytest.mark.parametrize("place", [0, 5, 65535, 65536, 131071])
def test_the_first_byte_that_is_not_zero(place: int) -> None:
    file = at(place, b"x", 70_000)

    assert place == frame.first_nonzero(file, 0)
    assert frame.first_nonzero(file, place + 1) is None
    assert frame.first_nonzero(file, 0, place) is None


def test_frames_are_padded_to_eight_bytes() -> None:
    for size in range(20):
        data = encoded(0, kind=FrameKind.HARD_STATE, payload=b"x" * size)
        assert len(data) == frame.frame_bytes(size)
        assert 0 == len(data) % 8
        assert bytes(len(data) - FRAME_HEADER_BYTES - size) == frame.padding(size)


@pytest.mark.parametrize("vote", ["", "node-1", "ü" * 127])
def test_hard_states(vote: str) -> None:
    assert (5, vote) == frame.decode_hard_state(frame.encode_hard_state(5, vote))


def test_truncations_and_suspicion() -> None:
    assert 12 == frame.decode_truncate(frame.encode_truncate(12))
    assert [True, False] == [frame.decode_suspect(frame.encode_suspect(x)) for x in (True, False)]


def test_what_could_not_be_read_back_is_not_written() -> None:
    with pytest.raises(ValueError, match="hard state: term -1"):
        frame.encode_hard_state(-1, "")
    with pytest.raises(ValueError, match="hard state: term 1"):
        frame.encode_hard_state(1, "x" * 256)
    with pytest.raises(ValueError, match="index"):
        frame.encode_truncate(0)
    with pytest.raises(ValueError, match="frame 11"):
        encoded(-8)
    with pytest.raises(ValueError, match="frame 11"):
        encoded(0, kind=1 << 16)


@pytest.mark.parametrize(
    ("read", "payload"),
    [
        (frame.decode_hard_state, b""),
        (frame.decode_hard_state, bytes(8) + b"\x02\x00a"),
        (frame.decode_hard_state, b"\xff" * 8 + b"\x00\x00"),
        (frame.decode_hard_state, bytes(8) + b"\x01\x00\xff"),
        (frame.decode_truncate, bytes(8)),
        (frame.decode_truncate, bytes(7)),
        (frame.decode_truncate, b"\xff" * 8),
        (frame.decode_suspect, b"\x02" + bytes(7)),
        (frame.decode_suspect, b""),
    ],
)
def test_malformed_payloads_are_refused(read, payload: bytes) -> None:
    with pytest.raises(CorruptionError):
        read(payload, path="wal")
