"""raftos, imported here and nowhere else: the skeleton that our roles grow on.

Place: loaded on first use, by the roles and the group. Promise: the private seams that we override
or run exist, or starting fails with what to do; a raftos that is absent is told apart from one
whose own requirement is absent. Invariant: nothing of raftos is copied; of its parts only roles,
their transitions and the timer are used, never its storage, log, network or replication (their 37
defects are tests of our roles).

What still runs of it: `State.start/stop/request_handler/to_*/_change_state`, the construction,
starting and stopping of roles, `Candidate.start/request_vote` and its count of votes, the rule by
which a follower votes, `Leader.start/heartbeat`, and `Timer`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chronik_store.errors import ConfigError

INSTALL = 'pip install "chronik[server]" && pip install --no-deps raftos==0.2.6'

if TYPE_CHECKING:

    class Timer:
        """Periodic callback; the interval is asked for each time."""

        interval: Callable[[], float] | float
        callback: Callable[[], None]
        handler: asyncio.TimerHandle
        loop: asyncio.AbstractEventLoop
        is_active: bool

        def __init__(
            self, interval: Callable[[], float] | float, callback: Callable[[], None]
        ) -> None: ...
        def start(self) -> None: ...
        def stop(self) -> None: ...
        def reset(self) -> None: ...
        def get_interval(self) -> float: ...

    class BaseState:
        """What raftos calls a state, and we a role."""

        state: Any
        storage: Any
        log: Any
        id: str
        loop: asyncio.AbstractEventLoop

        def __init__(self, state: Any) -> None: ...
        def start(self) -> None: ...
        def stop(self) -> None: ...
        def on_receive_request_vote(self, data: Any) -> None: ...
        def on_receive_append_entries(self, data: Any) -> None: ...

    class Follower(BaseState):
        """raftos's follower."""

        election_timer: Timer

    class Candidate(BaseState):
        """raftos's candidate."""

        election_timer: Timer
        vote_count: int

        def request_vote(self) -> None: ...
        def on_receive_request_vote_response(self, data: Any) -> None: ...

    class Leader(BaseState):
        """raftos's leader."""

        heartbeat_timer: Timer
        step_down_timer: Timer
        request_id: int
        response_map: dict[int, set[str]]

        def heartbeat(self) -> None: ...

    class State:
        """raftos's holder of the current role."""

        id: str
        loop: asyncio.AbstractEventLoop
        state: Any

        def start(self) -> None: ...
        def stop(self) -> None: ...
        def request_handler(self, data: Any) -> None: ...
        def to_follower(self) -> None: ...
        def to_candidate(self) -> None: ...
        def to_leader(self) -> None: ...
        def _change_state(self, new_state: type[Any]) -> None: ...

else:
    # It warns of a missing cryptography, which we do not use, before anybody can configure it.
    logging.getLogger("raftos").disabled = True
    try:
        from raftos.state import BaseState, Candidate, Follower, Leader, State
        from raftos.timer import Timer
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "raftos":
            message = f"the server needs raftos, which no extra can name: {INSTALL}"
        else:
            message = f"raftos is installed, but {error.name}, which it imports, is not: {INSTALL}"
        raise ConfigError(message) from error

_SEAMS: dict[type[Any], tuple[str, ...]] = {
    State: (
        "start",
        "stop",
        "request_handler",
        "_change_state",
        "to_follower",
        "to_candidate",
        "to_leader",
        "send",
        "broadcast",
        "set_leader",
        "get_leader",
        "is_majority",
        "get_sender_id",
        "cluster",
    ),
    BaseState: ("on_receive_request_vote", "on_receive_append_entries"),
    Follower: ("start", "stop", "init_storage", "election_interval", "start_election"),
    Candidate: ("start", "stop", "request_vote", "election_interval"),
    Leader: ("start", "stop", "init_log", "heartbeat", "append_entries"),
    Timer: ("start", "stop", "reset", "_run", "get_interval"),
}


def missing_seams() -> list[str]:
    """Private names of raftos that this room builds on and that are not there."""
    return [
        f"{owner.__name__}.{name}"
        for owner, names in _SEAMS.items()
        for name in names
        if not hasattr(owner, name)
    ]


def check_seams() -> None:
    """ConfigError unless this raftos is the one that the roles were written against."""
    missing = missing_seams()
    if missing:
        raise ConfigError(
            f"this raftos lacks {', '.join(missing)}: it is not the 0.2.6 that Chronik builds on; "
            f"{INSTALL}"
        )


check_seams()


class RoleTimer(Timer):
    """raftos's timer, made safe to stop or reset inside its own callback (defect 37): it arms
    itself again only if the callback left it as it was, and may be stopped before it started.
    """

    def __init__(self, interval: Callable[[], float] | float, callback: Callable[[], None]) -> None:
        super().__init__(interval, callback)
        self._armed = False

    def start(self) -> None:
        """Arm; armed already: nothing."""
        if not self.is_active:
            self._armed = True
            super().start()

    def stop(self) -> None:
        """Disarm, in any state."""
        if self._armed:
            super().stop()
        self._armed = False

    def _run(self) -> None:
        if not self.is_active:
            return
        mine = self.handler
        self.callback()
        if self._armed and self.handler is mine:
            self.handler = self.loop.call_later(self.get_interval(), self._run)
