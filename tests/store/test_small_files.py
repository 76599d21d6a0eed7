"""Small files: the old bytes or the new ones, and what an open has seen of them stays."""

from __future__ import annotations

import errno

import pytest

from chronik_store import replicated
from chronik_store.errors import UnavailableError
from chronik_store.small_files import CHANGING, SmallFiles
from chronik_store.testing.disk_faults import crash_at, fail_next
from chronik_store.testing.simulated_disk import CrashError, SimulatedDisk
from tests.store.on_simulated_disk import open_store


@pytest.fixture
def disk():
    disk = SimulatedDisk(seed=1)
    disk.make_directories("/d")
    return disk


def test_what_was_replaced_is_durable_and_leaves_no_other_name(disk):
    files = SmallFiles(disk, "/d")
    files.write("A", b"old")
    files.write("A", b"new")
    assert b"new" == SmallFiles(disk.crashed("lost"), "/d").read("A")
    assert ["/d/A"] == disk.paths()
    assert files.read("B") is None


def test_an_open_that_saw_a_name_whose_sync_failed_has_it_for_good(disk):
    files = SmallFiles(disk, "/d")
    files.write("A", b"old")
    disk.hook = fail_next("sync_directory", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        files.write("A", b"new")

    unsettled = disk.crashed("lost")
    assert b"old" == SmallFiles(unsettled, "/d").read("A")
    again = SmallFiles(disk.kill(), "/d")
    again.settle()
    assert b"new" == again.read("A")
    after = SmallFiles(again._fs.crashed("lost"), "/d")
    assert b"new" == after.read("A")
    assert after.read("B") is None


def test_a_change_that_is_in_doubt_may_be_made_again(disk):
    files = SmallFiles(disk, "/d")
    disk.hook = fail_next("sync_directory", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        files.write("A", b"new")
    files.write("A", b"newer")
    assert b"newer" == SmallFiles(disk.crashed("lost"), "/d").read("A")
    assert not disk.exists(f"/d/A{CHANGING}")


def test_where_nothing_is_in_doubt_an_open_writes_nothing(disk):
    files = SmallFiles(disk, "/d")
    files.write("A", b"new")
    before = disk.calls_by_operation
    files.settle()
    assert {"list": 1} == disk.calls_by_operation - before


@pytest.mark.parametrize("mode", ["lost", "kept", "torn", "any"])
def test_power_may_fail_at_any_call(mode):
    for at in range(1, 100):
        disk = SimulatedDisk(seed=at)
        disk.make_directories("/d")
        SmallFiles(disk, "/d").write("A", b"old" * 1000)
        disk.hook = crash_at(disk.calls + at)
        try:
            SmallFiles(disk, "/d").write("A", b"new" * 1000)
        except CrashError:
            pass
        else:
            assert at > 5
            return
        again = SmallFiles(disk.crash(mode), "/d")
        again.settle()
        found = again.read("A")
        assert found in {b"old" * 1000, b"new" * 1000}
        assert found == SmallFiles(again._fs.crash("lost"), "/d").read("A")
    raise AssertionError("it does not end")


def test_what_a_node_noted_and_a_restart_has_acted_on_is_there_after_a_power_loss():
    disk = SimulatedDisk(seed=3)
    store = open_store(disk)
    disk.hook = fail_next("sync_directory", errno.EIO)
    with pytest.raises(UnavailableError):
        replicated.remember(store, "ANEW", 1)
    disk = disk.kill()
    assert 1 == replicated.remembered(open_store(disk), "ANEW")
    assert 1 == replicated.remembered(open_store(disk.crash("lost")), "ANEW")


def test_an_identity_that_an_open_has_seen_is_there_after_a_power_loss():
    disk = SimulatedDisk(seed=4)
    fail = fail_next("sync_directory", errno.EIO)
    disk.hook = lambda *call: fail(*call) if "/old/STORE" in disk.paths() else None
    with pytest.raises(UnavailableError):
        open_store(disk)
    disk = disk.kill()
    assert disk.exists("/old/STORE")
    seen = open_store(disk)._directory.store_id
    assert seen == open_store(disk.crash("lost"))._directory.store_id
