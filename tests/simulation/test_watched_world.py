"""A store that is watched while it lives and dies: what a reader was shown is so for ever."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from chronik_store.testing.planted import planted
from chronik_store.testing.worlds.watched_world import WatchedWorld
from tests.depth import share
from tests.simulation.seeds import seeds


@pytest.mark.parametrize("seed", seeds(3))
def test_readers_followers_and_searches_are_told_the_truth(seed: int) -> None:
    WatchedWorld(seed).run()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", range(8))
def test_many_more_seeds(block: int) -> None:
    for seed in seeds(share(16, every=64))[block::8]:
        try:
            WatchedWorld(seed).run()
        except BaseException as error:
            error.add_note(f"again: CHRONIK_SIM_SEED={seed} pytest tests/simulation")
            raise


BEFALLS = ("readers opened", "records followed", "look-ups by time", "searches")


def rich_world() -> WatchedWorld:
    """The first world that has search bundles and several partitions, and in which all befalls."""
    for world in map(WatchedWorld, range(100)):
        if world.config.indexing_enabled and world.partitions > 1 and world.lives == 1:
            world.run()
            if all(world.events[kind] for kind in BEFALLS):
                return world
    raise AssertionError("there is no such world")


def test_equal_seeds_make_equal_lives_with_bundles_too() -> None:
    first = rich_world()
    second = WatchedWorld(first.seed)
    second.run()
    assert first.simulation.trace_hash == second.simulation.trace_hash
    assert first.events == second.events


@pytest.mark.parametrize(
    ("bug", "first"),
    [("forget-the-tail", 1), ("coverage-that-lies", 51), ("committed-is-what-is-there", 0)],
)
def test_a_bug_that_only_readers_meet_is_found(bug: str, first: int) -> None:
    """first: the seed that found it when this was written, so that the search is short."""
    with planted(bug), pytest.raises(AssertionError):
        play(range(first, first + 40))


def play(chosen: Iterable[int]) -> None:
    for seed in chosen:
        WatchedWorld(seed).run()
