"""Ways to look for a bug: a directed test, a crash at each call of an act, worlds of many seeds.

Each finder is a callable that raises when something is wrong, and a name for the table in
docs/testing.md. Directed tests are those of their own folders, called with what they ask for.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import GeneratorType
from typing import Any

from chronik_store.testing.disk_faults import Gate
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.testing.worlds.damaged_world import DamagedWorld
from chronik_store.testing.worlds.moved_world import MovedWorld
from chronik_store.testing.worlds.store_world import StoreWorld
from tests.crash.harness import Life, check_crash_points, close_quietly, reachable_buckets
from tests.crash.test_every_crash_point import ACTS
from tests.simulation.replica_world import ReplicaWorld


@dataclass(frozen=True)
class Finder:
    """`look` raises when it has found something."""

    name: str
    look: Callable[[], None]


@contextmanager
def quiet() -> Iterator[None]:
    """What the store logs of the bug is of no use."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def name_of(test: Callable[..., None]) -> str:
    return f"`{test.__name__}`"


def plain(test: Callable[..., None], **options: Any) -> Finder:
    """A test that asks for nothing, or for parameters only."""
    return Finder(name_of(test), lambda: test(**options))


def in_life(test: Callable[..., None], **options: Any) -> Finder:
    """A test over one open store."""

    def look() -> None:
        with reachable_buckets():
            life = Life(1)
            life.open()
            try:
                test(life, **options)
            finally:
                if isinstance(life.disk.hook, Gate):
                    life.disk.hook.open()  # a test that failed has left it shut
                life.plug.dead = False
                life.disk.hook = None
                close_quietly(life)

    return Finder(name_of(test), look)


def on_disk(test: Callable[..., None], **options: Any) -> Finder:
    """A test over a simulated disk."""
    return Finder(name_of(test), lambda: test(SimulatedDisk(seed=1), **options))


def given(test: Callable[..., None], **fixtures: Callable[[Path], Any]) -> Finder:
    """A test with fixtures, each made by a function of a directory (a fixture's own, mostly)."""

    def look() -> None:
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as path,
            ExitStack() as stack,
        ):
            made = {name: make(Path(path)) for name, make in fixtures.items()}
            for name, each in made.items():
                if isinstance(each, GeneratorType):
                    made[name] = next(each)
                    stack.callback(next, each, None)
            test(**made)

    return Finder(name_of(test), look)


def crash_points(act: str) -> Finder:
    """The power fails at each call of an act."""
    return Finder("crash points", lambda: check_crash_points(*ACTS[act], least=1))


def worlds(first: int = 1, count: int = 100) -> Finder:
    """Worlds of the store, up to the first that finds it. What a seed plays changes with the
    product, so there are many more than it took when this was written.
    """

    def look() -> None:
        for seed in range(first, first + count):
            StoreWorld(seed).run()

    return Finder("worlds", look)


def damaged_worlds(first: int = 1, count: int = 100) -> Finder:
    """Those whose disk rots."""

    def look() -> None:
        for seed in range(first, first + count):
            DamagedWorld(seed).run()

    return Finder("damaged worlds", look)


def moved_worlds(first: int = 1, count: int = 40) -> Finder:
    """The same for a bucket that changes hands."""

    def look() -> None:
        for seed in range(first, first + count):
            MovedWorld(seed).run()

    return Finder("moved worlds", look)


def replicas(first: int = 1, count: int = 100) -> Finder:
    """The same for a log that a leader writes, cuts and writes anew."""

    def look() -> None:
        for seed in range(first, first + count):
            ReplicaWorld(seed).run()

    return Finder("replica worlds", look)
