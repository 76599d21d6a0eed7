"""The staging half of a WAL: entries, hard states, truncations, new files, in one order.

Place: in `wal`, over `readable`, under `wal.Wal`, which commits what is staged. Promise: staging
moves memory only, so it never blocks; what it returns is the seq to lead for. A truncation is in
force at once, and `durable` with it. Invariant: the caller holds the lock; an entry follows the
last one in index and offset; nothing committed is ever truncated; a change is made whole, or the
WAL has ended before anybody else gets the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chronik_store.environment import Environment
from chronik_store.errors import LogClosedError, ReadOnlyError
from chronik_store.format.checkpoint import Checkpoint
from chronik_store.format.entry import EntryHeader
from chronik_store.format.frame import (
    FrameKind,
    encode_hard_state,
    encode_suspect,
    encode_truncate,
    frame_bytes,
)
from chronik_store.fs.base import Buffer
from chronik_store.threads import Lock
from chronik_store.wal.active_file import ActiveFile, file_path
from chronik_store.wal.entry_table import LogFile
from chronik_store.wal.group_commit import GroupCommit
from chronik_store.wal.readable import ReadableWal
from chronik_store.wal.recovery import Recovered
from chronik_store.wal.services import WalServices
from chronik_store.wal.settings import WalIdentity, WalSettings
from chronik_store.wal.staging import Staging

_ENTRY = int(FrameKind.ENTRY)
_HARD_STATE = int(FrameKind.HARD_STATE)
_TRUNCATE = int(FrameKind.TRUNCATE)
_MARK = int(FrameKind.MARK)
_SUSPECT = int(FrameKind.SUSPECT)


class StageableWal(ReadableWal):
    """Look-ups, reads, and staging. The methods that stage want `lock` held by the caller."""

    def __init__(
        self,
        env: Environment,
        directory: str,
        quarantine: str,
        identity: WalIdentity,
        settings: WalSettings,
        services: WalServices,
        lock: Lock,
        recovered: Recovered,
        *,
        read_only: bool,
    ) -> None:
        super().__init__(env, directory, quarantine, identity, services, lock, recovered)
        replay = recovered.replay
        suspect = replay.suspect or recovered.verdict == "suspect"
        self._settings = settings
        self._read_only = read_only
        self._started = False
        self._tail_reported = 0
        self._tail_step = services.tail_budget.step_bytes
        self._closed = False
        self._released = False
        self._staging = Staging(recovered.last_seq, replay.hard_state, suspect=suspect)
        self.commit_mark = self.recovery_commit_index
        self.checkpoint_source: Callable[[], Checkpoint] = _no_checkpoint
        self.on_durable: Callable[[], None] = _nothing
        self.on_synced: Callable[[], None] = _nothing
        self.on_failed: Callable[[BaseException], None] = _ignore
        self._active = ActiveFile(
            env, directory, identity, settings, services, lock, self._hands, self
        )
        self._commit = GroupCommit(
            threads=env.threads,
            lock=lock,
            group_bytes=settings.group_bytes,
            staging=self._staging,
            durable=self._durable,
            services=services,
            directory=directory,
            active=self._active,
            hands=self._hands,
            owner=self,
        )
        self._commit.previous_end = replay.sworn if replay.sworn[0] else None

    def stage_entry(self, header_bytes: bytes, header: EntryHeader, payload: Buffer) -> int:
        """Append an entry; returns its seq. `header_bytes` is the encoded header; the payload must
        not change any more. ValueError unless it is the next in index and offset.

        All stage methods: LogPoisonedError, LogClosedError, ReadOnlyError (never started).
        """
        self._check_stageable()
        size = frame_bytes(len(header_bytes) + len(payload))
        try:
            self._make_room(size)
            return self._put_entry(header_bytes, header, payload, size)
        except ValueError:
            raise  # It does not follow: the table has refused it before anything was changed.
        except BaseException as error:
            self.spoil_locked(error)
            raise

    def stage_hard_state(self, term: int, vote: str) -> int:
        """Record term and vote ("": none)."""
        payload = encode_hard_state(term, vote)
        seq = self._put(_HARD_STATE, payload)
        self._staging.hard_state = (term, vote)
        return seq

    def stage_suspect(self, flag: bool) -> int:
        """Set or clear suspicion (protocol 9); cleared for good once this seq is synced."""
        seq = self._put(_SUSPECT, encode_suspect(flag))
        self._staging.suspect = flag
        return seq

    def stage_mark(self) -> int:
        """A frame that swears to all that is synced when it is written, for read-only followers."""
        return self._put(_MARK, b"")

    def stage_truncate(self, index: int) -> int:
        """Entries at or above `index` are gone, at once and for good.

        Never below what is committed (AssertionError). Below the current file's first entry it
        is the checkpoint of a new file that says so: each file then knows its own base, whatever
        is pruned before it.
        """
        self._check_stageable()
        table = self._table
        if index <= self.commit_mark:
            raise AssertionError(f"truncation to {index}, but {self.commit_mark} is committed")
        if index > table.last_index:
            return self._staging.last_seq
        with self.whole_locked():
            table.truncate(index)
            self._tail.truncate(index)
            self._durable.truncate(table.position_after(index - 1))
            if index <= self._staging.file_base_index:
                return self._stage_file(None)
            return self._put(_TRUNCATE, encode_truncate(index))

    def stage_rotation(self, checkpoint: Checkpoint | None = None) -> int:
        """The next frame opens a new file, with this checkpoint's folded values (None: the owner
        is asked when it is written). The file is there when the seq is synced.
        """
        self._check_stageable()
        with self.whole_locked():
            return self._stage_file(checkpoint)

    def stage_snapshot(self, checkpoint: Checkpoint) -> tuple[int, bool]:
        """Install a snapshot that stands for `checkpoint.base` (protocol 1, 2): (seq, replaced).

        Replaced: the log is empty behind the base, its old files are superseded once the seq is
        synced. Not replaced: our entry at the base matches (then the suffix stays where it is,
        only the folded values are recorded), or the base is committed here already.
        """
        self._check_stageable()
        base, table = checkpoint.base, self._table
        if base.index <= self.commit_mark:
            return self.stage_rotation(), False
        if base.index <= table.last_index and table.term(base.index) == base.term:
            return self.stage_rotation(checkpoint), False
        with self.whole_locked():
            if self._staging.lacks_folds:
                # Files staged before it are of the old log; what the owner folds is soon the new
                # one's.
                self._staging.give_folds(self.checkpoint_source())
            floor = table.position_after(max(self.commit_mark, table.base.index))
            table.reset(base)
            self._tail.restart(base.index + 1)
            self._durable.restart(floor)
            seq = self._stage_file(checkpoint)
            self._durable.stage(seq, base.index + 1, base.offset)
        return seq, True

    def _put_entry(
        self, header_bytes: bytes, header: EntryHeader, payload: Buffer, size: int
    ) -> int:
        staging, table = self._staging, self._table
        table.append(header, staging.end, size)
        seq = staging.add(_ENTRY, header_bytes, payload, size)
        self._tail.append(header, payload)
        self._durable.stage(seq, table.last_index + 1, table.end_offset)
        return seq

    def _put(self, kind: int, payload: bytes) -> int:
        self._check_stageable()
        size = frame_bytes(len(payload))
        with self.whole_locked():
            self._make_room(size)
            return self._staging.add(kind, b"", payload, size)

    def _make_room(self, size_bytes: int) -> None:
        """Rotate if the current file is full; one larger frame still fits into an empty one."""
        staging = self._staging
        if staging.end and staging.end + size_bytes > self._active.room_locked(staging.file):
            self._stage_file(None)

    def _stage_file(self, folds: Checkpoint | None) -> int:
        staging, table = self._staging, self._table
        seq = staging.last_seq + 1
        file = LogFile(seq, file_path(self.directory, seq), table.last_index)
        staging.add_file(file, table.last(), folds)
        table.files.append(file)
        return seq

    # --- half-way --------------------------------------------------------------------------------

    def spoil_locked(self, cause: BaseException) -> None:
        """A change of this log's memory stopped half-way: it no longer fits what would be written,
        so nothing more is staged or written. `unwind`, with the lock free, tells those who wait.
        """
        self._commit.spoil_locked(cause)

    @contextmanager
    def whole_locked(self) -> Iterator[None]:
        """What changes in here is changed whole, or the WAL is spoiled."""
        try:
            yield
        except BaseException as error:
            self.spoil_locked(error)
            raise

    @contextmanager
    def changing(self) -> Iterator[None]:
        """The lock for a caller that stages, with what `unwind` asks for.

        Not where Ctrl-C comes: in front of the first step of `__exit__` it leaves the lock taken
        for as long as its traceback is there.
        """
        try:
            with self.lock:
                yield
        except BaseException as error:
            self.unwind(error)
            raise

    def unwind(self, error: BaseException) -> None:
        """An exception left a caller that stages, and the lock is free again. Those who wait are
        told if the WAL has ended, which it also has if this is no `Exception`: Ctrl-C may have
        fallen between staging and leading.
        """
        if self._commit.poisoned is not None or not isinstance(error, Exception):
            self._commit.poison(error)

    def give_up(self, cause: BaseException) -> None:
        """End this WAL: what is staged will find nobody to write it. The lock must be free."""
        self._commit.poison(cause)

    def _check_stageable(self) -> None:
        if self._commit.poisoned is not None:
            raise self._commit.poisoned_error(durability="not_durable")
        self._check_not_closed()
        if not self._started:
            raise ReadOnlyError(f"the WAL in {self.directory} was not opened for writing")

    def _check_not_closed(self) -> None:
        if self._closed:
            raise LogClosedError("this log is closed; open it again", durability="not_durable")

    @property
    def synced_seq(self) -> int:
        """Every frame up to here is on disk; never goes back."""
        return self._commit.synced_seq

    @property
    def last_seq(self) -> int:
        """The seq of the frame staged last."""
        return self._staging.last_seq

    @property
    def pending_bytes(self) -> int:
        """Bytes staged and not yet taken by a group."""
        return self._staging.pending_bytes

    @property
    def poisoned(self) -> BaseException | None:
        """What ended this WAL, if anything did."""
        return self._commit.poisoned

    @property
    def hard_state(self) -> tuple[int, str]:
        """(term, vote) as staged last."""
        return self._staging.hard_state

    @property
    def suspect(self) -> bool:
        """Acknowledged entries may have been lost here (protocol 9); as staged last."""
        return self._staging.suspect

    def after_group(self) -> None:
        """A group is done (group commit calls this)."""


def _nothing() -> None:
    """No owner is listening."""


def _ignore(_cause: BaseException) -> None:
    """No owner is listening."""


def _no_checkpoint() -> Checkpoint:
    raise AssertionError("the owner must set checkpoint_source before the WAL rotates")
