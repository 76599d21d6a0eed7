"""A bucket that changes hands while its old owner lives: one history or the next, never both."""

from __future__ import annotations

from collections import Counter

import pytest

from chronik_store.testing.worlds.moved_world import MovedWorld
from tests.depth import share
from tests.simulation.seeds import seeds


@pytest.mark.parametrize("seed", seeds(4))
def test_what_a_claim_covers_is_the_new_owners_and_all_else_the_old_ones(seed: int) -> None:
    MovedWorld(seed).run()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", range(8))
def test_many_more_seeds(block: int) -> None:
    for seed in seeds(share(32, every=120))[block::8]:
        try:
            MovedWorld(seed).run()
        except BaseException as error:
            error.add_note(f"again: CHRONIK_SIM_SEED={seed} pytest tests/simulation")
            raise


def test_equal_seeds_make_equal_stories() -> None:
    seed = seeds(1)[0]
    first, second = MovedWorld(seed), MovedWorld(seed)
    first.run()
    second.run()
    assert first.simulation.trace_hash == second.simulation.trace_hash
    assert first.events == second.events


@pytest.mark.slow
def test_all_that_they_are_for_befalls_them() -> None:
    wanted = {
        "restores",
        "restores cut off",
        "looks at the bucket",
        "owners held back",
        "strays found",
        "topics created",
        "topics deleted",
    }
    events: Counter[str] = Counter()
    for seed in range(40):
        world = MovedWorld(seed)
        world.run()
        events += world.events
        if wanted <= set(events):
            return
    pytest.fail(f"in 40 worlds nothing but {events}")
