"""The model of a replica's log: what it has been through, and what may be left of it.

The WAL has one order over entries, truncations and hard states. So whatever a crash leaves must be
what the log was after some prefix of the steps taken, and no shorter a prefix than the longest of
which it was told that it is synced. Nothing else: no entry of a suffix that was cut, no vote
without its term, no old entry behind a new one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
from typing import Any, NamedTuple

from chronik_store.environment import Environment
from chronik_store.errors import ChronikError, CorruptionError
from chronik_store.format.control import Members, Seal, decode_command
from chronik_store.format.entry import Entry, EntryKind
from chronik_store.format.manifest_file import LogBase
from chronik_store.format.record_batch import RecordBatch
from chronik_store.manifest.state import empty_manifest
from chronik_store.replica import Snapshot
from chronik_store.testing.crash import CrashMode, MortalThreads
from chronik_store.testing.simulated_disk import SimulatedDisk
from tests.simulation.replica_log import LOG_ID, TOPIC_ID, Author, ReplicaLog

PRODUCER = 9


class State(NamedTuple):
    """What a log is: where it begins, its entries, its hard state."""

    base: LogBase
    entries: tuple[Entry, ...]
    hard_state: tuple[int, str]

    @property
    def end(self) -> LogBase:
        if not self.entries:
            return self.base
        last = self.entries[-1].header
        return LogBase(last.index, last.term, last.end_offset, last.timestamp_us)

    @property
    def last_index(self) -> int:
        return self.base.index + len(self.entries)

    def last_batch(self) -> RecordBatch | None:
        """The newest batch of records."""
        for header, payload in reversed(self.entries):
            if header.kind == EntryKind.RECORDS:
                return RecordBatch.from_buffer(bytes(payload))
        return None

    @property
    def sequence(self) -> int:
        """What the producer's next batch begins with."""
        last = self.last_batch()
        return 0 if last is None else last.base_sequence + last.record_count

    def upto(self, index: int) -> tuple[Entry, ...]:
        """The entries up to `index`, inclusive."""
        return self.entries[: max(0, index - self.base.index)]

    def term(self, index: int) -> int:
        if index == self.base.index:
            return self.base.term
        return self.entries[index - self.base.index - 1].header.term

    def cut(self, index: int) -> State:
        return self._replace(entries=self.upto(index - 1))


class ReplicaModel:
    """What one replica has been through, and what may be left of it. Chance comes from `rng`."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.history = [State(LogBase(0, 0, 0, 0), (), (0, ""))]
        self.synced = 0
        """The index in `history` up to which the log has said that it is durable."""
        self.told = 0
        self.reached = 0
        """The index in `history` that the log has surely come to: states behind it are of an act
        that is still going on, and may have been switched away from."""
        self.committed: dict[int, Entry] = {}
        """What the group has committed, by index; this node may yet have to be sent it again."""
        self.commit_index = 0
        self.snapshot: Snapshot | None = None
        self.shown = 0
        self.sworn_commit = 0
        """What frames that are synced knew to be committed, at least."""
        self.mark_then = self.last_ticket = 0
        self.made = 0
        self.sequence = 0
        """Of the producer's next batch, for whoever writes now."""
        self.term = 0
        """Of the leader that speaks now; no two leaders have one."""
        self.node_log: ReplicaLog | None = None

    @property
    def now(self) -> State:
        return self.history[-1]

    def opened(self, log: ReplicaLog) -> None:
        """The log was opened again: check it, and go on from what is there."""
        state = self.recovered(log)
        self.history = [state]
        self.synced = self.told = self.reached = 0
        self.mark_then = 0
        self.shown = log.replica.commit_index
        self.node_log = log

    # --- recovery --------------------------------------------------------------------------------

    def recovered(self, log: ReplicaLog) -> State:
        """What it came back with, which must be what it once was, and not too long ago."""
        found = tuple(Entry(each.header, bytes(each.payload)) for each in log.entries())
        base = log.core.wal.base
        state = State(base, found, log.replica.hard_state)
        allowed = self.history[self.synced :]
        assert any(_same(state, each) for each in allowed), self._difference(state)
        commit = log.replica.commit_index
        assert commit >= self.sworn_commit, "frames knew of more that was committed"
        assert commit <= max(self.commit_index, base.index)
        self.check_committed(state, commit)
        self.check_folds(log, state)
        return state

    def _difference(self, state: State) -> str:
        def short(each: State) -> str:
            terms = [entry.header.term for entry in each.entries]
            return f"{each.base.index}+{terms} {each.hard_state}"

        lines = [short(each) for each in self.history[self.synced :]]
        return f"recovered {short(state)}; it was {' | '.join(lines)}"

    def check_committed(self, state: State, commit: int) -> None:
        """What counts as committed there is what the group committed."""
        for entry in state.upto(commit):
            assert entry == self.committed.get(entry.header.index, entry)

    def check_folds(self, log: ReplicaLog, state: State) -> None:
        """Members and producers are what the live entries say, tail included (protocol 3, 12)."""
        members: Any = None
        for header, payload in state.entries:
            if header.kind != EntryKind.RECORDS:
                command = decode_command(header.kind, payload)
                if isinstance(command, Members):
                    members = (header.index, command)
        if not state.base.index:
            assert log.replica.members == members
            self.check_producer(log, state)

    def check_producer(self, log: ReplicaLog, state: State) -> None:
        """The next batch of the one producer is the next one, and its last one a duplicate."""
        producers, following = log.core.state.producers, state.sequence
        assert producers.check(PRODUCER, 0, following, 1) is None
        last = state.last_batch()
        if last is not None:
            base, count = last.base_sequence, last.record_count
            assert producers.check(PRODUCER, 0, base, count) is not None

    def stage(self, *states: State) -> None:
        self.history.extend(states)

    def ticket(self, log: ReplicaLog, ticket: int) -> None:
        """When the log says that it is synced, everything up to now must survive."""
        place = self.reached = len(self.history) - 1
        # The frames of a new ticket were staged, hence written, after the last ticket was given.
        commit = self.mark_then if ticket > self.last_ticket else 0
        self.mark_then, self.last_ticket = log.core.wal.commit_mark, max(ticket, self.last_ticket)

        def synced() -> None:
            assert log is self.node_log
            assert self.told <= place, "callbacks come out of order"
            self.synced = self.told = place
            self.sworn_commit = max(self.sworn_commit, commit)

        log.replica.when_synced(ticket, synced)

    def look(self, log: ReplicaLog) -> None:
        """Its own numbers fit together, and with the model."""
        replica, state = log.replica, self.now
        assert state.last_index == replica.last_index
        assert replica.durable_index <= replica.last_index
        assert replica.commit_index <= max(replica.durable_index, state.base.index)
        assert replica.commit_index >= self.shown, "commit index went back"
        self.shown = replica.commit_index
        if not state.base.index:
            self.check_producer(log, state)
        assert state.hard_state == replica.hard_state
        if state.entries:
            index = self.rng.randint(state.base.index + 1, state.last_index)
            assert state.term(index) == replica.term(index)
        marks = log.log.watermarks
        assert marks.committed == log.core.committed.offset

    # --- what a leader does ----------------------------------------------------------------------

    def new_leader(self, log: ReplicaLog) -> None:
        self.term = max(self.term, self.now.hard_state[0]) + 1
        self.hard_state(log, self.term, "")

    def catches_up(self, log: ReplicaLog) -> None:
        """What the group has committed comes again, as far as this node lost or never had it."""
        if self.snapshot is not None:
            base, state = self.snapshot.base, self.now
            held = state.base.index <= base.index <= state.last_index
            if not (held and state.term(base.index) == base.term) and state.base.index < base.index:
                self.installs(log, self.snapshot)
        missing = []
        for index in sorted(self.committed):
            entry = self.committed[index]
            have = self.now.upto(index)
            if index > self.now.base.index and (not have or have[-1] != entry):
                missing.append(entry)
        if missing:
            prev = missing[0].header.index - 1
            self.takes(log, prev, self.now.term(prev), missing)

    def author(self, state: State, term: int) -> Author:
        """Who goes on from this state. The producer does, too."""
        self.sequence = state.sequence
        return Author(state.end, term)

    def write(self, author: Author) -> list[Entry]:
        return [self.entry(author) for _ in range(self.rng.randint(1, 4))]

    def entry(self, author: Author) -> Entry:
        self.made += 1
        kind = self.rng.random()
        if kind < 0.1:
            return author.control()
        if kind < 0.2:
            return author.control(Members((f"n{self.made}",), ()))
        if kind < 0.3:
            return author.control(Seal(author.index + 1, "admin", 0))
        value = b"%06d" % self.made + b"v" * self.rng.randrange(400)
        values = [value] * self.rng.randint(1, 3)
        entry = author.records(values, producer_id=PRODUCER, base_sequence=self.sequence)
        self.sequence += len(values)
        return entry

    def appends(self, log: ReplicaLog) -> None:
        state = self.now
        author = self.author(state, self.term)
        entries = self.write(author)
        self.takes(log, state.end.index, state.end.term, entries)

    def takes(self, log: ReplicaLog, prev: int, term: int, entries: list[Entry]) -> None:
        """An append that must be accepted; the model takes the same steps, frame by frame.

        First, since a group may be on disk before the call has returned.
        """
        state = self.now
        for entry in entries:
            index = entry.header.index
            if index <= state.last_index:
                if state.term(index) == entry.header.term:
                    continue
                state = state.cut(index)
                self.stage(state)
            state = state._replace(entries=(*state.entries, entry))
            self.stage(state)
        answer = log.replica.append_entries(prev, term, entries)
        assert answer.conflict is None, answer
        assert answer.last_index == prev + len(entries)
        self.ticket(log, answer.ticket)

    def conflicts(self, log: ReplicaLog) -> None:
        """A new leader's entries replace a suffix that is not committed."""
        state = self.now
        floor = max(self.commit_index, state.base.index)
        if state.last_index <= floor:
            return
        index = self.rng.randint(floor + 1, state.last_index)
        self.new_leader(log)
        author = self.author(self.now.cut(index), self.term)
        self.takes(log, index - 1, self.now.term(index - 1), self.write(author))

    def truncates(self, log: ReplicaLog) -> None:
        state = self.now
        floor = max(self.commit_index, state.base.index)
        if state.last_index > floor:
            index = self.rng.randint(floor + 1, state.last_index)
            self.new_leader(log)
            self.stage(self.now.cut(index))
            self.ticket(log, log.replica.truncate_suffix(index))

    def repeats(self, log: ReplicaLog) -> None:
        """An old message comes again, and changes nothing; its suffix stays."""
        state = self.now
        if state.entries:
            low = self.rng.randrange(len(state.entries))
            high = self.rng.randint(low, len(state.entries))
            entries = list(state.entries[low:high])
            prev = state.base.index + low
            self.takes(log, prev, state.term(prev), entries)

    def votes(self, log: ReplicaLog) -> None:
        self.term = max(self.term, self.now.hard_state[0]) + self.rng.randint(0, 2)
        self.hard_state(log, self.term, self.rng.choice("abc"))

    def hard_state(self, log: ReplicaLog, term: int, vote: str) -> None:
        self.stage(self.now._replace(hard_state=(term, vote)))
        self.ticket(log, log.replica.save_hard_state(term, vote))

    def is_refused(self, log: ReplicaLog) -> None:
        """What does not fit changes nothing and says where to go on."""
        state = self.now
        author = self.author(state, state.end.term + 5)
        entries = self.write(author)
        gap = log.replica.append_entries(state.last_index + 3, 1, [])
        assert gap.conflict is not None
        assert gap.conflict.index == state.last_index + 1
        if state.last_index > max(self.commit_index, state.base.index):
            other = log.replica.append_entries(state.last_index, state.end.term + 1, entries)
            assert other.conflict is not None
            assert log.replica.commit_index < other.conflict.index <= state.last_index
        damaged = entries[0]._replace(payload=bytes(entries[0].payload) + b"!")
        with contextlib.suppress(CorruptionError):
            log.replica.append_entries(state.last_index, state.end.term, [damaged])
            raise AssertionError("a damaged entry was taken")
        assert state.last_index == log.replica.last_index

    def snapshots(self, log: ReplicaLog) -> None:
        """The leader has pruned what we miss: begin behind its last segment (protocol 2)."""
        if self.rng.random() < 0.7:
            return
        self.new_leader(log)
        state = self.now
        index = state.last_index + self.rng.randint(1, 5)
        base = LogBase(index, self.term, state.end.offset + 7, state.end.timestamp_us)
        manifest = dataclasses.replace(
            empty_manifest("t", 0, TOPIC_ID, LOG_ID),
            next=base,
            start_offset=base.offset,
            open_first_index=index + 1,
        )
        self.snapshot = Snapshot(base, manifest, index, (), None, 0)
        self.commit_index = index
        self.committed = {}
        self.installs(log, self.snapshot)

    def installs(self, log: ReplicaLog, snapshot: Snapshot) -> None:
        self.stage(State(snapshot.base, (), self.now.hard_state))
        self.ticket(log, log.replica.install_snapshot(snapshot))

    def commits(self, log: ReplicaLog) -> None:
        """A quorum holds entries up to somewhere."""
        state = self.now
        index = self.rng.randint(max(self.commit_index, state.base.index), state.last_index)
        self.commit_index = index
        for entry in state.upto(index):
            self.committed[entry.header.index] = entry
        log.replica.advance_commit(index)

    # --- crashes that did not happen -------------------------------------------------------------

    def look_at_image(self, disk: SimulatedDisk, mode: CrashMode) -> None:
        """What a power loss at this moment would leave."""
        log = self.node_log
        assert log is not None
        durable, states = log.replica.durable_index, self.history[self.reached :]
        image = ReplicaLog(Environment(fs=disk.crashed(mode, self.rng), threads=MortalThreads()))
        try:
            found = self.recovered(image)
            if found.base == states[0].base == states[-1].base:
                kept = [state.upto(durable) for state in states]
                assert found.upto(durable) in kept, "durable was said too early"
        finally:
            with contextlib.suppress(ChronikError):
                image.close()


def _same(left: State, right: State) -> bool:
    return (
        left.end.index == right.end.index
        and left.end.offset == right.end.offset
        and left.hard_state == right.hard_state
        and left.entries == right.entries
    )
