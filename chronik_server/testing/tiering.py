"""The pipeline of one node, as the server runs it: over the node's log, towards the shared bucket.

Place: under `node`, which has one in each life. Promise: the stages are the product's own, and so
is the door through which their commands go; whatever they wait for is an event of the loop.
Invariant: one run at a time; a node that dies in a run dies in it.

`add_segment` and `prune` do to a log what a pipeline would do, without a bucket: for schedules in
which only the log matters.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING, Any

from chronik_server.raft.consensus import Proposed
from chronik_server.raft.door import ConsensusDoor, Proposer
from chronik_server.testing.blocking import Blocking
from chronik_server.testing.node_bucket import NodeBucket
from chronik_store.format.control import AddSegment
from chronik_store.model import PipelineReport
from chronik_store.objectstore.object_source import ObjectSource
from chronik_store.pipeline import ByteBudget, Pipeline, SteadyTime, Tiering
from chronik_store.testing.cluster_log import segment_of
from chronik_store.threads import Threads

if TYPE_CHECKING:
    from chronik_server.testing.node import Node

BUDGET_BYTES = 1 << 30


class _Door(ConsensusDoor):
    """Waits as a greenlet does."""

    def __init__(self, consensus: Proposer, threads: Threads, blocking: Blocking) -> None:
        super().__init__(consensus, threads)
        self._loop = consensus.loop
        self._blocking = blocking

    def _outcome(self, answer: concurrent.futures.Future[Proposed]) -> Proposed:
        return self._blocking.wait(asyncio.wrap_future(answer, loop=self._loop))


class _Watched:
    """Something of which one method is looked at before it is called."""

    def __init__(self, inner: Any, **watched: Any) -> None:
        self._inner = inner
        self.__dict__.update(watched)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class NodeTiering:
    """See the module."""

    def __init__(self, node: Node) -> None:
        self._node = node
        world = node.world
        self.blocking = Blocking(world.loop, lambda: node.is_up, lambda: world.crash(node.name))
        bucket = NodeBucket(node, self.blocking, world.bucket)
        node.core.control.door = _Door(node.consensus, node.env.threads, self.blocking)
        wal = node.core.wal

        def remove_files(through_seq: int) -> tuple[int, int]:
            going = [each.last_index for each in wal.files() if each.seq <= through_seq]
            world.witness.before_prune(node, max(going, default=0))
            return wal.remove_files(through_seq)

        self._partition: Any = _Watched(node.core, wal=_Watched(wal, remove_files=remove_files))
        self._pipeline = Pipeline(
            Tiering(
                env=node.env,
                config=world.config,
                store=bucket,
                budget=ByteBudget(node.env.threads, BUDGET_BYTES),
                time=SteadyTime(node.env.clock),
                prepare_bucket=lambda: None,
                open_object=lambda info: ObjectSource(bucket, info.key),
            )
        )
        self.report: PipelineReport | None = None
        """Of the last run that ended."""

    def start_run(self) -> None:
        """One pass over all stages, if none is under way."""
        if not self.blocking.is_busy:
            self.blocking.start(self._run)

    def _run(self) -> None:
        node = self._node
        first_index = node.replica.first_index
        self.report = report = self._pipeline.run_once(self._partition)
        events = node.world.events
        for what in ("uploaded", "adopted", "published", "dropped_segments", "collected_objects"):
            events[what.replace("_", " ")] += getattr(report, what)
        events["prunes"] += node.replica.first_index > first_index
        node.world.note(node.name, f"pipeline: {report.published} published, {report.errors}")


def add_segment(node: Node) -> AddSegment:
    """What the uploader would say of the next sealed range."""
    return AddSegment(segment_of(node.core.manifest.sealed[0]))


def prune(node: Node) -> None:
    """Remove files whose entries all lie in listed segments, behind a new checkpoint."""
    wal, base = node.core.wal, node.core.manifest.next.index
    wal.rotate()
    going = [each for each in wal.files()[:-1] if each.last_index <= base]
    if going:
        wal.remove_files(going[-1].seq)
