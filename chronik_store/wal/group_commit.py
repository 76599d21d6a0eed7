"""Group commit of one WAL: many appenders, one write and one sync for all that wait.

Place: in `wal`, over staging and the active file. Promise: `lead(seq)` returns when everything up
to `seq` is on disk. A caller that finds nobody writing writes itself, for all that is pending (one
appender alone never waits for another thread); the others wait, each on an event of its own, and
are woken by the group that carried their frames. Invariant: one leader, so one group in flight;
the lead never gets lost: who gives it up while frames are pending hands it to a waiter or tells
the committer. A failed write or sync poisons the WAL for good: it is never tried again, since the
kernel has marked the pages clean and a second sync would prove nothing. So does an exception that
leaves staging half done. Whoever waits looks again by itself, so that an interrupted leader takes
nobody's wake-up with it, and whoever is called back holds no lead, so that it may append.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from chronik_store.errors import Durability, LogClosedError, LogPoisonedError
from chronik_store.format.checkpoint import Checkpoint
from chronik_store.format.frame import Marks
from chronik_store.threads import Event, Lock, Threads
from chronik_store.wal.active_file import ActiveFile
from chronik_store.wal.durable import DurableLimit
from chronik_store.wal.hands import LOOK_AGAIN_SECONDS, Hands
from chronik_store.wal.services import WalServices
from chronik_store.wal.staging import Group, NewFile, Staging

logger = logging.getLogger("chronik_store.wal")
_marks = partial(tuple.__new__, Marks)


class CommitOwner(Protocol):
    """The WAL, as group commit sees it: what to put into checkpoints and marks, whom to tell.

    checkpoint_source runs with the lock held, when a file is about to be made; on_durable, too,
    when `durable` has moved; on_synced after each group, on_failed once, both without it.
    """

    commit_mark: int
    checkpoint_source: Callable[[], Checkpoint]
    on_durable: Callable[[], None]
    on_synced: Callable[[], None]
    on_failed: Callable[[BaseException], None]

    def after_group(self) -> None:
        """A group is done and everybody has been told."""
        ...


class _Waiter:
    """A caller of `lead` whose frames another thread writes. `leads`: it is its turn now."""

    __slots__ = ("event", "leads", "seq")

    def __init__(self, seq: int, event: Event) -> None:
        self.seq = seq
        self.event = event
        self.leads = False


class GroupCommit:
    """Leads groups, one at a time. Thread-safe; `lock` is the WAL's."""

    def __init__(
        self,
        *,
        threads: Threads,
        lock: Lock,
        group_bytes: int,
        staging: Staging,
        durable: DurableLimit,
        services: WalServices,
        directory: str,
        active: ActiveFile,
        hands: Hands,
        owner: CommitOwner,
    ) -> None:
        self.staging = staging
        self.durable = durable
        self.synced_seq = staging.last_seq
        self.sworn_seq = staging.last_seq
        self.previous_end: tuple[int, int, int] | None = None
        self.poisoned: BaseException | None = None
        self._told = False
        self._threads = threads
        self._lock = lock
        self._group_bytes = group_bytes
        self._services = services
        self._directory = directory
        self._active = active
        self._hands = hands
        self._owner = owner
        self._leading = False
        self._waiters: list[_Waiter] = []
        self._delivering = False
        self._deliver_again = False

    # --- the lead --------------------------------------------------------------------------------

    def lead(self, seq: int) -> None:
        """Block until everything up to `seq` is on disk. LogPoisonedError if it cannot be known."""
        if seq > self.staging.last_seq:
            raise ValueError(f"nothing with seq {seq} is staged yet")
        waiter = None
        more = False
        try:
            while self.synced_seq < seq:
                with self._lock:
                    if self.synced_seq >= seq:
                        break
                    if self.poisoned is not None:
                        raise self.poisoned_error()
                    if self._leading:
                        waiter = _Waiter(seq, self._threads.event())
                        self._waiters.append(waiter)
                    else:
                        self._leading = True
                if waiter is None or self._follow(waiter):
                    waiter = None
                    more = self._run_or_poison()
            if more:
                self._services.committer.notify(self)
        except LogPoisonedError:
            raise
        except BaseException as error:
            if waiter is None:  # It has the lead, or had it: whoever waits must not wait for it.
                self.poisoned = self.poisoned or error  # one step, which no interrupt parts
                self.poison(error)
                raise
            try:
                self._leave(waiter)
            except BaseException:
                self.poisoned = self.poisoned or error  # the lead may be lost with it
                raise
            raise

    def commit_group(self) -> bool:
        """One group, for the committer. False: nothing to do, or another thread leads."""
        leads = False
        try:
            with self._lock:
                if self._leading or self.poisoned is not None or not self.staging.pending:
                    return False
                leads = self._leading = True
            return self._run_or_poison()
        except LogPoisonedError:
            return False  # Whoever waits has been told, and so has the owner.
        except BaseException as error:
            if leads:
                self.poisoned = self.poisoned or error  # as in `lead`
                self.poison(error)
            raise

    def _follow(self, waiter: _Waiter) -> bool:
        """Wait for the group in flight. True: the lead has come to this thread."""
        while not waiter.event.wait(LOOK_AGAIN_SECONDS):  # two interrupts may swallow the wake-up
            if waiter.leads or self.poisoned is not None or self.synced_seq >= waiter.seq:
                break
        if not waiter.leads and self.synced_seq < waiter.seq:
            raise self.poisoned_error()
        return waiter.leads

    def _leave(self, waiter: _Waiter) -> None:
        """A waiter was interrupted; if the lead had come to it, it must go on to another."""
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            if not waiter.leads:
                return
            waiter.leads = False
            heir = self._pass_lead_locked()
            orphaned = heir is None and self.staging.pending and self.poisoned is None
        if heir is not None:
            heir.event.set()
        elif orphaned:
            self._services.committer.notify(self)

    def _pass_lead_locked(self) -> _Waiter | None:
        """Give the lead to the first waiter whose frames are still pending, or to nobody.

        Nobody takes the lead of a poisoned WAL. The heir stays among the waiters until its frames
        are synced. The lock must be held.
        """
        if self.staging.pending and self.poisoned is None:
            for waiter in self._waiters:
                if waiter.seq > self.synced_seq and not waiter.leads:
                    waiter.leads = True
                    return waiter
        self._leading = False
        return None

    # --- a group ---------------------------------------------------------------------------------

    def _run_or_poison(self) -> bool:
        """`_run_group`; whatever interrupts it (an OSError, Ctrl-C) leaves the outcome of a write
        unknown, and so ends the WAL.
        """
        try:
            return self._run_group()
        except OSError as error:
            self.poison(error)
            raise self.poisoned_error() from error
        except BaseException as error:
            self.poison(error)
            raise

    def _run_group(self) -> bool:
        """Write and sync the next group; this thread has the lead, and gives it up. True: frames
        are pending, nobody leads, and the caller must see to them.
        """
        hands, token = self._hands, object()
        try:  # as `hands.during` has it, without another call in each append
            try:
                group, marks, end = self._write_group(token)
            finally:
                hands.at_work.discard(token)
        finally:
            hands.left(token)
        return self._settle(group, marks, end)

    def _write_group(self, token: object) -> tuple[Group, Marks, int]:
        """Take what is pending and bring it to the disk; where its frames end, in a new file."""
        active = self._active
        event = None
        checkpoint: Checkpoint | None = None
        with self._lock:
            if self._hands.ended:  # by a close that was interrupted while this group waited
                self.spoil_locked(LogClosedError("this log is closed; open it again"))
            group = self.staging.take(self._group_bytes)
            if group is None or self.poisoned is not None:
                self._leading = False
                raise self.poisoned_error()
            self._hands.at_work.add(token)
            marks = self._marks_locked()
            if group.new_file is None:
                event = active.claim_locked(group.size_bytes)
            else:
                checkpoint = self._checkpoint_locked(group.new_file, marks)
        end = -1
        if event is not None:
            event.wait()
        if checkpoint is None:
            active.write(group, marks)
        else:
            end = active.create(group, checkpoint, marks)
        return group, marks, end

    def _settle(self, group: Group, marks: Marks, end: int) -> bool:
        """The group is on disk: move the limits, pass the lead on, tell everybody. The lead is
        passed on first: what is told may append in this thread, and then wait for whoever leads.
        """
        active = self._active
        heir: _Waiter | None = None
        woken: list[_Waiter] | tuple[()] = ()
        try:
            with self._lock:
                if self.poisoned is not None:
                    # The filler met an error meanwhile, which may have been this group's.
                    self._leading = False
                    raise self.poisoned_error()
                if group.new_file is None:
                    fill = active.settle_locked()
                    self.sworn_seq = marks.synced_seq
                else:
                    fill = active.adopt_locked(group.new_file.file, end)
                    self.sworn_seq = group.new_file.seq
                seq = group.last_seq
                if self.durable.synced(seq):
                    self._owner.on_durable()
                self.synced_seq = seq  # last: whoever sees it takes its append for committed
                heir = self._pass_lead_locked()
                # One thread at a time delivers; who comes meanwhile leaves it to that one.
                deliver = not self._delivering
                if deliver:
                    self._delivering = True
                else:
                    self._deliver_again = True
                more = heir is None and self.staging.pending
                if self._waiters:
                    woken = [waiter for waiter in self._waiters if waiter.seq <= seq]
                    self._waiters = [waiter for waiter in self._waiters if waiter.seq > seq]
            if heir is not None:
                heir.event.set()
            if fill:
                self._ask_for_zeros()
            if deliver:
                self._deliver()
        finally:
            for waiter in woken:
                waiter.event.set()
        self._owner.after_group()
        return more

    def _ask_for_zeros(self) -> None:
        """Notify the filler. The group is durable without it, whatever it meets."""
        try:
            self._services.filler.notify(self._active)
        except Exception:
            logger.exception("no zeros are written ahead in %s", self._directory)

    def _deliver(self) -> None:
        """Call `on_synced`, in order, until no group has come meanwhile; by one thread, so that the
        owner's callbacks may append without waiting for themselves.
        """
        again = True
        while again:
            try:
                self._owner.on_synced()
            except Exception:
                # The group is durable whatever the owner makes of it; the others must go on.
                logger.exception("the owner of %s failed in on_synced", self._directory)
            with self._lock:
                again, self._deliver_again = self._deliver_again, False
                self._delivering = again

    def _marks_locked(self) -> Marks:
        """What is known to be on disk as this group is written.

        In the first group of an open that is what recovery found sworn to, and no more: naming a
        file that frames do not stand in would cut the next file off from the ones before it.
        """
        file, committed = self._active.file, self._owner.commit_mark
        if file is not None:
            return _marks((self.synced_seq, file.seq, self._active.end, committed))
        file_seq, seq, position = self.previous_end or (0, 0, 0)
        return Marks(seq, file_seq, position, committed)

    def _checkpoint_locked(self, opening: NewFile, marks: Marks) -> Checkpoint:
        """The checkpoint of a new file: folded values from the owner, the rest as staged."""
        folds = opening.folds if opening.folds is not None else self._owner.checkpoint_source()
        previous_end = None
        if marks.synced_file:
            previous_end = (marks.synced_file, marks.synced_seq, marks.synced_position)
        return replace(
            folds,
            base=opening.base,
            term=opening.term,
            vote=opening.vote,
            suspect=opening.suspect,
            committed_index=max(folds.committed_index, self._owner.commit_mark),
            previous_end=previous_end,
        )

    # --- failure ---------------------------------------------------------------------------------

    def spoil_locked(self, cause: BaseException) -> None:
        """A change stopped half-way: from here on nothing is staged or written, so that nothing is
        acknowledged on top of it. The caller lets `poison` tell, once the lock is free.
        """
        if self.poisoned is None:
            self.poisoned = cause

    def poison(self, cause: BaseException) -> None:
        """End this WAL: nothing more is written, whoever waits learns it. The first cause stays.

        Once; but whoever is interrupted meanwhile leaves it to the next who comes here.
        """
        mine = False
        try:
            with self._lock:
                self._leading = False
                if self.poisoned is None:
                    self.poisoned = cause
                cause = self.poisoned
                if self._told:
                    return
                mine = self._told = True
            self._tell(cause)
        except BaseException:
            if mine:
                self._told = False
            raise

    def _tell(self, cause: BaseException) -> None:
        """Wake whoever waits, and tell the owner."""
        try:
            # A copy: one that is interrupted leaves meanwhile.
            for waiter in tuple(self._waiters):
                waiter.event.set()
            what = "a write or sync failed" if isinstance(cause, OSError) else "interrupted"
            logger.error("WAL %s: %s: %r", self._directory, what, cause)
        finally:
            try:
                self._owner.on_failed(cause)
            except Exception:
                logger.exception("the owner of %s failed in on_failed", self._directory)

    def poisoned_error(self, durability: Durability = "unknown") -> LogPoisonedError:
        """What callers get from a poisoned WAL."""
        return LogPoisonedError(
            f"a write or sync in {self._directory} failed or was interrupted ({self.poisoned!r}); "
            "what was in flight may or may not be on disk: close the log and open it again, then "
            "look at its end",
            cause=self.poisoned,
            durability=durability,
        )
