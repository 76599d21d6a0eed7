"""Each act of the public API with each of its disk and bucket calls failing once.

Whatever fails, the caller sees an error of ours or none, and everything acknowledged stays. What
is not tried again must never be relied upon: a sync that failed proves nothing for ever, so the
log must be opened anew, and then hold what it had acknowledged.
"""

from __future__ import annotations

import errno

import pytest

from chronik_store import LogStore, open_bucket
from chronik_store.environment import Environment
from chronik_store.testing.crash import MortalThreads
from tests.crash.harness import URL, Act, Life, check_failing_calls
from tests.crash.test_every_crash_point import ACTS, uploaded

LONG = {"create", "upload", "publish and prune", "next segment", "collect", "recover"}


def cold(life: Life) -> None:
    """Some of it only in the bucket, some only in WAL files, nothing in memory."""
    uploaded(life)
    life.store.close()
    life.open()


def read(life: Life) -> None:
    """Everything that only looks; what it does show is right."""
    values = {record.offset: record.value for record in life.log.scan()}
    assert life.ledger.known == values
    for batch in life.log.read_batches(0, max_bytes=500):
        for record in batch.records():
            assert life.ledger.known[record.offset] == record.value
    assert life.log.offset_for_timestamp(0) == 0


def look(life: Life) -> None:
    life.store.status()
    life.store.topics()
    assert life.log.watermarks.end == len(life.ledger.known)
    report = life.log.verify(bucket=True, deep=True)
    # What could not be looked at is named; nothing sound is called corrupt.
    assert all(each.severity == "warning" for each in report.findings), report.findings
    assert report.ok or life.plug.failed


def read_beside(life: Life) -> None:
    """A second process that only reads."""
    beside = life.disk.another_process()
    beside.hook = life.plug.at_the_disk
    life.knows(beside)
    env = Environment(fs=beside, threads=MortalThreads())
    with LogStore.open("/data", object_store=URL, env=env, read_only=True) as store:
        for record in store.partition("t").scan():
            assert life.ledger.known[record.offset] == record.value


def read_the_bucket(life: Life) -> None:
    env = Environment(fs=life.disk, threads=MortalThreads())
    with open_bucket(URL, topic="t", env=env) as log:
        for record in log.scan():
            assert life.ledger.known[record.offset] == record.value


READS: dict[str, tuple[Act, Act]] = {
    "read": (cold, read),
    "look": (cold, look),
    "read beside": (cold, read_beside),
    "read the bucket": (cold, read_the_bucket),
}
ACTS = {**ACTS, **READS}


@pytest.mark.parametrize("name", ACTS)
def test_a_failing_call_loses_nothing_in(name: str, seed: int) -> None:
    step = 5 if name in LONG else 1
    check_failing_calls(*ACTS[name], errno.EIO, first=1 + seed % step, step=step)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ACTS)
def test_any_failing_call_loses_nothing_in(name: str, code: int) -> None:
    check_failing_calls(*ACTS[name], code)
