"""Taking old files away: front to back, pinned ones later, damaged ones into quarantine.

Place: in `wal`. Whether a file *may* go is the owner's proof (protocol 5, 7); this module only
carries it out. Promise: at no moment does a younger file go before an older one, on disk too: each
removal is synced before the next, so a crash leaves a suffix of the files and never a hole.
Invariant: a file that somebody reads keeps its name until the last reader is done, and if the log
is closed by then, until it is opened again; a damaged one is moved, never deleted or replaced.
"""

from __future__ import annotations

import logging

from chronik_store.errors import UnavailableError
from chronik_store.fs.base import FileSystem
from chronik_store.fs.tree import move_files
from chronik_store.threads import Lock
from chronik_store.wal.descriptors import DescriptorCache
from chronik_store.wal.entry_table import LogFile
from chronik_store.wal.hands import Hands

logger = logging.getLogger("chronik_store.wal")


class Pruner:
    """Unlinks files that the WAL has let go. Thread-safe; `lock` is the WAL's."""

    def __init__(
        self,
        fs: FileSystem,
        lock: Lock,
        descriptors: DescriptorCache,
        directory: str,
        quarantine: str,
        hands: Hands,
    ) -> None:
        self._fs = fs
        self._lock = lock
        self._descriptors = descriptors
        self._directory = directory
        self._quarantine = quarantine
        self._hands = hands
        self._doomed: list[LogFile] = []
        self._working = False
        self._refused = False

    @property
    def waiting(self) -> bool:
        """Files are doomed and still there, and the disk has not refused the last one."""
        return bool(self._doomed) and not self._refused

    def doom_locked(self, files: list[LogFile]) -> None:
        """These go, after those doomed before. The lock must be held."""
        for file in files:
            file.removed = True
        self._doomed.extend(files)

    def work(self) -> None:
        """Remove what is doomed, up to the first file that is being read.

        UnavailableError when the disk refuses; what is left stays doomed for the next call.
        """
        self._hands.during(self._work)

    def _work(self, token: object) -> None:
        while (file := self._next(token)) is not None:
            gone = False
            try:
                self._descriptors.forget(file.path)
                self._take_away(file)
                gone = True
            except OSError as error:
                raise UnavailableError(f"{file.path} cannot be removed: {error}") from error
            finally:
                with self._lock:
                    self._working = False
                    self._refused = not gone
                    if gone:
                        self._doomed.pop(0)

    def _next(self, token: object) -> LogFile | None:
        with self._lock:
            if self._working or not self._doomed or self._doomed[0].readers:
                return None
            if self._hands.ended:
                return None
            self._working = True
            self._hands.at_work.add(token)
            return self._doomed[0]

    def _take_away(self, file: LogFile) -> None:
        fs = self._fs
        if not file.damaged:
            try:
                fs.remove(file.path)
            except FileNotFoundError:
                logger.warning("%s had been removed by somebody else", file.path)
        elif fs.exists(file.path):  # else it was moved before, and a sync behind that failed
            logger.warning("damaged WAL file %s goes to %s", file.path, self._quarantine)
            move_files(fs, [file.path], self._quarantine)
        fs.sync_directory(self._directory)
