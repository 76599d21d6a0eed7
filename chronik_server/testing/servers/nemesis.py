"""What befalls the machines of a cluster, their disks, their clocks, and the ways between them.

Place: over `player`. Promise: one thing at a time, some of which last; every node is up
again sooner or later. Invariant: no disk loses what it has synced.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from chronik_server.testing.servers.player import Player, Stage
from chronik_server.testing.servers.world import ServerNode
from chronik_store.testing.crash import CrashError, CrashMode
from chronik_store.testing.disk_faults import fail_next

MODES: Final[tuple[CrashMode, ...]] = ("lost", "kept", "torn", "any")
CALLS_MAX: Final = 60
ROOM_BYTES_MAX: Final = 30_000


class Nemesis(Player):
    """See the module. skews: of wall clocks, seconds."""

    def __init__(self, stage: Stage, skews: Sequence[float]) -> None:
        super().__init__(stage)
        self._skews = skews

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """One after the other."""
        return [self.again(self.strike, 1.0)]

    async def strike(self) -> None:
        """One of them."""
        deeds: tuple[tuple[str, Callable[[ServerNode], Awaitable[None]]], ...] = (
            ("ends of one", self.end_one),
            ("ends of one", self.end_one),
            ("ends of one", self.end_one),
            ("ends of all", self.end_all),
            ("pauses", self.pause_one),
            ("isolations", self.isolate_one),
            ("cuts one way", self.cut_one_way),
            ("broken connections", self.break_connections),
            ("bucket outages", self.bucket_outage),
            ("clock jumps", self.clock_jumps),
            ("failed syncs", self.fail_sync),
            ("orders to die", self.die_in_disk_call),
            ("full disks", self.fill_disk),
        )
        (what, deed), node = self.rng.choice(deeds), self.rng.choice(self._nodes())
        self.world.note(f"nemesis: {what}, {node.name}")
        self.events[what] += 1
        await deed(node)
        if self.rng.random() < 0.7:
            for each in self._nodes():
                each.boot_if_down()

    def _nodes(self) -> list[ServerNode]:
        return [node for node in self.world.nodes.values() if not node.was_removed]

    def _end(self, node: ServerNode) -> None:
        draw = self.rng.random()
        if draw < 0.6:
            node.crash(self.rng.choice(MODES))
        elif draw < 0.8:
            node.kill()
        else:
            node.stop()

    async def end_one(self, node: ServerNode) -> None:
        """Power loss, kill -9 or SIGTERM."""
        self._end(node)
        await self.pause(1.0)

    async def end_all(self, _node: ServerNode) -> None:
        """The same for all, within an instant."""
        for node in self._nodes():
            self._end(node)
        await self.pause(2.0)

    async def pause_one(self, node: ServerNode) -> None:
        """SIGSTOP for a while."""
        if node.is_up:
            node.machine.pause(self.rng.uniform(0.1, 4.0))

    async def isolate_one(self, node: ServerNode) -> None:
        """From the others; clients reach it."""
        self.world.wires.isolate([node.name], self._others(node))
        await asyncio.sleep(self.rng.uniform(0.1, 6.0))
        self.world.wires.heal()

    async def cut_one_way(self, node: ServerNode) -> None:
        """It hears the others, and they do not hear it."""
        self.world.wires.cut |= {(node.name, other) for other in self._others(node)}
        await asyncio.sleep(self.rng.uniform(0.1, 6.0))
        self.world.wires.heal()

    def _others(self, node: ServerNode) -> list[str]:
        return [name for name in self.world.nodes if name != node.name]

    async def break_connections(self, node: ServerNode) -> None:
        """Half of what it is connected with."""
        self.world.wires.break_some(node.name)

    async def bucket_outage(self, node: ServerNode) -> None:
        """For one, or for all."""
        nodes = [node] if self.rng.random() < 0.5 else self._nodes()
        for each in nodes:
            each.machine.bucket_faults.is_down = True
        await self.pause(0.5)
        for each in nodes:
            each.machine.bucket_faults.is_down = False

    async def clock_jumps(self, node: ServerNode) -> None:
        """Its wall clock."""
        node.set_clock(self.rng.choice(self._skews))

    async def fail_sync(self, node: ServerNode) -> None:
        """The next one: the process must end."""
        if node.is_up:
            node.machine.disk.hook = fail_next("sync_data", errno.EIO)

    async def die_in_disk_call(self, node: ServerNode) -> None:
        """One of the next: power loss."""
        left = self.rng.randint(1, CALLS_MAX)

        def hook(_number: int, operation: str, path: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                self.events["deaths in a disk call"] += 1
                self.world.wires.silent.add(node.name)
                raise CrashError(f"{node.name} crashed in {operation} {path}")

        if node.is_up:
            node.machine.disk.hook = hook

    async def fill_disk(self, node: ServerNode) -> None:
        """Until somebody makes room again."""
        if node.is_up:
            used = node.machine.disk.used_bytes
            node.machine.disk.capacity_bytes = used + self.rng.randrange(ROOM_BYTES_MAX)
            await self.pause(0.3)
            node.machine.disk.capacity_bytes = None
