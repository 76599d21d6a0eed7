"""The header of a WAL file: whose frames these are, and the id that seeds their checksums.

    envelope (magic f5 'CKW'), body = one canonical CBOR map of the fields below, then zeros up to
    a multiple of 512; the first frame, a CHECKPOINT, starts there

Place: in `format`. Promise: a file is known by its own header, whatever its name. Invariant: the
header takes whole sectors, so that no later write touches them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from chronik_store.errors import CorruptionError
from chronik_store.format.checksum import Buffer
from chronik_store.format.envelope import Kind, seal_value, unseal_value
from chronik_store.format.shape import (
    ID,
    NAME,
    PARTITION,
    TOPIC,
    UINT63,
    UINT64,
    Integer,
    Row,
    Table,
    TupleOf,
)

WAL_HEADER_ALIGNMENT: Final = 512
WAL_HEADER_BYTES_MAX: Final = 1 << 20
LOGS_MAX: Final = 2048

_KIND: Final = Kind(b"\xf5CKW", 1, "WAL file header")


class WalLog(NamedTuple):
    """A further log that a shared file serves, under the number that its frames carry."""

    log: int
    topic: str
    partition: int
    topic_id: str
    log_id: str


@dataclass(frozen=True, slots=True)
class WalFileHeader:
    """What a WAL file says of itself.

    file_id: random, seeds the frame checksums. file_seq: the seq of its first frame, which its
    name shows. topic .. log_id: log number 0. owner: "local", or who else owns the directory.
    logs: numbers 1 and up, empty as long as one file serves one log.
    """

    file_id: int
    file_seq: int
    topic: str
    partition: int
    topic_id: str
    log_id: str
    owner: str
    logs: tuple[WalLog, ...] = ()

    def encode(self) -> bytes:
        """The header, padded. ValueError when a field is out of its range."""
        sealed = seal_value(_KIND, _HEADER, self)
        return sealed + bytes(-len(sealed) % WAL_HEADER_ALIGNMENT)

    @property
    def header_bytes(self) -> int:
        """Where the first frame starts."""
        return len(self.encode())


_HEADER: Final = Table(
    WalFileHeader,
    {
        "file_id": UINT64,
        "file_seq": UINT63,
        "topic": TOPIC,
        "partition": PARTITION,
        "topic_id": ID,
        "log_id": ID,
        "owner": NAME,
        "logs": TupleOf(
            Row(
                WalLog,
                {
                    "log": Integer(1, (1 << 32) - 1),
                    "topic": TOPIC,
                    "partition": PARTITION,
                    "topic_id": ID,
                    "log_id": ID,
                },
            ),
            LOGS_MAX,
        ),
    },
)


def decode_wal_file_header(data: Buffer, *, path: str = "") -> WalFileHeader:
    """The header that starts `data` (the first WAL_HEADER_BYTES_MAX bytes of the file suffice)."""
    header, end = unseal_value(_KIND, _HEADER, data, path=path, whole=False)
    padded = end + -end % WAL_HEADER_ALIGNMENT
    if bytes(memoryview(data)[end:padded]) != bytes(padded - end):
        raise CorruptionError("WAL file header: its padding is cut off or not zero", path=path)
    if header.encode() != bytes(memoryview(data)[:padded]):
        raise CorruptionError("WAL file header: not in canonical form", path=path)
    return header
