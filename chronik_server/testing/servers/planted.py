"""Known bugs of what surrounds the roles, to put back a while: hosting, topics, clients, answers.

Place: in the server's kit; `chronik simulate --servers --planted` and tests/server/servers use it.
Promise: within `planted(name, BUGS)` the product has that one bug, after it it has not.
Invariant: no switch in the product itself: a bug is a function put in the place of a good one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from chronik_server import errors, hosting_notes, steward, under_way
from chronik_server.client import outgoing
from chronik_server.cluster_topics import ClusterTopics
from chronik_server.handlers import Handlers
from chronik_server.hosting import Hosting
from chronik_server.raft import replication
from chronik_server.raft.group import RaftGroup
from chronik_server.raft_partition import RaftPartition
from chronik_server.steward import Steward
from chronik_store import conversion, replicated
from chronik_store.disk_guard import DiskGuard
from chronik_store.errors import ChronikError, CorruptionError
from chronik_store.model import AppendResult
from chronik_store.pipeline import retain
from chronik_store.testing.planted import Plant, bugs_of
from chronik_store.wal import reading

_Put = Callable[[Any, str, Any], None]


def acknowledge_at_the_leader(put: _Put) -> None:
    """An append that asks for a quorum is answered when the leader's disk has it."""
    good = RaftPartition.produce

    async def produce(self: RaftPartition, batch: Any, acks: Any, expected: Any) -> AppendResult:
        return await good(self, batch, "leader" if acks == "quorum" else acks, expected)

    put(RaftPartition, "produce", produce)
    put(RaftPartition, "produce_nowait", lambda *_: False)


def ask_again_as_another(put: _Put) -> None:
    """A batch whose answer was lost is sent again as if another producer had made it."""
    good = outgoing.OutgoingLane._send

    async def send(self: Any) -> None:
        for each in self._flight:
            if each.answer is None:
                self._producer_id, self._next_sequence = self._producer_id + 2, 0
                self._stamp(each)
        await good(self)

    put(outgoing.OutgoingLane, "_send", send)


def take_new_logs_for_lost(put: _Put) -> None:
    """An empty log that a node finds at its start has no vote, as if a fuller one had been lost."""
    put(replicated, "remembered", _remembered_anew(replicated.remembered))


def _remembered_anew(good: Any) -> Any:
    return lambda store, name: 1 if name == hosting_notes.ANEW_NAME else good(store, name)


def note_before_all_are_made(put: _Put) -> None:
    """The fold is noted when the first log of a new topic is there, not when all of them are."""

    async def make(self: Any, topic: Any, _made: Any) -> None:
        self._making = topic.topic_id

    put(Hosting, "_make", make)


def say_what_there_is_not(put: _Put) -> None:
    """A leader of the metadata says that there is no such topic, though it may be replaced."""

    async def must_know(self: Any) -> None:
        meta = self._group.part
        if not meta.consensus.is_ready:
            raise meta.not_leader()

    put(ClusterTopics, "_must_know", must_know)


def serve_any_namesake(put: _Put) -> None:
    """Whatever runs under a topic's name is the topic."""
    put(
        Hosting,
        "running",
        lambda self, topic, partition: self.partitions.get((topic.name, partition)),
    )
    put(Hosting, "close_stale", lambda *_: None)


def read_on_in_any_namesake(put: _Put) -> None:
    """Who reads one topic is given the one that has its name by now, at the old one's offset."""

    async def read_from(self: Any, asked: Any) -> Any:
        return await self._partition(asked.topic, asked.partition)

    put(Handlers, "_read_from", read_from)


def call_the_roll_by_the_log(put: _Put) -> None:
    """Only those whom a log names that may have been cut answer a roll call."""
    put(RaftGroup, "roll", property(lambda self: frozenset(self.voters) - {self.id}))


def a_name_is_free_at_once(put: _Put) -> None:
    """A topic is made while nodes may still acknowledge to the one of its name that was deleted."""
    put(Steward, "_may_acknowledge", lambda *_: set())


def tell_of_closed_logs(put: _Put) -> None:
    """A client is told that a log is closed, which it never opened."""
    put(under_way, "hide", lambda error: error if isinstance(error, ChronikError) else _hide(error))


_hide = errors.hide


def forget_to_look_whether_it_was_pruned(put: _Put) -> None:
    """Entries that were read for a follower are sent, whatever was pruned meanwhile."""

    def send_entries(self: Any, peer: str, next_index: int, entries: Any) -> bool:
        self._replica.term(next_index - 1)
        return _send_entries(self, peer, next_index, entries)

    put(replication.Replication, "_send_entries", send_entries)


_send_entries = replication.Replication._send_entries


def copy_nothing_to_new_nodes(put: _Put) -> None:
    """A partition with fewer copies than it asked for gets none when there are nodes for them."""
    put(steward, "next_wish", lambda *_: None)


def keep_a_removed_copy(put: _Put) -> None:
    """A node keeps the files of partitions that have moved away from it."""

    async def leave(*_: Any) -> None:
        await asyncio.sleep(0)

    put(Hosting, "_leave", leave)


def let_one_too_many_go(put: _Put) -> None:
    """Retention by size looks at what would be kept before it drops a segment, not behind it."""

    def expired(manifest: Any, config: Any, now_us: int) -> tuple[int, str]:
        count, reason = _expired(manifest, config, now_us)
        return (count, reason) if count in {0, len(manifest.segments)} else (count + 1, reason)

    put(retain, "expired", expired)


_expired = retain.expired


def let_go_by_size_alone(put: _Put) -> None:
    """Where retention is by size and by age, age counts for nothing."""

    def expired(manifest: Any, config: Any, now_us: int) -> tuple[int, str]:
        if config.retention_bytes is not None:
            config = config.replace(retention_seconds=None)
        return _expired(manifest, config, now_us)

    put(retain, "expired", expired)


def vote_from_an_empty_log(put: _Put) -> None:
    """A log that is gone from the disk is made anew as if its topic were new."""

    async def note(self: Any, name: str, partition: int) -> None:
        self._begun.add((name, partition))

    put(Hosting, "_note_lost", note)


def never_look_whether_there_is_room_again(put: _Put) -> None:
    """A disk that was found to be full counts as full until the process is restarted."""

    def look(self: DiskGuard, now: float) -> None:
        if self._looked_at < 0 or self._free_bytes > self._reserve_bytes:
            _look(self, now)

    put(DiskGuard, "_look", look)


_look = DiskGuard._look


def forget_who_has_founded(put: _Put) -> None:
    """A directory that was converted does not say that its node needs nobody to begin."""
    put(conversion, "remember", lambda *_: None)


def assert_what_was_read(put: _Put) -> None:
    """A damaged entry that is read while the log is open fails an assertion of the reader's."""
    good = reading._entry

    def entry(*arguments: Any) -> Any:
        try:
            return good(*arguments)
        except CorruptionError as error:
            raise AssertionError(str(error)) from error

    put(reading, "_entry", entry)


BUGS: dict[str, Plant] = bugs_of(sys.modules[__name__])
"""Name -> bug; its docstring says what it is."""
