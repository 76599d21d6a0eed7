"""Which partitions of a store are open, and whose turn it is to open or close one.

Place: part of `log_store`. Promise: the same log every time for the same partition, and never two
over the same files: whoever opens, closes or removes a partition has it alone, and everybody else
waits until that is done; once `close` has begun nothing stays open, whoever was opening it.
Invariant: no lock is held over I/O: a partition in somebody's hands stands here as None. It is
given back in one step of the dict, without the lock, wherever Ctrl-C comes: nobody else could; and
no log is given back open that has begun to be closed, since the next one writes into its files.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable

from chronik_store.errors import ChronikError, LogClosedError
from chronik_store.partition_log import PartitionLog
from chronik_store.threads import Threads

logger = logging.getLogger("chronik_store.store")

Key = tuple[str, int]
"""Topic and partition."""
_NOBODY = object()
"""What stands for a partition that is neither open nor in somebody's hands."""


class OpenLogs:
    """The open partitions of one store. Thread-safe.

    close_log: acknowledges what is in flight in a log and releases all that it holds.
    """

    def __init__(self, threads: Threads, close_log: Callable[[PartitionLog], None]) -> None:
        self._close_log = close_log
        self._changed = threads.condition()
        self._logs: dict[Key, PartitionLog | None] = {}
        self._closed = False
        self._ended = False
        self._when_empty: Callable[[], None] | None = None

    def get(self, key: Key) -> PartitionLog | None:
        """The log, if it is open. Takes no lock."""
        return self._logs.get(key)

    def is_held(self, key: Key) -> bool:
        """It is open, or in somebody's hands."""
        return key in self._logs

    def all(self) -> list[PartitionLog]:
        """Those that are open now."""
        return [log for log in list(self._logs.values()) if log is not None]

    def get_or_open(self, key: Key, opener: Callable[[], PartitionLog]) -> PartitionLog:
        """The log of this partition; `opener` is called when it is not open, by one thread only.

        What it checks stays true until the log is here: nobody removes the partition meanwhile.
        LogClosedError once `close` has been called.
        """
        opened: PartitionLog | None = None
        mine = False
        try:
            with self._changed:
                log = self._wait_locked(key)
                if log is not None:
                    return log
                self._logs[key] = None
                mine = True
            log = opened = opener()
        finally:
            if mine:
                if opened is None:
                    self._logs.pop(key, None)
                else:
                    self._logs[key] = opened
                self._given_back()
        if self._closed:
            self._close_late(key, log)
            raise LogClosedError("the store was closed while this log was being opened")
        return log

    def _close_late(self, key: Key, log: PartitionLog) -> None:
        """Close what was opened meanwhile, unless `close` does, which mostly waits for it."""
        with self._changed:
            while not self._ended and self._logs.get(key) is log:
                self._changed.wait(1.0)
            if self._logs.get(key) is not log:
                return
            self._logs[key] = None
        try:
            self._close_log(log)
        finally:
            self._logs.pop(key, None)
            self._given_back()

    def close_one(self, key: Key, log: PartitionLog) -> None:
        """Close this log, if it is open still: its partition may have another one by now."""
        mine = False
        try:
            with self._changed:
                if self._closed or self._wait_locked(key) is not log:
                    return
                self._logs[key] = None
                mine = True
            self._close_log(log)
        except BaseException as error:
            if mine and not isinstance(error, Exception):
                self._close_log(log)  # Ctrl-C may have come in front of its first step
            raise
        finally:
            if mine:
                self._logs.pop(key, None)
                self._given_back()

    def while_closed(self, keys: Iterable[Key], change: Callable[[], None]) -> None:
        """Call `change` while these partitions are closed, and nobody opens one of them.

        For partitions that are about to go: one that cannot be closed as it should (a full disk is
        a reason to delete) does not keep the others from being closed, or from going.
        """
        taken: list[Key] = []
        log = None
        try:
            for key in keys:
                with self._changed:
                    log = self._wait_locked(key)
                    self._logs[key] = None
                    taken.append(key)
                if log is not None:
                    try:
                        self._close_log(log)
                    except ChronikError as error:
                        logger.warning("%s/%d is going, and was not closed well: %s", *key, error)
            change()
        except BaseException as error:
            if log is not None and not isinstance(error, Exception):
                self._close_log(log)  # see `close_one`
            raise
        finally:
            deque(map(self._logs.pop, taken), maxlen=0)
            self._given_back()

    def close(self) -> None:
        """Close every log, those too that others are opening, and refuse new ones. Raises the
        first error once all is done.

        An interrupt ends the wait for others only: what they open is closed when they are done.
        """
        errors: list[BaseException] = []
        self._closed = True
        try:
            with self._changed:
                while None in self._logs.values():
                    self._changed.wait(1.0)
        except BaseException as error:  # noqa: BLE001 (Ctrl-C: raised when all is closed)
            errors.append(error)
        while self._logs:
            try:
                left = [(key, log) for key, log in [*self._logs.items()] if log is not None]
                if not left:
                    break
                self._close_all(left, errors)
            except BaseException as error:  # noqa: BLE001 (the same)
                errors.append(error)
        self._ended = True
        self._given_back()
        if errors:
            raise errors[0]

    def _close_all(
        self, logs: Iterable[tuple[Key, PartitionLog]], errors: list[BaseException]
    ) -> None:
        """Close these. Their errors are added to the others, but for Ctrl-C."""
        for key, log in logs:
            try:
                self._close_log(log)
            except Exception as error:  # noqa: BLE001 (every log is closed; the first is raised)
                errors.append(error)
            except BaseException:
                self._close_log(log)  # see `close_one`
                raise
            finally:
                self._logs.pop(key, None)

    def when_empty(self, call: Callable[[], None]) -> None:
        """After `close`: call this once no partition is in anybody's hands, mostly at once."""
        with self._changed:
            if self._logs:
                self._when_empty = call
                return
        call()

    def _wait_locked(self, key: Key) -> PartitionLog | None:
        """Wait until the partition is in nobody's hands; its log if it is open."""
        while self._logs.get(key, _NOBODY) is None:
            self._changed.wait(1.0)
        if self._closed:
            raise LogClosedError("the store is closed; open it again")
        return self._logs.get(key)

    def _given_back(self) -> None:
        """A partition was: tell those who wait for it. (Who is not told looks again.)"""
        call = None
        with self._changed:
            self._changed.notify_all()
            if not self._logs:
                call, self._when_empty = self._when_empty, None
        if call is not None:
            call()
