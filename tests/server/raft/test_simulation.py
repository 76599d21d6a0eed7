"""The group in a hostile world: seeds, faults, and what must hold whatever happens.

A failing seed prints itself: `chronik simulate --cluster --seed N` replays it.
`RAFT_SEEDS=first:last` runs others.
"""

from __future__ import annotations

import os

import pytest

from chronik_server.testing.story import ClusterStory
from tests.depth import share


def seeds() -> range:
    first, _, last = os.environ.get("RAFT_SEEDS", "0:8").partition(":")
    return range(int(first), int(last))


@pytest.mark.parametrize("seed", seeds())
def test_nothing_that_was_acknowledged_is_lost_in_a_hostile_world(seed: int) -> None:
    world = ClusterStory(seed).run()

    assert [] == world.violations, f"replay: chronik simulate --cluster --seed {seed}"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", range(4))
def test_many_more_seeds(block: int) -> None:
    first = int(os.environ.get("CHRONIK_SEED", "0")) * 1000
    for seed in range(first, first + share(40, every=60))[block::4]:
        world = ClusterStory(seed).run()
        assert [] == world.violations, f"replay: chronik simulate --cluster --seed {seed}"


def test_equal_seeds_run_equally() -> None:
    first, second = (ClusterStory(3, seconds=4).run() for _ in range(2))

    assert first.trace_hash == second.trace_hash
    assert first.events == second.events
    assert first.judge.committed == second.judge.committed
