"""The store on a disk that rots between its lives: what is refused, repaired, restored, kept."""

from __future__ import annotations

from collections import Counter

import pytest

from chronik_store.testing.worlds.damaged_world import DamagedWorld
from chronik_store.testing.worlds.playing import world_of
from chronik_store.testing.worlds.store_world import StoreWorld
from tests.depth import share
from tests.simulation.seeds import seeds


@pytest.mark.parametrize("seed", seeds(4))
def test_damage_loses_what_repair_has_named_and_nothing_else(seed: int) -> None:
    DamagedWorld(seed).run()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", range(4))
def test_many_more_seeds(block: int) -> None:
    events: Counter[str] = Counter()
    for seed in seeds(share(32, every=96))[block::4]:
        world = DamagedWorld(seed)
        try:
            world.run()
        except BaseException as error:
            error.add_note(f"again: CHRONIK_SIM_SEED={seed} pytest tests/simulation")
            raise
        events += world.events
    befell = ("flipped bits", "vanished files", "damaged objects", "refusals to open", "repairs")
    assert all(events[each] for each in befell) or len(seeds(200)) == 1, events


def test_equal_seeds_make_equal_lives() -> None:
    seed = seeds(1)[0]
    first, second = DamagedWorld(seed), DamagedWorld(seed)
    first.run()
    second.run()
    assert first.events == second.events
    assert first.simulation.trace_hash == second.simulation.trace_hash
    assert first.ledger.known == second.ledger.known


def test_one_seed_in_eight_is_played_so() -> None:
    kinds = [type(world_of(seed)) for seed in range(16)]
    assert [5, 13] == [seed for seed, kind in enumerate(kinds) if kind is DamagedWorld]
    assert StoreWorld in kinds
