"""Topics that come and go, and a restore, with the power gone or a call failing at any point."""

from __future__ import annotations

import contextlib
import errno
from functools import partial

import pytest

from chronik_store.environment import Environment
from chronik_store.errors import ChronikError
from chronik_store.objectstore.layout import parse_segment_key
from chronik_store.restore import restore
from chronik_store.testing.crash import MortalThreads
from tests.crash.harness import (
    CONFIG,
    MODES,
    URL,
    Life,
    close_quietly,
    crash_points,
    reachable_buckets,
)
from tests.crash.test_every_crash_point import uploaded


def delete_and_create(life: Life) -> None:
    """A namesake right after a deletion (protocol 6)."""
    life.store.delete_topic("t")
    life.store.create_topic("t")


def check_topic(life: Life) -> None:
    """It is there whole, or gone whole; a namesake has nothing of it; nothing is left behind."""
    life.open_store()
    with life.store:
        if life.store.topics():
            log = life.store.partition("t")
            if log.watermarks.end:
                life.ledger.check(log)
                assert log.verify(bucket=True, deep=True).findings == ()
                life.store.delete_topic("t")
            else:
                assert list(log.scan()) == []
                life.store.delete_topic("t")
        life.store.run_pipeline_once()
        life.store.create_topic("t")
        log = life.store.partition("t")
        assert (0, 0) == (log.watermarks.start, log.watermarks.end)
        assert log.append(b"first").base_offset == 0
    objects = [info.key for info in life.bucket.list("", limit=10_000)]
    assert [] == [key for key in objects if parse_segment_key(key) is not None]


def run(act, check, *, every: int) -> int:
    return run_after(uploaded, act, check, every=every)


def run_after(prepare, act, check, *, every: int) -> int:
    points = 0
    with reachable_buckets():
        for at, life in crash_points(prepare, act):
            close_quietly(life)
            points += 1
            if at % every:
                continue
            after = life.fails(MODES[at // every % len(MODES)])
            try:
                check(after)
            except BaseException as error:
                error.add_note(f"crash point {at}, {MODES[at // every % len(MODES)]}")
                raise
            finally:
                close_quietly(after)
    return points


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_power_may_fail_at_any_call_of_a_deletion(every: int) -> None:
    assert run(delete_and_create, check_topic, every=every) > 30


def filled(life: Life) -> None:
    life.open()
    for _ in range(3):
        life.append(2)


def tier(life: Life) -> None:
    """Seal, upload, index, publish."""
    life.log.seal()
    life.drain()


def check_nothing_stays(life: Life) -> None:
    """The topic is deleted before anybody has opened its log, which would mark what is committed:
    what the last INTENT announced goes, too, whether or not a mark says that it is committed.
    """
    life.open_store()
    with life.store:
        if life.store.topics():
            life.store.delete_topic("t")
    objects = [info.key for info in life.bucket.list("", limit=10_000)]
    assert [key for key in objects if key.startswith(("segments/", "indexes/"))] == []
    left = [key for key in objects if key.startswith("manifests/")]
    assert all(key.endswith(".tombstone") for key in left), left


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_deletion_leaves_no_object_whenever_power_failed_before_it(every: int) -> None:
    assert run_after(filled, tier, check_nothing_stays, every=every) > 30


def take_over(life: Life) -> None:
    """Another directory takes the bucket over; the first stays open until then."""
    env = Environment(fs=life.disk, threads=MortalThreads())
    restore(URL, "/new", config=CONFIG, env=env)


def check_restored(life: Life) -> None:
    """The next run of the same restore ends well, with all that the bucket held; the old is fenced.

    What the old directory alone has stays readable there.
    """
    life.knows(life.disk)
    env = Environment(fs=life.disk, threads=MortalThreads())
    if not life.disk.exists("/new/STORE"):  # the last of its files: then it was done
        restore(URL, "/new", config=CONFIG, env=env)
    life.path = "/new"
    life.open()
    with life.store:
        records = {record.offset: record.value for record in life.log.scan()}
        assert records == {at: life.ledger.known[at] for at in range(len(records))}
        assert len(records) == 14
        assert life.log.append(b"mine").base_offset == 14
        life.log.seal()
        life.drain()
        assert life.log.verify(bucket=True, deep=True).findings == ()
    life.path = "/data"
    life.open()
    with life.store:
        life.ledger.check(life.log)
        life.log.append(b"theirs")
        life.log.seal()
        with contextlib.suppress(ChronikError):
            life.log.run_pipeline_once()
        life.log.run_pipeline_once()
        assert life.log.status().fenced
        assert "theirs" in str(list(life.log.scan())[-1].value)


@pytest.mark.parametrize("every", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_power_may_fail_at_any_call_of_a_restore(every: int) -> None:
    assert run(take_over, check_restored, every=every) > 20


def test_what_is_appended_where_a_restore_failed_and_opens_is_there_for_good() -> None:
    """The sync of the name STORE fails, the restore says so, and the directory opens: a power loss
    must not take that name, since who restores once more begins these logs anew.
    """
    opened = 0
    with reachable_buckets():
        for at in range(1, 100):
            life = Life(at)
            uploaded(life)
            life.plug.calls, life.plug.at, life.plug.code = 0, at, errno.EIO
            life.disk.hook = partial(_fail_a_name_in, "/new", life)
            life.door.hook = None
            with contextlib.suppress(ChronikError):
                take_over(life)
            life.threads.end()
            if not life.plug.failed:
                break
            second = life.fails("kill")
            second.knows(second.disk)
            second.path = "/new"
            if not second.disk.exists("/new/STORE"):
                continue
            second.open()
            second.log.append(b"mine")
            opened += 1
            close_quietly(second)
            third = second.fails("lost")
            third.knows(third.disk)
            third.path = "/new"
            third.open()
            assert b"mine" == list(third.log.scan())[-1].value
            close_quietly(third)
    assert opened > 1


def _fail_a_name_in(path: str, life: Life, number: int, operation: str, called: str) -> None:
    if operation == "sync_directory" and called.startswith(path):
        life.plug.at_the_disk(number, operation, called)
