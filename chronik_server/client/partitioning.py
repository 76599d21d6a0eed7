"""Which partition a record goes to.

Place: under `producer`. Promise: records with equal keys go to the same partition for as long as
the topic has as many; the rule is the same for clients in every language:

    partition = xxh3-64(key) mod partitions        (seed 0; the checksum of the file format)

Records without a key go to one partition after the other, a batch at a time.
"""

from __future__ import annotations

from chronik_store.format.checksum import checksum


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, from 0."""
    return checksum(key) % partitions
