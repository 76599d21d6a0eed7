"""One partition's batches on their way: in order, several in flight, none twice, none lost in
silence.

Place: under `producer` and the client's `append`, over `routing`. Promise: each batch ends with
where it is, or with an error whose `durability` is true: "not_durable" only when no attempt can
have stored it. Invariant: at most WINDOW batches are unanswered, so the log, which remembers as
many of each producer, recognises every repetition; a batch is repeated under the sequence it was
first sent with, unless it is certain that it was never stored.

As long as nothing goes wrong no task runs: a batch is posted as it is submitted, and its answer
settles it. Anything else (no open channel, a failure, acks "none") is the business of `_run`. With
acks "none" a batch is told once and has its outcome then: nothing would recognise a repetition.

How it goes on after a failure (protocol 3):

    may be asked again               wait, then send everything unanswered again, in order
    refused for good                 that batch fails; those behind it were not taken either (their
                                     sequences do not follow): new epoch, from sequence 0
    refused as too large             the same, with its records one by one in its place, if whoever
                                     submitted it can make them; if an attempt may have stored
                                     it, its outcome is unknown
    the log has forgotten us         the same, if this batch was never sent before; else its
                                     outcome is unknown, and is said to be

A batch that has a producer already goes under that one's sequence, alone in its lane: whether that
follows is between its caller and the log.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Callable

from chronik_server.client.channel import Channel
from chronik_server.client.routing import HINTS_IN_A_ROW, Backoff, Lane, Router
from chronik_server.errors import InternalError, UnknownOutcomeError
from chronik_server.protocol.data import Acks, Produce, Produced
from chronik_server.protocol.events import Response
from chronik_store.errors import (
    ChronikError,
    LogClosedError,
    ProducerSequenceError,
    RecordTooLargeError,
)
from chronik_store.format.record_batch import RecordBatch
from chronik_store.model import AppendResult

WINDOW = 5
Sent = tuple[RecordBatch, asyncio.Future[AppendResult]]
Parts = Callable[[], list[Sent]]


class Outgoing:
    """A batch on its way. since: when it was given. `uncertain`: an attempt of it may have been
    stored. parts: makes the same records in smaller batches.
    """

    __slots__ = (
        "answer", "batch", "channel", "future", "parts", "sequence", "since", "stamped",
        "uncertain",
    )  # fmt: skip

    def __init__(
        self,
        batch: RecordBatch,
        future: asyncio.Future[AppendResult],
        since: float,
        parts: Parts | None = None,
    ) -> None:
        self.since = since
        self.batch = batch
        self.future = future
        self.parts = parts
        self.sequence = 0
        self.stamped: RecordBatch = batch
        self.uncertain = False
        self.answer: asyncio.Future[Response] | None = None
        self.channel: Channel | None = None


class OutgoingLane:
    """The batches of one producer for one partition. Belongs to one event loop."""

    def __init__(self, router: Router, lane: Lane, acks: Acks) -> None:
        self._router = router
        self._lane = lane
        self._loop = asyncio.get_running_loop()
        self._message = Produce(lane[0], lane[1], acks)
        self._producer_id = int.from_bytes(router.entropy.token_bytes(8), "little") | 1
        self._epoch = 0
        self._next_sequence = 0
        self._queue: deque[Outgoing] = deque()
        self._flight: deque[Outgoing] = deque()
        self._runner: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._head_since = 0.0
        self._failing_since: float | None = None
        """Since then no batch was granted or refused for good."""
        self._closed = False
        self.queued_bytes = 0
        self.on_room: Callable[[], None] = lambda: None
        """Called when `queued_bytes` has become less."""

    @property
    def is_idle(self) -> bool:
        """Every batch has its outcome."""
        return not self._flight and not self._queue

    @property
    def is_full(self) -> bool:
        """Another batch would have to wait."""
        return len(self._flight) + len(self._queue) >= WINDOW

    def submit(
        self, batch: RecordBatch, parts: Parts | None = None
    ) -> asyncio.Future[AppendResult]:
        """Queue a batch; the future gets where it is. Cancelling it never takes it back.

        parts: asked for once if the batch is refused as too large, and sent in its place; then the
        batch's own future gets no place, once each of theirs is done.
        """
        future: asyncio.Future[AppendResult] = self._loop.create_future()
        if self._closed:
            future.set_exception(
                LogClosedError("this producer is closed", durability="not_durable")
            )
            return future
        outgoing = Outgoing(batch, future, self._loop.time(), parts)
        self.queued_bytes += batch.nbytes
        if not self._post_now(outgoing):
            self._queue.append(outgoing)
            self._start()
        return future

    def _start(self) -> None:
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
            self._runner.add_done_callback(self._ended)

    # --- while nothing goes wrong ----------------------------------------------------------------

    def _post_now(self, outgoing: Outgoing) -> bool:
        """Send it without a task; False: it must wait for its turn, or for a channel."""
        if self._queue or len(self._flight) >= WINDOW or self._message.acks == "none":
            return False
        if self._runner is not None and not self._runner.done():
            return False
        channel = self._router.open_channel(self._lane)
        if channel is None or channel.is_full:
            return False
        self._stamp(outgoing)
        if not self._flight:
            self._head_since = self._loop.time()
        self._flight.append(outgoing)
        outgoing.channel = channel
        outgoing.answer = channel.post(self._message, outgoing.stamped.buffer)
        outgoing.answer.add_done_callback(self._answered)
        self._watch_head()
        return True

    def _watch_head(self) -> None:
        if self._watch is None:
            seconds = self._router.options.request_seconds
            self._watch = self._loop.call_later(seconds, self._look)

    def _answered(self, answer: asyncio.Future[Response]) -> None:
        """Settle what is answered at the head; whatever is not an answer is for `_run`."""
        if self._runner is not None and not self._runner.done():
            return
        flight = self._flight
        while flight and (head := flight[0]).answer is not None and head.answer.done():
            if head.answer.cancelled() or head.answer.exception() is not None:
                self._start()
                return
            flight.popleft()
            self._head_since = self._loop.time()
            self._succeed(head, head.answer.result().message)
        if self._queue:
            self._start()

    def _look(self) -> None:
        """Whoever does not answer for too long is given up, which fails what it was asked. One
        timer, not one for each batch: it looks at how long the head has waited.
        """
        self._watch = None
        if not self._flight or (self._runner is not None and not self._runner.done()):
            return
        seconds = self._router.options.request_seconds
        left = self._head_since + seconds - self._loop.time()
        channel = self._flight[0].channel
        if left <= 0 and channel is not None:
            channel.give_up(seconds)
        else:
            self._watch = self._loop.call_later(max(left, 0.001), self._look)

    def _ended(self, runner: asyncio.Task[None]) -> None:
        """The loop ends when answers are all that is left; if it ends otherwise, nobody waits for
        ever.
        """
        if runner is not self._runner:
            return  # a batch came between its end and this call: another loop has all of them
        self._runner = None
        error = None if runner.cancelled() else runner.exception()
        if error is None and not runner.cancelled():
            return
        for outgoing in (*self._flight, *self._queue):
            outgoing.uncertain = True
            self._fail(outgoing, InternalError(f"the producer's loop ended: {error!r}"))
        self._flight.clear()
        self._queue.clear()

    # --- the loop of a lane ----------------------------------------------------------------------

    async def _run(self) -> None:
        backoff: Backoff | None = None
        hints, self._failing_since = 0, None
        while self._queue or self._flight:
            try:
                if self._message.acks == "none":
                    await self._tell_head()
                    response = None
                else:
                    await self._send()
                    response = await self._settle_head()
            except ChronikError as error:
                hinted = self._router.note_failure(self._lane, error)
                hints = hints + 1 if hinted else 0
                await self._all_answered()
                if backoff is None:
                    backoff = Backoff(self._router)
                if self._refused(error):
                    backoff = None
                elif not 0 < hints <= HINTS_IN_A_ROW:
                    await backoff.wait(error)
            else:
                backoff, hints, self._failing_since = None, 0, None
                self._succeed(self._flight.popleft(), response)
                if not self._queue:
                    break
        for outgoing in self._flight:
            assert outgoing.answer is not None, "all that is in flight was posted"
            outgoing.answer.add_done_callback(self._answered)
        if self._flight:
            self._head_since = self._loop.time()
            self._watch_head()

    async def _send(self) -> None:
        """Post what is unanswered and was not posted since the last failure, then fill up."""
        unposted = [each for each in self._flight if each.answer is None]
        while self._queue and len(self._flight) < WINDOW:
            outgoing = self._queue.popleft()
            self._stamp(outgoing)
            self._flight.append(outgoing)
            unposted.append(outgoing)
        if not unposted:
            return
        channel = await self._router.leader_channel(self._lane)
        for outgoing in unposted:
            if channel.is_full:
                await channel.turn_to_ask(self._router.options.request_seconds)
            outgoing.channel = channel
            outgoing.answer = channel.post(self._message, outgoing.stamped.buffer)

    async def _tell_head(self) -> None:
        """With acks "none": one at a time, so that what was told once is never told again."""
        if not self._flight:
            self._flight.append(self._queue.popleft())
        channel = await self._router.leader_channel(self._lane)
        channel.tell(self._message, (self._flight[0].batch.buffer,))
        await channel.drained()

    async def _settle_head(self) -> Produced:
        head = self._flight[0]
        assert head.answer is not None and head.channel is not None, "`_send` has posted it"  # noqa: PT018
        seconds = self._router.options.request_seconds
        done, _ = await asyncio.wait((head.answer,), timeout=seconds)
        if not done:
            head.channel.give_up(seconds)
        produced: Produced = (await head.answer).message
        return produced

    async def _all_answered(self) -> None:
        """After a failure: let the others' answers come, keep what they say. Who owes them for too
        long is given up.
        """
        answers = [each.answer for each in self._flight if each.answer is not None]
        if answers:
            seconds = self._router.options.request_seconds
            await asyncio.wait(answers, timeout=seconds)
            for outgoing in self._flight:
                if outgoing.answer is not None and not outgoing.answer.done():
                    assert outgoing.channel is not None, "it was posted there"
                    outgoing.channel.give_up(seconds)
        for outgoing in self._flight:
            answer, outgoing.answer = outgoing.answer, None
            if answer is None or answer.cancelled():
                continue
            error = answer.exception()
            if error is None:
                outgoing.uncertain = True  # stored; repeating it gives the same answer
            elif isinstance(error, ChronikError) and error.durability != "not_durable":
                outgoing.uncertain = True

    def _refused(self, error: ChronikError) -> bool:
        """The head is refused for good, or the time is up: fail it, and put the rest in order.

        False: everything is to be sent again as it was.
        """
        again = error.retriable or error.durability == "unknown"
        if not again:
            self._failing_since = None
            self._refuse_head(error, again=False)
            return True
        if self._failing_since is None:
            self._failing_since = self._loop.time()
        is_over = False
        while self._is_over():
            is_over = True
            self._refuse_head(error, again=True)
        return is_over

    def _is_over(self) -> bool:
        """The first batch has been tried, or has waited behind one that was, for as long as any
        call is: those behind a batch that nobody took do not each begin anew.
        """
        heads = self._flight or self._queue
        if not heads or self._failing_since is None:
            return False
        begun = max(self._failing_since, heads[0].since)
        return self._loop.time() >= begun + self._router.options.retry_seconds

    def _refuse_head(self, error: ChronikError, *, again: bool) -> None:
        if not self._flight:
            self._fail(self._queue.popleft(), error)
            return
        head = self._flight[0]
        forgotten = isinstance(error, ProducerSequenceError) and not head.batch.producer_id
        too_large = isinstance(error, RecordTooLargeError)
        if too_large and head.parts is not None and not head.uncertain:
            self._take_apart(self._flight.popleft(), head.parts())
        elif not forgotten or head.uncertain:
            self._fail(self._flight.popleft(), error)
        if forgotten or not head.uncertain or not again:
            self._new_epoch(error)

    def _new_epoch(self, error: ChronikError) -> None:
        """Those behind a batch that was not taken were not taken either: they are numbered anew, as
        they are sent.
        """
        self._epoch += 1
        self._next_sequence = 0
        rest, self._flight = self._flight, deque()
        certain = [outgoing for outgoing in rest if not outgoing.uncertain]
        self._queue.extendleft(reversed(certain))
        for outgoing in rest:
            if outgoing.uncertain:
                self._fail(outgoing, error)

    def _take_apart(self, whole: Outgoing, parts: list[Sent]) -> None:
        """In front of everything behind it: the records keep their order."""
        for batch, future in reversed(parts):
            self._flight.appendleft(Outgoing(batch, future, whole.since))
            self.queued_bytes += batch.nbytes
        self._release(whole)

        def done(_: object) -> None:
            if not whole.future.done():
                whole.future.set_result(AppendResult(-1, -1))

        all_of_them = asyncio.gather(*(future for _, future in parts), return_exceptions=True)
        all_of_them.add_done_callback(done)

    def _stamp(self, outgoing: Outgoing) -> None:
        if outgoing.batch.producer_id:  # the caller's, who may repeat it after a restart: kept
            return
        outgoing.sequence = self._next_sequence
        self._next_sequence += outgoing.batch.record_count
        outgoing.stamped = outgoing.batch.with_producer(
            self._producer_id, self._epoch, outgoing.sequence
        )

    # --- outcomes --------------------------------------------------------------------------------

    def _succeed(self, outgoing: Outgoing, produced: Produced | None) -> None:
        self._release(outgoing)
        if not outgoing.future.done():
            if produced is None:
                outgoing.future.set_result(AppendResult(-1, -1))
            else:
                outgoing.future.set_result(
                    AppendResult(produced.base_offset, produced.end_offset, produced.duplicate)
                )

    def _fail(self, outgoing: Outgoing, error: ChronikError) -> None:
        self._release(outgoing)
        found: ChronikError = error
        if outgoing.uncertain and error.durability != "unknown":
            found = UnknownOutcomeError(
                f"a batch for {self._lane[0]}/{self._lane[1]} was sent and not answered; whether "
                f"it is stored is not known ({error})"
            )
            found.__cause__ = error
        elif not outgoing.uncertain and error.durability != "not_durable":
            found = copy.copy(error)  # others, who are less sure, may have been given the same
            found.durability = "not_durable"
            found.__cause__ = error.__cause__
        if not outgoing.future.done():
            outgoing.future.set_exception(found)

    def _release(self, outgoing: Outgoing) -> None:
        self.queued_bytes -= outgoing.batch.nbytes
        self.on_room()

    async def flush(self) -> None:
        """Return when everything submitted so far has its outcome. Given up, it takes nothing back:
        who waits for a batch goes on waiting.
        """
        pending = [each.future for each in (*self._flight, *self._queue)]
        if pending:
            await asyncio.wait(pending)

    async def close(self) -> None:
        """Flush, then take nothing more."""
        await self.flush()
        self._closed = True
        await self.flush()  # what was submitted meanwhile
        if self._runner is not None:
            await asyncio.wait((self._runner,))
        if self._watch is not None:
            self._watch.cancel()


def outcome(done: asyncio.Future[AppendResult]) -> AppendResult | BaseException:
    """What became of a batch. Somebody has cancelled the future: the batch may be stored."""
    if done.cancelled():
        return UnknownOutcomeError("nobody waits for this batch any more; it may be stored")
    return done.exception() or done.result()
