"""What everybody who plays with a cluster of whole servers has in common.

Place: under `clients`, `operator` and `nemesis`. Promise: a call may fail
with the errors that it documents; every other one is a violation. Invariant: whatever is chosen is
chosen by the world's seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from chronik_server.errors import UnknownOutcomeError
from chronik_server.testing.servers.told import Told, Topic
from chronik_server.testing.servers.world import ServersWorld
from chronik_store.errors import (
    ChronikError,
    CorruptionError,
    OffsetOutOfRangeError,
    TopicNotFoundError,
)


class Failed(Exception):  # noqa: N818 (no error: an answer that may be given)
    """A call has failed as it may."""

    def __init__(self, error: ChronikError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class Stage:
    """What they play on, and whether it is over."""

    world: ServersWorld
    told: Told
    is_over: bool = False


class Player:
    """See the module."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.world, self.told = stage, stage.world, stage.told
        self.rng, self.events = stage.world.rng, stage.world.events

    async def again(self, deed: Callable[[], Awaitable[None]], rate: float) -> None:
        """Do it, `rate` times a second on average, until it is over."""
        while not self.stage.is_over:
            try:
                await deed()
            except Failed:
                self.events["calls failed"] += 1
            await self.pause(rate)

    async def pause(self, rate: float) -> None:
        """One over `rate` seconds, on average."""
        await asyncio.sleep(self.rng.expovariate(rate))

    def some_lane(self) -> tuple[Topic, int] | None:
        """A partition of a topic that is surely there."""
        topics = self.told.alive()
        if not topics:
            return None
        topic = self.rng.choice(topics)
        return topic, self.rng.randrange(len(topic.lanes))

    async def allowed(
        self, call: Awaitable[Any], topic: Topic | None, *also: type[ChronikError]
    ) -> Any:
        """The answer; Failed, with the error that the call may have. A topic that is surely there
        is never said not to be; one that is not may have a namesake, with other offsets.
        """
        try:
            return await call
        except TopicNotFoundError as error:
            if topic is not None and topic.state == "alive":
                self.world.violate(f"{topic} is there, and is not found: {error}")
            raise Failed(error) from error
        except ChronikError as error:
            if topic is not None and topic.state != "alive":
                also = (*also, OffsetOutOfRangeError)
            if self.world.is_rotten:
                also = (*also, CorruptionError)
            if not (error.retriable or isinstance(error, (UnknownOutcomeError, *also))):
                self.world.violate(f"not an error of this call: {error!r}")
            raise Failed(error) from error
