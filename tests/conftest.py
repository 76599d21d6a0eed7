"""What every test run shares: one printed seed, and how hard hypothesis tries.

Promise: a failing run says the seed that it ran with, and the same seed runs it again:
`CHRONIK_SEED=N make test`. `CHRONIK_HYPOTHESIS` picks the profile: `quick` (the default), `ci`,
or `deep`, which looks for an hour's worth.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from chronik_store.testing.crash import MortalThreads

settings.register_profile(
    "quick",
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("ci", settings.get_profile("quick"), max_examples=300, print_blob=True)
settings.register_profile("deep", settings.get_profile("ci"), max_examples=20_000)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """One seed for hypothesis and for our own simulations; workers inherit it."""
    os.environ.setdefault("CHRONIK_SEED", str(secrets.randbelow(1 << 32)))
    if getattr(config.option, "hypothesis_seed", None) is None:
        config.option.hypothesis_seed = os.environ["CHRONIK_SEED"]
    settings.load_profile(os.environ.get("CHRONIK_HYPOTHESIS", "quick"))


def pytest_report_header() -> str:
    profile = os.environ.get("CHRONIK_HYPOTHESIS", "quick")
    return f"seed: CHRONIK_SEED={os.environ['CHRONIK_SEED']}  hypothesis: {profile}"


@pytest.fixture
def seed() -> int:
    """The run's seed, for tests that draw their own schedules."""
    return int(os.environ["CHRONIK_SEED"])


@pytest.fixture(autouse=True)
def _threads_end_with_their_test() -> Iterator[None]:
    """Machines that died in a test leave threads that wait for ever, hundreds of them in one run
    through all crash points; each is one more stack for everything after it.
    """
    before = set(MortalThreads.known)
    yield
    for threads in set(MortalThreads.known) - before:
        threads.end()
