"""What the pipeline asks of a partition, of its WAL and of the store around it.

Place: the bottom of the `pipeline` room; the partition core satisfies `Partition` without knowing
it. Promise: everything a stage decides on comes from `Partition.manifest`, a frozen fold over
committed entries, taken once; everything it changes goes through `propose`. Invariant: a stage
acts for one (leader, term): `Turn.check` before each put and each proposal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from chronik_store.config import LogConfig
from chronik_store.environment import Environment
from chronik_store.errors import UnavailableError
from chronik_store.format.checkpoint import Checkpoint
from chronik_store.format.control import Command, Members
from chronik_store.format.entry import Entry
from chronik_store.format.manifest_file import Manifest, SegmentInfo
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.fs.base import FileSystem
from chronik_store.manifest.state import OpenSegment
from chronik_store.objectstore.base import ObjectStore
from chronik_store.pipeline.budget import ByteBudget
from chronik_store.pipeline.steady_time import SteadyTime
from chronik_store.segment.source import ByteSource


class WalFile(Protocol):
    """One file of the WAL, oldest first in `PartitionWal.files`."""

    @property
    def seq(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def first_index(self) -> int: ...
    @property
    def last_index(self) -> int:
        """Of its live entries; below `first_index` when it has none."""
        ...

    @property
    def records(self) -> int: ...
    @property
    def folded_to(self) -> int:
        """The index that the checkpoint at its head is folded to."""
        ...


class PartitionWal(Protocol):
    """The part of `wal.Wal` that tiering uses."""

    def files(self) -> Sequence[WalFile]:
        """All durable files, oldest first; the last one is being written."""
        ...

    def read(self, first_index: int, last_index: int, max_bytes: int) -> list[Entry]:
        """Entries from `first_index`, at least one, verified; IndexError: they are not here."""
        ...

    def rotate(self) -> None:
        """Start a new file, with a checkpoint of what is committed then; durable on return."""
        ...

    def remove_files(self, through_seq: int) -> tuple[int, int]:
        """Remove files front to back up to `through_seq`: (count, bytes). The caller has proof."""
        ...


class Identity(Protocol):
    """Who a log is."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def topic_id(self) -> str: ...
    @property
    def log_id(self) -> str: ...
    @property
    def owner(self) -> str: ...


class Paths(Protocol):
    """Where a partition's files are."""

    @property
    def segments(self) -> str: ...
    @property
    def scratch(self) -> str: ...
    @property
    def quarantine(self) -> str: ...


class Partition(Protocol):
    """One partition's log: its WAL and its folded, committed state. Thread-safe."""

    @property
    def identity(self) -> Identity: ...
    @property
    def paths(self) -> Paths: ...
    @property
    def wal(self) -> PartitionWal: ...
    @property
    def manifest(self) -> Manifest:
        """Folded over committed control entries. Frozen: take it once, then plan on the value."""
        ...

    @property
    def closed(self) -> bool:
        """For good: another log of this partition may have its files and its folder by now."""
        ...

    def leader_term(self) -> int | None:
        """The term in which this log may tier now; None: not leader, read-only, closed."""
        ...

    def propose(self, command: Command, *, term: int) -> int:
        """Append a control entry; its index, once it is committed and applied to `manifest`."""
        ...

    def open_segment(self) -> OpenSegment: ...
    def producers_at(self, last_index: int) -> tuple[ProducerEntry, ...]:
        """Producer state as of the SEAL at `last_index`; KeyError if it is not kept."""
        ...

    def members_at(self, index: int) -> Members | None:
        """Members as of an entry that is committed, not below `manifest.next`."""
        ...

    def checkpoint(self) -> Checkpoint:
        """The committed state folded now."""
        ...

    def note_error(self, stage: str, error: BaseException | None) -> None:
        """Remember (or clear) why a stage stands still, for `status`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiering:
    """What the stages share across a store's partitions.

    prepare_bucket: called before the first put; proves create-only once per prefix, checks the
    store's identity, raises UnsafeBucketError or IdentityMismatchError.
    open_object: a byte source for a segment in the bucket, for reading what is local no more.
    index_fs, index_directory: where search indexes are built, each partition in a directory of its
    own. The engine opens files itself, so this is a real disk even where `env.fs` is not; by
    default the partition's own scratch directory.
    kept: topics of which nothing is ever dropped, nor pruned from the WAL.
    named: ids of topics that were found to have their name to themselves; they keep it.
    """

    env: Environment
    config: LogConfig
    store: ObjectStore
    budget: ByteBudget
    time: SteadyTime
    prepare_bucket: Callable[[], None]
    open_object: Callable[[SegmentInfo], ByteSource]
    index_fs: FileSystem | None = None
    index_directory: Callable[[], str] | None = None
    kept: Collection[str] = ()
    named: set[str] = field(default_factory=set)


class SteppedDownError(UnavailableError):
    """This log may not tier any more in the term that the work was begun in.

    Nothing is wrong: whoever leads now plans the same work from the same manifest.
    """


class NotNextError(UnavailableError):
    """A committed command did not have its effect: the manifest had moved on. Plan again."""
