"""Who may be asked to leave, and under which id somebody may come (protocol 12)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from chronik_server.backend import NodeIdentity
from chronik_server.group_changes import GroupChanges, MemberSteps
from chronik_server.membership import Membership
from chronik_server.metadata import Metadata
from chronik_server.metadata_commands import (
    AdmitNode,
    MakeTopic,
    MoveNode,
    PlacePartition,
    RemoveNode,
    RetireNode,
)
from chronik_server.raft.consensus import PeerStatus
from chronik_server.steward import Steward
from chronik_store.errors import ConfigError, UnavailableError
from chronik_store.format.control import Members


def registry(*nodes: str, joining: tuple[str, ...] = ()) -> Metadata:
    state = Metadata()
    for number, node in enumerate((*nodes, *joining)):
        how = "joining" if node in joining else "member"
        state.apply(AdmitNode(node, f"host{number}:1", how), state.offset)  # type: ignore[arg-type]
    return state


def verbs(state: Metadata, *, away: set[str]) -> tuple[Membership, list[Any]]:
    """Of node 1, which leads the metadata; what it wishes for is in the list, and applied."""
    wished: list[Any] = []

    async def command(wish: Any) -> None:
        wished.append(wish)
        state.apply(wish, state.offset)

    part = SimpleNamespace(consensus=SimpleNamespace(is_ready=True))
    group: Any = SimpleNamespace(state=state, part=part, is_current=True, command=command)
    identity = NodeIdentity("c" * 32, "1", "a" * 32, "b")
    found = Membership(group, identity, hints={}, is_connected=lambda node: node not in away)
    return found, wished


@pytest.mark.parametrize(
    ("nodes", "away", "goes", "allowed"),
    [
        ("123", "", "3", True),
        ("123", "2", "3", False),
        ("123", "3", "3", True),
        ("12345", "2", "5", True),
        ("12345", "23", "5", False),
        ("12345", "23", "3", True),
        ("1234", "2", "4", True),
    ],
)
def test_who_stays_must_be_a_majority_that_is_there(
    nodes: str, away: str, goes: str, allowed: bool
) -> None:
    membership, wished = verbs(registry(*nodes), away=set(away))
    if allowed:
        asyncio.run(membership.remove(goes))
        assert wished == [RetireNode(goes)]
    else:
        with pytest.raises(UnavailableError, match="majority"):
            asyncio.run(membership.remove(goes))
        assert wished == []


def test_who_never_came_may_be_sent_away_whoever_is_there() -> None:
    membership, wished = verbs(registry("1", "2", joining=("3",)), away={"2", "3"})
    asyncio.run(membership.remove("3"))
    assert wished == [RetireNode("3")]


def test_an_id_and_an_address_are_used_once() -> None:
    state = registry("1", "2", "3")
    membership, wished = verbs(state, away=set())
    with pytest.raises(ConfigError, match="last one"):
        asyncio.run(verbs(registry("1"), away=set())[0].remove("1"))
    with pytest.raises(ConfigError, match="address of node 2"):
        asyncio.run(membership.add("4", "host1:1"))
    asyncio.run(membership.remove("3"))
    for _ in range(2):
        with pytest.raises(ConfigError, match="used once"):
            asyncio.run(membership.add("3", "host2:1"))
        state.apply(RemoveNode("3"), state.offset)
    asyncio.run(membership.add("4", "host2:1"))  # where the removed one was
    assert wished == [RetireNode("3"), AdmitNode("4", "host2:1")]


def test_a_node_that_moved_is_recorded_where_it_is_whatever_was_there_or_becomes_of_it() -> None:
    """Of two that had come back at each other's addresses neither was; nor was one that leaves,
    whose copy nobody could reach any more.
    """
    state = registry("1", "2", "3")
    membership, wished = verbs(state, away=set())
    asyncio.run(membership.add("2", "host2:1"))
    asyncio.run(membership.add("3", "host1:1"))
    asyncio.run(membership.remove("3"))
    asyncio.run(membership.add("3", "host7:1"))
    assert {"1": "host0:1", "2": "host2:1", "3": "host7:1"} == {
        node.node_id: node.address for node in state.nodes.values()
    }
    assert wished == [
        MoveNode("2", "host2:1"),
        MoveNode("3", "host1:1"),
        RetireNode("3"),
        MoveNode("3", "host7:1"),
    ]
    state.apply(RemoveNode("3"), state.offset)
    with pytest.raises(ConfigError, match="used once"):
        asyncio.run(membership.add("3", "elsewhere:1"))


def test_a_learner_votes_once_it_has_what_the_leader_had_a_round_ago() -> None:
    """A voter that lags for hours would be one that a quorum cannot count on."""
    made: list[Members] = []
    commit, match = 1000, 500

    def change_members(members: Members) -> asyncio.Future[None]:
        made.append(members)
        return asyncio.get_running_loop().create_future()

    def status() -> Any:
        peers = (PeerStatus("2", match, match + 1, "replicate", True, False),)
        return SimpleNamespace(group_id="g", commit_index=commit, peers=peers)

    consensus: Any = SimpleNamespace(status=status, change_members=change_members)
    steps = MemberSteps("1", lambda _peer: True)
    now, wish = Members(("1",), ("2",)), Members(("1", "2"), ())

    def look() -> None:
        asyncio.run(steps.advance(consensus, now, wish))

    look()
    match = 999
    look()
    commit, match = 2000, 999
    look()
    assert made == []
    match = 2000
    look()
    assert made == [wish]


@pytest.mark.parametrize(("commit", "settled"), [(4, False), (5, True)])
def test_a_wish_has_come_true_only_once_its_members_are_committed(
    commit: int, settled: bool
) -> None:
    """Who is not wished for any more removes its copy then: not before it is certain."""
    state = Metadata()
    topic_id = "a" * 32
    state.apply(MakeTopic("t", topic_id, ("b" * 32,), 1, (("1",),)), 0)
    state.apply(PlacePartition(topic_id, 0, ("2",)), 1)
    replica = SimpleNamespace(members=(5, Members(("2",), ())))
    consensus = SimpleNamespace(is_ready=True, commit_index=commit, term=1)
    part: Any = SimpleNamespace(core=SimpleNamespace(replica=replica), consensus=consensus)
    changes = GroupChanges(MemberSteps("2", lambda _peer: True))

    found = asyncio.run(changes.tick(state, {("t", 0): part}))

    assert bool(found) is settled


@pytest.mark.parametrize(
    ("members", "commit", "gone"),
    [
        (Members(("1", "2"), ()), 5, False),
        (Members(("1",), ("2",)), 4, False),
        (Members(("1",), ("2",)), 5, True),
    ],
)
def test_a_node_is_removed_only_once_its_vote_about_metadata_is_gone(
    members: Members, commit: int, gone: bool
) -> None:
    state = registry("1", "2")
    state.apply(RetireNode("2"), state.offset)
    wished: list[Any] = []

    async def command(*wishes: Any) -> None:
        wished.extend(wishes)

    core = SimpleNamespace(replica=SimpleNamespace(members=(5, members)))
    part = SimpleNamespace(core=core, consensus=SimpleNamespace(commit_index=commit))
    group: Any = SimpleNamespace(state=state, part=part, command=command)

    async def act() -> None:
        steward = Steward(
            group,
            MemberSteps("1", lambda _peer: True),
            node_id="1",
            first={},
            found=AsyncMock(),
            acted_on=lambda: 0,
            greeted=tuple,
            is_connected=lambda _node: True,
            sweep=AsyncMock(),
            now=lambda: 0.0,
        )
        await steward._remove()

    asyncio.run(act())
    assert wished == ([RemoveNode("2")] if gone else [])
