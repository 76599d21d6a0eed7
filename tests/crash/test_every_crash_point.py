"""Architecture 10: each act of the public API, with the power gone at each of its calls in turn."""

from __future__ import annotations

import contextlib

import pytest

from chronik_store.errors import ChronikError, UnavailableError
from chronik_store.testing.crash import CrashError
from chronik_store.testing.disk_faults import crash_at
from tests.crash.harness import Act, Life, check_crash_points, close_quietly


def opened(life: Life) -> None:
    life.open()


def some(life: Life) -> None:
    life.open()
    for _ in range(4):
        life.append(2)


def sealed(life: Life) -> None:
    some(life)
    life.log.seal()


def uploaded(life: Life) -> None:
    """Two segments in the bucket, one cursor, unsealed records behind."""
    sealed(life)
    life.drain()
    some_more(life)
    life.log.seal()
    life.drain()
    life.append(3)


def some_more(life: Life) -> None:
    for _ in range(3):
        life.append(2)


def dropped(life: Life) -> None:
    uploaded(life)
    life.ledger.wish_start(8)
    life.log.drop_before(8)
    life.ledger.dropped(8)


def died_with_a_torn_tail(life: Life) -> None:
    """The disk as a power loss in the middle of an append leaves it."""
    some(life)
    life.disk.hook = crash_at(life.disk.calls + 2)
    with contextlib.suppress(CrashError, ChronikError):
        life.log.append(life.ledger.offer(3, size_max=3000))
    close_quietly(life)
    life.disk = life.disk.crash("torn", life.rng)


def died_after_upload(life: Life) -> None:
    uploaded(life)
    life.disk = life.disk.crash("any", life.rng)


def append(life: Life) -> None:
    life.append()


def append_much(life: Life) -> None:
    """Many sectors, several WAL files."""
    for count in (1, 20, 1, 1):
        life.append(count, size_max=600)


def append_nowait(life: Life) -> None:
    batches = [life.ledger.offer(2) for _ in range(5)]
    futures = [life.log.append_nowait(batch) for batch in batches]
    for future, batch in zip(futures, batches, strict=True):
        life.ledger.acked(future.result(timeout=20).base_offset, batch)


def seal(life: Life) -> None:
    life.log.seal()


def run_pipeline(life: Life) -> None:
    report = life.log.run_pipeline_once()
    if report.errors:
        raise UnavailableError(str(report.errors))


def seal_and_drain(life: Life) -> None:
    life.log.seal()
    for _ in range(3):
        run_pipeline(life)


def drop(life: Life) -> None:
    life.ledger.wish_start(9)
    life.log.drop_before(9)
    life.ledger.dropped(9)


def commit_cursors(life: Life) -> None:
    for name, offset in (("a", 3), ("b", 5), ("a", 6)):
        life.ledger.cursors_wished.setdefault(name, set()).add(offset)
        life.log.cursor(name).commit(offset)
        life.ledger.cursors[name] = offset


def close(life: Life) -> None:
    life.store.close()


def reopen(life: Life) -> None:
    """Recovery itself is interrupted, and its successor, and that one's."""
    life.open()
    life.append()
    life.store.close()


ACTS: dict[str, tuple[Act, Act]] = {
    "create": (lambda _life: None, opened),
    "first append": (opened, append),
    "append": (some, append),
    "append much": (some, append_much),
    "append_nowait": (some, append_nowait),
    "seal": (some, seal),
    "upload": (sealed, run_pipeline),
    "publish and prune": (sealed, seal_and_drain),
    "next segment": (uploaded, seal_and_drain),
    "drop": (uploaded, drop),
    "collect": (dropped, seal_and_drain),
    "cursor": (some, commit_cursors),
    "close": (some, close),
    "recover a torn tail": (died_with_a_torn_tail, reopen),
    "recover": (died_after_upload, reopen),
}


@pytest.mark.parametrize("name", ACTS)
def test_power_may_fail_at_any_call_of(name: str) -> None:
    check_crash_points(*ACTS[name])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ACTS)
def test_power_may_fail_in_any_way_at_any_call_of(name: str) -> None:
    check_crash_points(*ACTS[name], every_mode=True)
