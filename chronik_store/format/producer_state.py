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
from operator import itemgetter, lt
from typing import Final, NamedTuple

from chronik_store.errors import CorruptionError
from chronik_store.format.checksum import Buffer
from chronik_store.format.envelope import Kind, seal, unseal

PRODUCERS_MAX: Final = 1 << 20

_KIND: Final = Kind(b"\xf5CKP", 1, "producer state")
_ENTRY: Final = struct.Struct("<7Q")
_PLACE: Final = itemgetter(0, 6)
"""(producer_id, index)."""


class ProducerEntry(NamedTuple):
    """One of a producer's last batches.

    Its sequences [last_base_sequence, last_sequence], its offsets [base_offset, end_offset), the
    index of its entry.
    """

    producer_id: int
    epoch: int
    last_sequence: int
    last_base_sequence: int
    base_offset: int
    end_offset: int
    index: int  # type: ignore[assignment]  # tuple.index is not missed


def encode_producers(entries: Iterable[ProducerEntry]) -> bytes:
    """The entries in order of (producer_id, index), whatever order they come in.

    ValueError when two have both in common, a number is not in [0, 2**63) (producer_id:
    [1, 2**64)), or there are too many.
    """
    try:
        body = b"".join([_ENTRY.pack(*entry) for entry in sorted(entries, key=_PLACE)])
    except struct.error as error:
        raise ValueError(f"a number of a producer is not in [0, 2**63): {error}") from error
    fault = _fault(memoryview(body))
    if fault:
        raise ValueError(f"producer state: {fault}")
    return seal(_KIND, body)


def decode_producers(data: Buffer, *, path: str = "") -> tuple[ProducerEntry, ...]:
    """The entries, in rising order of (producer_id, index)."""
    body, end = unseal(_KIND, data, path=path)
    fault = "bytes follow it" if end != len(data) else _fault(body)
    if fault:
        raise CorruptionError(f"producer state: {fault}", path=path)
    return tuple(map(ProducerEntry._make, _ENTRY.iter_unpack(body)))


def _fault(body: memoryview) -> str:
    """What is wrong with a table, or "". By column: 50,000 entries are an ordinary checkpoint."""
    if len(body) % _ENTRY.size or len(body) > PRODUCERS_MAX * _ENTRY.size:
        return f"{len(body)} bytes are no table of at most {PRODUCERS_MAX} entries"
    numbers = body.cast("Q").tolist()
    width = len(ProducerEntry._fields)
    columns = [numbers[place::width] for place in range(width)]
    if 0 in columns[0]:
        return "a producer id is 0"
    if any(column and max(column) >= 1 << 63 for column in columns[1:]):
        return "a number is not below 2**63"
    places = list(zip(columns[0], columns[6], strict=True))
    if not all(map(lt, places, places[1:])):
        return "(producer_id, index) does not rise strictly"
    return ""
