"""Calls of `append` for one partition that overlap: they share batches, as appends share a sync.

Place: under the client's `append`, over `outgoing`. Promise: a call's records lie together, and it
ends with its own place or its own error: what is refused for one of those that share a batch is
asked again for each alone. Nobody waits on a timer: a call that finds less than AHEAD on its way
leaves at the end of this turn of the loop. Invariant: meanwhile calls gather, up to GATHER_BYTES,
so that batches grow by themselves with the load.

Calls that overlap have no order among them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from chronik_server.client.outgoing import OutgoingLane, outcome
from chronik_server.client.routing import Lane, Router
from chronik_server.protocol.data import Acks
from chronik_store.batching import Appendable, Batching, items_of
from chronik_store.errors import ChronikError, LogClosedError, RecordTooLargeError
from chronik_store.format.record_batch import RecordBatch
from chronik_store.model import AppendResult, Record

GATHER_BYTES = 256 << 10
"""What gathered goes at once when it is that big; a call of that size shares with nobody."""
AHEAD = 2
"""One batch on the servers' disks, and one behind it."""
LANES_MAX = 32
"""So many producers, of WINDOW batches in flight each, serve the calls for one partition."""

Answer = asyncio.Future[AppendResult]
Records = RecordBatch | Sequence[Record | bytes]
"""Of one batch. What of a list is a batch itself is refused, as by the embedded library."""

_Call = tuple[int, Answer]
"""How many records, and who waits for them; a plain tuple, since one is made for every call."""
_result = partial(tuple.__new__, AppendResult)


class Overlapping:
    """All `append`s of one client for one partition and `acks`. Belongs to one event loop."""

    def __init__(self, router: Router, batching: Batching, lane: Lane, acks: Acks) -> None:
        self._router = router
        self._batching = batching
        self._lane = lane
        self._acks: Acks = acks
        self._loop = asyncio.get_running_loop()
        self._lanes: list[OutgoingLane] = []
        self._own_lanes: list[OutgoingLane] = []
        self._records: list[Record | bytes] = []
        self._calls: list[_Call] = []
        self._gathered_bytes = 0
        self._ahead = 0
        self._leaving = False
        self._closed = False

    def append(self, records: Appendable) -> Answer | None:
        """The future of one call; None for no records at all. Cancelling it takes nothing back.

        TypeError, RecordTooLargeError, LogClosedError at once, with nothing queued.
        """
        if self._closed:
            raise LogClosedError("this client is closed; make another", durability="not_durable")
        answer: Answer = self._loop.create_future()
        items: Sequence[Record | bytes]
        if type(records) is bytes:  # most of all calls
            items, size = (records,), len(records) + 1
        elif type(records) is RecordBatch:
            self._send(records, ((len(records), answer),))
            return answer
        else:
            items = items_of(records)
            if not items:
                return None
            size = _shared_bytes(items)
        if not size or size >= GATHER_BYTES:
            self._send(items, ((len(items), answer),))
            return answer
        self._records += items
        self._calls.append((len(items), answer))
        self._gathered_bytes += size
        if self._gathered_bytes >= GATHER_BYTES:
            self._dispatch()
        elif not self._leaving and self._ahead < AHEAD:
            self._leaving = True
            self._router.turn.soon(self._leave)
        return answer

    def _leave(self) -> None:
        self._leaving = False
        if self._calls and self._ahead < AHEAD:
            self._dispatch()

    def _dispatch(self) -> None:
        """Send what has gathered as one batch."""
        records, self._records = self._records, []
        calls, self._calls = self._calls, []
        self._gathered_bytes = 0
        try:
            self._send(records, calls)
        except (TypeError, ValueError, ChronikError) as error:
            self._failed(records, calls, error)

    def _send(self, records: Records, calls: Sequence[_Call]) -> None:
        batch = self._batching.batch(records)
        assert batch is not None, "there are records"
        sent = (self._lane_of_its_own() if batch.producer_id else self._free_lane()).submit(batch)
        self._ahead += 1
        sent.add_done_callback(lambda done: self._answered(records, calls, done))

    def _answered(self, records: Records, calls: Sequence[_Call], done: Answer) -> None:
        self._ahead -= 1
        found = outcome(done)
        if isinstance(found, BaseException):
            self._failed(records, calls, found)
        elif len(calls) == 1:
            if not calls[0][1].done():
                calls[0][1].set_result(found)
        else:
            base, _, duplicate = found
            for count, answer in calls:
                end = base + count if base >= 0 else base
                if not answer.done():
                    answer.set_result(_result((base, end, duplicate)))
                base = end
        self._leave()

    def _failed(self, records: Records, calls: Sequence[_Call], error: BaseException) -> None:
        """What is wrong with one of several is none of the others' business."""
        if len(calls) == 1 or not isinstance(error, (TypeError, ValueError, RecordTooLargeError)):
            for _, answer in calls:
                if not answer.done():
                    answer.set_exception(error)
            return
        assert not isinstance(records, RecordBatch), "it shares with nobody"
        start = 0
        for call in calls:
            own = records[start : start + call[0]]
            start += call[0]
            try:
                self._send(own, (call,))
            except (TypeError, ValueError, ChronikError) as refusal:
                self._failed(own, (call,), refusal)

    def _free_lane(self) -> OutgoingLane:
        """Calls that overlap have no order among them: each finds a lane that is not full."""
        for sender in self._lanes:
            if not sender.is_full:
                return sender
        if len(self._lanes) < LANES_MAX:
            self._lanes.append(OutgoingLane(self._router, self._lane, self._acks))
            return self._lanes[-1]
        return min(self._lanes, key=lambda sender: sender.queued_bytes)

    def _lane_of_its_own(self) -> OutgoingLane:
        """For a batch of somebody else's producer: what is refused there renumbers nobody."""
        for sender in self._own_lanes:
            if sender.is_idle:
                return sender
        self._own_lanes.append(OutgoingLane(self._router, self._lane, self._acks))
        return self._own_lanes[-1]

    @property
    def is_busy(self) -> bool:
        """Some call has no outcome yet."""
        return bool(self._calls) or self._ahead > 0

    async def close(self) -> None:
        """Take nothing more, and see everything through: what is refused for one of those that
        share a batch is asked again for each, in any lane, so none closes before all are done.
        """
        self._closed = True
        while self.is_busy:
            if self._calls:
                self._dispatch()
            for sender in [*self._lanes, *self._own_lanes]:
                await sender.flush()
            await asyncio.sleep(0)
        for sender in [*self._lanes, *self._own_lanes]:
            await sender.close()


def _shared_bytes(items: Sequence[Record | bytes]) -> int:
    """How much these records bring into a shared batch; 0 when they must have one of their own.

    A record with a time is not put beside one without: who has none gets that of its append.
    """
    kinds = set(map(type, items))
    if kinds == {bytes}:
        return sum(map(len, items)) + len(items)  # type: ignore[arg-type]
    if kinds != {Record}:
        return 0
    size = len(items)
    for item in items:
        assert isinstance(item, Record)
        if item.timestamp_us is not None or item.headers:
            return 0
        size += len(item.value) + len(item.key or b"")
    return size
