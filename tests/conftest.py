"""What every test run shares: one printed seed, how hard hypothesis tries, and where files lie.

Promise: a failing run says the seed that it ran with, and the same seed runs it again:
`CHRONIK_SEED=N make test`. `CHRONIK_HYPOTHESIS` picks the profile: `quick` (the default), `ci`,
or `deep`, which looks for an hour's worth. Temporary directories are on a file system in memory,
where there is one with room: nobody cuts this machine's power, and a sync of a real disk waits for
whatever else it is busy with. What is about the real disk says so (`disk_path`).
"""

from __future__ import annotations

import gc
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from chronik_store.testing.crash import MortalThreads

MEMORY = "/dev/shm"
MEMORY_BYTES_MIN = 2 << 30
"""A run takes about a hundredth of it: what a test leaves goes when it has passed."""
DISK = "CHRONIK_TESTS_DISK"
"""The environment's name for the directory of temporary ones on the disk."""

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
    """One seed for hypothesis and for our own simulations; workers inherit it.

    So is Ctrl-C, which a shell's background job starts without: children are interrupted here.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("CHRONIK_SEED", str(secrets.randbelow(1 << 32)))
    if getattr(config.option, "hypothesis_seed", None) is None:
        config.option.hypothesis_seed = os.environ["CHRONIK_SEED"]
    settings.load_profile(os.environ.get("CHRONIK_HYPOTHESIS", "quick"))
    if DISK not in os.environ:  # workers and their children inherit what is said here
        os.environ[DISK] = tempfile.gettempdir()
        _work_in_memory(config)


def _work_in_memory(config: pytest.Config) -> None:
    """Who says by PYTEST_DEBUG_TEMPROOT or TMPDIR where to work is asked no further."""
    try:
        status = os.statvfs(MEMORY)
    except OSError:
        return
    said = {"PYTEST_DEBUG_TEMPROOT", "TMPDIR"} & os.environ.keys()
    if said or status.f_bavail * status.f_frsize < MEMORY_BYTES_MIN:
        return
    made = tempfile.mkdtemp(prefix="chronik-tests-", dir=MEMORY)
    config.add_cleanup(lambda: shutil.rmtree(made, ignore_errors=True))
    os.environ |= {"PYTEST_DEBUG_TEMPROOT": MEMORY, "TMPDIR": made}
    tempfile.tempdir = None  # it has been asked for, and is remembered


def pytest_collection_finish() -> None:
    """Thousands of tests stay until the end: no collection of garbage looks at them again."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    profile = os.environ.get("CHRONIK_HYPOTHESIS", "quick")
    return f"seed: CHRONIK_SEED={os.environ['CHRONIK_SEED']}  hypothesis: {profile}"


@pytest.fixture
def seed() -> int:
    """The run's seed, for tests that draw their own schedules."""
    return int(os.environ["CHRONIK_SEED"])


@pytest.fixture
def disk_path(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A temporary directory on the disk, wherever the others are; left behind by a failure."""
    failures = request.session.testsfailed
    path = Path(tempfile.mkdtemp(prefix="chronik-", dir=os.environ[DISK]))
    yield path
    if request.session.testsfailed == failures:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True)
def _threads_end_with_their_test() -> Iterator[None]:
    """Machines that died in a test leave threads that wait for ever, hundreds of them in one run
    through all crash points; each is one more stack for everything after it.
    """
    before = set(MortalThreads.known)
    yield
    for threads in set(MortalThreads.known) - before:
        threads.end()
