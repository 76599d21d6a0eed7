"""Whose facts are whose, where one log goes on from another.

Place: over `lineage_witness`, under the owners of a `MovedWorld`. Promise: each log has a ledger
from the moment at which anything of it can be in the bucket; that of a successor begins with
exactly what the claim covers, cut where its restore was told to. Invariant: what a cut keeps is
found here by reading every entry, and compared with what the restore makes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from chronik_store.format.manifest_file import Manifest
from chronik_store.model import StoredRecord
from chronik_store.objectstore.base import ObjectStore
from chronik_store.objectstore.object_source import ObjectSource
from chronik_store.segment.reader import SegmentReader
from chronik_store.testing.worlds.ledger import Ledger
from chronik_store.testing.worlds.lineage_witness import SeenLog, Witness


class Limits(NamedTuple):
    """What a restore leaves out."""

    until_offset: int | None = None
    until_us: int | None = None


class Heritage:
    """The facts of every log, by its id."""

    def __init__(self, bucket: ObjectStore) -> None:
        self.bucket = bucket
        self.witness = Witness(bucket)
        self.witness.on_claim = self._claimed
        self.witness.on_begin = self._begun
        self.facts: dict[str, Ledger] = {}
        self.whole: dict[str, Ledger] = {}
        """What a claim covers, before a cut."""
        self.ends: dict[str, int] = {}
        """Up to where a successor has taken over."""
        self.limits: dict[str, Limits] = {}
        """By owner."""
        self.superseded: dict[str, Callable[[], None]] = {}
        """By owner: what is to be done when a log of it is claimed."""

    def knows(self, log_id: str, ledger: Ledger) -> Ledger:
        """A log is there; the facts of it are these, unless it has some already."""
        return self.facts.setdefault(log_id, ledger)

    def _claimed(self, old: SeenLog, new: SeenLog) -> None:
        self.superseded[old.owner]()
        claim = new.body.manifest
        known = self.facts[old.log_id].moved(
            claim.start_offset, covered(claim), name=f"{new.owner}.{new.topic}.".encode()
        )
        self.facts[new.log_id] = self.whole[new.log_id] = known

    def _begun(self, log: SeenLog, first: Manifest) -> None:
        claim = log.body.manifest
        end = self._cut(claim, self.limits.get(log.owner, Limits()))
        wanted = (claim.start_offset, end, claim.topic_id)
        if (first.start_offset, covered(first), first.topic_id) != wanted:
            self.witness.note(f"{log.owner} has made {first} of {claim}, wanted is {wanted}")
        ledger = self.whole[log.log_id].moved(*wanted[:2], name=self.whole[log.log_id].name)
        ledger.cursors = {name: min(offset, end) for name, offset in claim.cursors}
        ledger.cursors_wished = {}
        self.facts[log.log_id] = ledger
        self.ends[log.log_id] = end

    def _cut(self, claim: Manifest, limits: Limits) -> int:
        end = covered(claim)
        if limits.until_us is not None:
            for segment in claim.segments:
                reader = SegmentReader.open(ObjectSource(self.bucket, segment.key), segment)
                for entry in reader.iterate():
                    if entry.header.timestamp_us > limits.until_us:
                        end = min(end, entry.header.base_offset)
        if limits.until_offset is not None:
            end = min(end, limits.until_offset)
        return max(end, claim.start_offset)

    def floor(self, log_id: str) -> int:
        """What a log has in the bucket alone may be gone before this offset: its successor has
        dropped it, or deleted the topic.
        """
        log = self.witness.logs.get(log_id)
        if log is None:
            return 0
        if log.topic_id in self.witness.deleted:
            return covered(log.body.manifest)
        if log.successor is None:
            return 0
        later = self.floor(log.successor)
        if log.successor in self.ends:
            dropped = max(later, self.facts[log.successor].start_wished)
            return min(self.ends[log.successor], dropped)
        return later

    def is_superseded(self, log_id: str) -> bool:
        log = self.witness.logs.get(log_id)
        return log is not None and log.successor is not None

    # --- readers of the bucket -------------------------------------------------------------------

    def shown(self, before: str, after: str, records: list[StoredRecord]) -> None:
        """A reader was at the log `before`, then shown this, and is at `after` now.

        It is of one history, and of the one in force by then or at the beginning.
        """
        line = [before]
        while line[-1] != after:
            successor = self.witness.logs[line[-1]].successor
            assert successor is not None, f"a reader goes from {before} to {after}"
            line.append(successor)
        offsets = [record.offset for record in records]
        if offsets:
            assert offsets == list(range(offsets[0], offsets[-1] + 1)), f"a hole: {offsets}"
        histories = [
            *(self.facts[each] for each in line),
            *(self.whole[each] for each in line if each in self.whole),
        ]
        fitting = [each for each in histories if all(each.agrees(*pair) for pair in pairs(records))]
        assert fitting, f"of no history of {line}: {[value[:12] for _, value in pairs(records)]}"
        if before == after and fitting[0] is self.facts[after]:
            for offset, value in pairs(records):
                fitting[0].saw(offset, value)

    # --- the end ---------------------------------------------------------------------------------

    def compare_all(self) -> None:
        """What a successor shows is what its predecessor had below the cut, and nothing else."""
        for log in self.witness.logs.values():
            end = self.ends.get(log.log_id)
            if end is None or log.predecessor is None:
                continue
            old, new = self.facts[log.predecessor], self.facts[log.log_id]
            for offset, value in new.known.items():
                if offset < end:
                    assert old.agrees(offset, value), f"{offset} is {value[:12]!r} in {log.owner}"
            theirs = {value for offset, value in old.known.items() if offset >= end}
            mixed = theirs.intersection(new.known.values())
            assert not mixed, f"of {log.predecessor[:6]} behind {end}, in {log.owner}: {mixed}"


def pairs(records: list[StoredRecord]) -> list[tuple[int, bytes]]:
    """Where each stands, and what it is."""
    return [(record.offset, record.value) for record in records]


def covered(manifest: Manifest) -> int:
    """Where what a manifest stands for ends."""
    return max(manifest.next.offset, manifest.start_offset)
