"""Whole server processes on virtual time: a node is what `chronik serve` runs, and nothing less.

Place: over `simulated_loop`, `wires` and the store's simulator; `story` plays with it.
Promise: everything of a node is the product's own, from the bytes of a frame to the threads of its
pipeline; its disk, clock, chance, network and bucket are simulated; equal seeds play equally.
Invariant: what ties one life of a node to the next is its disk, and its address.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import sys
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, Final
from unittest import mock

from chronik_server.addresses import Address
from chronik_server.backend import NodeRemovedError, StoppedError
from chronik_server.client import AsyncClient, ClientOptions
from chronik_server.config import ServerConfig
from chronik_server.logs import LOGGERS
from chronik_server.metadata import METADATA_TOPIC
from chronik_server.node import open_backend
from chronik_server.server import Server
from chronik_server.testing.servers.simulated_loop import SimulatedLoop
from chronik_server.testing.servers.wires import Wires
from chronik_store import conversion
from chronik_store.config import LogConfig
from chronik_store.environment import Environment
from chronik_store.errors import ChronikError
from chronik_store.objectstore.base import ObjectStore
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.testing.crash import CrashError, CrashMode
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.testing.virtual_time import Simulation, Timing
from chronik_store.testing.worlds.store_world import buckets_of
from chronik_store.testing.worlds.tame_bundles import scratch_in_memory, tame_bundles

PORT: Final = 7411
CLIENT: Final = "client"
URL: Final = "memory://servers"
CONVERTED: Final = "converted"
LOG: Final = LogConfig(
    object_store=URL,
    wal_file_bytes=8000,
    segment_bytes=3000,
    segment_age_seconds=2.0,
    pipeline_interval_seconds=0.5,
    indexing_enabled=False,
    garbage_seconds=1.0,
    cache_memory_bytes=1 << 16,
    cache_disk_bytes=0,
    tail_bytes_max=1 << 14,
    disk_reserve_bytes=0,
    disk_throttle_bytes=0,
)
TIMING: Final = Timing(sync_seconds=0.001, bucket_seconds=0.02)


class ServersWorld:
    """See the module. names: of the first nodes. is_cluster: they begin one; else each is a server
    of its own.
    """

    def __init__(
        self,
        names: Iterable[str],
        *,
        seed: int = 0,
        delays: tuple[float, ...] = (0.0002, 0.0005, 0.002),
        timing: Timing = TIMING,
        log: LogConfig = LOG,
        is_cluster: bool = True,
    ) -> None:
        self.rng = random.Random(f"{seed}/servers")
        self.simulation = Simulation(seed, preemption=0.02)
        self.wires = Wires(random.Random(f"{seed}/wires"), delays)
        self.bucket = MemoryObjectStore(clock=self.simulation.clock)
        self.served: ObjectStore = self.bucket
        """What nodes see of it."""
        self.ahead_seconds = 0.0
        """No clock has ever been further ahead."""
        self.is_rotten = False
        """What is in the bucket may be damaged: who reads it may be told so."""
        self.log, self._timing = log, timing
        self.events: Counter[str] = Counter()
        self.violations: list[str] = []
        self.first = tuple((name, Address(name, PORT)) for name in names)
        self.nodes: dict[str, ServerNode] = {}
        for name, _ in self.first:
            self.nodes[name] = ServerNode(self, name, peers=self.first if is_cluster else ())
        self._loops: list[SimulatedLoop] = []
        self.outsider = Environment(
            clock=self.simulation.clock,
            entropy=self.simulation.entropy,
            threads=self.simulation.threads,
            fs=SimulatedDisk(seed),
        )
        """For who looks at the bucket, and is no node."""

    def loop_on(self, host: str, owner: Any) -> SimulatedLoop:
        """A new one, for a new process."""
        loop = SimulatedLoop(self.simulation._scheduler, owner, host, self.wires)
        self._loops.append(loop)
        return loop

    def add(self, name: str, *, join: Iterable[str]) -> ServerNode:
        """A machine for a node that is to join."""
        entrances = tuple(Address(each, PORT) for each in join)
        self.nodes[name] = node = ServerNode(self, name, join=entrances)
        return node

    def note(self, what: str) -> None:
        """Add an event to the trace."""
        self.simulation._scheduler.record(what)

    def violate(self, what: str) -> None:
        """Something that must not be."""
        self.violations.append(what)
        self.note(f"VIOLATION {what}")

    def client(self, *names: str, **options: Any) -> AsyncClient:
        """One that knows these nodes; all of them, if none is named."""
        servers = [Address(name, PORT) for name in names or self.nodes]
        return AsyncClient(
            servers,
            options=ClientOptions(**options),
            clock=self.simulation.clock,
            entropy=self.simulation.entropy,
        )

    def run(self, story: Any, *, limit_seconds: float = 3600.0) -> None:
        """Play a coroutine function, on a loop of its own beside the nodes, to its end."""

        def main() -> None:
            loop = self.loop_on(CLIENT, self.simulation._driver)
            loop.run_until_complete(story())
            for fault in loop.faults:
                self.violate(f"nobody caught: {fault}")

        with self._surroundings(), _heard(self.violate):
            try:
                self.simulation.run(main, limit_seconds=limit_seconds)
            finally:
                for node in self.nodes.values():
                    node.look()
                end_all(self.simulation, self._loops)

    @contextlib.contextmanager
    def _surroundings(self) -> Iterator[None]:
        def open_store(_url: Any, *, env: Environment, **_: Any) -> ObjectStore:
            return self._bucket_for(env)

        with (
            scratch_in_memory() as scratch,
            buckets_of(self._bucket_for),
            tame_bundles(scratch),
            mock.patch("chronik_store.replicated.open_object_store", open_store),
        ):
            yield

    def _bucket_for(self, env: Environment) -> ObjectStore:
        for node in self.nodes.values():
            if node.machine.disk is env.fs:
                return node.machine.bucket(self.served)
        return self.bucket


class _Tracebacks(logging.Handler):
    """What is logged with one is a defect that somebody has caught, and goes on with."""

    def __init__(self, violate: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._violate = violate

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None and record.exc_info[1] is not None:
            error = record.exc_info[1]
            self._violate(f"{record.getMessage()}: {type(error).__name__}: {error}")


@contextlib.contextmanager
def _heard(violate: Callable[[str], None]) -> Iterator[None]:
    """Within this, tracebacks in the product's log are told."""
    loggers, handler = [logging.getLogger(name) for name in LOGGERS], _Tracebacks(violate)
    for each in loggers:
        each.addHandler(handler)
    try:
        yield
    finally:
        for each in loggers:
            each.removeHandler(handler)


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Within this, what is unwound says nothing: its `finally` blocks begin what nobody awaits, and
    log that it fails. (A record that is kept would keep all that it came through.)
    """
    hook, disabled = sys.unraisablehook, logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.unraisablehook = lambda _: None
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            gc.collect()
            sys.unraisablehook = hook
            logging.disable(disabled)


def end_all(simulation: Simulation, loops: Sequence[SimulatedLoop]) -> None:
    """Unwind everything, while it reaches nothing any more."""
    with unheard():
        for loop in loops:
            loop.owner.is_alive = False
        for loop in loops:
            loop.forget()
        simulation.close()


class ServerNode:
    """One node: its machine and, while it is up, its process."""

    def __init__(
        self,
        world: ServersWorld,
        name: str,
        *,
        peers: tuple[tuple[str, Address], ...] = (),
        join: tuple[Address, ...] = (),
    ) -> None:
        self.world, self.name = world, name
        self.machine = world.simulation.machine(name, timing=world._timing)
        self.config = ServerConfig(
            data_dir="/data",
            node_id=name,
            listen=Address(name, PORT),
            peers=peers,
            join=join,
            insecure=True,
            shutdown_seconds=2.0,
        )
        self._server: Server | None = None
        self.ended = ""
        """Why its last process has ended by itself."""
        self.was_member = bool(peers)
        """It has served."""
        self.was_removed = False
        self._loop: SimulatedLoop | None = None
        self._stop: asyncio.Event | None = None
        self._asked: set[asyncio.Task[None]] = set()

    @property
    def is_up(self) -> bool:
        """Its process runs."""
        return self.machine.is_up and self._loop is not None and not self.ended

    @property
    def server(self) -> Server | None:
        """It, while it serves."""
        return self._server if self.is_up else None

    def boot(self) -> None:
        """Start its process, on what its disk has."""
        self._begin(self._live)

    def convert(self) -> None:
        """`chronik node convert`, as a process of its own; `ended` says what came of it."""
        self._begin(self._convert)

    def _begin(self, process: Callable[[], None]) -> None:
        assert not self.is_up, f"{self.name} is up"
        if self._loop is not None:
            if self.machine.is_up:
                self.machine.kill()
            self.machine.restart()
        self.world.wires.silent.discard(self.name)
        self.machine.disk.hook = None
        self.ended, self._server, self._stop = "", None, None
        self._loop = self.world.loop_on(self.name, self.machine._life)
        self.world.events["starts"] += 1
        self.machine.spawn(process, name="process")

    def boot_if_down(self) -> None:
        """Unless it is to stay down."""
        if not self.is_up and not self.was_removed:
            self.boot()

    def crash(self, mode: CrashMode = "any") -> None:
        """Its machine loses power, and is off."""
        if self.is_up:
            self.look()
            self.world.events["power losses"] += 1
            self.world.wires.silent.add(self.name)
            self.machine.crash(mode)

    def kill(self) -> None:
        """Kill -9."""
        if self.is_up:
            self.look()
            self.world.events["kills"] += 1
            self._end_process()

    def set_clock(self, skew_seconds: float) -> None:
        """Its wall clock jumps to so many seconds ahead of the others'."""
        self.machine.clock_skew_seconds = skew_seconds
        self.world.ahead_seconds = max(self.world.ahead_seconds, skew_seconds)

    def stop(self) -> None:
        """SIGTERM."""
        if self.is_up and self._stop is not None and self._loop is not None:
            self.world.events["orderly ends"] += 1
            self._loop.from_outside(self._stop.set)

    def ask(self, question: Callable[[Any], Awaitable[Any]], told: Callable[[Any], None]) -> None:
        """Behind its face, on its own loop; what its backend answers is told, if it does."""
        backend = None if self.server is None else self.server.backend
        loop = self._loop

        async def asked() -> None:
            with contextlib.suppress(ChronikError):
                told(await question(backend))

        if backend is not None and loop is not None:
            loop.from_outside(lambda: self._asked.add(loop.create_task(asked())))

    def look(self) -> None:
        """What went wrong in its process, without anybody who caught it."""
        if self._loop is not None:
            for fault in self._loop.faults:
                self.world.violate(f"{self.name}: nobody caught: {fault}")
            self._loop.faults.clear()

    def _end_process(self) -> None:
        assert self._loop is not None
        self.world.wires.process_ended(self._loop)
        self.machine.kill()

    def _live(self) -> None:
        assert self._loop is not None
        try:
            self._loop.run_until_complete(self._serve())
        except (ChronikError, StoppedError) as error:
            self.ended = f"{type(error).__name__}: {error}"
        self.look()
        self.world.note(f"the process ends: {self.ended}")
        self._end_process()

    def _convert(self) -> None:
        try:
            conversion.convert(
                self.config.data_dir,
                self.name,
                own_topic=METADATA_TOPIC,
                config=self.world.log,
                env=self.machine.environment,
            )
            self.ended = CONVERTED
        except ChronikError as error:
            self.ended = f"{type(error).__name__}: {error}"
        self.world.note(f"the conversion ends: {self.ended}")
        self._end_process()

    async def _serve(self) -> None:
        """As `chronik serve`."""
        env, fatal = self.machine.environment, list[BaseException]()
        stop = self._stop = asyncio.Event()

        def end(error: BaseException) -> None:
            fatal.append(error)
            stop.set()

        backend = await open_backend(self.config, self.world.log, end, env=env, stop=stop)
        server = Server(
            backend,
            self.config,
            clock=env.clock,
            batch_bytes_max=self.world.log.batch_bytes_max,
            search_seconds=self.world.log.search_deadline_seconds,
        )
        try:
            await server.start()
            self._server, self.was_member = server, True
            await stop.wait()
        finally:
            self._server = None
            await server.stop()
        self.ended = "asked to end"
        if fatal:
            self.ended = f"{type(fatal[0]).__name__}: {fatal[0]}"
            self.was_removed = isinstance(fatal[0], NodeRemovedError)
            if not isinstance(fatal[0], (OSError, ChronikError, NodeRemovedError, CrashError)):
                self.world.violate(f"{self.name} had to end: {fatal[0]!r}")
