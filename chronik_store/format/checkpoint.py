"""The checkpoint: what a log needs to know once the WAL files before it may go.

    envelope (magic f5 'CKC'), body = one canonical CBOR map of the fields below

Place: in `format`, above `manifest_file`; the payload of the first frame of each WAL file.
Promise: with the frames behind it, it is all that recovery reads. Invariant: each folded value
stands with the index that it is folded to, and folds committed entries only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chronik_store.format.checksum import Buffer
from chronik_store.format.control import MEMBERS, Members
from chronik_store.format.envelope import Kind, seal_value, unseal_value
from chronik_store.format.manifest_file import LOG_BASE, MANIFEST, PRODUCERS, LogBase, Manifest
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.format.shape import BOOLEAN, ID, NAME, UINT63, Fixed, Optional, Table

_KIND: Final = Kind(b"\xf5CKC", 1, "checkpoint")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log at one moment.

    term, vote: the hard state ("": no vote). base: the last entry before the first stored one.
    committed_index: known when written. manifest, producers, members: each with the index that it
    is folded to (members_index: the entry that named them; 0 with None). previous_end: where the
    files before end, as (file_seq, seq, position) behind the last good frame; None for the first
    file. suspect: no vote until caught up. owner, boot_id: whose directory, which start.
    """

    log_id: str
    term: int
    vote: str
    base: LogBase
    committed_index: int
    manifest: Manifest
    manifest_folded_to: int
    producers: tuple[ProducerEntry, ...] = ()
    producers_folded_to: int = 0
    members: Members | None = None
    members_index: int = 0
    previous_end: tuple[int, int, int] | None = None
    suspect: bool = False
    owner: str = "local"
    boot_id: str = ""

    def encode(self) -> bytes:
        """The payload of a CHECKPOINT frame. ValueError when a field is out of its range."""
        return seal_value(_KIND, _CHECKPOINT, self)


_CHECKPOINT: Final = Table(
    Checkpoint,
    {
        "log_id": ID,
        "term": UINT63,
        "vote": NAME,
        "base": LOG_BASE,
        "committed_index": UINT63,
        "manifest": MANIFEST,
        "manifest_folded_to": UINT63,
        "producers": PRODUCERS,
        "producers_folded_to": UINT63,
        "members": Optional(MEMBERS),
        "members_index": UINT63,
        "previous_end": Optional(Fixed(UINT63, UINT63, UINT63)),
        "suspect": BOOLEAN,
        "owner": NAME,
        "boot_id": NAME,
    },
)


def decode_checkpoint(data: Buffer, *, path: str = "") -> Checkpoint:
    """The checkpoint that `data` is."""
    return unseal_value(_KIND, _CHECKPOINT, data, path=path)[0]
