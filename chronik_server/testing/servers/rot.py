"""Disks that rot while nobody uses them, and objects that rot in the bucket.

Place: over `player`, beside `nemesis`. Promise: one disk at a time, and the next one when the
copies of the last one are whole again; whatever has not two other copies is left alone, since it
may have to wait for an operator (decision 0028). Invariant: what a start has refused is turned
back from a copy, and has not been changed by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from chronik_server.metadata import METADATA_TOPIC
from chronik_server.testing.servers.nemesis import MODES
from chronik_server.testing.servers.player import Player, Stage
from chronik_server.testing.servers.world import ServerNode
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.testing.worlds.disk_damage import sworn_bytes
from chronik_store.testing.worlds.rotten_bucket import RottenBucket

WAL: Final = "/data/wal/"
COPIES: Final = ("/data/segments/", "/data/cache/")
"""Of what is in the WAL or in the bucket, too."""
REFUSALS: Final = ("CorruptionError", "FutureVersionError")
ANSWER_SECONDS: Final = 5.0
"""Who has begun to read has ended by then."""
PREFIXES: Final = ("segments/", "segments/", "manifests/", "indexes/")


class Rot(Player):
    """See the module."""

    def __init__(self, stage: Stage, bucket: RottenBucket, *, in_use: bool = False) -> None:
        super().__init__(stage)
        self._bucket, self._in_use = bucket, in_use
        self._damaged: ServerNode | None = None
        self._flipped: list[tuple[str, int, int, bytes]] = []
        """Path, byte, bit, and what the file was then; of the last disk."""

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """Disks and objects, side by side; or files in use."""
        if self._in_use:
            return [self.again(self.strike_in_use, 1.0)]
        return [self.again(self.strike_disk, 0.7), self.again(self.strike_bucket, 0.3)]

    # --- disks -----------------------------------------------------------------------------------

    async def strike_disk(self) -> None:
        """Of a node that ends for it, if it may be. Some wake up beside one that lags behind, while
        who knows more is still away.
        """
        node = self.rng.choice(list(self.world.nodes.values()))
        self._turn_back_if_refused()
        paths = self._shared(node)
        if not paths or not self._is_over():
            return
        others = [each for each in self.world.nodes.values() if each is not node]
        late, last = self.rng.sample(others, 2)
        if is_cornered := self.rng.random() < 0.4:
            self._end(late)
            await self.pause(1.0)
            self._end(last)
            paths = self._shared(node) or paths
        self._end(node)
        self._damaged, self._flipped, disk = node, [], node.machine.disk
        kind = self.rng.random()
        if kind < (0.6 if is_cornered else 0.2):
            self._lose(disk, self.rng.choice(paths))
        elif kind < (0.7 if is_cornered else 0.4):
            small = [each for each in disk.paths("/data") if not each.startswith(WAL)]
            self._flip(disk, self.rng.choice(small))
        else:
            inside = [each for each in disk.paths(self.rng.choice(paths)) if each.endswith(".log")]
            if inside:
                self._flip(disk, self.rng.choice((inside[-1], self.rng.choice(inside))))
        if is_cornered:
            self.events["cornered nodes"] += 1
            late.boot_if_down()
            node.boot_if_down()
            await self.pause(0.4)
            last.boot_if_down()
        await self.pause(2.0)
        node.boot_if_down()

    async def strike_in_use(self) -> None:
        """Files of a node that runs; it is started anew when it has been told of them."""
        node = self.rng.choice(list(self.world.nodes.values()))
        self._turn_back_if_refused()
        logs = self._shared(node)
        if node.server is None or not logs or not self._is_over():
            return
        disk = node.machine.disk
        self.world.is_rotten = True
        self._damaged, self._flipped = node, []
        for log in self.rng.sample(logs, min(len(logs), self.rng.randint(1, 3))):
            files = [each for each in disk.paths(log) if each.endswith(".log")]
            sworn = {path: count for path in files if (count := sworn_bytes(disk, path))}
            if sworn:
                path = self.rng.choice((max(sworn), self.rng.choice([*sworn])))
                self._flip(disk, path, below=sworn[path])
        if copies := [each for each in disk.paths("/data") if each.startswith(COPIES)]:
            self._flip(disk, self.rng.choice(copies))
        await self.pause(0.15)  # meanwhile it is read
        self._end(node)
        await self.pause(2.0)
        node.boot_if_down()
        await asyncio.sleep(ANSWER_SECONDS)
        self.world.is_rotten = False

    def _end(self, node: ServerNode) -> None:
        if self.rng.random() < 0.5:
            node.kill()
        else:
            node.crash(self.rng.choice(MODES))

    def _flip(self, disk: SimulatedDisk, path: str, *, below: int | None = None) -> None:
        data = disk.peek(path)
        used = (len(data.rstrip(b"\0")) or len(data)) if below is None else below
        if used:
            place = (path, self.rng.randrange(used), self.rng.randrange(8))
            disk.flip_bit(*place)
            self._flipped.append((*place, disk.peek(path)))
            self.events["flipped bits"] += 1
            self.world.note(f"rot: {place}")

    def _lose(self, disk: SimulatedDisk, path: str) -> None:
        """All of one log."""
        for each in disk.paths(path):
            disk.vanish(each)
        self.events["lost logs"] += 1
        self.world.note(f"rot: {path} is gone")

    def _shared(self, node: ServerNode) -> list[str]:
        """Directories of its logs of which two others have a copy."""
        servers = [each.server for each in self.world.nodes.values() if each.server is not None]
        if not servers:
            return []
        states: list[Any] = [server.backend._group.state for server in servers]  # type: ignore[attr-defined]
        state = max(states, key=lambda each: each.offset)
        lanes = [
            (topic.name, number)
            for topic in state.topics.values()
            for number, place in enumerate(topic.places)
            if len(place.holders) > 2 and node.name in place.holders
        ]
        if len(state.nodes_in("member")) > 2:
            lanes.append((METADATA_TOPIC, 0))
        paths = [f"{WAL}{topic}/{number}" for topic, number in sorted(lanes)]
        return [path for path in paths if node.machine.disk.paths(path)]

    def _is_over(self) -> bool:
        """Everything of the last one is whole again."""
        node = self._damaged
        if node is None:
            return True
        if node.server is None:
            return False
        backend: Any = node.server.backend
        parts = [backend._group.part, *backend._hosting.partitions.values()]
        is_here = backend._group.is_current and not backend._hosting.unopened
        is_settled = backend._hosting._seen == backend._group.state.offset
        return is_here and is_settled and not any(each.core.replica.suspect for each in parts)

    def _turn_back_if_refused(self) -> None:
        """An operator has a copy of the file."""
        node = self._damaged
        if node is None or not self._flipped:
            return
        if node.is_up:
            backend: Any = node.server and node.server.backend
            unopened = backend._hosting.unopened if backend else {}
            told = [str(each) for each in unopened.values() if type(each).__name__ in REFUSALS]
            if not told:
                return
            self.events["opens: refused"] += 1
            node.kill()
        elif node.ended.startswith(REFUSALS):
            told = [node.ended]
            self.events["starts: refused"] += 1
        else:
            return
        meant = [each for each in self._flipped if any(each[0] in text for text in told)]
        disk = node.machine.disk
        for place in meant or self._flipped[:]:
            path, position, bit, _ = place
            self._flipped.remove(place)
            if path not in disk.paths("/data") or not self._is_as_it_was(disk.peek(path), place):
                self.world.violate(f"{node.name}: {path} was refused, and has changed: {told}")
                continue
            self.world.note(f"rot: {path} is turned back on {node.name}")
            disk.flip_bit(path, position, bit)

    def _is_as_it_was(self, now: bytes, place: tuple[str, int, int, bytes]) -> bool:
        """What was in use then was written to after it."""
        _, position, _, was = place
        return (
            now[position : position + 1] == was[position : position + 1]
            if self._in_use
            else now == was
        )

    # --- the bucket ------------------------------------------------------------------------------

    async def strike_bucket(self) -> None:
        """An object or two, for a while."""
        self.world.is_rotten = True
        for _ in range(self.rng.choice((1, 2))):
            key = self._bucket.rot(self.rng.choice(PREFIXES), self.rng)
            self.events["damaged objects"] += bool(key)
        await self.pause(0.5)
        self._bucket.heal()
        await asyncio.sleep(ANSWER_SECONDS)
        self.world.is_rotten = False

    def heal(self) -> None:
        """Nothing rots any more."""
        self._bucket.heal()

    def mend(self) -> None:
        """What a start has refused is turned back."""
        self._turn_back_if_refused()
