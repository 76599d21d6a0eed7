"""The local store on a disk that loses power at each of its calls in turn."""

import errno
import random
from contextlib import suppress

import pytest

from chronik_store.clock import SystemClock, SystemEntropy
from chronik_store.errors import UnavailableError
from chronik_store.objectstore.base import PutOutcome
from chronik_store.objectstore.local import LocalObjectStore
from chronik_store.testing.disk_faults import crash_at, fail_next
from chronik_store.testing.simulated_disk import CrashError, SimulatedDisk

BODY = bytes(range(256)) * 20


def open_store(disk):
    return LocalObjectStore(disk, "/bucket", entropy=SystemEntropy(), clock=SystemClock())


def put_two(disk, acknowledged):
    store = open_store(disk)
    for key in ("a/one", "a/two"):
        store.put_if_absent(key, BODY + key.encode())
        acknowledged.append(key)


def count_calls():
    disk = SimulatedDisk()
    put_two(disk, [])
    return disk.calls


@pytest.mark.parametrize("mode", ["lost", "kept", "torn"])
@pytest.mark.parametrize("call", range(1, count_calls() + 1))
def test_a_crash_at_any_call_loses_nothing_acknowledged_and_shows_nothing_half(call, mode):
    disk = SimulatedDisk(seed=call)
    disk.hook = crash_at(call)
    acknowledged = []
    with suppress(CrashError):
        put_two(disk, acknowledged)
    store = open_store(disk.crash(mode, random.Random(call)))

    shown = [info.key for info in store.list("")]
    for key in ("a/one", "a/two"):
        body = BODY + key.encode()
        assert (store.head(key) is not None) == (key in shown)
        if key in acknowledged or key in shown:
            assert store.get(key) == body
        expected = PutOutcome.EXISTS if key in shown else PutOutcome.CREATED
        assert store.put_if_absent(key, body) is expected


@pytest.mark.parametrize("call", range(1, 8))
def test_what_was_found_to_exist_survives_a_crash(call):
    """A rival linked the object and died before its own directory sync; we adopted it."""
    disk = SimulatedDisk(seed=call)
    open_store(disk)
    rival = disk.another_process()

    def die_after_link(number, operation, path):
        if operation == "remove":
            raise CrashError("the rival's process ends")

    rival.hook = die_after_link
    with suppress(CrashError):
        open_store(rival).put_if_absent("a/k", BODY)

    survivor = open_store(disk)
    assert survivor.put_if_absent("a/k", BODY) is PutOutcome.EXISTS
    after = open_store(disk.crash("lost", random.Random(call)))
    assert after.get("a/k") == BODY


def test_what_a_repeated_delete_found_absent_stays_so():
    """A first try has removed it and ended before the directory's sync."""
    disk = SimulatedDisk()
    store = open_store(disk)
    for key in ("a/one", "b/two"):
        store.put_if_absent(key, BODY)
    disk.hook = fail_next("remove", errno.EIO, path_end="b/two")
    with pytest.raises(UnavailableError):
        store.delete(["a/one", "b/two"])

    store.delete(["a/one", "b/two"])

    assert open_store(disk.crash("lost", random.Random(1))).list("") == []


@pytest.mark.parametrize("who", ["the same process", "the next one, after kill -9", "another one"])
def test_a_name_whose_sync_failed_is_made_anew_by_whoever_puts_the_same_again(who):
    """No later sync brings it: it was adopted, a local copy went, and a power loss took it."""
    disk = SimulatedDisk()
    store = open_store(disk)
    disk.hook = fail_next("sync_directory", errno.EIO, path_end="/bucket/a")
    with pytest.raises(UnavailableError) as caught:
        store.put_if_absent("a/k", BODY)
    assert caught.value.durability == "unknown"
    if who.startswith("the next"):
        disk = disk.kill()
    if not who.startswith("the same"):
        store = open_store(disk.another_process())

    assert store.put_if_absent("a/k", BODY) is PutOutcome.EXISTS

    after = open_store(disk.crash("lost", random.Random(1)))
    assert after.get("a/k") == BODY


def test_what_another_has_put_is_not_replaced():
    disk = SimulatedDisk()
    store = open_store(disk)
    store.put_if_absent("a/k", BODY)
    for other in (b"", BODY[:-1], BODY[:-1] + b"?", BODY + b"?"):
        assert store.put_if_absent("a/k", other) is PutOutcome.EXISTS
        assert store.get("a/k") == BODY
    assert disk.list("/bucket/.incoming") == []
