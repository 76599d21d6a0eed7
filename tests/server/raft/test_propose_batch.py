"""Proposals without a future: each outcome is told once, whatever becomes of the others."""

import logging

import pytest

from chronik_server.raft.consensus import Proposed
from chronik_server.raft.errors import NotLeaderError, OutcomeUnknownError
from chronik_server.testing.world import World
from chronik_store.testing.cluster_log import batch


def test_each_outcome_is_told_once_and_in_order():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.run(1)
        told = []
        for number in range(5):
            leader.consensus.propose_batch(batch(b"%d" % number), told.append)
        assert [] == told
        world.until(lambda: len(told) == 5)
        world.run(1)

        assert [0, 1, 2, 3, 4] == [outcome.base_offset for outcome in told]
        assert {leader.group.term} == {outcome.term for outcome in told}
        assert [] == world.violations


def test_it_is_told_only_what_a_quorum_holds():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.run(1)
        world.isolate(leader.name)
        told = []
        leader.consensus.propose_batch(batch(b"x"), told.append)
        world.run(0.2)
        assert [] == told
        world.until(lambda: told)

        assert isinstance(told[0], OutcomeUnknownError)
        assert 1 == len(told)
        with pytest.raises(NotLeaderError):
            leader.consensus.propose_batch(batch(b"y"), told.append)
        assert 1 == len(told)


def test_the_duplicate_of_what_is_committed_is_told_at_once():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        records = batch(b"x", producer_id=5)
        first = world.loop.run_until_complete(leader.consensus.propose([records]))
        told = []
        leader.consensus.propose_batch(records, told.append)

        assert [(first.base_offset, True)] == [(each.base_offset, each.duplicate) for each in told]


def test_one_that_fails_at_its_outcome_keeps_it_from_nobody(caplog):
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.run(1)
        told = []

        def fails(outcome):
            raise RuntimeError("nobody listens")

        with caplog.at_level(logging.ERROR):
            for done in (fails, told.append):
                leader.consensus.propose_batch(batch(b"x"), done)
            world.until(lambda: told)

        assert isinstance(told[0], Proposed)
        assert "an outcome could not be told" in caplog.text
        world.until(world.converged)
        assert [] == world.violations
