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
    for seed in seeds(share(24, every=64))[block::8]:
        try:
            WatchedWorld(seed).run()
        except BaseException as error:
            error.add_note(f"again: CHRONIK_SIM_SEED={seed} pytest tests/simulation")
            raise


def searched_seed() -> int:
    """The first seed in whose world there are search bundles, and several partitions."""
    worlds = map(WatchedWorld, range(100))
    return next(
        world.seed
        for world in worlds
        if world.config.indexing_enabled and world.partitions > 1 and world.lives == 1
    )


def test_equal_seeds_make_equal_lives_with_bundles_too() -> None:
    seed = searched_seed()
    first, second = WatchedWorld(seed), WatchedWorld(seed)
    first.run()
    second.run()
    for kind in ("readers opened", "records followed", "look-ups by time", "searches"):
        assert first.events[kind] > 0
    assert first.simulation.trace_hash == second.simulation.trace_hash
    assert first.events == second.events


@pytest.mark.parametrize(
    ("bug", "first"),
    [("forget-the-tail", 1), ("coverage-that-lies", 20), ("committed-is-what-is-there", 0)],
)
def test_a_bug_that_only_readers_meet_is_found(bug: str, first: int) -> None:
    """first: the seed that found it when this was written, so that the search is short."""
    with planted(bug), pytest.raises(AssertionError):
        play(range(first, first + 40))


def play(chosen: Iterable[int]) -> None:
    for seed in chosen:
        WatchedWorld(seed).run()
