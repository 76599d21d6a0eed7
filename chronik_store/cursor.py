"""A named position of a reader, kept in the log itself.

Place: handed out by `PartitionLog.cursor`. Promise: `commit` returns when the position is durable
and committed like any record; it survives restarts, is replicated, and goes to the bucket with the
manifest. Invariant: a cursor never moves back unless told so with `reset=True`; a commit that
returns stood, at some moment of its call, where it says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from chronik_store.admin_commands import cursor_commit, cursor_deletion
from chronik_store.arguments import check_name
from chronik_store.errors import ConfigError
from chronik_store.format.record_batch import StoredBatch
from chronik_store.model import StoredRecord

if TYPE_CHECKING:
    from chronik_store.partition_log import PartitionLog

NAME_BYTES_MAX = 255


class Cursor:
    """One named position of one partition. Thread-safe; cheap to make."""

    def __init__(self, log: PartitionLog, name: str) -> None:
        check_name(name, "a cursor's name")
        if not name or not name.isprintable() or len(name.encode()) > NAME_BYTES_MAX:
            raise ConfigError(
                f"cursor name {name!r}: use 1 to {NAME_BYTES_MAX} bytes of printable text"
            )
        self._log = log
        self.name = name

    def __repr__(self) -> str:
        return f"Cursor({self.name!r}, offset={self._position()})"

    @property
    def committed_offset(self) -> int | None:
        """The offset last committed, or None if this name was never committed."""
        self._look()
        return self._committed()

    @property
    def offset(self) -> int:
        """Where reading goes on: the committed offset, else the log's start."""
        self._look()
        return self._position()

    def _look(self) -> None:
        """Beside a writer, whoever commits is another process."""
        self._log._view.check_open()
        self._log._view.refresh()

    def _committed(self) -> int | None:
        return dict(self._log._manifest().cursors).get(self.name)

    def _position(self) -> int:
        committed = self._committed()
        return self._log._manifest().start_offset if committed is None else committed

    def records(self, *, follow: bool = False) -> Iterator[StoredRecord]:
        """Records from `offset` on. Committing while iterating does not move the iterator."""
        return self._log.scan(self.offset, follow=follow)

    def batches(self, *, max_bytes: int = 1 << 20) -> Iterator[StoredBatch]:
        """Stored batches from `offset` on; the first may begin before it."""
        return self._log.read_batches(self.offset, max_bytes=max_bytes)

    def commit(self, next_offset: int, *, reset: bool = False) -> None:
        """Remember that everything below `next_offset` is done. Durable when it returns.

        Of commits that overlap each returns as if they had come one after the other. So
        OffsetConflictError when this would move the cursor back and `reset` is not set, also when
        one that overlaps has just moved it on; OffsetOutOfRangeError past the committed end.
        """
        log = self._log
        log._writable().control.settle(
            lambda: cursor_commit(
                log._manifest(),
                log._view.committed.offset,
                self.name,
                next_offset,
                reset=reset,
                most=log._config.cursors_max,
            )
        )

    def delete(self) -> None:
        """Forget the position. Durable when it returns; no error if there is none."""
        log = self._log
        log._writable().control.settle(lambda: cursor_deletion(log._manifest(), self.name))
