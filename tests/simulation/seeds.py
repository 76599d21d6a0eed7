"""Which worlds a run of the tests plays.

A failing test names its seed; that world alone: `CHRONIK_SIM_SEED=<seed> pytest tests/simulation`.
"""

from __future__ import annotations

import os


def seeds(count: int) -> list[int]:
    """The seeds of this run: `count` fresh ones of CHRONIK_SEED, or the one asked for."""
    only = os.environ.get("CHRONIK_SIM_SEED")
    if only:
        return [int(only)]
    first = int(os.environ.get("CHRONIK_SEED", "0"))
    return [first * 1_000_003 % (1 << 40) + number for number in range(count)]
