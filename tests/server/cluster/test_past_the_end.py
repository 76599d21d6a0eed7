"""Who may say that an offset is past the end of a partition (protocol 4)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from chronik_server.backend import FetchOptions
from chronik_server.raft_partition import RaftPartition
from chronik_server.testing.node import role_of
from chronik_server.testing.world import World
from chronik_store.errors import ChronikError, OffsetOutOfRangeError, UnavailableError

OUTSIDE = OffsetOutOfRangeError("outside", offset=3, first_offset=0, end_offset=0)
DROPPED = OffsetOutOfRangeError("dropped", offset=3, first_offset=5, end_offset=9)


def ask(error: OffsetOutOfRangeError, how: str, **consensus: bool) -> ChronikError:
    """What a client is told when this node's log says so."""
    part: Any = RaftPartition(
        "t", 0, SimpleNamespace(), SimpleNamespace(), SimpleNamespace(is_ready=True, **consensus),  # type: ignore[arg-type]
        address_of=lambda _: None, staleness_seconds=lambda: None, on_full=lambda _: None,
        bundles=SimpleNamespace(),  # type: ignore[arg-type]
    )  # fmt: skip

    def check(_offset: int) -> NoReturn:
        raise error

    async def fetch(*_: Any, **__: Any) -> NoReturn:
        raise error

    part._reads = SimpleNamespace(fetch=fetch, check_committed=check)
    asked = {
        "read": lambda: part.fetch(3, FetchOptions(1, 1, 0.0, "committed")),
        "cursor": lambda: part.commit_cursor("c", 3, reset=False),
    }
    with pytest.raises(ChronikError) as caught:
        asyncio.run(asked[how]())
    return caught.value


@pytest.mark.parametrize("how", ["read", "cursor"])
def test_a_leader_whose_disk_is_slower_than_the_others_does_not(how: str) -> None:
    """A quorum has it without this disk: it was read elsewhere, and here it is not shown yet."""
    told = ask(OUTSIDE, how, knows_end=False)
    assert isinstance(told, UnavailableError)
    assert told.retriable
    assert "not_durable" == told.durability

    assert ask(OUTSIDE, how, knows_end=True) is OUTSIDE
    assert ask(DROPPED, how, knows_end=False) is DROPPED


def test_a_leader_knows_the_end_when_it_shows_all_that_a_quorum_has() -> None:
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.commit(b"shown")
        assert leader.consensus.knows_end
        role_of(leader).commit_index += 1  # the others' disks have one more
        assert leader.consensus.is_ready
        assert not leader.consensus.knows_end
        others = [node for node in world.nodes.values() if node is not leader]
        assert not any(node.consensus.knows_end for node in others)
