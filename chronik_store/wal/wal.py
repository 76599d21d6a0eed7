"""One partition's write-ahead log: recover, start, stage, lead, read, prune, close.

Place: the face of the `wal` room; the partition core owns one. Promise: what `lead` returned for
is on disk and comes back after any crash, in order; `durable` is the end of the longest run of
live entries that are. Invariant: the owner's lock guards every watermark and is never held over
I/O; staging only moves memory, so it never blocks; exactly one thread writes at a time.

    with wal.changing():                 # the lock; any thread
        seq = wal.stage_entry(...)       # gets its index, offset, seq and place in the file
    wal.lead(seq)                        # writes and syncs for everybody who waits, or waits

Read-only (another process may be writing): `recover(read_only=True)` replays what is there without
a lock and without writing, `refresh()` goes on from there. A group becomes visible once a later
frame swears that it was synced: with the next append, a MARK, or the writer's close.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial

from chronik_store.environment import Environment
from chronik_store.errors import (
    CorruptionError,
    LogClosedError,
    UnavailableError,
)
from chronik_store.format.checkpoint import Checkpoint
from chronik_store.format.entry import Entry, pack_header
from chronik_store.format.frame import FrameKind, frame_bytes
from chronik_store.log_identity import LOCAL_OWNER
from chronik_store.threads import Lock
from chronik_store.wal import recovery
from chronik_store.wal.entry_table import LogFile
from chronik_store.wal.services import WalServices
from chronik_store.wal.settings import Replayer, WalIdentity, WalSettings
from chronik_store.wal.stageable import StageableWal

logger = logging.getLogger("chronik_store.wal")

_MARK = int(FrameKind.MARK)
_EVERYTHING = 1 << 62


class Wal(StageableWal):
    """The WAL of one partition. Thread-safe.

    Staging methods want `lock` held by the caller and do no I/O; all others want it free.
    """

    # --- open ------------------------------------------------------------------------------------

    @classmethod
    def recover(
        cls,
        env: Environment,
        directory: str,
        identity: WalIdentity,
        settings: WalSettings,
        replayer: Replayer,
        *,
        services: WalServices,
        lock: Lock | None = None,
        quarantine: str | None = None,
        read_only: bool = False,
        accept_suspect: bool = False,
    ) -> Wal:
        """Scan all files and replay them through `replayer`; nothing is written.

        The directory may be absent. CorruptionError when the verdict is suspect, unless
        `read_only` or `accept_suspect`; IdentityMismatchError, FutureVersionError,
        UnavailableError. Call `start` before the first stage.
        """
        try:
            found = recovery.recover(env, directory, identity, replayer, live=read_only)
        except OSError as error:
            raise UnavailableError(f"the WAL in {directory} cannot be read: {error}") from error
        if found.verdict == "suspect":
            lost = "this log may have lost acknowledged entries: " + "; ".join(found.findings)
            if not (read_only or accept_suspect):
                raise CorruptionError(
                    lost,
                    path=directory,
                    advice="nothing was changed: look at it with `chronik repair`, or open it with "
                    "accept_suspect=True to go on from the good part",
                )
            if found.lacks == "segments" and not read_only and identity.owner == LOCAL_OWNER:
                raise CorruptionError(
                    lost,
                    path=directory,
                    advice="nothing was changed: to go on would forget segments that are in the "
                    "bucket. `chronik restore` makes a new directory of it, and `chronik inspect "
                    "--records` shows what these files have besides",
                )
            logger.warning("%s; what is shown ends before the damage", lost)
        elif found.covered:
            logger.warning("this log is damaged: %s", "; ".join(found.findings))
        return cls(
            env,
            directory,
            quarantine or f"{directory}/quarantine",
            identity,
            settings,
            services,
            lock if lock is not None else env.threads.lock(),
            found,
            read_only=read_only,
        )

    def start(self, checkpoint: Checkpoint) -> None:
        """Begin a new file and bring the log to life.

        Its checkpoint carries the owner's folded values; what no mark swears to is copied into the
        file and synced with it, since bytes that were read are not known to be on disk. Base, hard
        state, suspicion and previous_end are the WAL's own (a log without files takes `base` from
        here). LogPoisonedError when the disk fails; then nothing has changed on it; LogClosedError
        when `close` came first. Once per WAL.
        """
        if self._started:
            if self.poisoned is not None:
                raise self._commit.poisoned_error()
            raise AssertionError("started twice")
        self._hands.during(partial(self._start, checkpoint))

    def _start(self, checkpoint: Checkpoint, token: object) -> None:
        with self.lock:
            self._check_not_closed()
            self._hands.at_work.add(token)
        replay = self._recovered.replay
        table = self._table
        if replay.checkpoint is None:
            table.reset(checkpoint.base)
        copy_from, unproved = replay.copy_from, self._recovered.unproved
        entries: list[Entry] = []
        while (index := copy_from + len(entries)) <= table.last_index:
            entries += self.read(index, table.last_index, _EVERYTHING)
        fs = self._env.fs
        try:
            # What nothing was read in proves nothing: its maker has made its name durable, and the
            # new file is durable in it when that counts.
            is_new = not self._recovered.files
            if not (is_new and fs.exists(self.directory)):
                fs.make_directories(self.directory)
            while self._recovered.temporaries:
                # One by one, so that a start that failed half-way may be tried again.
                with suppress(FileNotFoundError):  # it was removed, and then came an interrupt
                    fs.remove(self._recovered.temporaries[-1])
                self._recovered.temporaries.pop()
            if not is_new:  # Names that were read are not known to be durable either.
                fs.sync_directory(self.directory)
        except OSError as error:
            raise UnavailableError(f"{self.directory} cannot be prepared: {error}") from error
        try:
            with self.lock:
                self._check_not_closed()
                with self.whole_locked():
                    seq = self._stage_start(checkpoint, copy_from, entries)
            self._commit.lead(seq)
            if unproved is not None:
                self._drop(unproved)
            copied = sum(entry.header.entry_bytes for entry in entries)
            self.recovery = self._recovered.report(copied)
        except LogClosedError:
            raise  # Nothing of this open is there, and nothing has been given up.
        except BaseException as error:
            self.give_up(error)  # It cannot be started again from here.
            raise
        replay.checkpoint = None  # Its manifest may be large, and the owner has folded it.

    def _stage_start(self, checkpoint: Checkpoint, copy_from: int, entries: list[Entry]) -> int:
        """The first file of this open, with copies of `entries`; the lock is held."""
        staging, table = self._staging, self._table
        self.log_id = checkpoint.log_id
        if checkpoint.term > staging.hard_state[0]:
            staging.hard_state = (checkpoint.term, checkpoint.vote)
        table.truncate(copy_from)
        self._tail.restart(table.last_index + 1)
        self._durable.begin(table.position_after(table.last_index))
        self._started = True
        seq = self._stage_file(checkpoint)
        for entry in entries:
            size = frame_bytes(entry.header.entry_bytes)
            seq = self._put_entry(pack_header(entry.header), entry.header, entry.payload, size)
        staging.bound_seq = seq
        return seq

    def _drop(self, file: LogFile) -> None:
        """A file that is wholly in the new one goes at once, so that idle logs that are opened
        again and again do not pile files up.
        """
        with self.lock:
            if file.removed:  # the pipeline saw the new one as soon as it was there, and was first
                return
            self._table.files.remove(file)
            self._pruner.doom_locked([file])
        try:
            self._pruner.work()
        except UnavailableError as error:
            logger.warning("%s; it goes with the next files that are pruned", error)

    # --- commit ----------------------------------------------------------------------------------

    def lead(self, seq: int) -> None:
        """Block until everything up to `seq` is on disk; write it if nobody else is writing.

        LogPoisonedError: a write or sync failed or was interrupted, and nobody can know.
        """
        self._commit.lead(seq)

    def commit_group(self) -> bool:
        """Write and sync one group (the committer's step). False at once if another thread leads
        or nothing is pending; True: more is pending and nobody leads.
        """
        return self._commit.commit_group()

    def rest(self) -> None:
        """Nothing is to be written for a while: holds no descriptor until the next group."""
        self._active.rest()

    def rotate(self, checkpoint: Checkpoint | None = None) -> None:
        """Start a new file now; durable on return. Raises as `lead` does."""
        try:
            with self.lock:
                seq = self.stage_rotation(checkpoint)
        except BaseException as error:
            self.unwind(error)
            raise
        self.lead(seq)

    def install_snapshot(self, checkpoint: Checkpoint) -> bool:
        """`stage_snapshot`, durable on return; True: it replaced the log."""
        with self.changing():
            seq, replaced = self.stage_snapshot(checkpoint)
        self.lead(seq)
        return replaced

    # --- memory, files, end ----------------------------------------------------------------------

    def shrink_tail(self, goal_bytes: int) -> int:
        """Evict durable entries from memory (the tail budget's request); bytes still held."""
        with self.lock:
            self._tail.evict(goal_bytes, self._durable.position.index)
            return self._tail.bytes_held

    def after_group(self) -> None:
        """Tell the shared budget what the tail holds, when that has changed by a step."""
        held = self._tail.bytes_held
        if abs(held - self._tail_reported) >= self._tail_step:
            self._tail_reported = held
            self._services.tail_budget.report(self, held)

    def remove_files(self, through_seq: int) -> tuple[int, int]:
        """Remove files up to `through_seq`, oldest first, never the one being written; returns
        (count, bytes). The caller has proved that they may go; what is not committed never does
        (AssertionError). Files that are being read follow later, damaged ones go to quarantine.
        Fewer go as long as the first one kept begins above what is committed: a truncation that is
        not on disk yet may still be undone. UnavailableError when the disk refuses: call again.
        """
        with self.lock:
            active, files = self._active.file, self._table.files
            newest = 0 if active is None else active.seq
            going = [file for file in files if file.seq <= through_seq and file.seq < newest]
            last = max((file.last_index for file in going if file.count), default=0)
            if last > self.commit_mark:
                raise AssertionError(f"entry {last} is to be pruned, {self.commit_mark} committed")
            while going and files[len(going)].base_index > self.commit_mark:
                going.pop()
            if going:
                self._table.drop_front(len(going))
                self._pruner.doom_locked(going)
                self._tail.evict(0, self._table.first_index)
        self._pruner.work()
        return len(going), sum(file.size for file in going)

    def close(self) -> None:
        """Finish what is staged, swear to it with a MARK, release everything. Idempotent; of a call
        that Ctrl-C ended the next one goes on.

        Nobody is at work in the directory any more when it returns. LogPoisonedError if what was
        staged could not be synced; all is released nevertheless.
        """
        if self._released:
            return
        try:
            with self.lock:
                self._closed = True
                seq = self._staging.last_seq
            if (cause := self._commit.poisoned) is not None:
                self._commit.poison(cause)  # whoever has not been told yet is now
            elif self._started:
                self._commit.lead(seq)
                self._swear()
        finally:
            self._hands.end()
            self._release()
            self._released = True

    def _release(self) -> None:
        self._active.stop()
        self._services.tail_budget.forget(self)
        for file in self._table.files:
            self._services.descriptors.forget(file.path)

    def _swear(self) -> None:
        """Leave nothing for the next open to copy."""
        with self.lock:
            if self._staging.last_content_seq <= self._commit.sworn_seq:
                return
            with self.whole_locked():
                seq = self._staging.add(_MARK, b"", b"", frame_bytes(0))
        self._commit.lead(seq)

    def _size_locked(self, file: LogFile) -> int:
        return self._active.size_locked() if file is self._active.file else file.size
