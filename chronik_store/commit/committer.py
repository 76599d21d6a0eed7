"""The committer: worker threads that lead the group commits for which no appender waits.

Place: one per store, shared by all WALs. An appender that waits in a thread leads its own group
(no hand-off, see `wal`); the committer serves appends that return at once and wait elsewhere (an
event loop, a replica's tickets). Promise: a notified target gets its groups committed one after
the other until it has none pending; while one target syncs, other workers write and sync other
targets. Invariant: never waits on a timer to make a group larger: the groups grow by themselves
while the disk is busy. What is staged is never left to nobody: where no thread can be started and
none runs, the caller commits.
"""

from __future__ import annotations

import logging
from typing import Protocol

from chronik_store.commit.rounds import Rounds
from chronik_store.threads import Threads

logger = logging.getLogger("chronik_store.commit")


class CommitTarget(Protocol):
    """A log with something to commit."""

    def commit_group(self) -> bool:
        """Write and sync one group. True: more is pending and nobody else leads."""
        ...


class Committer:
    """Commits groups in the background. Thread-safe."""

    def __init__(self, threads: Threads, workers: int = 8) -> None:
        self._rounds = Rounds(threads, workers, "chronik-commit")

    def notify(self, target: CommitTarget) -> None:
        """Have the target's pending group committed soon. Cheap, and blocks on the disk only where
        no thread can be had.
        """
        for step in self._rounds.notify(target.commit_group):
            try:
                while step():
                    pass
            except Exception:
                # As in a worker: whoever waits has been told, and this caller may be another's.
                logger.exception("a group could not be committed")

    def close(self) -> None:
        """Commit what was notified, end the workers. Idempotent; close the logs first."""
        self._rounds.close()
