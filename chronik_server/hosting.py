"""What runs on this node: one group for each partition that metadata lets it hold.

Place: under `raft_backend`, over `chronik_store.replicated` and `raft`. Promise: a group runs here
exactly while this node may hold its partition; its id carries the topic's, so a namesake's votes
never count; files go only when the topic is being deleted, or when the wished members are in force
without this node (protocol 6, 12). Invariant: no log is made and none is removed on a fold of the
metadata that is older than the newest one on which that was done: after a restart the fold begins
anew, and an old one would remove the copy of a voter, or let one that has gone vote from an empty
log. A log that is made for a group that is older than this copy starts suspect: it has no vote
until it has caught up (protocol 9). A group runs in no fold that is older than one that this node
has told others of: what it said is stopped stays stopped, over a restart, too.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from chronik_server.bundle_upkeep import BundleUpkeep
from chronik_server.deletions import Deletions
from chronik_server.hosting_notes import HostingNotes, Lane
from chronik_server.metadata import METADATA_TOPIC, Made, Metadata, Topic, group_of
from chronik_server.opening import OpenedAhead
from chronik_server.raft.node import RaftNode
from chronik_server.raft_partition import RaftPartition
from chronik_server.rolls import Rolls
from chronik_store import replicated
from chronik_store.aio import AsyncLogStore
from chronik_store.aio.offloop import seen_through
from chronik_store.errors import ChronikError, UnavailableError
from chronik_store.format.control import Members
from chronik_store.log_store import LogStore
from chronik_store.replica import Replica

T = TypeVar("T")
logger = logging.getLogger("chronik_server.cluster")

NEVER_SECONDS = 1e9
SETTLE_SECONDS = 5.0


class Hosting:
    """See the module. Belongs to the event loop; `reconcile` is called by one task."""

    def __init__(
        self,
        store: LogStore,
        face: AsyncLogStore,
        raft: RaftNode,
        *,
        address_of: Callable[[str], str | None],
        on_full: Callable[[RaftPartition], None],
    ) -> None:
        self.partitions: dict[Lane, RaftPartition] = {}
        self.unopened: dict[Lane, ChronikError] = {}
        """Partitions that should run here and cannot, and why."""
        self._topic_ids: dict[Lane, str] = {}
        self._store = store
        self._bundles = BundleUpkeep(store)
        self._face = face
        self._raft = raft
        self._address_of = address_of
        self._on_full = on_full
        self._loop = asyncio.get_running_loop()
        self._notes = HostingNotes(store, self._run)
        self._ended: frozenset[str] = frozenset()
        """Deleted topics of which the file says that their end was seen."""
        self._begun: set[Lane] = set()
        """Partitions that this process has noted and not made yet."""
        self._jobs: set[asyncio.Future[Any]] = set()
        self._making = ""
        """Id of the topic of which a partition is being made here."""
        self._endings = -1
        """Those of the metadata that all that runs here agrees with."""
        self._seen = -1
        """The fold that everything here agrees with."""
        self.rolls = Rolls(store)
        self._deletions = Deletions(store, self._run)
        self._ahead = OpenedAhead(store, self._run)
        self._unnamed: set[replicated.LocalPartition] = set()
        """Copies that were found here and belong to no topic."""
        self._said: set[str] = set()
        """Faults of the last reconciliation, which are not logged again while they last."""

    async def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        job = self._loop.run_in_executor(None, functools.partial(function, *arguments))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return await seen_through(job)

    async def settle(self) -> None:
        """See what is being done on the disk through, if it does not take long: whoever waited for
        it may have been cancelled, and its thread works on logs that are about to be closed.
        """
        if self._jobs:
            await asyncio.wait(tuple(self._jobs), timeout=SETTLE_SECONDS)

    # --- the metadata's own group ----------------------------------------------------------------

    async def open_metadata(self, topic: Topic) -> RaftPartition:
        """The group that everything else follows from; it is not in `partitions`."""
        replicated.keep_forever(self._store, METADATA_TOPIC)
        await self._notes.read()
        await self._run(self.rolls.load)
        here = await self._run(replicated.has_partition, self._store, METADATA_TOPIC, 0)
        if not here and replicated.is_listed(self._store, topic.topic_id):
            await self._note_lost(METADATA_TOPIC, 0)
        await self._install(topic, 0)
        self._metadata = await self._open(topic, 0, make_suspect=self._notes.may_be_older)
        return self._metadata

    # --- reconciliation --------------------------------------------------------------------------

    async def reconcile(self, state: Metadata) -> None:
        """Make what runs and lies here what the metadata says. Faults are logged, and tried again
        at the next call.
        """
        self.rolls.state = state
        await self._notes.read()
        if state.offset == self._seen or state.offset < self._notes.told:
            return
        # The fold goes on meanwhile: each step decides on what it is then, and notes that.
        offset, faults, before = state.offset, set[ChronikError | None](), self._notes.folded
        self.close_stale(state)
        faults.add(await self._fault(self._deletions.carry_out, tuple(state.deleting)))
        if state.offset >= self._notes.folded:
            for found in await self._run(replicated.local_partitions, self._store):
                faults.add(await self._fault(self._leave, state, found))
        until, unopened = state.offset, {}
        wanted = sorted(
            (place.since[self._raft.node_id], topic.name, partition)
            for topic in state.topics.values()
            for partition, place in enumerate(topic.places)
            if self._raft.node_id in place.holders
        )
        lanes = [(name, partition) for _, name, partition in wanted]
        async for lane in self._ahead.each(state, lanes, {*self.partitions, *self.unopened}):
            unopened[lane] = await self._fault(self._hold, state, *lane, (before, until))
        self.unopened = {lane: fault for lane, fault in unopened.items() if fault is not None}
        self._said = {str(each) for each in {*faults, *unopened.values()} - {None}}
        if not self._said:
            self._seen = offset
        if offset >= self._notes.folded:
            made = {place.made.id for place in state.places()}
            await self._notes.keep_unmade(self._notes.unmade & made)
            if all(self._is_only_copy(state, lane) for lane in self.unopened):
                await self._notes.all_suspect()

    async def _fault(self, step: Callable[..., Any], *arguments: Any) -> ChronikError | None:
        """What is in the way of a step; None when it was done."""
        try:
            await step(*arguments)
        except ChronikError as error:
            if str(error) not in self._said:
                logger.warning("%s", error)
            return copy.copy(error)  # without its traceback, which would hold a log's files
        return None

    def running(self, topic: Topic, partition: int) -> RaftPartition | None:
        """The partition of this topic, and not of a namesake, if its group runs here."""
        lane = (topic.name, partition)
        return self.partitions.get(lane) if self._topic_ids.get(lane) == topic.topic_id else None

    def close_stale(self, state: Metadata) -> None:
        """Groups that may not run here any more take no part from here on: at once, whatever the
        reconciliation waits for. Looks at all of them only when one may have ended: topics that are
        made end nobody, and what runs anew is looked at when it is added (`_hold`).
        """
        if state.endings == self._endings:
            return
        self._endings = state.endings
        for lane in list(self.partitions):
            if not self._may_go_on(state, lane):
                self._close(lane)

    async def stopped(self, state: Metadata) -> tuple[str, ...]:
        """Topics that are being deleted, that this node held, and whose groups never run here
        again: it remembers, durably, that it has seen their end. Called by one task.
        """
        offset = state.offset
        found = tuple(
            topic.topic_id
            for topic in state.deleting.values()
            if self._raft.node_id in topic.holders
            and topic.topic_id not in self._topic_ids.values()
        )
        if found and any(topic_id not in self._ended for topic_id in found):
            await self._notes.tell(offset)
            self._ended = frozenset(found)
        return found

    @property
    def acted_on(self) -> int:
        """The newest fold by which anything was made, removed or ended here."""
        return self._notes.acted_on

    def _may_go_on(self, state: Metadata, lane: Lane) -> bool:
        """Whether a group that runs here still may."""
        topic = state.topic_of(self._topic_ids[lane])
        return topic is not None and self._raft.node_id in topic.places[lane[1]].holders

    def _is_only_copy(self, state: Metadata, lane: Lane) -> bool:
        """No other node has anything of it."""
        return state.holders_of(*lane) == {self._raft.node_id}

    async def _leave(self, state: Metadata, found: replicated.LocalPartition) -> None:
        """Remove a copy that nobody counts on any more."""
        topic, lane = state.topic_of(found.topic_id), (found.topic, found.partition)
        place = state.place_of(found.topic_id, found.partition)
        is_deleted = found.topic_id in state.deleting
        if topic is None and found.topic != METADATA_TOPIC and not is_deleted:
            self._note_unnamed(found)
        if place is None or found.topic == METADATA_TOPIC:
            return  # nothing that metadata does not name (yet) is ever removed
        if lane in self.partitions or self._raft.node_id in place.holders:
            return
        self._notes.owed |= self._to_make(state)
        await self._notes.fold(state.offset)
        await self._run(replicated.remove_partition, self._store, *lane)
        logger.info("%s/%d has moved away from this node", *lane)

    def _to_make(self, state: Metadata) -> set[str]:
        """What is new, and its logs still to be made here, on a fold that is not noted yet."""
        new = (place for place in state.places() if place.made.at >= self._notes.folded)
        return {place.made.id for place in new if place.begins_on(self._raft.node_id)}

    def _note_unnamed(self, found: replicated.LocalPartition) -> None:
        """A copy that the metadata has forgotten, or, before it has named anything, is to name."""
        if not self._notes.folded or found in self._unnamed:
            return
        self._unnamed.add(found)
        logger.error(
            "%s/%d (topic %s) is here, and the cluster's metadata names no such topic: it does not "
            "run, and its files stay; `chronik -d DIR consume` reads them",
            *(found.topic, found.partition, found.topic_id),
        )

    async def _hold(
        self, state: Metadata, name: str, partition: int, folds: tuple[int, int]
    ) -> None:
        """Run the group of a partition that this node may hold.

        folds: the one that an earlier reconciliation, or process, had acted on: a log that is older
        than it, and not here, or has nothing in it, is lost, and with it the votes that were given
        in it. And the one with which this reconciliation began: what is younger is for the next,
        and until then no fold is noted that has it.
        """
        before, until = folds
        topic, offset = state.topics.get(name), state.offset
        if topic is None or partition >= topic.partitions:
            return
        place = topic.places[partition]
        since = place.since.get(self._raft.node_id, until)
        if since >= until:
            return
        lane = (name, partition)
        is_unmade = place.made.id in self._notes.unmade
        if is_unmade and offset < self._notes.folded:
            return  # as below
        if since >= before or is_unmade:
            self._begun.add(lane)
        if since >= self._notes.folded or is_unmade:
            await self._begin(topic, place.made, since)
        if lane in self.partitions:
            return
        here = await self._run(replicated.has_partition, self._store, *lane)
        if not here and offset < self._notes.folded:
            return  # an old fold: what it says of this node may have passed
        is_lost = not here and lane not in self._begun
        if is_lost and self._is_only_copy(state, lane):
            raise UnavailableError(
                f"{name}/{partition} is gone from this node's disk, and no other node has it: "
                f"bring wal/{name}/{partition} of its directory back from a copy, or delete the "
                "topic"
            )
        self._making = topic.topic_id
        try:
            if is_lost:
                await self._note_lost(*lane)
            if not (here and replicated.is_listed(self._store, topic.topic_id)):
                await self._install(topic, partition)  # a process may have ended in between
            late = since != place.made.at
            # Also when it is here and empty, and a process ended before it had written that down.
            # Not so where this is the only copy, which is never made anew.
            was_lost = self._notes.may_be_lost(lane) and lane not in self._begun
            suspect = late or (was_lost and not self._is_only_copy(state, lane))
            part = await self._open(topic, partition, make_suspect=bool(suspect))
            self._begun.discard(lane)
            self.partitions[lane] = part
            self._topic_ids[lane] = topic.topic_id
            if not self._may_go_on(state, lane):
                self._close(lane)  # the fold went on while it was made
        finally:
            self._making = ""

    async def _begin(self, topic: Topic, made: Made, since: int) -> None:
        """Note that this node holds it, before anything is said in it."""
        if since == made.at:
            await self._make(topic, made)
        await self._notes.fold(since + 1)
        if since == made.at:
            await self._notes.keep_unmade(self._notes.unmade - {made.id})

    async def _make(self, topic: Topic, made: Made) -> None:
        """The logs that were made together, all that this node holds: before the fold is noted on
        which those that are not here are lost, and before anything is said in one of them. If that
        fails that is noted with the next fold that is.
        """
        self._making = topic.topic_id
        try:
            for partition, place in enumerate(topic.places):
                if place.made == made and place.begins_on(self._raft.node_id):
                    await self._install(topic, partition)
                    self._begun.add((topic.name, partition))
            self._notes.owed.discard(made.id)
        except ChronikError:
            self._notes.owed.add(made.id)
            raise
        finally:
            self._making = ""

    async def _note_lost(self, name: str, partition: int) -> None:
        logger.error("%s/%d is gone from this node's disk; it is copied anew", name, partition)
        await self._notes.lose((name, partition))

    # --- one group -------------------------------------------------------------------------------

    async def _install(self, topic: Topic, partition: int) -> None:
        which = (topic.name, topic.topic_id, topic.log_ids, partition)
        await self._run(replicated.install_partition, self._store, *which)

    async def _open(self, topic: Topic, partition: int, *, make_suspect: bool) -> RaftPartition:
        which = (topic.name, topic.topic_id, topic.log_ids[partition], partition)
        log = await self._run(replicated.open_partition, self._store, *which)
        core = replicated.core_of(log)
        replica = core.replica
        assert replica is not None, "logs of a node have a Raft side"
        if make_suspect and not replica.last_index and not replica.hard_state[0]:
            await self._suspect(replica)
        face = self._face.face_of(log, topic.name, partition)  # no wait from here on
        group_id = group_of(topic.topic_id, partition)
        consensus = self._raft.add_group(
            group_id,
            replica,
            members=Members(topic.first[partition], ()),
            snapshot_source=functools.partial(replicated.snapshot_of, self._store, log),
            may_vote=functools.partial(self.rolls.may_vote, topic.topic_id, partition),
        )
        core.control.door = consensus.door
        part = RaftPartition(
            topic.name,
            partition,
            face,
            core,
            consensus,
            address_of=self._address_of,
            staleness_seconds=functools.partial(self._staleness, group_id),
            on_full=self._on_full,
            bundles=self._bundles,
        )
        consensus.start()
        return part

    async def _suspect(self, replica: Replica) -> None:
        """Durably, before it says anything."""
        synced: asyncio.Future[BaseException | None] = self._loop.create_future()

        def tell(error: BaseException | None = None) -> None:
            if not synced.done():
                synced.set_result(error)

        replica.on_poisoned(tell)
        replica.when_synced(replica.set_suspect(True), tell)
        error = await synced
        if error is not None:
            self._raft.fail("a copy that is made anew", error)
            raise UnavailableError(f"this node's disk has failed ({error!r}), and the node ends")

    async def note_rolls(self) -> None:
        """Remember who votes, for a start that finds a log damaged; if unknown, of all or none."""
        parts, at = (self._metadata, *self.partitions.values()), self.rolls.state.offset
        is_newest = at >= max(1, self.acted_on)
        are_all = self.rolls.is_known or (is_newest and at == self._seen)
        if are_all and (news := self.rolls.news(parts, is_newest=is_newest)) is not None:
            await self._run(self.rolls.keep, news)

    def _close(self, lane: Lane) -> None:
        del self.partitions[lane]
        self._raft.remove_group(group_of(self._topic_ids.pop(lane), lane[1]))

    def _staleness(self, group_id: str) -> float:
        """Seconds since this node heard a leader of the group."""
        consensus = self._raft.group(group_id)
        if consensus is None:
            return NEVER_SECONDS
        return min(NEVER_SECONDS, max(0.0, self._loop.time() - consensus.leader_heard_at))

    def cleared(self, state: Metadata) -> tuple[str, ...]:
        """Deleted topics that this node held, whose end is noted, and of which nothing is left."""
        return tuple(
            topic.topic_id
            for topic in state.deleting.values()
            if self._raft.node_id in topic.holders
            and topic.topic_id in self._ended - {self._making, *self._topic_ids.values()}
            and not replicated.is_listed(self._store, topic.topic_id)
        )
