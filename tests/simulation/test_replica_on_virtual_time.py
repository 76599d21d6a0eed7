"""A replica's log on virtual time: after a crash it is what it once was, never anything else.

Protocol 4 and 16: syncs in flight while suffixes are cut and written anew,
votes between entries, snapshots, recovery that dies, images of the disk at any step.
"""

from __future__ import annotations

import pytest

from tests.depth import share
from tests.simulation.replica_world import ReplicaWorld
from tests.simulation.seeds import seeds


@pytest.mark.parametrize("seed", seeds(20))
def test_recovery_finds_a_prefix_of_history_with_all_that_was_synced(seed: int) -> None:
    ReplicaWorld(seed).run()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", range(5))
def test_many_more_seeds(block: int) -> None:
    for seed in seeds(share(140, every=500))[block::5]:
        try:
            ReplicaWorld(seed).run()
        except BaseException as error:
            error.add_note(f"again: CHRONIK_SIM_SEED={seed} pytest tests/simulation")
            raise


@pytest.mark.parametrize("seed", seeds(3))
def test_power_loss_at_each_step_of_a_replica(seed: int) -> None:
    """The finest crash points: an image of the disk at every few steps of a short life."""
    world = ReplicaWorld(seed, lives=0, steps=50)
    looked = 0

    def look(step: int) -> None:
        nonlocal looked
        world.simulation.at_step(step + 5, lambda: look(step + 5))
        if world.node_log is not None:
            looked += 1
            world.look_at_image(world.node.disk, ("lost", "kept", "torn", "any")[looked % 4])

    world.simulation.at_step(40, lambda: look(40))
    world.run()
    assert looked > 5
