"""What a node's future depends on, as a few bytes: nodes with equal marks go on equally.

Place: under `cell`. Promise: roles, progress, liveness, timers and what waits for the disk or a
worker are read field by field, so a field that is new is in it by itself; times count from now, and
ages beyond all patience are one. Invariant: positions in the WAL's order are left out: of them
nothing but the order is ever looked at. (A test plays two histories of equal mark on.)
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Final

from chronik_server.raft.group import RaftGroup
from chronik_server.raft.messages import AppendEntries, Message, encode
from chronik_server.raft.raftos_skeleton import RoleTimer
from chronik_store.replica import Staged

OLD: Final = -16.0
"""An age beyond all patience of the scope's settings, in seconds."""
ELSEWHERE: Final = frozenset(
    (
        "group",
        "state",
        "loop",
        "log",
        "storage",
        "state_machine",
        "id",
        "_group",
        "_leader",
        "_replica",
    )
)
"""Fields that lead out of a role; what is behind them is looked at by itself."""
PLAIN: Final = (int, str, bytes, bool, type(None))


def mark_of(group: RaftGroup | None, works: Iterable[Callable[..., Any]], *more: Any) -> bytes:
    """Of a replica, if it takes part, of the work that waits for its turn, and of plain values."""
    seen: object = more if group is None else (more, _seen(group, works))
    return hashlib.blake2b(repr(seen).encode(), digest_size=16).digest()


def _seen(group: RaftGroup, works: Iterable[Callable[..., Any]]) -> object:
    looking = _Looking(group)
    replica, node = group.replica, group.node
    waits = [
        (ticket - replica.synced_ticket, looking.callback(callback))
        for ticket, callback in replica._tickets._callbacks
    ]
    return (
        [looking.callback(each) for each in works],
        (replica.hard_state, replica.suspect, replica.durable_index, replica.commit_index),
        (replica.last_ticket - replica.synced_ticket, waits, repr(replica._core.manifest)),
        max(0, group.storage.ticket - replica.synced_ticket),
        replica._core.known_commit,
        looking.fields(group, keep=("leader", "amnesty", "transferring", "offered_for")),
        (group._shown_commit, looking.time(group._heard_at)),
        type(group.state).__name__,
        looking.value(group.state),
        sorted(node._boots.items()),
        [(name, looking.value(peer)) for name, peer in sorted(node.liveness._peers.items())],
    )


class _Looking:
    """At one group, now."""

    def __init__(self, group: RaftGroup) -> None:
        self._group = group
        self._now = group.loop.time()

    def time(self, when: float) -> float:
        """From now on; ages are at most `OLD`."""
        return max(OLD, round(when - self._now, 6))

    def value(self, found: Any) -> Any:
        """As plain tuples."""
        if isinstance(found, PLAIN):
            return found
        if isinstance(found, float):
            return found
        if isinstance(found, asyncio.TimerHandle):
            return None if found.cancelled() else (self.time(found.when()), repr(found._args))
        if isinstance(found, RoleTimer):
            return self.time(found.handler.when()) if found.is_active else None
        if isinstance(found, Staged):
            return found.index, found.duplicate
        if isinstance(found, AppendEntries) or type(found) in Message.__args__:
            head, parts = encode(found)
            return head, *map(bytes, parts)
        if isinstance(found, dict):
            return [(key, self.value(each)) for key, each in found.items()]
        if isinstance(found, set | frozenset):
            return sorted(found)
        if isinstance(found, tuple | list | deque):
            return [self.value(each) for each in found]
        if isinstance(found, asyncio.Future):
            return found.done()
        if callable(found):
            return self.callback(found)
        return type(found).__name__, self.fields(found)

    def fields(self, found: Any, keep: tuple[str, ...] = ()) -> list[Any]:
        """Of an object, or some of them."""
        names = keep or sorted(getattr(found, "__slots__", None) or vars(found))
        return [
            self.time(value) if name.endswith("_at") else self.value(value)
            for name in names
            if name not in ELSEWHERE and (value := getattr(found, name)) is not self._group
        ]

    def callback(self, found: Callable[..., Any]) -> Any:
        """By name, with what it was given; one of a role that has ended does nothing."""
        if isinstance(found, partial):
            return self.callback(found.func), [self.value(each) for each in found.args]
        if isinstance(found, MethodType):
            return found.__func__.__qualname__
        if isinstance(found, FunctionType) and found.__closure__:
            held = [cell.cell_contents for cell in found.__closure__]
            bound = [each is self._group.state for each in held if hasattr(each, "is_current")]
            inner = [self.callback(each) for each in held if isinstance(each, MethodType)]
            return found.__qualname__, bound, inner
        return getattr(found, "__qualname__", type(found).__name__)
