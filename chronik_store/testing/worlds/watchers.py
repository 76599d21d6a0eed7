"""Readers in processes of their own: beside the writer, and elsewhere with the bucket alone.

Place: under `watched_world`, over `judging`. Promise: over all lives of the reader and of the
writer, what one was shown is a fact for ever, a follower misses no record and sees none twice, and
each call raises only what the API documents for it. Invariant: chance comes from the reader's own
generator; what it goes on from after a restart is the places of its followers, and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from chronik_store.bucket_log import open_bucket
from chronik_store.config import LogConfig
from chronik_store.errors import (
    ChronikError,
    ConfigError,
    CorruptionError,
    LogClosedError,
    OffsetOutOfRangeError,
    TopicNotFoundError,
    UnavailableError,
)
from chronik_store.log_store import LogStore
from chronik_store.model import StoredRecord
from chronik_store.partition_log import PartitionLog
from chronik_store.testing.crash import CrashError
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.virtual_time import Machine, Simulation
from chronik_store.testing.worlds.judging import Facts, Marks, check_moment, check_search
from chronik_store.testing.worlds.store_world import URL
from chronik_store.testing.worlds.wording import draw_question

Logs = dict[int, PartitionLog]


class Place:
    """Where a follower is: durable, as the cursor of a program would be."""

    def __init__(self, name: str, facts: Facts) -> None:
        self.name = name
        self.facts = facts
        self.offset = 0
        self.followed = 0
        self.was_there = False
        """Its log has been opened once."""
        self.may_lie_ahead = False
        """The power failed since: what proved that this was committed may be lost, until the writer
        has opened the log again and proves it anew."""

    def sees(self, record: StoredRecord) -> None:
        assert record.offset == self.offset, (
            f"{self.name} is shown {record.offset}, next is {self.offset}"
        )
        self.facts.saw(record)
        self.offset += 1
        self.followed += 1
        self.may_lie_ahead = False

    def is_refused(self, error: OffsetOutOfRangeError) -> None:
        """It can go on where the log begins now, if somebody wished for that; or not yet."""
        if self.offset < (error.first_offset or 0):
            assert self.facts.may_be_gone(self.offset), f"{self.name} at {self.offset}: {error}"
            self.offset = error.first_offset or 0
        else:
            assert self.may_lie_ahead, f"{self.name} was shown {self.offset} records: {error}"


class Watcher:
    """One reading process. `lives` is a thread of no machine that opens it again and again."""

    kind = ""

    def __init__(
        self,
        simulation: Simulation,
        machine: Machine,
        rng: random.Random,
        facts: Sequence[Facts],
        events: Counter[str],
    ) -> None:
        self.simulation = simulation
        self.machine = machine
        self.rng = rng
        self.facts = facts
        self.events = events
        self.places = [Place(f"{self.kind}'s follower of {f.partition}", f) for f in facts]
        self.is_over = False
        self.began_at = 0.0
        self.has_failed = False
        """Some call of its bucket or disk has failed since it was opened."""
        self.writer_opened = False
        """The writer has opened the store at least once: there is something to be read."""
        self.config = LogConfig()
        self.may_be_damaged: Callable[[], bool] = lambda: False
        """A write of the writer was cut off inside a sector: what is read may end in damage."""
        self.looked: Callable[[], None] = lambda: None
        """Called whenever something was shown: a good moment for a power loss."""

    # --- lives -----------------------------------------------------------------------------------

    def lives(self) -> None:
        while not self.is_over:
            self.boot()
            if self.rng.random() < 0.2:
                self.simulation.later(self.rng.expovariate(1.0), self.dies)
            if self.rng.random() < 0.3:
                self.simulation.later(self.rng.expovariate(2.0), self.bucket_goes_away)
            if self.rng.random() < 0.2:
                self.simulation.later(self.rng.expovariate(2.0), self.stands_still)
            if self.rng.random() < 0.2:
                self.simulation.later(self.rng.expovariate(2.0), self.disk_fails)
            with contextlib.suppress(CrashError):
                self.machine.call(self.session)
            self.simulation.sleep(self.rng.expovariate(4.0))

    def boot(self) -> None:
        if not self.machine.is_up:
            self.machine.restart()

    def dies(self) -> None:
        if self.machine.is_up and not self.is_over:
            self.events["readers killed"] += 1
            self.machine.kill()

    def stands_still(self) -> None:
        if self.machine.is_up and not self.is_over:
            self.machine.pause(self.rng.expovariate(1.0))

    def bucket_goes_away(self) -> None:
        self.has_failed = True
        self.machine.bucket_faults.is_down = not self.is_over
        self.simulation.later(self.rng.expovariate(2.0), self.bucket_comes_back)

    def disk_fails(self) -> None:
        """One call that only looks: nothing is known then, and nothing is wrong for good."""
        operation = self.rng.choice(("open", "read_at", "map", "list", "stat", "size", "exists"))
        self.has_failed = True
        self.machine.disk.hook = None if self.is_over else fail_next(operation, errno.EIO)

    def bucket_comes_back(self) -> None:
        self.machine.bucket_faults.is_down = False

    def session(self) -> None:
        """Open, look here and there beside the followers, close."""
        self.begins()
        logs = self.opened()
        if not logs:
            return
        self.events["readers opened"] += 1
        followers = [
            self.machine.spawn(partial(self.follows, log, self.places[number]), name="follows")
            for number, log in logs.items()
        ]
        marks = {number: Marks() for number in logs}
        for _ in range(self.rng.choice((3, 10, 40))):
            number = self.rng.choice(list(logs))
            self.looks(logs[number], self.facts[number], marks[number])
            self.machine.environment.clock.sleep(self.rng.expovariate(10.0))
        self.close(logs)
        for follower in followers:
            follower.join()

    def begins(self) -> None:
        """What befell it before excuses nothing any more."""
        self.began_at = self.simulation.now
        self.has_failed = self.machine.bucket_faults.is_down
        self.machine.disk.hook = None

    def opened(self) -> Logs:
        """The partitions that there are, by number."""
        raise NotImplementedError

    def close(self, logs: Logs) -> None:
        for log in logs.values():
            log.close()

    def is_allowed(self, error: ChronikError, facts: Facts) -> bool:
        """What may be raised by a look at an offset that was there a moment ago."""
        if isinstance(error, OffsetOutOfRangeError):
            return facts.may_be_gone(error.offset)
        if isinstance(error, CorruptionError):
            return self.may_be_damaged()
        return isinstance(error, UnavailableError) and self.has_failed

    def may_be_refused(self) -> bool:
        return self.has_failed or self.may_be_damaged()

    # --- what it does ----------------------------------------------------------------------------

    def looks(self, log: PartitionLog, facts: Facts, marks: Marks) -> None:
        """One look of some kind, at what is there now."""
        try:
            found = marks.look(log)
            offset = self.rng.randint(found.start, found.committed)
            kinds = [self.reads, self.reads, self.scans, self.batches, self.finds]
            kinds += [self.cursors, self.verifies]
            if self.config.indexing_enabled:
                kinds.append(self.searches)
            kind = self.rng.choice(kinds)
            kind(log, facts, offset, found.committed)
        except ChronikError as error:
            if not self.is_allowed(error, facts):
                raise
            self.events["readers refused"] += 1
        else:
            self.looked()

    def reads(self, log: PartitionLog, facts: Facts, offset: int, committed: int) -> None:
        if self.rng.random() < 0.3:
            offset = max(0, committed - 1)
        found = log.read(offset, max_records=self.rng.randint(1, 30))
        end = facts.saw_run(offset, found)
        assert end == found.next_offset
        assert end > offset or offset == committed, f"nothing at {offset}, {committed} committed"

    def scans(self, log: PartitionLog, facts: Facts, offset: int, committed: int) -> None:
        end = facts.saw_run(offset, log.scan(offset))
        assert end >= committed, f"a scan ends at {end}, {committed} was committed"

    def batches(self, log: PartitionLog, facts: Facts, offset: int, committed: int) -> None:
        end = offset
        for batch in log.read_batches(offset, max_bytes=self.rng.choice((1, 2000, 1 << 20))):
            assert batch.base_offset <= end < batch.end_offset, f"{batch} comes where {end} is next"
            facts.saw_batch(batch)
            end = facts.saw_run(end, batch.records_from(end, batch.end_offset - end))
        assert end >= committed, f"the batches end at {end}, {committed} was committed"

    def cursors(self, log: PartitionLog, facts: Facts, offset: int, committed: int) -> None:
        del offset, committed
        for name, ever in list(facts.ledger._cursors_ever.items()):  # others may come meanwhile
            found = log.cursor(name).committed_offset
            assert found is None or found in ever, f"cursor {name} is at {found}, never put there"

    def verifies(self, log: PartitionLog, facts: Facts, offset: int, committed: int) -> None:
        """A writer that goes on meanwhile is no damage."""
        del facts, offset, committed
        self.events["verified beside the writer"] += 1
        report = log.verify(bucket=self.rng.random() < 0.5, deep=self.rng.random() < 0.5)
        bad = [each for each in report.findings if each.severity != "note"]
        assert not bad or self.may_be_refused(), bad

    def finds(self, log: PartitionLog, facts: Facts, offset: int, committed: int) -> None:
        del offset, committed
        self.events["look-ups by time"] += 1
        check_moment(log, facts, self.rng)

    def searches(self, log: PartitionLog, facts: Facts, offset: int, committed: int) -> None:
        question = draw_question(self.rng, offset, committed)
        wants_all = question.options.get("require_complete", False)
        try:
            result = check_search(log.search, [log], [facts], question)
        except UnavailableError:
            if not wants_all:
                raise
            self.events["searches refused"] += 1
            return
        assert result.complete or not wants_all
        self.events["searches"] += 1
        self.events["searches not complete"] += not result.complete

    def follows(self, log: PartitionLog, place: Place) -> None:
        """Everything, from where it is, until the log is closed."""
        clock = self.machine.environment.clock
        while not self.is_over:
            try:
                if self.rng.random() < 0.7:
                    for record in log.scan(place.offset, follow=True):
                        place.sees(record)
                        if self.rng.random() < 0.03:
                            clock.sleep(self.rng.expovariate(2.0))
                for record in log.read(place.offset, wait_seconds=self.rng.choice((0.0, 0.5))):
                    place.sees(record)
            except LogClosedError:
                return
            except OffsetOutOfRangeError as error:
                place.is_refused(error)
            except ChronikError as error:
                if not self.is_allowed(error, place.facts):
                    raise
            clock.sleep(self.rng.expovariate(10.0))

    def catches_up(self) -> None:
        """When all is quiet: everything is there, and each follower comes to the end."""
        self.bucket_comes_back()
        self.begins()
        logs = self.opened()
        assert len(logs) == len(self.facts)
        for log, facts, place in zip(logs.values(), self.facts, self.places, strict=True):
            self.follows_to_the_end(log, facts, place)
            self.events["records followed"] += place.followed
            for _ in range(3):
                check_moment(log, facts, self.rng)
            for _ in range(3 if self.config.indexing_enabled else 0):
                question = draw_question(self.rng, 0, place.offset)
                question.options["deadline_seconds"] = 1e6
                result = check_search(log.search, [log], [facts], question)
                assert result.complete, result.coverage
        self.close(logs)

    @staticmethod
    def follows_to_the_end(log: PartitionLog, facts: Facts, place: Place) -> None:
        marks = log.watermarks
        end = facts.saw_run(marks.start, log.scan())
        assert end == marks.committed == max(facts.ledger.known, default=-1) + 1, (end, marks)
        while place.offset < end:
            try:
                for record in log.scan(place.offset, end, follow=True):
                    place.sees(record)
            except OffsetOutOfRangeError as error:
                place.is_refused(error)
        assert place.offset == end, f"{place.name} is at {place.offset}, the end is {end}"


class Beside(Watcher):
    """On the writer's disk, read-only."""

    kind = "beside"
    store: LogStore | None = None

    def opened(self) -> Logs:
        self.store = None
        was_there = self.writer_opened  # before it is looked for: this process may stand still
        try:
            self.store = store = LogStore.open(
                "/data",
                object_store=URL,
                config=self.config,
                read_only=True,
                env=self.machine.environment,
            )
            return {each.partition: store.partition("t", each.partition) for each in self.facts}
        except (ConfigError, TopicNotFoundError):
            if was_there:
                raise
        except CorruptionError:
            if not self.may_be_damaged():
                raise
        except UnavailableError:
            if not self.has_failed:
                raise
        if self.store is not None:
            self.store.close()
        return {}

    def close(self, logs: Logs) -> None:
        del logs
        assert self.store is not None
        self.store.close()

    def searches(self, log: PartitionLog, facts: Facts, offset: int, committed: int) -> None:
        """One partition, or all of them at once."""
        assert self.store is not None
        if len(self.facts) == 1 or self.rng.random() < 0.6:
            super().searches(log, facts, offset, committed)
            return
        question = draw_question(self.rng, offset, committed)
        question.options.pop("require_complete", None)
        store = self.store
        logs = [store.partition("t", each.partition) for each in self.facts]
        check_search(
            lambda query, **options: store.search("t", query, **options),
            logs,
            self.facts,
            question,
        )
        self.events["searches"] += 1


class Afar(Watcher):
    """Of the bucket alone."""

    kind = "afar"

    def opened(self) -> Logs:
        logs = {}
        for facts in self.facts:
            number = facts.partition
            try:
                logs[number] = open_bucket(
                    URL,
                    topic="t",
                    partition=number,
                    config=self.config,
                    env=self.machine.environment,
                )
            except TopicNotFoundError:
                if self.places[number].was_there:
                    raise
            except UnavailableError:
                if not self.has_failed:
                    raise
            else:
                self.places[number].was_there = True
        return logs
