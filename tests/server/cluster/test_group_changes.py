"""How a leader carries out the wish (protocol 12): in which order, to whom it hands over, and that
no group keeps another one waiting.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import pytest

from chronik_server import group_changes
from chronik_server.group_changes import GroupChanges, MemberSteps
from chronik_server.metadata import Metadata
from chronik_server.metadata_commands import MakeTopic, PlacePartition
from chronik_server.raft.consensus import PeerStatus
from chronik_server.raft.errors import OutcomeUnknownError
from chronik_server.testing.servers.world import ServersWorld
from chronik_store.errors import UnavailableError
from chronik_store.format.control import Members

A = "aa" * 16


def peer(name: str, match: int = 5, **facts: Any) -> PeerStatus:
    fine = PeerStatus(name, match, match + 1, "replicate", is_alive=True, is_suspect=False)
    return dataclasses.replace(fine, **facts)


class Group:
    """One that node 1 leads, as far as it is asked for: what is begun ends when the test says."""

    def __init__(self, voters: str, *peers: PeerStatus, name: str = "g") -> None:
        self.core = self.replica = self.consensus = self
        self.members = (5, Members(tuple(voters), ()))
        self.commit_index, self.term = 5, 1
        self.peers = peers or tuple(peer(each) for each in voters if each != "1")
        self.group_id = name
        self.proposed: list[Members] = []
        self.offered: list[str] = []
        self.begun: list[asyncio.Future[Any]] = []

    def status(self) -> Any:
        return self

    @property
    def is_ready(self) -> bool:
        """Not while a handover is under way."""
        return len(self.proposed) == len(self.begun) or self.begun[-1].done()

    def _begin(self) -> asyncio.Future[Any]:
        self.begun.append(asyncio.get_running_loop().create_future())
        return self.begun[-1]

    def change_members(self, members: Members) -> asyncio.Future[Any]:
        self.proposed.append(members)
        return self._begin()

    def transfer(self, heir: str) -> asyncio.Future[Any]:
        self.offered.append(heir)
        return self._begin()


def led(*groups: Group, replicas: str) -> tuple[Metadata, dict[tuple[str, int], Any]]:
    """Partitions of one topic, that are wished to be on these nodes."""
    state = Metadata()
    first = tuple(group.members[1].voters for group in groups)
    state.apply(MakeTopic("t", A, ("cc" * 16,) * len(groups), 3, first), 0)
    for number in range(len(groups)):
        state.apply(PlacePartition(A, number, tuple(replicas)), state.offset)
    return state, {("t", number): group for number, group in enumerate(groups)}


async def advance(steps: MemberSteps, group: Any, voters: str) -> None:
    async with asyncio.timeout(2):
        await steps.advance(group, group.members[1], Members(tuple(voters), ()))


def all_there(_peer: str) -> bool:
    return True


def test_a_group_that_cannot_commit_keeps_no_other_one_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The loop over all groups waited for its change for ever, and so did what is reported."""

    async def main() -> None:
        stuck, other = Group("123", name="stuck"), Group("123", name="other")
        state, partitions = led(stuck, other, replicas="12")
        changes = GroupChanges(MemberSteps("1", all_there))
        async with asyncio.timeout(2):
            await changes.tick(state, partitions)
        assert [Members(("1", "2"), ())] == stuck.proposed == other.proposed
        assert not stuck.begun[0].done(), "what is proposed goes on"

        other.begun[0].set_result(None)
        stuck.begun[0].set_exception(OutcomeUnknownError("leadership ended", leader=None))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        said = [record.getMessage() for record in caplog.records]
        assert "other: voters 1,2, learners none" in said
        assert any("stuck: its members cannot change yet" in each for each in said)

    caplog.set_level(logging.INFO, "chronik_server.members")
    asyncio.run(main())


def test_a_group_that_is_to_have_more_members_is_looked_at_until_it_has_them() -> None:
    """With none to lose it counted as settled: each step from one copy to three took ten seconds,
    and a disk that was lost meanwhile took the records with it.
    """

    async def main() -> None:
        group = Group("1", peer("2"), peer("3"))
        state, partitions = led(group, replicas="123")
        changes = GroupChanges(MemberSteps("1", all_there))

        async def looks(times: int) -> None:
            for _ in range(times):
                assert () == await changes.tick(state, partitions)
                if group.proposed:
                    group.members = (5, group.proposed[-1])
                    group.begun[-1].cancel()

        await looks(6)
        assert [
            Members(("1",), ("2", "3")),
            Members(("1", "2"), ("3",)),
            Members(("1", "2", "3"), ()),
        ] == group.proposed

        group.members = (5, Members(("1", "2"), ()))
        await changes.tick(state, partitions)
        assert 3 == len(group.proposed), "what was reached costs nothing"
        group.term += 1
        await changes.tick(state, partitions)
        assert 4 == len(group.proposed), "another one has led in between"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("facts", "there"),
    [
        ({"is_alive": False}, all_there),
        ({"is_suspect": True}, all_there),
        ({"match_index": 0}, all_there),
        ({}, lambda node: node != "3"),
    ],
    ids=["dead", "suspect", "has not answered this leader", "away"],
)
def test_a_voter_that_counts_for_nothing_goes_first(
    facts: dict[str, bool], there: Callable[[str], bool]
) -> None:
    async def main() -> None:
        both, only_other = (Group("123", peer("2"), peer("3", **facts)) for _ in range(2))
        steps = MemberSteps("1", there)
        await advance(steps, both, "1")
        assert [Members(("1", "2"), ())] == both.proposed
        await advance(steps, only_other, "13")
        assert [] == only_other.proposed, "it could not be committed"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("facts", "there"),
    [
        ({"is_alive": False}, all_there),
        ({"is_suspect": True}, all_there),
        ({"is_full": True}, all_there),
        ({}, lambda node: node != "3"),
    ],
    ids=["dead", "suspect", "full", "away"],
)
def test_a_leader_that_is_to_go_offers_its_group_to_none_that_cannot_take_it(
    facts: dict[str, bool], there: Callable[[str], bool]
) -> None:
    async def main() -> None:
        group = Group("1234", peer("2", 4), peer("3", 9, **facts), peer("4", 3))
        await advance(MemberSteps("1", there), group, "234")
        assert (["2"], []) == (group.offered, group.proposed)

    asyncio.run(main())


def test_an_heir_that_does_not_take_over_is_not_asked_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same one was, at each look; and each time the group took no records for two seconds."""
    monkeypatch.setattr(group_changes, "HEIR_PAUSE_SECONDS", 0.2)

    async def main() -> None:
        group, steps = Group("123", peer("2", 4), peer("3", 5)), MemberSteps("1", all_there)

        async def fails() -> None:
            await advance(steps, group, "23")
            group.begun[-1].set_exception(TimeoutError("it did not take over in time"))
            await asyncio.sleep(0)

        await fails()
        await fails()
        assert (["3", "2"], []) == (group.offered, group.proposed)
        await fails()
        assert [Members(("2", "3"), ())] == group.proposed, "nobody can: it removes itself"
        await asyncio.sleep(0.25)
        await fails()
        assert ["3", "2", "3"] == group.offered

        other = Group("123", peer("2", 4), peer("3", 5), name="other")
        await advance(steps, other, "23")
        assert ["3"] == other.offered, "that one's log may be what it lacked"

    asyncio.run(main())


def test_a_few_groups_are_handed_over_at_a_time_and_the_tick_waits_for_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group_changes, "HAND_OVERS_MAX", 2)

    async def main() -> None:
        groups = [Group("123", name=f"g{number}") for number in range(3)]
        state, partitions = led(*groups, replicas="23")
        changes = GroupChanges(MemberSteps("1", all_there))

        async def look() -> list[int]:
            async with asyncio.timeout(2):
                await changes.tick(state, partitions)
            return [len(group.offered) for group in groups]

        assert [1, 1, 0] == await look()
        assert [1, 1, 0] == await look()
        groups[0].begun[0].set_result(None)
        del partitions["t", 0]  # another one leads it
        await asyncio.sleep(0)
        assert [1, 1, 1] == await look()
        assert not any(group.proposed for group in groups)

    asyncio.run(main())


@pytest.mark.parametrize("dead", ["n2", "n3"])
def test_a_node_that_is_dead_and_one_that_is_not_are_removed_one_right_after_the_other(
    dead: str,
) -> None:
    """Two of three: the vote of the living one went first, and then nobody ever led again."""
    names = ("n1", "n2", "n3")
    (alive,) = {"n2", "n3"} - {dead}
    world = ServersWorld(names, seed=3)

    def backend(name: str) -> Any:
        return world.nodes[name].server.backend  # type: ignore[union-attr]

    async def until(is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not is_so():  # noqa: ASYNC110 (nodes on virtual time have no event for it)
                await asyncio.sleep(0.1)

    async def story() -> None:
        for node in world.nodes.values():
            node.boot()
        options = {"connect_seconds": 1.0, "request_seconds": 5.0, "retry_seconds": 15.0}
        async with world.client(*names, **options) as client:
            await client.create_topic("a")
            await client.append("a", [b"x"])
            await until(lambda: len(backend("n1")._group.state.nodes_in("member")) == 3)
            for topic in ("", "a"):
                async with asyncio.timeout(30):
                    await lead(topic, client)
            world.nodes[dead].crash("kept")
            await asyncio.sleep(3)
            await client.remove_node(dead)
            await client.remove_node(alive)
            await until(
                lambda: set(backend("n1")._group.state.nodes_in("removed")) == {dead, alive}
            )
            assert backend("n1")._group.part.consensus.is_ready
            await client.append("a", [b"y"])

    async def lead(topic: str, client: Any) -> None:
        while True:
            try:
                await client.transfer_leader(topic, to="n1")
                return
            except UnavailableError:
                await asyncio.sleep(0.5)

    world.run(story)
    assert world.violations == []
