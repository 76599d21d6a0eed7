"""What nodes say to each other: frozen values, and their two parts on the wire.

    head: bytes           one CBOR map  {"kind": ..., each field by its name}; the two messages
                          that every group of entries needs are packed instead (`packed`)
    payload: raw bytes    AppendEntries: the entries, back to back, verbatim
                          InstallSnapshot: the snapshot's checkpoint

Place: between the roles and the RPC room, which frames and encodes. Promise: entries travel as they
lie in the log; nothing is copied to encode them. Invariant: `decode` raises CorruptionError or
FutureVersionError and nothing else; each entry is still to be proved by `Replica.append_entries`.
A message does not say who sent it: the transport does.

The two messages of every group of entries are tuples: they cost a quarter of a frozen dataclass.

Packed, little-endian, after one byte that no CBOR map begins with:

    0x01 AppendEntries          u8 bytes of leader_id, u8 bytes of trusted_boot, u64 term,
                                prev_log_index, prev_log_term, commit_index, trusted_index,
                                request_id; leader_id, trusted_boot
    0x02 AppendEntriesResponse  u8 flags (1 success, 2 is_suspect, 4 is_full), u64 term,
                                match_index, request_id, prev_log_index, hint_index, hint_term
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final, NamedTuple

from chronik_store.errors import CorruptionError
from chronik_store.format import cbor
from chronik_store.format.checksum import Buffer
from chronik_store.format.entry import (
    ENTRY_HEADER_BYTES,
    Entry,
    decode_entry_header,
    pack_header,
)
from chronik_store.replica import Snapshot

TEXT_MAX: Final = 256
CLAIMS_MAX: Final = 1 << 17
ITEMS_MAX: Final = 4 * CLAIMS_MAX


@dataclass(frozen=True, slots=True)
class PreVote:
    """Would you vote for me? `term` is the asker's own, not raised yet (protocol 13)."""

    KIND: ClassVar[str] = "pre_vote"
    term: int
    last_log_index: int
    last_log_term: int


@dataclass(frozen=True, slots=True)
class PreVoteResponse:
    """The answer, and what a roll call of suspect nodes needs to know (protocol 9)."""

    KIND: ClassVar[str] = "pre_vote_response"
    term: int
    granted: bool
    is_suspect: bool
    last_log_index: int
    last_log_term: int


@dataclass(frozen=True, slots=True)
class RequestVote:
    """Paper figure 2. transfer: the leader asked for it; amnesty: all voters are suspect."""

    KIND: ClassVar[str] = "request_vote"
    term: int
    candidate_id: str
    last_log_index: int
    last_log_term: int
    transfer: bool = False
    amnesty: bool = False


@dataclass(frozen=True, slots=True)
class RequestVoteResponse:
    """Paper figure 2."""

    KIND: ClassVar[str] = "request_vote_response"
    term: int
    vote_granted: bool


class _AppendEntries(NamedTuple):
    term: int
    leader_id: str
    prev_log_index: int
    prev_log_term: int
    commit_index: int
    trusted_index: int
    trusted_boot: str
    request_id: int
    entries: tuple[Entry, ...] = ()


class AppendEntries(_AppendEntries):
    """Paper figure 2. request_id grows with each round of beats. A suspect follower that matches
    the leader up to trusted_index (0: none) is whole again, if trusted_boot is this start of its.
    """

    __slots__ = ()
    KIND: ClassVar[str] = "append_entries"


class _AppendEntriesResponse(NamedTuple):
    term: int
    success: bool
    match_index: int
    request_id: int
    prev_log_index: int
    hint_index: int
    hint_term: int
    is_suspect: bool
    is_full: bool = False


class AppendEntriesResponse(_AppendEntriesResponse):
    """match_index: equal to the leader's log and durable up to here (0 unless success).

    On a conflict: prev_log_index as asked, hint_index to go back to, hint_term found there (0:
    the log ends before). is_full: its disk takes no records now, so it is not to lead.
    """

    __slots__ = ()
    KIND: ClassVar[str] = "append_entries_response"


@dataclass(frozen=True, slots=True)
class InstallSnapshot:
    """Begin behind a manifest (protocol 2); answered by AppendEntriesResponse."""

    KIND: ClassVar[str] = "install_snapshot"
    term: int
    leader_id: str
    request_id: int
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """Start an election at once: the leader of `term` hands over (protocol 13)."""

    KIND: ClassVar[str] = "timeout_now"
    term: int


@dataclass(frozen=True, slots=True)
class Beat:
    """A node is alive and leads these groups (protocol 15).

    claims: (group, term) changed after base_version, term 0 for "not any more"; with them the
    receiver holds the sender's table as of `version`.
    """

    KIND: ClassVar[str] = "beat"
    boot_id: str
    round: int
    version: int
    base_version: int
    claims: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class BeatAck:
    """Answers a beat. held_version: of the sender's table, 0 when it must be sent whole."""

    KIND: ClassVar[str] = "beat_ack"
    round: int
    held_version: int


Message = (
    PreVote
    | PreVoteResponse
    | RequestVote
    | RequestVoteResponse
    | AppendEntries
    | AppendEntriesResponse
    | InstallSnapshot
    | TimeoutNow
    | Beat
    | BeatAck
)

_CLASSES: Final[Mapping[str, type[Any]]] = {each.KIND: each for each in Message.__args__}
_PACKED: Final = frozenset((AppendEntries.KIND, AppendEntriesResponse.KIND))
_FIELDS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    kind: tuple((f.name, str(f.type)) for f in fields(each) if f.name != "snapshot")
    for kind, each in _CLASSES.items()
    if kind not in _PACKED
}


_APPEND: Final = struct.Struct("<BBBQQQQQQ")
_APPEND_FORM: Final = 1
_ANSWER: Final = struct.Struct("<BBQQQQQQ")
_ANSWER_FORM: Final = 2
_SUCCESS: Final = 1
_SUSPECT: Final = 2
_FULL: Final = 4
_NUMBER_END: Final = 1 << 63


def encode(message: Message) -> tuple[bytes, tuple[Buffer, ...]]:
    """(head, buffers): the buffers follow each other as the payload."""
    if type(message) is AppendEntriesResponse:
        return _pack_answer(message), ()
    if type(message) is AppendEntries:
        parts: list[Buffer] = []
        for header, payload in message.entries:
            parts += (pack_header(header), payload)
        return _pack_append(message), tuple(parts)
    kind = message.KIND
    header_map: dict[str, Any] = {"kind": kind}
    for name, _ in _FIELDS[kind]:
        header_map[name] = getattr(message, name)
    if isinstance(message, Beat):
        header_map["claims"] = [list(claim) for claim in message.claims]
    payload_parts = (message.snapshot.encode(),) if isinstance(message, InstallSnapshot) else ()
    return cbor.encode(header_map), payload_parts


def decode(head: bytes, payload: Buffer) -> Message:
    """The message. CorruptionError when it is malformed in any way; FutureVersionError."""
    form = head[0] if head else 0
    if form == _APPEND_FORM:
        return _unpack_append(head, payload)
    if form == _ANSWER_FORM:
        return _unpack_answer(head, payload)
    header = cbor.decode(head, what="raft message", items_max=ITEMS_MAX)
    if type(header) is not dict:
        raise CorruptionError("a message's head is no map")
    kind = header.get("kind")
    known = _FIELDS.get(kind) if isinstance(kind, str) else None
    if known is None or not isinstance(kind, str):
        raise CorruptionError(f"a message of kind {kind!r:.80} is none that Chronik knows")
    if len(header) != len(known) + 1:
        raise CorruptionError(f"{kind}: fields are missing or too many")
    values = {name: _checked(kind, name, expected, header) for name, expected in known}
    if kind == InstallSnapshot.KIND:
        values["snapshot"] = Snapshot.decode(payload)
    elif len(payload):
        raise CorruptionError(f"{kind}: {len(payload)} bytes of payload where none belong")
    message: Message = _CLASSES[kind](**values)
    return message


def _pack_append(message: AppendEntries) -> bytes:
    leader, boot = message.leader_id.encode(), message.trusted_boot.encode()
    fixed = _APPEND.pack(
        _APPEND_FORM,
        len(leader),
        len(boot),
        message.term,
        message.prev_log_index,
        message.prev_log_term,
        message.commit_index,
        message.trusted_index,
        message.request_id,
    )
    return fixed + leader + boot


def _unpack_append(head: bytes, payload: Buffer) -> AppendEntries:
    size = _APPEND.size
    if len(head) < size:
        raise CorruptionError(f"append_entries: a head of {len(head)} bytes")
    _, leader_bytes, boot_bytes, *numbers = _APPEND.unpack_from(head)
    middle = size + leader_bytes
    if len(head) != middle + boot_bytes or max(numbers) >= _NUMBER_END:
        raise CorruptionError(f"append_entries: a head of {len(head)} bytes, or a number too big")
    try:
        leader, boot = head[size:middle].decode(), head[middle:].decode()
    except UnicodeDecodeError as error:
        raise CorruptionError("append_entries: its leader's name is not text") from error
    term, prev_index, prev_term, commit, trusted, request = numbers
    entries = _entries(memoryview(payload)) if len(payload) else ()
    return AppendEntries(
        term, leader, prev_index, prev_term, commit, trusted, boot, request, entries
    )


def _pack_answer(message: AppendEntriesResponse) -> bytes:
    return _ANSWER.pack(
        _ANSWER_FORM,
        _SUCCESS * message.success | _SUSPECT * message.is_suspect | _FULL * message.is_full,
        message.term,
        message.match_index,
        message.request_id,
        message.prev_log_index,
        message.hint_index,
        message.hint_term,
    )


def _unpack_answer(head: bytes, payload: Buffer) -> AppendEntriesResponse:
    if len(head) != _ANSWER.size or len(payload):
        raise CorruptionError(
            f"append_entries_response: {len(head)} bytes of head, {len(payload)} of payload"
        )
    _, flags, *numbers = _ANSWER.unpack(head)
    if flags > _SUCCESS | _SUSPECT | _FULL or max(numbers) >= _NUMBER_END:
        raise CorruptionError("append_entries_response: unknown flags, or a number too big")
    term, match, request, prev, hint_index, hint_term = numbers
    success, is_suspect, is_full = flags & _SUCCESS > 0, flags & _SUSPECT > 0, flags & _FULL > 0
    return AppendEntriesResponse(
        term, success, match, request, prev, hint_index, hint_term, is_suspect, is_full
    )


def _checked(kind: str, name: str, expected: str, header: Mapping[str, Any]) -> Any:
    value = header.get(name)
    if expected == "int":
        good = type(value) is int and 0 <= value < 1 << 63
    elif expected == "bool":
        good = type(value) is bool
    elif expected == "str":
        good = type(value) is str and len(value) <= TEXT_MAX
    else:
        return _claims(value)
    if not good:
        raise CorruptionError(f"{kind}: {name} is {value!r:.80}")
    return value


def _claims(value: Any) -> tuple[tuple[str, int], ...]:
    if not isinstance(value, list) or len(value) > CLAIMS_MAX:
        raise CorruptionError("beat: its claims are no list, or too many")
    claims = []
    for claim in value:
        if not isinstance(claim, list) or len(claim) != 2:
            raise CorruptionError("beat: a claim is a group and a term")
        group, term = claim
        if type(group) is not str or type(term) is not int or not 0 <= term < 1 << 63:
            raise CorruptionError("beat: a claim is a group and a term")
        claims.append((group, term))
    return tuple(claims)


def _entries(data: memoryview) -> tuple[Entry, ...]:
    entries = []
    position, end = 0, len(data)
    while position < end:
        header = decode_entry_header(data, position)
        start = position + ENTRY_HEADER_BYTES
        position = start + header.payload_bytes
        if position > end:
            raise CorruptionError(f"entry {header.index} is cut off")
        entries.append(Entry(header, data[start:position]))
    return tuple(entries)
