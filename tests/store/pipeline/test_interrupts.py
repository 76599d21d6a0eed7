"""Ctrl-C amid a run: the next one goes on, and whoever closes does not wait for ever."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

import chronik_store.pipeline as room
from chronik_store.pipeline import ByteBudget
from chronik_store.threads import SystemThreads
from tests.store.search.test_interrupts import interrupted
from tests.store.test_threads import gets_through


def test_a_run_may_be_interrupted_anywhere(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "STAGES", ())
    world = kit.World()

    def is_interrupted(number: int) -> bool:
        process = world.open()
        was_cut = interrupted(process.run, number)
        assert gets_through(process.run), number
        assert gets_through(lambda: process.pipeline.forget(process)), number
        return was_cut

    assert next(number for number in count(1) if not is_interrupted(number)) > 20


def test_a_take_may_be_interrupted_anywhere() -> None:
    def use(budget: ByteBudget) -> None:
        with budget.take(10):
            pass

    def is_interrupted(number: int) -> bool:
        budget = ByteBudget(SystemThreads(), 10)
        was_cut = interrupted(lambda: use(budget), number)
        assert budget.taken_bytes == 0, number
        assert gets_through(lambda: use(budget)), number
        return was_cut

    assert next(number for number in count(1) if not is_interrupted(number)) > 10
