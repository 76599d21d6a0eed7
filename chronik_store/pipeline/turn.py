"""One run of the pipeline over one partition: what a stage may see and do.

Place: handed to each stage. Promise: a put, a delete and a proposal happen only while this log
leads in the term that the run began in (protocol 8), but for what `Lane.put` names; before anything
is put the bucket's folder was found to be this log's own (protocol 11), in this term, and to hold
its newest manifest still, in this run. Invariant: `Lane` holds hints only: losing it (a restart)
costs work done twice, never a decision made wrongly.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from chronik_store.errors import FencedError, UnavailableError
from chronik_store.format.control import Command, Intent
from chronik_store.format.entry import Entry
from chronik_store.format.manifest_file import Manifest, SegmentInfo
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.pipeline.contract import Partition, SteppedDownError, Tiering
from chronik_store.search.bundle import BuiltBundle
from chronik_store.segment.source import LocalSegments

READ_BYTES = 1 << 20
"""Bytes of entries read from the WAL at a time."""


@dataclass(slots=True, eq=False)
class Run:
    """One run over a partition, from its place in the queue to its end."""

    ended: bool = False
    """Set in one step, wherever an interrupt comes: nobody else could end it."""


@dataclass(slots=True)
class Lane:
    """What the pipeline remembers of one partition from run to run."""

    run: Run | None = None
    """The last run that has begun."""
    queue: deque[Run] = field(default_factory=deque)
    """Who waits for a run, in order of arrival."""
    open_seen: tuple[int, float] | None = None
    """First index of the open segment, and when (monotonic seconds) it first had records."""
    written: dict[int, tuple[SegmentInfo, tuple[ProducerEntry, ...]]] = field(default_factory=dict)
    """Local segment files written here and not yet listed, and their producers, by first index."""
    producers: tuple[int, tuple[ProducerEntry, ...]] | None = None
    """The end offset of the last segment listed by us, and the producers as of it."""
    own_folder_term: int | None = None
    """The term in which the bucket's folder was found to be our own."""
    swept_number: int = 0
    """The newest manifest number up to which old manifests were swept."""
    bundle: tuple[str, str | None, BuiltBundle] | None = None
    """Built and not yet listed: (segment key, key of the bundle it replaces, what was built)."""
    rebuild: frozenset[str] = frozenset()
    """Keys of bundles that somebody asked to have built anew. Replaced, also while a run looks."""
    offered: str | None = None
    """With upload "all": the key of the segment that this follower has put last."""
    put: set[str] = field(default_factory=set)
    """Objects that this process has put, or may have, and that no entry of its own has listed."""
    all_indexed: tuple[int, frozenset[str]] | None = None
    """(manifest generation, `rebuild`) by which every segment had a bundle that may stay."""
    reported: dict[str, str] = field(default_factory=dict)
    """The last error text of each stage that stands still, so that each is logged once."""

    @property
    def busy(self) -> bool:
        """A run is under way."""
        return self.run is not None and not self.run.ended


class Turn:
    """One partition, one term, one run. Used by one thread."""

    def __init__(self, partition: Partition, tiering: Tiering, lane: Lane) -> None:
        self.partition = partition
        self.tiering = tiering
        self.lane = lane
        self.term = partition.leader_term()
        self.done: Counter[str] = Counter()
        self.seen_number = 0
        """The manifest of this log that the bucket was seen to hold in this run."""
        self.local = LocalSegments(tiering.env.fs, partition.paths.segments)

    @property
    def manifest(self) -> Manifest:
        """The newest folded manifest: take it once, plan on the value."""
        return self.partition.manifest

    @property
    def is_kept(self) -> bool:
        """Nothing of this topic is ever dropped, nor pruned from the WAL."""
        return self.partition.identity.topic in self.tiering.kept

    def now_us(self) -> int:
        """The leader's clock for stamps and ages, with jumps forward held back."""
        return self.tiering.time.now_us()

    def check(self) -> int:
        """The term of this run, if this log still leads in it; else SteppedDownError."""
        if self.term is None or self.partition.leader_term() != self.term:
            raise SteppedDownError(
                "this log no longer leads in the term that this work was begun in; its leader "
                "goes on with it"
            )
        return self.term

    def propose(self, command: Command) -> int:
        """Commit a control command; its index. Whether it took effect, the manifest tells."""
        return self.partition.propose(command, term=self.check())

    def intend(self, key: str, first_index: int) -> None:
        """Name an object in the log before its first put (protocol 18), once in each term."""
        term = self.check()
        for item in self.manifest.intents:
            if item.term == term and key in item.keys:
                return
        self.propose(Intent(keys=(key,), first_index=first_index, clock_us=self.now_us()))

    def entries(self, first_index: int, last_index: int) -> Iterator[Entry]:
        """Entries of the WAL, both ends included, verified, some at a time.

        UnavailableError when they are not here: a hole is never passed over.
        """
        index = first_index
        while index <= last_index:
            try:
                run = self.partition.wal.read(index, last_index, READ_BYTES)
            except IndexError as error:
                raise UnavailableError(
                    f"entries {index} to {last_index} are committed but not in this WAL; another "
                    "replica may hold them. Tiering waits here"
                ) from error
            yield from run
            index += len(run)

    def ready(self) -> None:
        """Before the first put or delete: the bucket is fit for it and the folder is ours.

        Raises:
            FencedError, IdentityMismatchError, UnsafeBucketError, UnavailableError.
        """
        from chronik_store.pipeline.fence import check_own_folder, check_published

        term = self.check()
        fenced = self.manifest.fenced
        if fenced is not None:
            raise FencedError(
                f"this bucket folder is not this log's any more, but {fenced.successor_log_id}'s "
                f"({fenced.reason}); nothing more is uploaded from here"
            )
        if self.lane.own_folder_term != term:
            self.tiering.prepare_bucket()
            check_own_folder(self)
            self.lane.own_folder_term = term
            self.seen_number = self.manifest.published_number
        check_published(self, self.manifest)
