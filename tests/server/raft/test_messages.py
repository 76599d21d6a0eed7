"""Messages on the wire: what goes in comes out, and nothing malformed gets in."""

from __future__ import annotations

import random
from typing import Any

import pytest

from chronik_server.raft import messages
from chronik_server.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Beat,
    BeatAck,
    InstallSnapshot,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
    decode,
    encode,
)
from chronik_store.errors import CorruptionError, FutureVersionError
from chronik_store.format import cbor
from chronik_store.format.control import Members
from chronik_store.format.manifest_file import LogBase
from chronik_store.manifest.state import empty_manifest
from chronik_store.replica import Snapshot
from chronik_store.testing.cluster_log import LOG_ID, TOPIC_ID, control_entry, run_of
from tests.server.raft.alone import entries_of

SNAPSHOT = Snapshot(
    LogBase(0, 0, 0, 0),
    empty_manifest("events", 0, TOPIC_ID, LOG_ID),
    7,
    (),
    Members(("n1",), ("n2",)),
    3,
)
ALL: list[Any] = [
    PreVote(1, 2, 3),
    PreVoteResponse(1, True, False, 2, 3),
    RequestVote(5, "n1", 2, 3, transfer=True),
    RequestVoteResponse(5, vote_granted=False),
    entries_of(3, 4, 2, [*run_of([3, 3], first=5, offset=9), control_entry(3, 7, 11)], commit=4),
    entries_of(3, 4, 2),
    AppendEntriesResponse(3, True, 6, 1, 4, 0, 0, is_suspect=True),
    AppendEntriesResponse(3, True, 6, 1, 4, 0, 0, is_suspect=False, is_full=True),
    InstallSnapshot(9, "n1", 4, SNAPSHOT),
    TimeoutNow(6),
    Beat("boot", 4, 9, 7, (("events/0", 3), ("events/1", 0))),
    BeatAck(4, 9),
]
NAMES = [f"{type(each).__name__}-{n}" for n, each in enumerate(ALL)]


PACKED = (AppendEntries, AppendEntriesResponse)
MAPPED = [each for each in ALL if not isinstance(each, PACKED)]


def wire(message: Any) -> tuple[bytes, bytes]:
    """As the RPC room carries it."""
    head, parts = encode(message)
    return head, b"".join(parts)


def name_of(message: Any) -> str:
    return type(message).__name__


@pytest.mark.parametrize("message", ALL, ids=NAMES)
def test_a_message_comes_out_as_it_went_in(message):
    head, payload = wire(message)
    again = decode(head, payload)

    if isinstance(message, AppendEntries):
        assert isinstance(again, AppendEntries)
        assert [e.encode() for e in message.entries] == [e.encode() for e in again.entries]
        assert encode(message)[0] == encode(again)[0]
    else:
        assert message == again


@pytest.mark.parametrize("message", MAPPED, ids=name_of)
def test_a_field_that_is_missing_or_of_another_type_is_refused(message):
    head, payload = wire(message)
    header = cbor.decode(head, what="message")

    def decoded(fields: Any) -> Any:
        return decode(cbor.encode(fields), payload)

    for name in header:
        for value in (None, -1, 1.5, b"x", 1 << 63, [1], {"a": 1}, "y" * 300):
            if name == "claims" and isinstance(value, list) and not value:
                continue
            with pytest.raises(CorruptionError):
                decoded({**header, name: value})
        with pytest.raises(CorruptionError):
            decoded({key: header[key] for key in header if key != name})
    for other in ({**header, "more": 1}, [header], 7):
        with pytest.raises(CorruptionError):
            decoded(other)
    with pytest.raises(CorruptionError):
        decode(b"", payload)


@pytest.mark.parametrize("message", [ALL[4], ALL[6]], ids=name_of)
def test_a_packed_head_is_exactly_as_long_as_it_says_and_its_numbers_are_in_range(message):
    head, payload = wire(message)
    for cut in range(len(head)):
        with pytest.raises(CorruptionError):
            decode(head[:cut], payload)
    with pytest.raises(CorruptionError):
        decode(head + b"x", payload)
    fixed = 3 if isinstance(message, AppendEntries) else 2
    for number in range(6):
        last = fixed + 8 * number + 7  # the high byte
        with pytest.raises(CorruptionError):
            decode(head[:last] + b"\x80" + head[last + 1 :], payload)


def test_a_packed_head_of_unknown_flags_or_a_name_that_is_no_text_is_refused():
    answer, _ = wire(AppendEntriesResponse(3, True, 6, 1, 4, 0, 0, is_suspect=True))
    with pytest.raises(CorruptionError):
        decode(answer[:1] + b"\x08" + answer[2:], b"")
    with pytest.raises(CorruptionError):
        decode(answer, b"payload")
    beat, _ = wire(entries_of(3, 4, 2))
    with pytest.raises(CorruptionError):
        decode(beat[:-1] + b"\xff", b"")


@pytest.mark.parametrize("message", ALL, ids=NAMES)
def test_any_bytes_are_a_message_or_corruption_never_anything_else(message):
    head, payload = wire(message)
    rng = random.Random(1)
    for _ in range(300):
        data = bytearray(payload or b"....")
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        cut = bytes(data[: rng.randint(0, len(data))])
        try:
            decode(head, cut)
        except (CorruptionError, FutureVersionError):
            pass


def test_entries_travel_without_being_copied():
    message = entries_of(3, 0, 0, run_of([3, 3]))
    _, parts = encode(message)

    assert parts[1] is message.entries[0].payload
    assert parts[3] is message.entries[1].payload


def test_every_message_has_a_kind_of_its_own():
    kinds = [each.KIND for each in messages.Message.__args__]

    assert len(kinds) == len(set(kinds)) == len({type(each) for each in ALL})
