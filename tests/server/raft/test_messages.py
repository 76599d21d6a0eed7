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
from tests.server.raft.alone import entries_of
from tests.store.cluster_log import LOG_ID, TOPIC_ID, control_entry, run_of

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
    InstallSnapshot(9, "n1", 4, SNAPSHOT),
    TimeoutNow(6),
    Beat("boot", 4, 9, 7, (("events/0", 3), ("events/1", 0))),
    BeatAck(4, 9),
]
NAMES = [f"{type(each).__name__}-{n}" for n, each in enumerate(ALL)]


def wire(message: Any) -> tuple[dict[str, Any], bytes]:
    """As the RPC room carries it."""
    header, parts = encode(message)
    return cbor.decode(cbor.encode(header), what="message"), b"".join(parts)


@pytest.mark.parametrize("message", ALL, ids=NAMES)
def test_a_message_comes_out_as_it_went_in(message):
    header, payload = wire(message)
    again = decode(header, payload)

    if isinstance(message, AppendEntries):
        assert isinstance(again, AppendEntries)
        assert [e.encode() for e in message.entries] == [e.encode() for e in again.entries]
        assert encode(message)[0] == encode(again)[0]
    else:
        assert message == again


@pytest.mark.parametrize("message", ALL, ids=NAMES)
def test_a_field_that_is_missing_or_of_another_type_is_refused(message):
    header, payload = wire(message)
    for name in header:
        for value in (None, -1, 1.5, b"x", 1 << 63, [1], {"a": 1}, "y" * 300):
            if name == "claims" and isinstance(value, list) and not value:
                continue
            with pytest.raises(CorruptionError):
                decode({**header, name: value}, payload)
        with pytest.raises(CorruptionError):
            decode({key: header[key] for key in header if key != name}, payload)
    with pytest.raises(CorruptionError):
        decode({**header, "more": 1}, payload)


@pytest.mark.parametrize("message", ALL, ids=NAMES)
def test_any_bytes_are_a_message_or_corruption_never_anything_else(message):
    header, payload = wire(message)
    rng = random.Random(1)
    for _ in range(300):
        data = bytearray(payload or b"....")
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        cut = bytes(data[: rng.randint(0, len(data))])
        try:
            decode(header, cut)
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
