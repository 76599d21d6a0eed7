"""How long a question may be without an answer before its connection counts as lost.

Place: under `channel`. Promise: what was asked to wait, or takes the node long by its nature, has
that time beyond `request_seconds`; what the node does by a setting of its own, it has said in its
welcome. Invariant: every wait has an end; that the other side is there at all is asked sooner, by
pings.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from chronik_server.protocol.cluster import FindBundles, RebuildBundles, RunPipeline, Status
from chronik_server.protocol.data import Fetch, Search
from chronik_server.protocol.events import Response
from chronik_server.protocol.greeting import Welcome
from chronik_server.protocol.topics import CreateTopic, DeleteTopic
from chronik_store.arguments import check_seconds

if TYPE_CHECKING:
    from chronik_server.client.channel import Channel

FOR_EVER_SECONDS: Final = 1e9
"""What infinity is on the wire."""

UPKEEP_SECONDS: Final = 600.0
_UPKEEP: Final = (CreateTopic, DeleteTopic, RunPipeline, FindBundles, RebuildBundles, Status)
"""The pipeline uploads and indexes whole segments, and who asks for bundles waits for his turn; a
topic goes, and a namesake comes, when its run there has ended; a status opens what is not open.
"""


def milliseconds(seconds: float, name: str) -> int:
    """As questions have times. TypeError, ValueError: it is none, or negative."""
    check_seconds(seconds, name)
    return int(min(seconds, FOR_EVER_SECONDS) * 1000)


def patience_seconds(message: Any, welcome: Welcome | None) -> float:
    """Of this question, beyond what any has."""
    if isinstance(message, Fetch):
        return message.wait_ms / 1000
    if isinstance(message, Search):
        if message.deadline_ms is not None:
            return message.deadline_ms / 1000
        return 0.0 if welcome is None or welcome.search_ms is None else welcome.search_ms / 1000
    return UPKEEP_SECONDS if isinstance(message, _UPKEEP) else 0.0


class Watch:
    """Watches one question: gives the channel up when the question's time is over, and pings the
    node on the way there.

    It goes on when nobody waits for the answer any more: the question has its place on the
    connection until the answer comes, and where all callers are impatient nobody else would notice
    that the node is gone. seconds: what the question has. step: between two looks.
    """

    def __init__(
        self, channel: Channel, answer: asyncio.Future[Response], seconds: float, step: float
    ) -> None:
        self._channel = channel
        self._answer = answer
        self._seconds = seconds
        self._step = step
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + seconds
        self._timer = self._loop.call_later(min(seconds, step), self._look)

    def _look(self) -> None:
        if not self._channel.owes(self._answer):
            return
        left = self._end - self._loop.time()
        if left <= 0:
            self._channel.give_up(self._seconds)
            return
        self._channel.prove_alive()
        self._timer = self._loop.call_later(min(left, self._step), self._look)

    def leave(self) -> None:
        """It is answered, or nobody waits any more."""
        if self._answer.done() and not self._answer.cancelled():
            self._timer.cancel()
        else:
            self._answer.cancel()
