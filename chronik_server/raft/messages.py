"""What nodes say to each other: frozen values, and their two parts on the wire.

    header: one CBOR map  {"kind": ..., each field by its name}
    payload: raw bytes    AppendEntries: the entries, back to back, verbatim
                          InstallSnapshot: the snapshot's checkpoint

Place: between the roles and the RPC room, which frames and encodes. Promise: entries travel as they
lie in the log; nothing is copied to encode them. Invariant: `decode` raises CorruptionError or
FutureVersionError and nothing else; each entry is still to be proved by `Replica.append_entries`.
A message does not say who sent it: the transport does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final

from chronik_store.errors import CorruptionError
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


@dataclass(frozen=True, slots=True)
class AppendEntries:
    """Paper figure 2. request_id grows with each round of beats. A suspect follower that matches
    the leader up to trusted_index (0: none) is whole again, if trusted_boot is this start of its.
    """

    KIND: ClassVar[str] = "append_entries"
    term: int
    leader_id: str
    prev_log_index: int
    prev_log_term: int
    commit_index: int
    trusted_index: int
    trusted_boot: str
    request_id: int
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class AppendEntriesResponse:
    """match_index: equal to the leader's log and durable up to here (0 unless success).

    On a conflict: prev_log_index as asked, hint_index to go back to, hint_term found there (0:
    the log ends before).
    """

    KIND: ClassVar[str] = "append_entries_response"
    term: int
    success: bool
    match_index: int
    request_id: int
    prev_log_index: int
    hint_index: int
    hint_term: int
    is_suspect: bool


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
_IN_PAYLOAD: Final = frozenset({"entries", "snapshot"})
_FIELDS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    kind: tuple((f.name, str(f.type)) for f in fields(each) if f.name not in _IN_PAYLOAD)
    for kind, each in _CLASSES.items()
}


def encode(message: Message) -> tuple[dict[str, Any], tuple[Buffer, ...]]:
    """(header, buffers): the buffers follow each other as the payload."""
    kind = message.KIND
    header: dict[str, Any] = {"kind": kind}
    for name, _ in _FIELDS[kind]:
        header[name] = getattr(message, name)
    if isinstance(message, Beat):
        header["claims"] = [list(claim) for claim in message.claims]
    if isinstance(message, AppendEntries):
        parts: list[Buffer] = []
        for entry in message.entries:
            parts += (pack_header(entry.header), entry.payload)
        return header, tuple(parts)
    if isinstance(message, InstallSnapshot):
        return header, (message.snapshot.encode(),)
    return header, ()


def decode(header: Mapping[str, Any], payload: Buffer) -> Message:
    """The message. CorruptionError when it is malformed in any way; FutureVersionError."""
    kind = header.get("kind")
    known = _FIELDS.get(kind) if isinstance(kind, str) else None
    if known is None or not isinstance(kind, str):
        raise CorruptionError(f"a message of kind {kind!r} is none that Chronik knows")
    if len(header) != len(known) + 1:
        raise CorruptionError(f"{kind}: fields are missing or too many")
    values = {name: _checked(kind, name, expected, header) for name, expected in known}
    if kind == AppendEntries.KIND:
        values["entries"] = _entries(memoryview(payload))
    elif kind == InstallSnapshot.KIND:
        values["snapshot"] = Snapshot.decode(payload)
    elif len(payload):
        raise CorruptionError(f"{kind}: {len(payload)} bytes of payload where none belong")
    message: Message = _CLASSES[kind](**values)
    return message


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
