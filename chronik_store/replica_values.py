"""What goes in and out of a replica: answers, snapshots, entries on arrival.

Place: under `replica`, which acts on them. Promise: frozen values; a snapshot knows its bytes, an
arrived entry is proved and decoded before any lock is taken. Invariant: indexes are inclusive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from chronik_store.errors import CorruptionError
from chronik_store.format.checkpoint import Checkpoint, decode_checkpoint
from chronik_store.format.checksum import Buffer
from chronik_store.format.control import Command, Members, decode_command
from chronik_store.format.entry import Entry, EntryHeader, EntryKind, verify_payload
from chronik_store.format.manifest_file import LogBase, Manifest
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.format.record_batch import RecordBatch

RECORDS = int(EntryKind.RECORDS)


class Conflict(NamedTuple):
    """Why entries were not taken: go back to `index` (the first of `term`, or one past our end)."""

    index: int  # type: ignore[assignment]
    term: int | None


class Appended(NamedTuple):
    """The answer of `append_entries`. `last_index`: prev_index + entries taken, not our own end."""

    ticket: int
    last_index: int
    conflict: Conflict | None


class Staged(NamedTuple):
    """The answer of `propose`: wait for `index`; offsets of all records of the call."""

    ticket: int
    index: int  # type: ignore[assignment]
    base_offset: int
    end_offset: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A log that begins behind `base` (protocol 2): the manifest is the data.

    manifest: may be newer than `base`, folded to `folded_to`. producers, members: as of `base`.
    """

    base: LogBase
    manifest: Manifest
    folded_to: int
    producers: tuple[ProducerEntry, ...]
    members: Members | None
    members_index: int

    def checkpoint(self, owner: str, boot_id: str) -> Checkpoint:
        """As a WAL file and a peer get it; hard state is not part of it."""
        return Checkpoint(
            log_id=self.manifest.log_id,
            term=0,
            vote="",
            base=self.base,
            committed_index=self.base.index,
            manifest=self.manifest,
            manifest_folded_to=self.folded_to,
            producers=self.producers,
            producers_folded_to=self.base.index,
            members=self.members,
            members_index=self.members_index,
            owner=owner,
            boot_id=boot_id,
        )

    def encode(self) -> bytes:
        """The bytes that a peer gets: a checkpoint's, checksummed."""
        return self.checkpoint("", "").encode()

    @classmethod
    def decode(cls, data: Buffer) -> Snapshot:
        """What `encode` made. CorruptionError when it is damaged or stands for nothing."""
        found = decode_checkpoint(data)
        if found.base != found.manifest.next or found.manifest_folded_to < found.base.index:
            raise CorruptionError("a snapshot does not stand for the end of its last segment")
        return cls(
            base=found.base,
            manifest=found.manifest,
            folded_to=found.manifest_folded_to,
            producers=found.producers,
            members=found.members,
            members_index=found.members_index,
        )


class Arrived(NamedTuple):
    """An entry from a peer, proved and decoded before any lock is taken."""

    header: EntryHeader
    payload: bytes
    content: RecordBatch | Command


def arrive(entry: Entry, index: int) -> Arrived:
    """Prove an entry that came from a peer and must stand at `index`. CorruptionError."""
    header, payload = entry
    verify_payload(header, payload)
    if header.index != index:
        raise CorruptionError(f"entry {header.index} arrived where {index} follows")
    data = bytes(payload)  # the WAL keeps it: nothing may hang on a network buffer
    if header.kind == RECORDS:
        return Arrived(header, data, RecordBatch.from_buffer(data, verify=False))
    return Arrived(header, data, decode_command(header.kind, data))
