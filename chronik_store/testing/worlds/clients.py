"""What the clients of a world do: append, send, produce, read, administer, and remember it all.

Place: under `store_world`, whose machine their threads run on. Promise: each client accepts exactly
the errors that the API documents for what it does, and ends when the log says that it is over; an
answer that contradicts an earlier one fails the world. Invariant: chance comes from `rng` alone.
"""

from __future__ import annotations

import functools
import random
from concurrent.futures import Future

from chronik_store.errors import (
    BackpressureError,
    ChronikError,
    CorruptionError,
    OffsetOutOfRangeError,
    ProducerSequenceError,
    UnavailableError,
)
from chronik_store.format.record_batch import RecordBatch
from chronik_store.model import AppendResult, Watermarks
from chronik_store.partition_log import PartitionLog
from chronik_store.testing.virtual_time import Machine
from chronik_store.testing.worlds.ledger import Ledger


class Clients:
    """All that use one log. A world tells them which log that is, and when its bucket failed."""

    def __init__(self, rng: random.Random, node: Machine, ledger: Ledger) -> None:
        self.rng = rng
        self.node = node
        self.ledger = ledger
        self.log: PartitionLog | None = None
        self.bucket_failed = False
        """Some call of the bucket has failed: reads may say so."""
        self.marks: Watermarks | None = None
        """The newest limits that were shown since the log was opened."""
        self.contradictions: list[str] = []
        """What a callback found wrong: an exception that leaves one is only logged."""
        self.producer_id = 7
        self.sequence = 0
        self.unanswered: list[bytes] | None = None
        """What the idempotent producer has sent and knows nothing of."""

    def opened(self, log: PartitionLog | None) -> None:
        """There is another log to use, or none."""
        self.log = log
        self.marks = None

    def encoded(
        self, values: list[bytes], *, producer_id: int = 0, base_sequence: int = 0
    ) -> RecordBatch | list[bytes]:
        """What is appended for these values."""
        if not producer_id:
            return values
        return RecordBatch.build(values, producer_id=producer_id, base_sequence=base_sequence)

    def appends(self) -> None:
        """One batch after the other, until the log says that it is over."""
        log = self.log
        assert log is not None
        clock = self.node.environment.clock
        for _ in range(25):
            batch = self.ledger.offer(self.rng.choice((1, 1, 2, 5)))
            try:
                result = log.append(self.encoded(batch))
            except ChronikError as error:
                if self.is_over(batch, error):
                    return
            else:
                self.ledger.acked(result.base_offset, batch)
            clock.sleep(self.rng.expovariate(50.0))

    def sends(self) -> None:
        """Many at once, without waiting for each."""
        log = self.log
        assert log is not None
        clock = self.node.environment.clock
        for _ in range(8):
            for _ in range(self.rng.randint(1, 6)):
                batch = self.ledger.offer(self.rng.choice((1, 3)))
                try:
                    future = log.append_nowait(self.encoded(batch))
                except BackpressureError:
                    self.ledger.refused(batch)
                except ChronikError as error:
                    if self.is_over(batch, error):
                        return
                else:
                    future.add_done_callback(functools.partial(self.is_done, batch))
            clock.sleep(self.rng.expovariate(20.0))

    def is_done(self, batch: list[bytes], future: Future[AppendResult]) -> None:
        error = future.exception()
        try:
            if error is None:
                self.ledger.acked(future.result().base_offset, batch)
            else:
                self.is_over(batch, error)
        except AssertionError as wrong:
            self.contradictions.append(str(wrong))

    def is_over(self, batch: list[bytes], error: BaseException) -> bool:
        """Every failed append says what is known of it."""
        assert isinstance(error, ChronikError), error
        assert not isinstance(error, CorruptionError), error
        assert error.durability in {"not_durable", "unknown"}, repr(error)
        if error.durability == "not_durable":
            self.ledger.refused(batch)
        return not error.retriable

    def produces(self) -> None:
        """An idempotent producer: it sends the same again, in the next life too, until answered."""
        log = self.log
        assert log is not None
        clock = self.node.environment.clock
        for _ in range(20):
            if self.unanswered is None:
                self.unanswered = self.ledger.offer(self.rng.choice((1, 2)))
            sent = self.unanswered
            producer = {"producer_id": self.producer_id, "base_sequence": self.sequence}
            batch = self.encoded(sent, **producer)
            try:
                result = log.append(batch)
            except ProducerSequenceError:
                raise  # nothing but its own last batch is missing or there
            except ChronikError:
                return
            self.ledger.acked(result.base_offset, sent)
            self.unanswered = None
            self.sequence += len(sent)
            clock.sleep(self.rng.expovariate(20.0))

    def reads(self) -> None:
        """Reads here and there see what is known, and nothing that will not be."""
        log = self.log
        assert log is not None
        clock = self.node.environment.clock
        for _ in range(20):
            offset = 0
            try:
                marks = self.look(log)
                offset = self.rng.randint(marks.start, marks.committed)
                found = log.read(offset, max_records=self.rng.randint(1, 30))
                if offset < marks.committed:
                    assert len(found) > 0
                self.ledger.saw_all(offset, [record.value for record in found])
            except OffsetOutOfRangeError:
                if offset >= self.ledger.start_wished:
                    raise
            except UnavailableError:
                if not self.bucket_failed:
                    raise
            except CorruptionError as error:
                self.met_damage(error)
            except ChronikError:
                return
            clock.sleep(self.rng.expovariate(20.0))

    def met_damage(self, error: CorruptionError) -> None:
        """A read says that bytes are not what was written: here nothing is ever damaged."""
        raise error

    def look(self, log: PartitionLog) -> Watermarks:
        """The limits now: of those that may only move right, none has moved left."""
        marks, before = log.watermarks, self.marks
        if before is not None:
            for name in ("start", "indexed", "tiered", "sealed", "committed"):
                was, found = getattr(before, name), getattr(marks, name)
                assert was <= found, f"{name} went back from {was} to {found}"
        self.marks = marks
        return marks

    def administers(self) -> None:
        """Seals, drops, cursors, and the pipeline by hand beside the one in the background."""
        log = self.log
        assert log is not None
        clock = self.node.environment.clock
        for _ in range(12):
            clock.sleep(self.rng.expovariate(8.0))
            try:
                self.rng.choice((self._seal, self._drop, self._cursor, self._pipeline))(log)
            except (OffsetOutOfRangeError, CorruptionError):
                raise
            except ChronikError:
                return

    def _seal(self, log: PartitionLog) -> None:
        log.seal()

    def _drop(self, log: PartitionLog) -> None:
        marks = log.watermarks
        offset = self.rng.randint(marks.start, marks.start + (marks.committed - marks.start) // 2)
        self.ledger.wish_start(offset)
        log.drop_before(offset)
        self.ledger.dropped(offset)

    def _cursor(self, log: PartitionLog) -> None:
        name = self.rng.choice("ab")
        offset = self.rng.randint(0, log.watermarks.committed)
        self.ledger.wish_cursor(name, offset)
        log.cursor(name).commit(offset, reset=True)
        self.ledger.cursors[name] = offset
        self.ledger.cursors_wished[name] = set()

    def _pipeline(self, log: PartitionLog) -> None:
        log.run_pipeline_once()
