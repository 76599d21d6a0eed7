"""Three nodes on one event loop with real files, real committing threads and real time."""

# ruff: noqa: ASYNC110 (tests poll: the product has no seam for what they wait for)

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from typing import Any

from chronik_server.raft.local import LocalConsensus
from chronik_server.raft.messages import Message
from chronik_server.raft.node import RaftNode
from chronik_server.raft.settings import RaftSettings
from chronik_store.clock import SystemEntropy
from chronik_store.commit.committer import Committer
from chronik_store.environment import Environment
from chronik_store.format.control import Members, Noop
from chronik_store.testing.cluster_log import batch, open_cluster_log

NAMES = ("a", "b", "c")
QUICK = RaftSettings(
    heartbeat_seconds=0.05,
    election_seconds_min=0.2,
    election_seconds_max=0.4,
    lost_seconds=0.1,
    check_quorum_seconds=0.5,
)


class Cluster:
    """In one process; messages are handed over by the loop."""

    def __init__(self, tmp_path: Any, monkeypatch: Any) -> None:
        from chronik_store.testing import cluster_log

        self.loop = asyncio.get_running_loop()
        self.nodes: dict[str, RaftNode] = {}
        self.cores: dict[str, Any] = {}
        self.groups: dict[str, Any] = {}
        self.committers: list[Committer] = []
        self.failures: list[BaseException] = []
        for name in NAMES:
            base = f"{tmp_path}/{name}"
            os.makedirs(base)
            paths = [f"{base}/{room}" for room in ("wal", "segments", "scratch", "quarantine")]
            monkeypatch.setattr(cluster_log, "PATHS", type(cluster_log.PATHS)(*paths))
            env = Environment()
            committer = Committer(env.threads, 1)
            core, replica = open_cluster_log(
                env,
                committer,
                dispatch=self.loop.call_soon_threadsafe,
                owner=f"test/{name}",
                file_bytes=64 << 20,
                tail_bytes=64 << 20,
            )
            node = RaftNode(
                name,
                boot_id=SystemEntropy.token_bytes(8).hex(),
                transport=_Wire(self, name),
                on_fatal=lambda _group, error: self.failures.append(error),
                settings=QUICK,
                env=env,
            )
            self.nodes[name], self.cores[name] = node, core
            self.groups[name] = node.add_group(
                "g", replica, members=Members(NAMES, ()), may_vote=lambda: NAMES
            )
            core.control.door = self.groups[name].door
            self.committers.append(committer)
        for name, node in self.nodes.items():
            node.start()
            self.groups[name].start()

    async def leader(self) -> Any:
        while not any(group.is_ready for group in self.groups.values()):
            await asyncio.sleep(0.01)
        return next(group for group in self.groups.values() if group.is_ready)

    async def close(self) -> None:
        for node in self.nodes.values():
            node.stop()
        for core in self.cores.values():
            await asyncio.to_thread(core.close)
        for committer in self.committers:
            await asyncio.to_thread(committer.close)
        await asyncio.sleep(0.05)


class _Wire:
    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster, self._name = cluster, name

    def send(self, peer: str, group_id: str, message: Message) -> None:
        loop = self._cluster.loop
        loop.call_soon(self._cluster.nodes[peer].receive, self._name, group_id, message)


def test_proposals_from_many_tasks_commit_on_real_disks(tmp_path, monkeypatch):
    async def run() -> None:
        cluster = Cluster(tmp_path, monkeypatch)
        try:
            leader = await asyncio.wait_for(cluster.leader(), 10)
            count = 300
            started = time.perf_counter()
            done = await asyncio.gather(*[leader.propose([batch(b"%d" % n)]) for n in range(count)])
            assert list(range(count)) == [each.base_offset for each in done]
            print(f"{count / (time.perf_counter() - started):.0f} proposals/s")
            ends = {core.wal.end_offset for core in cluster.cores.values()}
            assert ends == {count} or await _same_end(cluster, count)
            assert [] == cluster.failures
        finally:
            await cluster.close()

    asyncio.run(run())


async def _same_end(cluster: Cluster, end: int) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            while {core.committed.offset for core in cluster.cores.values()} != {end}:
                await asyncio.sleep(0.01)
    return {core.committed.offset for core in cluster.cores.values()} == {end}


def test_the_pipelines_thread_proposes_through_the_door(tmp_path, monkeypatch):
    async def run() -> None:
        cluster = Cluster(tmp_path, monkeypatch)
        try:
            leader = await asyncio.wait_for(cluster.leader(), 10)
            core = cluster.cores[leader.leader]
            term = core.leader_term()
            index = await asyncio.to_thread(core.propose, Noop(), term=term)

            assert index <= core.committed.index - 1
            others = [c for name, c in cluster.cores.items() if name != leader.leader]
            assert {None} == {other.leader_term() for other in others}
        finally:
            await cluster.close()

    asyncio.run(run())


def test_one_node_alone_is_its_own_quorum(tmp_path, monkeypatch):
    async def run() -> None:
        from chronik_store.testing import cluster_log

        paths = [f"{tmp_path}/{room}" for room in ("wal", "segments", "scratch", "quarantine")]
        monkeypatch.setattr(cluster_log, "PATHS", type(cluster_log.PATHS)(*paths))
        env = Environment()
        committer = Committer(env.threads, 1)
        loop = asyncio.get_running_loop()
        core, replica = open_cluster_log(env, committer, dispatch=loop.call_soon_threadsafe)
        shown: list[int] = []
        alone = LocalConsensus("g", "n1", replica, on_fatal=lambda *_: None)
        alone.on_commit(shown.append)
        alone.start()

        done = await asyncio.gather(*[alone.propose([batch(b"x")]) for _ in range(20)])

        assert list(range(20)) == [each.base_offset for each in done]
        assert (True, 21, 21) == (alone.is_ready, alone.commit_index, shown[-1])
        assert 21 == await alone.read_barrier()
        alone.stop()
        core.close()
        committer.close()

    asyncio.run(run())
