"""The same list, with everything around it: a bucket that fails, producers that retry, readers.

On top of the rules of `test_partition_log_model`: outages and lost replies of the bucket, an
idempotent producer that sends again whatever it has no answer for, a second process that reads
beside the writer, and a reader of the bucket alone. Readers see a prefix of the list, never more
than is committed, never less than they saw before.
"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from chronik_store.bucket_log import open_bucket
from chronik_store.clock import SystemClock
from chronik_store.environment import Environment
from chronik_store.errors import (
    ChronikError,
    OffsetOutOfRangeError,
    TopicNotFoundError,
    UnavailableError,
)
from chronik_store.format.record_batch import RecordBatch
from chronik_store.log_store import LogStore
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.faulty_object_store import Fault, FaultyObjectStore
from chronik_store.testing.worlds.store_world import buckets_of
from tests.models.test_partition_log_model import PartitionLogModel

PRODUCER = 99


class LogAndWorldModel(PartitionLogModel):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.objects = MemoryObjectStore()
        self.door = FaultyObjectStore(self.objects, clock=SystemClock())
        self.sequence = 0
        self.sent: tuple[int, list[bytes]] | None = None
        """(sequence, values) that the producer has sent last."""
        self.answer: tuple[int, int] | None = None
        self.reader: LogStore | None = None
        self.seen = 0
        self.patches = buckets_of(lambda _env: self.door)
        self.patches.__enter__()

    # --- producers -------------------------------------------------------------------------------

    def send(self) -> tuple[int, int, bool]:
        assert self.log is not None
        assert self.sent is not None
        sequence, values = self.sent
        batch = RecordBatch.build(values, producer_id=PRODUCER, base_sequence=sequence)
        return self.log.append(batch)

    @rule(values=st.lists(st.binary(max_size=50), min_size=1, max_size=3))
    def produce(self, values: list[bytes]) -> None:
        self.resolve()
        self.sent = (self.sequence, values)
        self.sequence += len(values)
        result = self.send()
        assert (len(self.model), len(self.model) + len(values), False) == result
        self.model.extend(values)
        self.answer = result[:2]

    @precondition(lambda self: self.sent is not None)
    @rule()
    def retry(self) -> None:
        """The same batch again, now or in a later life: one copy, one answer."""
        self.resolve()
        assert self.answer is not None
        assert (*self.answer, True) == self.send()

    @rule(values=st.lists(st.binary(max_size=50), min_size=1, max_size=3))
    def produce_without_an_answer(self, values: list[bytes]) -> None:
        """The sync fails; the next life asks again."""
        self.resolve()
        assert self.log is not None
        self.sent, self.answer = (self.sequence, values), None
        self.sequence += len(values)
        self.disk.hook = fail_next("sync_data", 5)
        with contextlib.suppress(ChronikError):
            self.answer = self.send()[:2]
            self.model.extend(values)
        self.disk.hook = None
        if self.answer is None:
            self.unknown.append(values)
        self.abandon(self.disk.crash("any", self.rng))

    def resolve(self) -> None:
        """Send again what has no answer yet."""
        if self.sent is not None and self.answer is None:
            values = self.sent[1]
            result = self.send()
            if not result[2]:
                assert result[0] == len(self.model)
                self.model.extend(values)
            assert values == self.model[result[0] : result[1]]
            self.answer = result[:2]

    # --- the bucket ------------------------------------------------------------------------------

    @rule(away=st.booleans())
    def bucket_goes_and_comes(self, away: bool) -> None:
        self.door.outage = away

    @rule(kind=st.sampled_from(["timeout_after", "timeout_before", "partial", "denied"]))
    def a_call_of_the_bucket_fails(self, kind: str) -> None:
        self.door.add(Fault(kind))

    @rule()
    def run_pipeline(self) -> None:
        """With a bucket that fails it says so, and loses nothing; healed, it gets through."""
        assert self.log is not None
        self.log.run_pipeline_once()

    @rule()
    def heal_and_run_pipeline(self) -> None:
        assert self.log is not None
        self.door.clear()
        for _ in range(3):
            assert self.log.run_pipeline_once().errors == ()

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        with self.unless_the_bucket_is_away():
            super().read(data)

    @rule()
    def read_everything(self) -> None:
        with self.unless_the_bucket_is_away():
            super().read_everything()

    @contextlib.contextmanager
    def unless_the_bucket_is_away(self):
        try:
            yield
        except UnavailableError:
            assert self.door.outage or self.door._faults

    @rule()
    def read_the_bucket_alone(self) -> None:
        """Whatever is published is contiguous, and the same."""
        self.door.clear()
        env = Environment(fs=self.disk, threads=MortalThreads())
        try:
            log = open_bucket(self.bucket, topic="logs", env=env)
        except TopicNotFoundError:
            return  # nothing is published yet
        with log:
            marks = log.watermarks
            assert marks.start <= self.start
            values = [record.value for record in log.scan()]
            assert self.model[marks.start : marks.committed] == values

    # --- a second process ------------------------------------------------------------------------

    @precondition(lambda self: self.reader is None)
    @rule()
    def open_a_reader(self) -> None:
        env = Environment(fs=self.disk.another_process(), threads=MortalThreads())
        self.reader = LogStore.open("/data", object_store=self.bucket, env=env, read_only=True)
        self.seen = 0

    @precondition(lambda self: self.reader is not None)
    @rule()
    def read_beside(self) -> None:
        assert self.reader is not None
        with self.unless_the_bucket_is_away():
            log = self.reader.partition("logs")
            marks = log.watermarks
            assert self.seen <= marks.committed <= len(self.model)
            assert marks.start <= self.start
            self.seen = marks.committed
            with contextlib.suppress(OffsetOutOfRangeError):
                values = [record.value for record in log.scan(marks.start)]
                assert self.model[marks.start : marks.start + len(values)] == values

    @precondition(lambda self: self.reader is not None)
    @rule()
    def reader_is_refused(self) -> None:
        assert self.reader is not None
        with pytest.raises(ChronikError):
            self.reader.create_topic("mine")

    @precondition(lambda self: self.reader is not None)
    @rule()
    def close_the_reader(self) -> None:
        if self.reader is not None:
            reader, self.reader = self.reader, None
            reader.close()

    def abandon(self, disk) -> None:
        """A power loss is one of both processes."""
        with contextlib.suppress(BaseException):
            self.close_the_reader()
        self.reader = None
        super().abandon(disk)

    @invariant()
    def nothing_is_listed_that_is_not_there(self) -> None:
        if self.log is not None:
            manifest = self.log._core.manifest
            for segment in manifest.segments:
                found = self.objects.head(segment.key)
                assert found is not None
                assert found.size_bytes == segment.size_bytes

    def teardown(self) -> None:
        try:
            self.close_the_reader()
            super().teardown()
        finally:
            self.patches.__exit__(None, None, None)


LogAndWorldModel.TestCase.settings = settings(
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestLogAndWorldModel = LogAndWorldModel.TestCase
