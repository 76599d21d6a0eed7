"""Every schedule of a small group that departs a few times from a plain one, and what it must find.

A schedule that fails prints itself; `python -m chronik_server.testing.scope "MIX: SCHEDULE"` plays
it again, step by step.
"""

from __future__ import annotations

import pytest

from chronik_server.testing.planted import BUGS, TIERING
from chronik_server.testing.scope.cells import Cells
from chronik_server.testing.scope.mixes import MIXES
from chronik_server.testing.scope.moves import Violation
from chronik_server.testing.scope.search import play, search
from chronik_store.testing.planted import planted
from tests.depth import IS_DEEP

DEEP_SECONDS = 900.0


def limits(kinds: str) -> dict[str, int]:
    return dict.fromkeys(kinds.split(), 9)


@pytest.mark.parametrize("mix", MIXES)
def test_a_plain_schedule_ends_well(mix: str) -> None:
    found = search(MIXES[mix].group(), 0)

    assert [] == found.violations
    assert 1 == found.schedules


@pytest.mark.parametrize(
    ("mix", "kinds"),
    [
        ("two of three", "hold"),
        ("two voters", "bounce"),
        ("figure 8", "drop"),
    ],
)
def test_nothing_goes_wrong_with_one_departure_of_these(mix: str, kinds: str) -> None:
    found = search(MIXES[mix].group(), 1, since=MIXES[mix].since, limits=limits(kinds))

    assert [] == [f"{mix}: {each}" for each in found.violations]
    assert found.schedules > 5


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mix", MIXES if IS_DEEP else list(MIXES)[1::2])
def test_nothing_goes_wrong_with_any_departure(mix: str) -> None:
    """One of any kind; two of them, as far as the time goes, where all is looked at."""
    seconds = DEEP_SECONDS if IS_DEEP else None
    departures = 2 if IS_DEEP else 1
    found = search(MIXES[mix].group(), departures, since=MIXES[mix].since, seconds=seconds)

    assert [] == [f"{mix}: {each}" for each in found.violations]
    assert found.schedules > 40


# --- teeth ----------------------------------------------------------------------------------------

FOUND = [
    ("forget-the-vote", "two leaders", 1, "silence"),
    ("send-before-the-disk", "first election", 0, ""),
    ("acknowledge-before-the-disk", "first election", 0, ""),
    ("only-voters-ask", "a leader goes", 1, "bounce"),
    ("quorum-without-self", "two voters", 1, "silence"),
    ("commit-older-terms-by-counting", "figure 8", 1, "bounce"),
    ("count-oneself-before-the-disk", "two of three", 1, "hold"),
    ("acknowledge-the-whole-log", "figure 8", 1, "late"),
    ("answer-beats-with-what-is-not-durable", "two of three", 1, "hold"),
    ("vote-for-any-log", "who is behind asks", 0, ""),
    ("read-without-a-round", "two leaders", 1, "read"),
    ("trust-a-restarted-peer", "damage", 0, ""),
    ("count-suspects", "damage", 0, ""),
    ("no-noop", "two leaders", 0, ""),
    ("trust-at-once", "an empty disk meets an old leader", 1, "record"),
]
"""Bug, the mix and the departures that find it."""

NOT_SHOWN = {
    "count-duplicate-votes": "of three voters one and oneself are a quorum already",
    "take-answers-of-any-term": "votes of an old term matter to who stands in two: more departures",
    "commit-what-was-not-compared": "needs a tail that outlasts the first message of a new leader",
    "pre-vote-raises-the-term": "disturbs, and harms nothing",
    "any-one-may-hand-over": "disturbs, and harms nothing",
    "begin-behind-any-damage": "here damage is at the end of a log, never in front of a whole file",
}
"""Why; directed tests and stories find them (tests/server/raft/test_planted.py)."""


@pytest.mark.parametrize(("bug", "mix", "departures", "kinds"), FOUND)
def test_a_planted_bug_is_found(bug: str, mix: str, departures: int, kinds: str) -> None:
    plain = MIXES[mix]
    with planted(bug, BUGS):
        found = search(plain.group(), departures, since=plain.since, limits=limits(kinds))
        assert found.violations
        schedule, what = found.violations[0]
        with pytest.raises(Violation) as raised:
            play(plain.group(), schedule)

    assert what == str(raised.value)


def test_each_bug_of_the_roles_is_accounted_for() -> None:
    assert set(BUGS) - set(TIERING) == {bug for bug, *_ in FOUND} | set(NOT_SHOWN)


# --- what lets situations merge -------------------------------------------------------------------


def test_histories_of_equal_mark_go_on_equally() -> None:
    """Nodes that came to one state in two ways are given the same, and are the same again."""
    group = MIXES["damage"].group()
    search(group, 1, since=len(MIXES["damage"].script) - 2, limits=limits("hold again"))

    assert compared_ways(group.cells, 60) > 50


def compared_ways(cells: Cells, most: int) -> int:
    """In how many ways a state was reached anew and gone on from."""
    marks = {state: mark for (_, mark), state in cells._marked.items()}
    onwards: dict[int, list[int]] = {}
    for state, number in cells._next:
        onwards.setdefault(state, []).append(number)
    ways = [
        (state, number, came.state)
        for (state, number), came in cells._next.items()
        if (state, number) != cells._came_from[came.state][1:] and came.state in onwards
    ]
    for state, number, reached in ways[-most:]:
        cell = cells._replay(state)
        cell.feed(cells.event(number)[1])
        further = onwards[reached][0]
        came = cell.give(cells.event(further)[1])
        assert marks[cells._next[reached, further].state] == came.mark
    return len(ways[-most:])
