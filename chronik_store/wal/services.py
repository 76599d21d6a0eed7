"""What all WALs of a store share: committer, filler, descriptors, the memory for tails.

Place: in `wal`; a store makes one and hands it to each WAL. Promise: bounded threads, descriptors
and memory, however many partitions there are. Invariant: closed after the last WAL.
"""

from __future__ import annotations

from dataclasses import dataclass

from chronik_store.commit.committer import Committer
from chronik_store.commit.filler import Filler
from chronik_store.environment import Environment
from chronik_store.wal.descriptors import DescriptorCache
from chronik_store.wal.settings import MIB
from chronik_store.wal.tail import TailBudget

OPEN_FILES = 64


@dataclass(frozen=True, slots=True)
class WalServices:
    """The shared parts. Thread-safe."""

    committer: Committer
    filler: Filler
    descriptors: DescriptorCache
    tail_budget: TailBudget

    @classmethod
    def create(
        cls,
        env: Environment,
        *,
        commit_threads: int = 8,
        tail_bytes: int = 64 * MIB,
        open_files: int = OPEN_FILES,
    ) -> WalServices:
        """Parts of this size; no thread starts before it is needed. open_files: so many that were
        read stay open for the next read.
        """
        return cls(
            Committer(env.threads, commit_threads),
            Filler(env.threads),
            DescriptorCache(env.fs, env.threads, open_files),
            TailBudget(env.threads, tail_bytes),
        )

    def close(self) -> None:
        """End the threads, close the descriptors. Idempotent."""
        self.committer.close()
        self.filler.close()
        self.descriptors.close()
