"""The reading half of a WAL: what stands where, entries from memory and files, pins.

Place: in `wal`, under `wal.Wal`, which adds the writing half. Promise: look-ups (terms, offsets,
times, limits) touch no disk and may be made under the lock; `read` and `header` may touch it and
may not. Invariant: whatever is read back has matched its checksums. Entries that are not durable
are always in the memory tail, so a file is read only where it is synced.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chronik_store.environment import Environment
from chronik_store.errors import (
    ChronikError,
    CorruptionError,
    OffsetOutOfRangeError,
    UnavailableError,
)
from chronik_store.format.entry import Entry, EntryHeader
from chronik_store.format.manifest_file import LogBase
from chronik_store.model import Position, RecoveryReport
from chronik_store.threads import Lock
from chronik_store.wal.durable import DurableLimit
from chronik_store.wal.entry_table import LogFile
from chronik_store.wal.follow import follow
from chronik_store.wal.hands import Hands
from chronik_store.wal.pruning import Pruner
from chronik_store.wal.reading import plan_read, read_entries
from chronik_store.wal.recovery import Recovered
from chronik_store.wal.services import WalServices
from chronik_store.wal.settings import WalFileInfo, WalIdentity
from chronik_store.wal.tail import MemoryTail

logger = logging.getLogger("chronik_store.wal")


class ReadableWal:
    """Look-ups and reads over one log's WAL. Thread-safe; each property is one value, several of
    them agree with each other only under `lock`.
    """

    def __init__(
        self,
        env: Environment,
        directory: str,
        quarantine: str,
        identity: WalIdentity,
        services: WalServices,
        lock: Lock,
        recovered: Recovered,
    ) -> None:
        replay = recovered.replay
        self.lock = lock
        self.directory = directory
        self.recovery: RecoveryReport = recovered.report()
        self.recovery_commit_index = replay.committed
        self.log_id = identity.log_id if replay.checkpoint is None else replay.checkpoint.log_id
        self._env = env
        self._identity = identity
        self._refresh_broken: BaseException | None = None
        self._services = services
        self._recovered = recovered
        self._table = replay.table
        self._tail = MemoryTail(replay.table.last_index + 1)
        self._durable = DurableLimit(self._table.position_after(replay.copy_from - 1))
        self.check_listed: Callable[[], None] = _always
        """Of a log beside its writer: raises once its topic has been deleted."""
        self.cut = ""
        self._hands = Hands(env.threads, lock)
        self._pruner = Pruner(
            env.fs, lock, services.descriptors, directory, quarantine, self._hands
        )

    def refresh(self) -> bool:
        """Replay what a live writer has added since `recover(read_only=True)` or the last call;
        True if there was something. The replayer is called with the lock held.

        One call at a time. TopicNotFoundError when the topic was deleted; CorruptionError when new
        damage shows (once: what is good stays readable); UnavailableError, also for good once a
        call was interrupted amid a frame.
        """
        self.check_listed()
        if self._refresh_broken is not None:
            raise UnavailableError(
                f"looking for more in {self.directory} was interrupted "
                f"({self._refresh_broken!r}): open it again to see more"
            )
        found = self._recovered
        damaged = found.suspect
        try:
            news = follow(self._env, self.directory, self._identity, found, self.lock)
        except OSError as error:
            raise UnavailableError(f"{self.directory} cannot be read: {error}") from error
        except ChronikError:
            raise
        except BaseException as error:  # Ctrl-C: where the next look would go on is not known
            self._refresh_broken = error
            raise
        replay = found.replay
        with self.lock:
            self._tail.restart(replay.table.last_index + 1)
            self._durable.begin(replay.table.position_after(replay.copy_from - 1))
            self.recovery_commit_index = replay.committed
            self.recovery = found.report()
            if replay.checkpoint is not None:
                self.log_id = replay.checkpoint.log_id
        if found.suspect and not damaged:
            raise CorruptionError("; ".join(found.findings), path=self.directory)
        return news

    # --- limits ----------------------------------------------------------------------------------

    def note_cut(self) -> str:
        """The log goes on where its good part ends, and nobody has more of it: what that may have
        cost, in words, which `cut` keeps as long as this object lives.
        """
        with self.lock:
            last_index, end_offset = self._table.last_index, self._table.end_offset
        remains = self._recovered.remains
        of = self._identity
        said = f"{of.topic}/{of.partition} goes on at offset {end_offset}: "
        if remains.committed_index > last_index:
            said += f"acknowledged records behind it, to entry {remains.committed_index}, are lost"
        else:
            said += "whatever was acknowledged behind it is lost"
        if remains.end_offset > end_offset:
            said += f"; what is left of them, to offset {remains.end_offset}, is in damaged files"
        self.cut = said
        return said

    @property
    def base(self) -> LogBase:
        """The last entry before the first stored one."""
        return self._table.base

    @property
    def first_index(self) -> int:
        """The first stored entry; last_index + 1 when there is none."""
        return self._table.first_index

    @property
    def last_index(self) -> int:
        """The last staged entry; base.index when there is none."""
        return self._table.last_index

    @property
    def end_offset(self) -> int:
        """The offset that the next record gets."""
        return self._table.end_offset

    @property
    def last_term(self) -> int:
        """The term of the last entry (or of the base)."""
        return self._table.last_term

    @property
    def last_timestamp_us(self) -> int:
        """The index timestamp of the last entry (or of the base)."""
        return self._table.last_timestamp_us

    @property
    def durable(self) -> Position:
        """Everything below is on disk, exclusive."""
        return self._durable.position

    @property
    def tail_first_index(self) -> int:
        """Entries from here to last_index are in memory."""
        return self._tail.first_index

    # --- look up, without I/O --------------------------------------------------------------------

    def term(self, index: int) -> int:
        """The term of entry `index`, base.index included. IndexError when it is not stored."""
        return self._table.term(index)

    def position_after(self, index: int) -> Position:
        """The limit right behind entry `index`, base.index included. IndexError if not stored."""
        return self._table.position_after(index)

    def index_for_offset(self, offset: int) -> int:
        """The last entry that starts at or below `offset`, i.e. the one that holds it when it is
        below `end_offset`. OffsetOutOfRangeError below the first stored offset.
        """
        try:
            return self._table.index_for_offset(offset)
        except IndexError as error:
            raise OffsetOutOfRangeError(
                str(error),
                offset=offset,
                first_offset=self.base.offset,
                end_offset=self.end_offset,
            ) from None

    def is_in_memory(self, offset: int) -> bool:
        """The entry that holds `offset` is in the memory tail. Under the lock."""
        if self.tail_first_index > self.last_index:
            return False
        try:
            return self._table.index_for_offset(offset) >= self.tail_first_index
        except IndexError:
            return False  # pruned: a colder tier has it

    def index_for_timestamp(self, timestamp_us: int, low_index: int = 0) -> int | None:
        """The first entry at or above `low_index` with an index timestamp >= `timestamp_us`."""
        return self._table.index_for_timestamp(timestamp_us, low_index)

    # --- read ------------------------------------------------------------------------------------

    def read(self, first_index: int, last_index: int, max_bytes: int) -> list[Entry]:
        """Entries from `first_index` to at most `last_index` (inclusive), verified; at least one,
        then up to `max_bytes`; a call may stop early at the border of a file or of the memory tail.

        Whether they are durable or committed is the caller's to clip. Payloads may be views into a
        larger read. IndexError when `first_index` is not stored; CorruptionError;
        UnavailableError. Must not be called with the lock held.
        """
        with self.lock:
            if self._tail.first_index <= first_index <= self._table.last_index:
                last = min(last_index, self._table.last_index)
                return self._tail.read(first_index, last, max_bytes)
            last_index = min(last_index, self._tail.first_index - 1)
            plan = plan_read(self._table, first_index, last_index, max_bytes)
        try:
            return read_entries(self._services.descriptors, plan)
        finally:
            self._unpin([plan.file])

    def header(self, index: int) -> EntryHeader:
        """The header of entry `index`. Raises as `read` does, and like it may touch the disk."""
        return self.read(index, index, 1)[0].header

    @contextmanager
    def pin(self, first_index: int) -> Iterator[None]:
        """Keep all files that hold entries >= `first_index` on disk meanwhile."""
        with self.lock:
            files = list(self._table.live_files(first_index, self._table.last_index))
            for file in files:
                file.readers += 1
        try:
            yield
        finally:
            self._unpin(files)

    def _unpin(self, files: list[LogFile]) -> None:
        with self.lock:
            for file in files:
                file.readers -= 1
            work = self._pruner.waiting
        if not work:
            return
        try:
            self._pruner.work()
        except UnavailableError as error:
            # Whoever reads has what it read; the next `remove_files` asks the disk again.
            logger.warning("%s; it goes with the next files that are pruned", error)

    def files(self) -> tuple[WalFileInfo, ...]:
        """All files, oldest first; the last one is being written (or staged, not yet made)."""
        with self.lock:
            files, last_index = self._table.files, self._table.last_index
            return tuple(
                WalFileInfo(
                    file.seq,
                    file.path,
                    self._size_locked(file),
                    file.first_index,
                    min(file.last_index, last_index),
                    self._records_locked(file),
                    file.folded_to,
                    file is not files[-1],
                    file.damaged,
                )
                for file in files
            )

    def _size_locked(self, file: LogFile) -> int:
        return file.size

    def _records_locked(self, file: LogFile) -> int:
        # Behind the last entry stands what Ctrl-C has left half-way; the log has ended then.
        last_index = min(file.last_index, self._table.last_index)
        if last_index < file.first_index:
            return 0
        return self._table.position_after(last_index).offset - file.base_offsets[0]


def _always() -> None:
    """A log that nobody else deletes is there as long as it is open."""
