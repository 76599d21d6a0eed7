"""Which node to ask: any, or the one that leads a partition; and when to ask again.

Place: under the faces of the client, over `channel`. Promise: a call that may be repeated is
repeated, with growing pauses, until it is granted, refused for good, or `retry_seconds` are over;
a node that is not the leader says who is, and is believed once. What was asked of a leader and
answered by another node counts only when no node names a leader. Invariant: one channel per
address; what is remembered of leaders is a hint.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from chronik_server.addresses import Address, parse_address
from chronik_server.client.channel import Channel
from chronik_server.client.options import ClientOptions
from chronik_server.errors import (
    CertificateError,
    ConnectionLostError,
    NotLeaderError,
    UnknownOutcomeError,
)
from chronik_server.protocol.events import Response
from chronik_server.protocol.topics import DescribeTopic, PartitionPlace, TopicDescription
from chronik_server.turn import Turn
from chronik_store.clock import Clock, Entropy
from chronik_store.errors import ChronikError, ConfigError, LogClosedError
from chronik_store.format.checksum import Buffer

logger = logging.getLogger("chronik_server.client")

HINTS_IN_A_ROW: Final = 3
"""So many nodes in a row may name another leader before the client pauses."""
LOOK_SECONDS: Final = 1.0
"""A node that has not said by then who leads names nobody."""
Lane = tuple[str, int]
"""(topic, partition)"""
METADATA: Final[Lane] = ("", 0)
ANY: Final[Lane] = ("", -1)


class Backoff:
    """Pauses that double, with jitter, and an end: `retry_seconds` behind the first failure, which
    may come late: a node that hangs takes all of `request_seconds`. One for each call.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._next = router.options.backoff_seconds
        self._deadline: float | None = None

    async def pause(self, error: ChronikError) -> None:
        """Wait before the next attempt; raises `error` when the time is up."""
        if self.is_over:
            raise error
        await self.wait(error)

    async def wait(self, error: ChronikError | None = None) -> None:
        """Wait before the next attempt, which may be the last. error: what makes it needed."""
        options, left = self._router.options, self._left_seconds()
        if error is not None:
            self._router.on_wait(error, options.retry_seconds - left)
        pause = self._next * self._router.entropy.uniform(0.5, 1.0)
        await asyncio.sleep(max(0.0, min(left, pause)))
        self._next = min(2 * self._next, options.backoff_seconds_max)

    @property
    def is_over(self) -> bool:
        """No attempt may follow."""
        return self._left_seconds() <= 0

    def _left_seconds(self) -> float:
        now = asyncio.get_running_loop().time()
        if self._deadline is None:
            self._deadline = now + self._router.options.retry_seconds
        return self._deadline - now


class Router:
    """The channels and leader hints of one client. Belongs to one event loop."""

    def __init__(
        self, servers: Sequence[Address], options: ClientOptions, clock: Clock, entropy: Entropy
    ) -> None:
        if not servers:
            raise ConfigError("a client needs the address of at least one node")
        self.options = options
        self.clock = clock
        self.entropy = entropy
        self.node_id: str | None = None
        """Of the node for which this client asks, if it is one's."""
        self.on_wait: Callable[[ChronikError, float], None] = _nobody
        """Told before each pause: why, and for how many seconds that has gone on."""
        self._servers = list(dict.fromkeys(servers))
        self._channels: dict[Address, asyncio.Task[Channel]] = {}
        self._leaders: dict[Lane, Address] = {}
        self._leaderless: set[Address] = set()
        """Nodes that knew of no leader when they were asked: maybe cut off, so the last to ask."""
        self._closed = False
        self._round = 0
        self._turn: Turn | None = None

    @property
    def turn(self) -> Turn:
        """In which all channels of this client speak."""
        if self._turn is None:
            self._turn = Turn(asyncio.get_running_loop())
        return self._turn

    # --- channels --------------------------------------------------------------------------------

    async def channel(self, address: Address) -> Channel:
        """The open channel to a node. Several callers share one attempt to connect."""
        if self._closed:
            raise LogClosedError("this client is closed; make another")
        task = self._channels.get(address)
        if task is None or (task.done() and (_failed(task) or task.result().is_lost)):
            task = asyncio.create_task(
                Channel.open(address, self.options, node_id=self.node_id, turn=self.turn)
            )
            self._channels[address] = task
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if not task.cancelled() or (current is not None and current.cancelling()):
                raise  # who asked is cancelled, not the attempt to connect
            raise LogClosedError("this client was closed while it connected") from None

    async def any_channel(self) -> Channel:
        """A channel to some node: an open one if there is, else the first that can be reached.
        One that lately knew of no leader comes after all others.

        When none can be: the error of one whose certificate is not believed, which waiting does
        not cure; else that of the last.
        """
        for address, task in self._channels.items():
            if (
                address not in self._leaderless
                and task.done()
                and not _failed(task)
                and not task.result().is_lost
            ):
                return task.result()
        last: ChronikError | None = None
        addresses = list(dict.fromkeys((*self._servers, *self._leaders.values())))
        first, self._round = self._round % len(addresses), self._round + 1
        addresses = addresses[first:] + addresses[:first]
        for address in sorted(addresses, key=lambda each: each in self._leaderless):
            try:
                return await self.channel(address)
            except ChronikError as error:
                if not isinstance(last, CertificateError):
                    last = error
        assert last is not None
        raise last

    def open_channel(self, lane: Lane) -> Channel | None:
        """The channel to the node that leads a partition, if both are known and it is open."""
        address = self._leaders.get(lane)
        task = None if address is None or self._closed else self._channels.get(address)
        if task is None or not task.done() or _failed(task):
            return None
        channel = task.result()
        return None if channel.is_lost else channel

    async def leader_channel(self, lane: Lane) -> Channel:
        """A channel to the node that leads a partition, as far as anybody knows."""
        remembered = self._leaders.get(lane)
        address = remembered or await self._find_leader(lane)
        if address is None:
            return await self.any_channel()  # it names the leader, or its answer is looked at
        try:
            return await self.channel(address)
        except (ConnectionLostError, CertificateError) as error:
            self._leaders.pop(lane, None)
            # Of what is no topic's nobody describes the leader: `_ask` asks whoever answers.
            if remembered is None or not lane[0] or isinstance(error, ConnectionLostError):
                raise
        # It may have led before it got a certificate that nobody believes: is it another by now?
        return await self.leader_channel(lane)

    async def _find_leader(self, lane: Lane) -> Address | None:
        topic = lane[0]
        channel = await self.any_channel()
        found: TopicDescription = (await channel.ask(DescribeTopic(topic))).message
        for place in found.partitions:
            leads = _where_leads(place, channel)
            if leads is not None:
                self._leaders[topic, place.partition] = leads
        address = self._leaders.get(lane)
        if address is None:
            self._note_leaderless(channel.address)
        return address

    async def _look_again(self, lane: Lane, stale: Address) -> Address | None:
        """`stale` has answered and does not lead (any more). Whom some node names, another one if
        there is one; None: nobody names anybody.
        """
        if self._leaders.get(lane) == stale:
            del self._leaders[lane]
        nodes = dict.fromkeys((*self._servers, *self._leaders.values(), stale))
        asked = [asyncio.create_task(self._leader_according_to(node, lane)) for node in nodes]
        named: Address | None = None
        try:
            for answer in asyncio.as_completed(asked, timeout=LOOK_SECONDS):
                named = await answer or named
                if named is not None and named != stale:
                    break
        except TimeoutError:
            logger.debug("not all nodes say who leads %s/%d", *lane)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        if named is not None:
            self._leaders[lane] = named
        return named

    async def _leader_according_to(self, node: Address, lane: Lane) -> Address | None:
        try:
            channel = await self.channel(node)
            found: TopicDescription = (await channel.ask(DescribeTopic(lane[0]))).message
        except ChronikError as error:
            logger.debug("%s does not say who leads %s/%d: %s", node, *lane, error)
            return None
        for place in found.partitions:
            if place.partition == lane[1]:
                return _where_leads(place, channel)
        return None

    def _note_leaderless(self, address: Address) -> None:
        """This node cannot say whom to ask. Once that is said of all, all are asked again."""
        self._leaderless.add(address)
        if self._leaderless.issuperset(self._servers):
            self._leaderless.clear()

    def note_failure(self, lane: Lane, error: ChronikError) -> bool:
        """Learn from an error; True if it named another leader to ask at once."""
        address = _address_of(error.address) if isinstance(error, NotLeaderError) else None
        if address is not None:
            changed = self._leaders.get(lane) != address
            self._leaders[lane] = address
            return changed
        if isinstance(error, (NotLeaderError, ConnectionLostError)):
            self._leaders.pop(lane, None)
        return False

    def forget(self, topic: str) -> None:
        """A topic was created or deleted: what was known of it is no more."""
        for lane in [lane for lane in self._leaders if lane[0] == topic]:
            del self._leaders[lane]

    # --- asking ----------------------------------------------------------------------------------

    async def ask_any(
        self,
        message: Any,
        *,
        lane: Lane = METADATA,
        repeatable: bool = True,
    ) -> Response:
        """Ask some node; it answers itself, or names who can.

        lane: under which a node that it names is remembered. repeatable: asking twice does no
        harm; else only what certainly was not done is repeated.
        """
        return await self._ask(lane, message, b"", repeatable=repeatable, leader=False)

    async def ask_leader(
        self,
        lane: Lane,
        message: Any,
        payload: Buffer = b"",
        *,
        repeatable: bool = True,
    ) -> Response:
        """Ask the leader of a partition, wherever it moves. Another node's answer is returned when
        no node names a leader, or the named one does not come to lead within `retry_seconds`.
        """
        return await self._ask(lane, message, payload, repeatable=repeatable, leader=True)

    async def _ask(
        self,
        lane: Lane,
        message: Any,
        payload: Buffer,
        *,
        repeatable: bool,
        leader: bool,
    ) -> Response:
        backoff = Backoff(self)
        hints, looked, doubted = 0, False, False
        while True:
            channel: Channel | None = None
            known = leader or lane in self._leaders
            try:
                channel = await self._whom_to_ask(lane, known=known, repeatable=repeatable)
                answer = await channel.ask(message, payload)
                if not leader or getattr(answer.message, "staleness_ms", None) is None:
                    return answer
                named = await self._look_again(lane, channel.address)
                if named is None or (looked and backoff.is_over):
                    return answer
                if looked or named == channel.address:
                    await backoff.wait()
                looked = True
            except ChronikError as error:
                asked = channel is not None
                if isinstance(error, CertificateError) and known and not (leader or doubted):
                    doubted = True  # a hint, forgotten by now: maybe another is named
                    continue
                again = error.retriable or (repeatable and isinstance(error, UnknownOutcomeError))
                if not again or (asked and not repeatable and may_have_happened(error)):
                    raise
                sent_away = isinstance(error, NotLeaderError) and _address_of(error.address) is None
                if channel is not None and sent_away:
                    self._note_leaderless(channel.address)
                hinted = self.note_failure(lane, error)
                hints = hints + 1 if hinted else 0
                if not 0 < hints <= HINTS_IN_A_ROW:
                    await backoff.pause(error)
                logger.debug("asking again: %s", error)

    async def _whom_to_ask(self, lane: Lane, *, known: bool, repeatable: bool) -> Channel:
        try:
            return await (self.leader_channel(lane) if known else self.any_channel())
        except ChronikError as error:
            if repeatable:
                raise  # it may have been asked before
            found = copy.copy(error)  # others, who ask for something else, may be given the same
            found.durability = "not_durable"
            raise found from error.__cause__

    async def close(self) -> None:
        """Hang up everywhere, once what was said has left."""
        self._closed = True
        tasks, self._channels = list(self._channels.values()), {}
        channels = [task.result() for task in tasks if task.done() and not _failed(task)]
        for channel in channels:
            channel.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *(each.sent() for each in channels), return_exceptions=True)
        await asyncio.sleep(0)


def may_have_happened(error: ChronikError) -> bool:
    """The request that was asked may have been carried out although it failed: the node hung up,
    stopped, or gave up waiting for its effect. Who has certainly done nothing says so.
    """
    return error.durability != "not_durable"


def _where_leads(place: PartitionPlace, channel: Channel) -> Address | None:
    """Where to ask whoever leads a partition, according to the node that was asked by `channel`.
    Itself, as it was asked now: what it listens on need not lead there from here.
    """
    if channel.welcome is not None and place.leader == channel.welcome.node_id:
        return channel.address
    return _address_of(place.address)


def _address_of(hint: str | None) -> Address | None:
    """A node's word for where another one is; None when it is no address: others may know."""
    try:
        return None if hint is None else parse_address(hint)
    except ConfigError as error:
        logger.debug("what a node says is no address: %s", error)
        return None


def _failed(task: asyncio.Task[Channel]) -> bool:
    return task.cancelled() or task.exception() is not None


def _nobody(_error: ChronikError, _seconds: float) -> None:
    """Nobody wants to know."""
