"""Who may say that an offset is outside a partition (protocol 4)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from chronik_server.backend import FetchOptions
from chronik_server.errors import NotLeaderError
from chronik_server.raft_partition import RaftPartition
from chronik_store.errors import ChronikError, OffsetOutOfRangeError, UnavailableError

OUTSIDE = OffsetOutOfRangeError("outside", offset=3, first_offset=0, end_offset=0)
DROPPED = OffsetOutOfRangeError("dropped", offset=3, first_offset=5, end_offset=9)


class Quorum:
    """A leader's, or of one that only takes itself for that; shown: what is known behind it."""

    is_ready = True

    def __init__(self, *, confirms: bool, shown: int = 2) -> None:
        self.log = SimpleNamespace(watermarks=SimpleNamespace(start=0, committed=0))
        self.asked = 0
        self.leader = None
        self._confirms, self._shown = confirms, shown

    async def read_barrier(self) -> int:
        self.asked += 1
        if not self._confirms:
            raise UnavailableError("another one leads")
        self.log.watermarks.committed = self._shown
        return 1


def ask(error: OffsetOutOfRangeError, how: str, quorum: Quorum) -> ChronikError:
    """What a client is told when this node's log says so."""
    part: Any = RaftPartition(
        "t", 0, quorum.log, SimpleNamespace(replica=None), quorum,  # type: ignore[arg-type]
        address_of=lambda _: None, staleness_seconds=lambda: None, on_full=lambda _: None,
        bundles=SimpleNamespace(),  # type: ignore[arg-type]
    )  # fmt: skip

    def check(_offset: int) -> NoReturn:
        raise error

    async def fetch(*_: Any, **__: Any) -> NoReturn:
        raise error

    part._reads = SimpleNamespace(fetch=fetch, check_committed=check)
    part._commands = SimpleNamespace(drop_before=fetch)
    asked = {
        "read": lambda: part.fetch(3, FetchOptions(1, 1, 0.0, "committed")),
        "cursor": lambda: part.commit_cursor("c", 3, reset=False),
        "drop": lambda: part.drop_before(3),
    }
    with pytest.raises(ChronikError) as caught:
        asyncio.run(asked[how]())
    return caught.value


@pytest.mark.parametrize("how", ["read", "cursor", "drop"])
def test_a_leader_does_when_a_quorum_has_confirmed_it(how: str) -> None:
    quorum = Quorum(confirms=True)
    assert ask(OUTSIDE, how, quorum) is OUTSIDE
    assert 1 == quorum.asked


@pytest.mark.parametrize("how", ["read", "cursor", "drop"])
@pytest.mark.parametrize(
    "quorum",
    [Quorum(confirms=False), Quorum(confirms=True, shown=3)],
    ids=["another leads", "its disk is slower than the others'"],
)
def test_one_that_may_know_less_than_a_quorum_says_to_ask_again(how: str, quorum: Quorum) -> None:
    """It was read elsewhere, where it is committed."""
    told = ask(OUTSIDE, how, quorum)
    assert isinstance(told, UnavailableError)
    assert told.retriable
    assert "not_durable" == told.durability


def test_what_was_dropped_is_said_to_be_by_a_leader_that_a_quorum_has_confirmed() -> None:
    quorum = Quorum(confirms=True, shown=9)
    quorum.log.watermarks.start = 5
    assert ask(DROPPED, "read", quorum) is DROPPED
    assert 1 == quorum.asked


def test_one_that_cannot_confirm_it_names_the_leader() -> None:
    """A topic of that name may have been made since, of which nothing was dropped."""
    told = ask(DROPPED, "read", Quorum(confirms=False))
    assert isinstance(told, NotLeaderError)
    assert told.retriable
