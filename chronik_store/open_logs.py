"""Which partitions of a store are open, and whose turn it is to open or close one.

Place: part of `log_store`. Promise: the same log every time for the same partition, and never two
over the same files: whoever opens, closes or removes a partition has it alone, and everybody else
waits until that is done; once `close` has begun nothing stays open, whoever was opening it.
Invariant: no lock is held over I/O: a partition in somebody's hands stands here as None.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from chronik_store.errors import ChronikError, LogClosedError
from chronik_store.partition_log import PartitionLog
from chronik_store.threads import Threads

logger = logging.getLogger("chronik_store.store")

Key = tuple[str, int]
"""Topic and partition."""


class OpenLogs:
    """The open partitions of one store. Thread-safe.

    close_log: acknowledges what is in flight in a log and releases all that it holds.
    """

    def __init__(self, threads: Threads, close_log: Callable[[PartitionLog], None]) -> None:
        self._close_log = close_log
        self._changed = threads.condition()
        self._logs: dict[Key, PartitionLog | None] = {}
        self._closed = False
        self._when_empty: Callable[[], None] | None = None

    def get(self, key: Key) -> PartitionLog | None:
        """The log, if it is open. Takes no lock."""
        return self._logs.get(key)

    def is_held(self, key: Key) -> bool:
        """It is open, or in somebody's hands."""
        return key in self._logs

    def all(self) -> list[PartitionLog]:
        """Those that are open now."""
        with self._changed:
            return [log for log in self._logs.values() if log is not None]

    def get_or_open(self, key: Key, opener: Callable[[], PartitionLog]) -> PartitionLog:
        """The log of this partition; `opener` is called when it is not open, by one thread only.

        What it checks stays true until the log is here: nobody removes the partition meanwhile.
        LogClosedError once `close` has been called.
        """
        opened: PartitionLog | None = None
        mine, kept = False, True
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
                kept = self._put(key, opened)
        if not kept:
            raise LogClosedError("the store was closed while this log was being opened")
        return log

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
        finally:
            if mine:
                self._put(key, None)

    @contextmanager
    def kept_closed(self, keys: Iterable[Key]) -> Iterator[None]:
        """Within this, these partitions are closed, and nobody opens one of them.

        For partitions that are about to go: one that cannot be closed as it should (a full disk is
        a reason to delete) does not keep the others from being closed, or from going.
        """
        taken: list[Key] = []
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
            yield
        finally:
            for key in taken:
                self._put(key, None)

    def close(self) -> None:
        """Close every log, those too that others are opening, and refuse new ones. Raises the
        first error once all is done.

        An interrupt ends the wait for others only: what they open is closed when they are done.
        """
        errors: list[BaseException] = []
        try:
            with self._changed:
                self._closed = True
                while any(log is None for log in self._logs.values()):
                    self._changed.wait(1.0)
        except BaseException as error:  # noqa: BLE001 (Ctrl-C: raised when all is closed)
            errors.append(error)
        with self._changed:
            logs = {key: log for key, log in self._logs.items() if log is not None}
        for key, log in logs.items():
            try:
                self._close_log(log)
            except BaseException as error:  # noqa: BLE001 (every log is closed; the first is raised)
                errors.append(error)
            finally:
                self._put(key, None)
        if errors:
            raise errors[0]

    def when_empty(self, call: Callable[[], None]) -> None:
        """After `close`: call this once no partition is in anybody's hands, mostly at once."""
        with self._changed:
            if self._logs:
                self._when_empty = call
                return
        call()

    def _wait_locked(self, key: Key) -> PartitionLog | None:
        """Wait until the partition is in nobody's hands; its log if it is open."""
        while key in self._logs and self._logs[key] is None:
            self._changed.wait(1.0)
        if self._closed:
            raise LogClosedError("the store is closed; open it again")
        return self._logs.get(key)

    def _put(self, key: Key, log: PartitionLog | None) -> bool:
        """Give the partition back, open or not. False: it is closed again, since the store is."""
        with self._changed:
            if log is not None and not self._closed:
                self._logs[key] = log
                self._changed.notify_all()
                return True
        try:
            if log is not None:
                self._close_log(log)
        finally:
            with self._changed:
                self._logs.pop(key, None)
                self._changed.notify_all()
                call = None if self._logs else self._when_empty
            if call is not None:
                call()
        return log is None
