"""Who answers a roll call: whoever may be a voter, though the log of who calls it was cut."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chronik_server.metadata import metadata_topic
from chronik_server.metadata_commands import AdmitNode, DropTopic
from chronik_server.raft.messages import PreVote, PreVoteResponse, RequestVote
from chronik_server.rolls import ROLLS_NAME, Rolls
from chronik_store.format.control import Members
from tests.server.cluster.one_hosting import CLUSTER, EVENTS, MOVED, A, B, Here, fold, on_node
from tests.server.raft.alone import Alone

WHO = (AdmitNode("1", "h:1", "member"), AdmitNode("2", "h:2", "member"))


def part(group_id: str, *voters: str, suspect: bool = False) -> Any:
    """A group with a log that names these."""
    named = (1, Members(voters, ())) if voters else None
    replica = SimpleNamespace(members=named, committed_members=named, suspect=suspect)
    return SimpleNamespace(
        consensus=SimpleNamespace(group_id=group_id), core=SimpleNamespace(replica=replica)
    )


def note(rolls: Rolls, parts: list[Any], *, is_newest: bool) -> None:
    news = rolls.news(parts, is_newest=is_newest)
    if news is not None:
        rolls.keep(news)
        assert rolls.news(parts, is_newest=is_newest) is None, "the same is no news"


def loaded(here: Here) -> Rolls:
    found = Rolls(here.store)
    found.load()
    return found


def test_the_voters_are_those_of_the_last_log_that_was_whole(tmp_path: Path) -> None:
    async def act(here: Here) -> None:
        rolls = loaded(here)
        assert frozenset() == rolls.may_vote(A, 0)
        note(rolls, [part(f"{A}/0", "1", "2", "3"), part(f"{B}/0")], is_newest=False)
        note(rolls, [part(f"{A}/0", "1", suspect=True)], is_newest=False)
        assert {"1", "2", "3"} == loaded(here).may_vote(A, 0)
        note(rolls, [part(f"{A}/0", "2")], is_newest=False)
        assert {"2"} == loaded(here).may_vote(A, 0)

    on_node(tmp_path, act)


def test_who_may_hold_it_as_the_metadata_has_it_may_vote_too(tmp_path: Path) -> None:
    async def act(here: Here) -> None:
        rolls = loaded(here)
        rolls.state = fold(*MOVED[:2])
        assert {"1", "2", "3"} == rolls.may_vote(A, 0)

    on_node(tmp_path, act)


def test_what_is_gone_is_forgotten_by_the_newest_metadata_alone(tmp_path: Path) -> None:
    async def act(here: Here) -> None:
        rolls = loaded(here)
        note(rolls, [part("metadata/0", "1"), part(f"{A}/0", "1", "2")], is_newest=False)
        note(rolls, [part("metadata/0", "1")], is_newest=False)
        assert {"1", "2"} == loaded(here).may_vote(A, 0)
        rolls.state = fold(EVENTS, DropTopic(A))
        note(rolls, [part("metadata/0", "1")], is_newest=True)
        assert frozenset() == loaded(here).may_vote(A, 0)
        assert {"1"} == loaded(here).may_vote("metadata", 0)

    on_node(tmp_path, act)


def test_where_nodes_are_is_known_though_the_log_is_cut_in_front_of_it(tmp_path: Path) -> None:
    async def act(here: Here) -> None:
        rolls = loaded(here)
        rolls.state = fold(*WHO)
        note(rolls, [], is_newest=False)
        assert {} == loaded(here).addresses
        note(rolls, [], is_newest=True)
        assert {"1": "h:1", "2": "h:2"} == {
            node: str(address) for node, address in loaded(here).addresses.items()
        }

    on_node(tmp_path, act)


def test_a_file_that_cannot_be_read_is_unknown_until_all_logs_are_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(here: Here) -> None:
        note(loaded(here), [part(f"{A}/0", "1", "2")], is_newest=False)
        path = tmp_path / "1" / ROLLS_NAME
        path.write_bytes(path.read_bytes().replace(b"31", b"32", 1))
        rolls = loaded(here)
        assert ROLLS_NAME in caplog.text
        assert rolls.may_vote(A, 0) is None
        note(rolls, [part(f"{A}/0", "1", suspect=True)], is_newest=False)
        assert loaded(here).may_vote(A, 0) is None
        note(rolls, [part(f"{A}/0", "1", "2")], is_newest=False)
        assert {"1", "2"} == loaded(here).may_vote(A, 0)

    on_node(tmp_path, act)


def test_it_is_unknown_until_all_that_is_here_runs(tmp_path: Path) -> None:
    """What did not run yet was left out of the new file, and counted as known from then on."""
    metadata = metadata_topic(CLUSTER, ("1", "2"))

    async def first(here: Here) -> None:
        replica = (await here.hosting.open_metadata(metadata)).core.replica
        assert replica is not None
        replica.save_hard_state(1, "1")  # who has folded records has had a term
        await here.hosting.reconcile(fold(EVENTS))
        await here.hosting.note_rolls()

    async def second(here: Here) -> None:
        rolls = here.hosting.rolls
        await here.hosting.open_metadata(metadata)
        await here.hosting.reconcile(fold())
        await here.hosting.note_rolls()
        assert rolls.may_vote(A, 0) is None
        await here.hosting.reconcile(fold(EVENTS))
        await here.hosting.note_rolls()
        assert {"1", "2"} == rolls.may_vote(A, 0)

    on_node(tmp_path, first)
    (tmp_path / "1" / ROLLS_NAME).write_bytes(b"?")
    on_node(tmp_path, second)


def test_where_nodes_are_is_not_forgotten_before_the_registry_is_read(tmp_path: Path) -> None:
    """On a node that had no copy yet, each start began without a registry, and noted that."""
    metadata = metadata_topic(CLUSTER, ("1", "2"))

    async def first(here: Here) -> None:
        await here.hosting.open_metadata(metadata)
        await here.hosting.reconcile(fold(*WHO))
        await here.hosting.note_rolls()

    async def second(here: Here) -> None:
        await here.hosting.open_metadata(metadata)
        await here.hosting.reconcile(fold())
        await here.hosting.note_rolls()
        assert {"1", "2"} == set(loaded(here).addresses)

    on_node(tmp_path, first, second)


@pytest.mark.parametrize("known", [True, False])
def test_9_a_roll_call_is_answered_by_all_that_may_vote(known: bool) -> None:
    """The log that was cut names its node alone: it led alone, and acknowledged."""
    with Alone(1, terms=[1]) as alone:
        alone.replica.set_suspect(True)
        alone.node.committer.flush()
        alone.group._may_vote = lambda: ("n1", "n2", "n3") if known else None
        alone.run(3)
        assert ({"n2", "n3"} if known else set()) == {
            peer for _, peer, message in alone.world.log if isinstance(message, PreVote)
        }
        alone.feed("n2", PreVoteResponse(1, False, True, 0, 0), settle=False)
        alone.feed("n3", PreVoteResponse(1, False, False, 9, 1))
        assert not alone.leads
        assert [] == alone.sent(RequestVote)
        if known:
            alone.group.state.ask()
            alone.feed("n2", PreVoteResponse(1, False, True, 0, 0), settle=False)
            alone.feed("n3", PreVoteResponse(1, False, True, 0, 0))
        assert alone.leads == known
