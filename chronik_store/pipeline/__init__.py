"""The pipeline: seal > upload > publish > prune > retain > collect > index.

Place: the only writer-side code that knows several rooms (WAL, segments, bucket, search). Promise:
`Pipeline.run_once(partition)` does a bounded amount of each stage's work; every stage plans afresh
from the committed manifest, is idempotent, and may be cut off at any point: what it left behind is
found and finished by the next run, here or on the next leader. A failure stalls its stage for its
partition; stages that do not depend on it still run; nothing is skipped or dropped.

Invariant: the manifest changes by committed entries only, so a run that died in between has
changed nothing that the log does not know. Order of effects, for each object: named in the log
(INTENT), put and verified, listed (ADD_SEGMENT, ADD_INDEX), published, and only then may a local
copy go; off the list (DROP_PREFIX, a replaced bundle), published, and only then may the object go.
An index takes seconds to build, so it comes last and nothing waits for it; what was indexed is
published in the same run, and the local copies that waited for it go.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextvars import ContextVar

from chronik_store.errors import ChronikError, FencedError, LogClosedError
from chronik_store.manifest.state import OpenSegment
from chronik_store.model import PipelineReport
from chronik_store.pipeline import collect, index, prune, publish, retain, seal, upload
from chronik_store.pipeline.budget import ByteBudget
from chronik_store.pipeline.contract import Partition, SteppedDownError, Tiering
from chronik_store.pipeline.runner import PipelineRunner
from chronik_store.pipeline.steady_time import SteadyTime
from chronik_store.pipeline.turn import Lane, Run, Turn

__all__ = [
    "ByteBudget",
    "OpenSegment",
    "Partition",
    "Pipeline",
    "PipelineRunner",
    "SteadyTime",
    "Tiering",
]

_log = logging.getLogger("chronik_store.pipeline")

STAGES: tuple[tuple[str, Callable[[Turn], None]], ...] = (
    ("seal", seal.seal),
    ("upload", upload.upload),
    ("publish", publish.publish),
    ("prune", prune.prune),
    ("retain", retain.retain),
    ("collect", collect.collect),
    ("index", index.index),
)
BEHIND_INDEX = ("publish", "prune")
"""The stages that follow once more where something was indexed."""

_OWN_RUNS: ContextVar[tuple[Run, ...]] = ContextVar("pipeline_own_runs", default=())
"""The runs that the calling thread is in."""


class Pipeline:
    """The pipeline of a store. Thread-safe; one run at a time for each partition."""

    def __init__(self, tiering: Tiering) -> None:
        self._tiering = tiering
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._changed = tiering.env.threads.condition()
        self._abandoned = False

    def run_once(self, partition: Partition) -> PipelineReport:
        """One bounded pass over all stages; waits for a pass of the same partition to end first.

        Errors of stages are in the report, never raised; `partition.note_error` shows them.
        """
        started = self._tiering.env.clock.monotonic()
        mine = Run()
        own_runs = _OWN_RUNS.set((*_OWN_RUNS.get(), mine))
        try:
            lane = self._enter(partition, mine)
            if lane is None:
                return PipelineReport()
            turn = Turn(partition, self._tiering, lane)
            errors = _run_stages(turn)
        finally:
            mine.ended = True
            _OWN_RUNS.reset(own_runs)
            with self._changed:
                self._changed.notify_all()
        elapsed = self._tiering.env.clock.monotonic() - started
        return PipelineReport(**turn.done, errors=errors, elapsed_seconds=elapsed)

    def seal_now(self, partition: Partition) -> bool:
        """Seal the open segment on request; False if it has no records.

        Raises:
            SteppedDownError, LogClosedError, LogPoisonedError: nothing was sealed, as far as known.
        """
        turn = Turn(partition, self._tiering, Lane())
        return seal.seal_now(turn, partition.open_segment(), "admin")

    def rebuild_indexes(self, partition: Partition, keys: Collection[str] | None = None) -> int:
        """Have the next runs build bundles anew: those with these keys, or all. How many.

        Waits for no run: one that is under way may take minutes, and sees them. Repeatable.
        LogClosedError when there will be no runs.
        """
        bundles = (segment.bundle for segment in partition.manifest.segments)
        listed = frozenset(each.key for each in bundles if each is not None)
        wanted = listed if keys is None else listed.intersection(keys)
        with self._changed:
            if partition.closed:
                raise LogClosedError("this log is closed; open it again")
            lane = self._lanes.setdefault(_name(partition), Lane())
            lane.rebuild = (lane.rebuild & listed) | wanted
        return len(wanted)

    def forget(self, partition: Partition) -> None:
        """The partition is closed: wait for its run under way, drop what was remembered of it.

        When this returns nothing more is done for it, here or in the bucket: whoever deletes it
        finds every object that there will ever be. A run does not wait for itself.
        """
        name = _name(partition)
        with self._changed:
            while (lane := self._lanes.get(name)) is not None and lane.busy:
                if self._abandoned or lane.run in _OWN_RUNS.get():
                    break
                self._changed.wait(1.0)  # an interrupt may have swallowed the wake-up
            self._lanes.pop(name, None)

    def abandon(self) -> None:
        """Nobody waits for runs any more: each ends where it next looks at its log."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def _enter(self, partition: Partition, mine: Run) -> Lane | None:
        """The partition's lane, for this run alone; None: it is closed, so there is none.

        In order of arrival: a loop of runs over a backlog would keep everybody else out.
        """
        lane = None
        with self._changed:
            try:
                while not partition.closed:
                    if lane is None:
                        lane = self._lanes.setdefault(_name(partition), Lane())
                        lane.queue.append(mine)
                    if not lane.busy and lane.queue[0] is mine:
                        lane.run = mine
                        return lane
                    self._changed.wait(1.0)  # an interrupt may have swallowed the wake-up
                return None
            finally:
                if lane is not None:
                    lane.queue.remove(mine)
                    self._changed.notify_all()


def _run_stages(turn: Turn) -> tuple[str, ...]:
    if turn.manifest.fenced is not None:
        return ()
    errors: list[str] = []
    partition = turn.partition
    for name, stage in _planned(turn):
        if partition.closed:
            break
        try:
            stage(turn)
        except SteppedDownError:
            turn.term = None  # another leads now: what needs no leader (prune) still runs
        except LogClosedError:
            break
        except ChronikError as error:
            partition.note_error(name, error)
            errors.append(_describe(turn, name, error))
            if turn.lane.reported.get(name) != errors[-1]:
                _log.warning("%s", errors[-1])  # once, not in every run of an outage
            turn.lane.reported[name] = errors[-1]
            if isinstance(error, FencedError):
                break
        except Exception as error:  # noqa: BLE001 (a partition stands still, not the store)
            # A defect, not an outcome. Loud; the stage stands still, and so does what relies on it.
            partition.note_error(name, error)
            errors.append(_describe(turn, name, error))
            _log.exception("%s", errors[-1])
        else:
            partition.note_error(name, None)
            turn.lane.reported.pop(name, None)
    return tuple(errors)


def _planned(turn: Turn) -> Iterator[tuple[str, Callable[[Turn], None]]]:
    yield from STAGES
    if turn.done["indexed"]:
        yield from (each for each in STAGES if each[0] in BEHIND_INDEX)


def _describe(turn: Turn, stage: str, error: Exception) -> str:
    who = turn.partition.identity
    text = str(error) or repr(error)
    kind = "" if isinstance(error, ChronikError) else f"{type(error).__name__}: "
    return f"{who.topic}/{who.partition} {stage}: {kind}{text}"


def _name(partition: Partition) -> tuple[str, int]:
    return partition.identity.topic, partition.identity.partition
