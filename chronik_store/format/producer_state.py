"""Producer state: what each idempotent producer last appended, as of one entry.

     0                               8
     +-------------------------------+
     |          producer_id          |   56 bytes a batch, in rising order of producer_id and,
     |             epoch             |   for the last few batches of one producer, of index;
     |         last_sequence         |   inside an envelope (magic f5 'CKP')
     |      last_base_sequence       |
     |          base_offset          |
     |          end_offset           |
     |             index             |
     +-------------------------------+

Place: in `format`; stands in checkpoints, manifests and segment footers. Promise: deterministic,
since it is part of segment bytes. Invariant: (producer_id, index) rises strictly; no more than
PRODUCERS_MAX entries.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import pairwise
from typing import Final, NamedTuple

from chronik_store.errors import CorruptionError
from chronik_store.format.checksum import Buffer
from chronik_store.format.envelope import Kind, seal, unseal

PRODUCERS_MAX: Final = 1 << 20

_KIND: Final = Kind(b"\xf5CKP", 1, "producer state")
_ENTRY: Final = struct.Struct("<7Q")
_LIMIT: Final = 1 << 63


class ProducerEntry(NamedTuple):
    """One of a producer's last batches: its sequences [last_base_sequence, last_sequence], its offsets
    [base_offset, end_offset), the index of its entry.
    """

    producer_id: int
    epoch: int
    last_sequence: int
    last_base_sequence: int
    base_offset: int
    end_offset: int
    index: int  # type: ignore[assignment]  # tuple.index is not missed


def encode_producers(entries: Iterable[ProducerEntry]) -> bytes:
    """The entries in order of (producer_id, index), whatever order they come in. ValueError when
    two have both in common, a number is not in [0, 2**63) (producer_id: [1, 2**64)), or there are
    too many.
    """
    ordered = sorted(entries, key=_place)
    _check(ordered)
    return seal(_KIND, b"".join([_ENTRY.pack(*entry) for entry in ordered]))


def decode_producers(data: Buffer, *, path: str = "") -> tuple[ProducerEntry, ...]:
    """The entries, in rising order of (producer_id, index)."""
    body, end = unseal(_KIND, data, path=path)
    if len(body) % _ENTRY.size or len(body) > PRODUCERS_MAX * _ENTRY.size or end != len(data):
        raise CorruptionError(f"producer state: {len(body)} bytes is no table of it", path=path)
    entries = tuple(map(ProducerEntry._make, _ENTRY.iter_unpack(body)))
    try:
        _check(entries)
    except ValueError as error:
        raise CorruptionError(f"producer state: {error}", path=path) from error
    return entries


def _check(entries: tuple[ProducerEntry, ...] | list[ProducerEntry]) -> None:
    if len(entries) > PRODUCERS_MAX:
        raise ValueError(f"{len(entries)} entries, more than {PRODUCERS_MAX}")
    for entry in entries:
        if not 1 <= entry.producer_id < 2 * _LIMIT:
            raise ValueError(f"not a producer id: {entry.producer_id}")
        if min(entry[1:]) < 0 or max(entry[1:]) >= _LIMIT:
            raise ValueError(f"a number of producer {entry.producer_id} is not in [0, 2**63)")
    if any(_place(left) >= _place(right) for left, right in pairwise(entries)):
        raise ValueError("(producer_id, index) does not rise strictly")


def _place(entry: ProducerEntry) -> tuple[int, int]:
    return entry.producer_id, entry.index
