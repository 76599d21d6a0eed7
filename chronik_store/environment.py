"""The seams, as one value.

Place: above `fs`, below every room that acts. Promise: whoever builds a store hands in one
`Environment`; nothing below reaches around it. Invariant: frozen; shared by all threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from chronik_store.clock import Clock, Entropy, SystemClock, SystemEntropy
from chronik_store.fs.base import FileSystem
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.threads import SystemThreads, Threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Clock, chance, threads and disk of one store; the object store comes by URL or value."""

    clock: Clock = field(default_factory=SystemClock)
    entropy: Entropy = field(default_factory=SystemEntropy)
    threads: Threads = field(default_factory=SystemThreads)
    fs: FileSystem = field(default_factory=PosixFileSystem)
