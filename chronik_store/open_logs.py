"""Which partitions of a store are open, and whose turn it is to open or close one.

Place: part of `log_store`. Promise: the same log every time for the same partition, and never two
over the same files: whoever opens, closes or removes a partition has it alone, and everybody else
waits until that is done; once `close` has begun nothing stays open, whoever was opening it.
Invariant: no lock is held over I/O: who has a partition in hand stands in its slot. It is given
back in one step, wherever Ctrl-C comes: nobody else could do it. A log leaves its slot when it is
closed, or was and failed; one whose closing was cut off stays, and whoever closes it next goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from chronik_store.errors import ChronikError, LogClosedError
from chronik_store.partition_log import PartitionLog
from chronik_store.threads import Threads

logger = logging.getLogger("chronik_store.store")

Key = tuple[str, int]
"""Topic and partition."""


class _Hand:
    """Somebody's turn with some partitions."""

    __slots__ = ("is_over",)

    def __init__(self) -> None:
        self.is_over = False


class _Slot:
    """One partition: its log, if it is open, and in whose hand it is."""

    __slots__ = ("hand", "log")

    def __init__(self) -> None:
        self.hand: _Hand | None = None
        self.log: PartitionLog | None = None

    @property
    def is_taken(self) -> bool:
        return self.hand is not None and not self.hand.is_over

    @property
    def is_empty(self) -> bool:
        return self.log is None and not self.is_taken


class OpenLogs:
    """The open partitions of one store. Thread-safe.

    close_log: acknowledges what is in flight in a log and releases all that it holds.
    """

    def __init__(self, threads: Threads, close_log: Callable[[PartitionLog], None]) -> None:
        self._close_log = close_log
        self._changed = threads.condition()
        self._slots: dict[Key, _Slot] = {}
        self._closed = False
        self._ended = False
        self._when_empty: Callable[[], None] | None = None

    def get(self, key: Key) -> PartitionLog | None:
        """The log, if it is open and in nobody's hand. Takes no lock."""
        slot = self._slots.get(key)
        return None if slot is None or slot.is_taken else slot.log

    def is_held(self, key: Key) -> bool:
        """It is open, or in somebody's hand."""
        slot = self._slots.get(key)
        return slot is not None and not slot.is_empty

    def all(self) -> list[PartitionLog]:
        """Those that are open now."""
        slots = list(self._slots.values())
        return [slot.log for slot in slots if slot.log is not None and not slot.is_taken]

    def get_or_open(self, key: Key, opener: Callable[[], PartitionLog]) -> PartitionLog:
        """The log of this partition; `opener` is called when it is not open, by one thread only.

        What it checks stays true until the log is here: nobody removes the partition meanwhile.
        LogClosedError once `close` has been called.
        """
        mine = _Hand()
        try:
            with self._changed:
                slot = self._take_locked(key, mine)
            if slot.log is None:
                slot.log = opener()
            log = slot.log
        finally:
            mine.is_over = True
            self._given_back(key)
        if self._closed:
            self._close_late(key, log)
            raise LogClosedError("the store was closed while this log was being opened")
        return log

    def _close_late(self, key: Key, log: PartitionLog) -> None:
        """Close what was opened meanwhile, unless `close` does, which mostly waits for it."""
        mine = _Hand()
        try:
            with self._changed:
                while not self._ended and self.get(key) is log:
                    self._changed.wait(1.0)
                if self.get(key) is not log:
                    return
                slot = self._slots[key]
                slot.hand = mine
            self._empty_surely(slot)
        finally:
            mine.is_over = True
            self._given_back(key)

    def close_one(self, key: Key, log: PartitionLog) -> None:
        """Close this log, if it is open still: its partition may have another one by now."""
        mine = _Hand()
        try:
            with self._changed:
                if self._closed:
                    return
                slot = self._take_locked(key, mine)
                if slot.log is not log:
                    return
            self._empty_surely(slot)
        finally:
            mine.is_over = True
            self._given_back(key)

    def while_closed(self, keys: Iterable[Key], change: Callable[[], None]) -> None:
        """Call `change` while these partitions are closed, and nobody opens one of them.

        For partitions that are about to go: one that cannot be closed as it should (a full disk is
        a reason to delete) does not keep the others from being closed, or from going.
        """
        mine, taken = _Hand(), [*keys]
        try:
            for key in taken:
                with self._changed:
                    slot = self._take_locked(key, mine)
                if slot.log is not None:
                    try:
                        self._empty_surely(slot)
                    except ChronikError as error:
                        logger.warning("%s/%d is going, and was not closed well: %s", *key, error)
            change()
        finally:
            mine.is_over = True
            self._given_back(*taken)

    def close(self) -> None:
        """Close every log, those too that others are opening, and refuse new ones. Raises the
        first error once all is done.

        An interrupt ends the wait for others only: what they open is closed when they are done. Of
        a call that was interrupted more than once the next one goes on.
        """
        errors: list[BaseException] = []
        self._closed = True
        try:
            with self._changed:
                while any(slot.is_taken for slot in self._slots.values()):
                    self._changed.wait(1.0)
        except BaseException as error:  # noqa: BLE001 (Ctrl-C: raised when all is closed)
            errors.append(error)
        try:
            self._close_all(errors)
        except BaseException as error:  # noqa: BLE001 (the same)
            errors.append(error)
            self._close_all(errors)
        self._ended = True
        self._given_back()
        if errors:
            raise errors[0]

    def _close_all(self, errors: list[BaseException]) -> None:
        """Close all that nobody has in hand. Their errors are added to the others."""
        for slot in list(self._slots.values()):
            if slot.log is None or slot.is_taken:
                continue
            try:
                try:
                    self._empty(slot)
                except Exception:
                    raise
                except BaseException:
                    self._empty(slot)  # see `_empty_surely`
                    raise
            except BaseException as error:  # noqa: BLE001 (every log is closed; one is raised)
                errors.append(error)

    def _empty_surely(self, slot: _Slot) -> None:
        """Close the log in this slot. Ctrl-C may come in front of the first step, so once more."""
        try:
            self._empty(slot)
        except Exception:
            raise
        except BaseException:
            self._empty(slot)
            raise

    def _empty(self, slot: _Slot) -> None:
        assert slot.log is not None
        try:
            self._close_log(slot.log)
        except Exception:
            slot.log = None  # it is closed nevertheless
            raise
        slot.log = None

    def when_empty(self, call: Callable[[], None]) -> None:
        """After `close`: call this once all is closed and in nobody's hand, mostly at once. It may
        be called more than once.
        """
        with self._changed:
            self._when_empty = call
        self._given_back()

    def _take_locked(self, key: Key, mine: _Hand) -> _Slot:
        """Wait until the partition is in nobody's hand, and have it."""
        while (slot := self._slots.setdefault(key, _Slot())).is_taken:
            self._changed.wait(1.0)
        if self._closed:
            raise LogClosedError("the store is closed; open it again")
        slot.hand = mine
        return slot

    def _given_back(self, *keys: Key) -> None:
        """These were: tell those who wait for them. (Who is not told looks again.)"""
        with self._changed:
            self._changed.notify_all()
            for key in keys:
                if key in self._slots and self._slots[key].is_empty:
                    del self._slots[key]
            call = self._when_empty
            if call is None or not all(slot.is_empty for slot in self._slots.values()):
                return
        call()
        self._when_empty = None  # not before: who was interrupted leaves it to the next
