"""Idempotent producers on a replicated, tiered log while nodes die and records are dropped.

Promise: each batch is stored exactly once, in its producer's order, however often it is sent and
whoever leads; nobody is told of a gap that it has not made (protocol 2, 3).
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest

from chronik_server.raft.errors import NotLeaderError, OutcomeUnknownError
from chronik_server.testing.network import Network
from chronik_server.testing.node import Node
from chronik_server.testing.world import World
from chronik_store.config import LogConfig
from chronik_store.errors import (
    BackpressureError,
    LogPoisonedError,
    ProducerSequenceError,
    UnavailableError,
)
from chronik_store.format.control import DropPrefix
from chronik_store.format.entry import EntryKind
from chronik_store.format.record_batch import RecordBatch
from chronik_store.lineage import read_manifest
from chronik_store.objectstore.object_source import ObjectSource
from chronik_store.replica import Snapshot
from chronik_store.segment.reader import load_footer
from chronik_store.testing.cluster_log import batch

CONFIG = LogConfig(
    segment_bytes=3000, segment_age_seconds=5.0, indexing_enabled=False, garbage_seconds=0.0
)


def snapshot(node: Node) -> Snapshot:
    """As `replicated.snapshot_of`, over the bucket of the world."""
    replica, manifest = node.replica, node.core.manifest
    try:
        return replica.snapshot()
    except UnavailableError:
        bucket = node.world.bucket
        if manifest.segments:
            last = manifest.segments[-1]
            found = load_footer(ObjectSource(bucket, last.key), last).producers
        elif manifest.published_number:
            who = (manifest.topic, manifest.partition, manifest.log_id)
            published, _ = read_manifest(bucket, *who, manifest.published_number)
            if published.manifest.next.index != manifest.next.index:
                raise
            found = published.producers
        else:
            raise
        replica.load_producers(manifest.next.index, found)
        return replica.snapshot()


class Client:
    """One producer: a batch is sent until it is answered, to whoever says that it leads."""

    def __init__(self, world: World, producer_id: int) -> None:
        self.world = world
        self.producer_id = producer_id
        self.sent = 0
        self.offsets: dict[int, int] = {}
        self.faults: list[str] = []
        self.repeated = 0

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            value = b"%d/%d/" % (self.producer_id, self.sent) + b"v" * self.world.rng.randrange(200)
            payload = batch(value, producer_id=self.producer_id, base_sequence=self.sent)
            while not stop.is_set():
                node = self.world.rng.choice(list(self.world.nodes.values()))
                if not node.is_up or not node.consensus.is_ready:
                    await asyncio.sleep(0.01)
                    continue
                if await self._send(node, payload):
                    break
            await asyncio.sleep(self.world.rng.uniform(0.0, 0.03))

    async def _send(self, node: Node, payload: RecordBatch) -> bool:
        with self.world.mortal(node):
            try:
                proposed = node.consensus.propose([payload])
                done = await asyncio.wait_for(proposed, self.world.rng.choice((0.005, 0.5)))
            except (NotLeaderError, OutcomeUnknownError, LogPoisonedError, BackpressureError):
                await asyncio.sleep(0.01)
                return False
            except TimeoutError:
                return False
            except ProducerSequenceError as error:
                # One that was deposed and does not know it yet has not seen what others stored.
                if node.group.term == max(each.group.term for each in self.world.nodes.values()):
                    self.faults.append(f"{self.world.loop.time():.3f} {node.name}: {error}")
                await asyncio.sleep(0.05)
                return False
            self.repeated += done.duplicate
            self.offsets[self.sent] = done.base_offset
            self.sent += 1
            return True
        return False


async def trouble(world: World, rng: random.Random, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await asyncio.sleep(rng.uniform(0.3, 1.5))
        name = rng.choice(world.names)
        if rng.random() < 0.6:
            if not world.nodes[name].is_up:
                continue
            (world.crash if rng.random() < 0.5 else world.kill)(name)
            await asyncio.sleep(rng.choice((0.1, 1.0, 6.0)))
            world.boot(name)
        else:
            world.isolate(name)
            await asyncio.sleep(rng.choice((0.2, 1.0, 6.0)))
            world.heal()


async def keep(world: World, rng: random.Random, stop: asyncio.Event) -> None:
    """The pipeline, which sometimes lags, and retention that does not wait for it."""
    while not stop.is_set():
        await asyncio.sleep(rng.uniform(0.1, 0.8))
        for node in world.nodes.values():
            if node.is_up and node.tiering is not None and rng.random() < 0.7:
                node.tiering.start_run()
        leader = world.leader()
        if leader is None or rng.random() < 0.6:
            continue
        offset = leader.core.committed.offset - rng.randrange(0, 40)
        if offset > leader.core.manifest.start_offset:
            with world.mortal(leader), suppress(NotLeaderError, BackpressureError):
                future = leader.consensus.propose([DropPrefix(offset, "test", 0)])
                future.add_done_callback(lambda done: done.cancelled() or done.exception())


def stored(node: Node) -> list[tuple[int, int, int]]:
    """(producer, sequence, offset) of all that this log still holds in its WAL."""
    found = []
    index = node.replica.first_index
    while index <= node.replica.commit_index:
        for entry in node.replica.entries(index, 1 << 20):
            index = entry.header.index + 1
            if entry.header.kind == EntryKind.RECORDS:
                payload = RecordBatch.from_buffer(bytes(entry.payload), verify=False)
                if payload.producer_id:
                    found.append(
                        (payload.producer_id, payload.base_sequence, entry.header.base_offset)
                    )
    return found


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(each, marks=pytest.mark.slow) for each in range(1, 8))]
)
def test_each_batch_is_stored_once_whoever_leads(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Node, "_snapshot", snapshot)
    rng = random.Random(seed)
    network = Network(late=0.02, repeat=0.02, loss=0.01, delays=(0.001, 0.004))
    world = World(3, seed=seed, network=network, config=CONFIG, file_bytes=4096, is_tiered=True)
    with world:
        world.boot_all()
        stop = asyncio.Event()
        clients = [Client(world, number) for number in (7, 8, 9)]
        tasks: list[asyncio.Task[Any]] = [
            world.loop.create_task(each)
            for each in (
                *(client.run(stop) for client in clients),
                trouble(world, rng, stop), keep(world, rng, stop),
            )
        ]  # fmt: skip
        world.run(40)
        stop.set()
        world.run(10)
        world.heal()
        for name in world.names:
            if not world.nodes[name].is_up:
                world.boot(name)
        world.until(world.converged, 60)
        seen: dict[tuple[int, int], int] = {}
        for node in world.nodes.values():
            for producer, sequence, offset in stored(node):
                assert seen.setdefault((producer, sequence), offset) == offset
        for client in clients:
            assert client.faults == []
            placed = list(client.offsets.values())
            assert placed == sorted(set(placed)), "in order, and none at the place of another"
            for sequence, offset in client.offsets.items():
                assert seen.get((client.producer_id, sequence), offset) == offset
            assert client.sent > 50
        # The witness knows retention only, which never drops what is not in the bucket yet.
        assert [each for each in world.violations if "not in the bucket yet" not in each] == []
        assert all(task.done() for task in tasks)
        assert world.events["snapshots"] + sum(client.repeated for client in clients) > 0
