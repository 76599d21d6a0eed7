"""A bucket that is a directory, whose disk fails to sync a name: no local copy goes for that."""

from __future__ import annotations

import errno
import itertools
import random
from contextlib import suppress

import pytest

from chronik_store.errors import UnavailableError
from chronik_store.restore import restore
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.testing.tree import failure
from tests.store.on_simulated_disk import CONFIG, URL, env_of, open_store

FOLDERS = ("/bucket/segments/t/0", "/bucket/manifests/t/0/")


class FailingSync:
    """The sync of an object's folder that has this number fails, counted from 0."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.failed = ""

    def __call__(self, _number: int, operation: str, path: str) -> None:
        if operation == "sync_directory" and path.startswith(FOLDERS):
            self.left -= 1
            if self.left == -1:
                self.failed = path
                raise failure(errno.EIO, path)


@pytest.mark.parametrize("killed", [False, True], ids=["goes on", "kill -9"])
def test_what_was_pruned_is_in_the_bucket_after_a_power_loss(killed: bool) -> None:
    """A segment, or the manifest that lists it, was adopted by a name that no later sync kept."""
    for number in itertools.count():
        disk = SimulatedDisk(seed=number)
        store = open_store(disk)
        store.create_topic("t")
        disk.hook = sync = FailingSync(number)
        values = [b"0", b"1"]
        for value in values:
            log = store.partition("t")
            log.append(value)
            log.seal()
            if log.run_pipeline_once().errors and killed:
                disk = disk.kill()
                store = open_store(disk)
        while not (report := store.run_pipeline_once()).idle:
            assert report.errors == (), (number, sync.failed)
        if not sync.failed:
            break
        disk = disk.crash("lost", random.Random(number))
        with open_store(disk) as store:
            log = store.partition("t")
            assert values == [each.value for each in log.scan()], (number, sync.failed)
            log.append(b"more")
            log.seal()
            assert log.run_pipeline_once().errors == (), (number, sync.failed)
            assert log.verify(bucket=True, deep=True).findings == (), (number, sync.failed)
    assert number == 2 * len(values)


def test_a_claim_that_was_found_again_is_there_after_a_power_loss() -> None:
    """Else the old owner goes on, beside the new one."""
    for number in itertools.count():
        disk = SimulatedDisk(seed=number)
        with open_store(disk) as old:
            old.create_topic("t")
            log = old.partition("t")
            log.append(b"0")
            log.seal()
            assert old.run_pipeline_once().errors == ()
        disk.hook = sync = FailingSync(number)
        with suppress(UnavailableError):
            restore(URL, "/new", config=CONFIG, env=env_of(disk))
        if sync.failed:
            restore(URL, "/new", config=CONFIG, env=env_of(disk))
        disk = disk.crash("lost", random.Random(number))
        with open_store(disk) as old, open_store(disk, "/new") as new:
            for store in (new, old):
                log = store.partition("t")
                assert [b"0"] == [each.value for each in log.scan()], (number, sync.failed)
                log.append(b"1")
                log.seal()
                log.run_pipeline_once()
                assert log.status().fenced is (store is old), (number, sync.failed)
        if not sync.failed:
            break
    assert number == 3
