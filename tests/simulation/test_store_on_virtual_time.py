"""The real store on virtual time, many seeds (protocol 10): nothing acknowledged is ever lost."""

from __future__ import annotations

import pytest

from chronik_store.testing.worlds.store_world import StoreWorld
from tests.depth import share
from tests.simulation.seeds import seeds


@pytest.mark.parametrize("seed", seeds(24))
def test_what_was_acknowledged_or_shown_is_there_after_any_end(seed: int) -> None:
    StoreWorld(seed).run()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", range(8))
def test_many_more_seeds(block: int) -> None:
    for seed in seeds(share(110, every=400))[block::8]:
        try:
            StoreWorld(seed).run()
        except BaseException as error:
            error.add_note(f"again: CHRONIK_SIM_SEED={seed} pytest tests/simulation")
            raise


def test_equal_seeds_make_equal_lives() -> None:
    seed = seeds(1)[0]
    first, second = StoreWorld(seed), StoreWorld(seed)
    first.run()
    second.run()
    assert first.simulation.steps > 500
    assert first.simulation.trace_hash == second.simulation.trace_hash
    assert first.ledger.known == second.ledger.known
