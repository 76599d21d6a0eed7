"""A topic is deleted though what its directory knew of the bucket is lost or damaged."""

from __future__ import annotations

import errno
import logging

import pytest

from chronik_store import topic_deletion
from chronik_store.errors import ChronikError
from chronik_store.restore import restore
from chronik_store.testing.disk_faults import failure
from chronik_store.testing.simulated_disk import SimulatedDisk
from tests.store.on_simulated_disk import CONFIG, URL, env_of, open_store


def filled(disk: SimulatedDisk, *topics: str) -> None:
    """Topics of two partitions, all of it in the bucket."""
    with open_store(disk) as store:
        for topic in topics:
            store.create_topic(topic, partitions=2)
            for partition in range(2):
                store.partition(topic, partition).append(b"of %d" % partition)
                store.partition(topic, partition).seal()
        while not store.run_pipeline_once().idle:
            pass


def lose(disk: SimulatedDisk, topic: str, partition: int) -> None:
    for path in disk.paths(f"/old/wal/{topic}/{partition}"):
        disk.vanish(path)


def damage(disk: SimulatedDisk, topic: str, partition: int) -> None:
    for path in disk.paths(f"/old/wal/{topic}/{partition}"):
        if path.endswith(".log"):
            disk.overwrite(path, 0, b"\xff" * 4096)


def segments(disk: SimulatedDisk, topic: str) -> list[str]:
    return disk.paths(f"/bucket/segments/{topic}")


@pytest.mark.parametrize("partitions", [(1,), (0, 1)], ids=["one", "all"])
@pytest.mark.parametrize("how", [lose, damage])
def test_its_objects_are_found_by_the_buckets_own_manifests(how, partitions, caplog) -> None:
    disk = SimulatedDisk()
    filled(disk, "t", "beside")
    beside = segments(disk, "beside")
    for partition in partitions:
        how(disk, "t", partition)
    caplog.set_level(logging.WARNING)

    with open_store(disk) as store:
        store.delete_topic("t")
        assert ["beside"] == [each.name for each in store.topics()]

    assert [] == segments(disk, "t") == disk.paths("/old/wal/t")
    assert beside == segments(disk, "beside") != []
    said = [f"deleting t/{partition} by its bucket manifests" for partition in partitions]
    assert (said if how is damage else []) == [
        each.partition(":")[0] for each in caplog.messages if "by its bucket" in each
    ]


@pytest.mark.parametrize("how", [lose, damage])
def test_what_a_restore_has_taken_over_stays(how, caplog) -> None:
    disk = SimulatedDisk()
    filled(disk, "t")
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    for partition in range(2):
        how(disk, "t", partition)

    with open_store(disk) as store:
        store.delete_topic("t")

    assert [
        each for each in caplog.messages if "taken over by a restore: it is deleted here" in each
    ]
    with open_store(disk, "/new") as store:
        for partition in range(2):
            (record,) = store.partition("t", partition).read(0).records
            assert b"of %d" % partition == record.value


def claim(disk: SimulatedDisk) -> None:
    """A restore that is cut off behind its first claim."""
    links = 0

    def second_link_fails(_: int, operation: str, path: str) -> None:
        nonlocal links
        if operation == "link" and path.endswith(".cbor"):
            links += 1
            if links == 2:
                raise failure(errno.EIO, path)

    disk.hook = second_link_fails
    with pytest.raises(ChronikError):
        restore(URL, "/new", config=CONFIG, env=env_of(disk))
    disk.hook = None


def test_what_a_restore_takes_over_in_that_moment_stays(monkeypatch) -> None:
    """Claimed behind the look for claims, and nothing is published under the new log's id yet."""
    disk = SimulatedDisk()
    filled(disk, "t")
    lose(disk, "t", 0)
    lose(disk, "t", 1)
    look = topic_deletion.is_taken_over

    def look_too_early(*what) -> bool:
        found = look(*what)
        claim(disk)
        return found

    monkeypatch.setattr(topic_deletion, "is_taken_over", look_too_early)
    with open_store(disk) as store:
        store.delete_topic("t")

    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    with open_store(disk, "/new") as store:
        for partition in range(2):
            (record,) = store.partition("t", partition).read(0).records
            assert b"of %d" % partition == record.value


def test_what_was_put_while_another_node_deleted_the_topic_goes_too() -> None:
    """A leader that had not heard of it named a segment in its log and put it; the number under
    which it would have listed that says by then that the topic is deleted.
    """
    disk = SimulatedDisk()
    filled(disk, "t")
    with open_store(disk) as store:
        entry, log = store._directory.topic("t"), store.partition("t", 1)
        log.append(b"first")
        log.seal()
        while not store.run_pipeline_once().idle:
            pass
        assert topic_deletion._say_farewell(store._bucket.store, entry, {})
        log.append(b"late")
        log.seal()
        (error,) = store.run_pipeline_once().errors
        assert "is its last: its topic was deleted in the bucket" in str(error)
        (note,) = [note for note in log.status().notes if "fenced" in note]
        assert "fenced: its topic was deleted in the bucket; tiering has ended here" == note
        assert 4 == len(segments(disk, "t"))

        store.delete_topic("t")

    assert [] == segments(disk, "t")
    assert ["tombstone"] == [path.rpartition(".")[2] for path in disk.paths("/bucket/manifests/t")]
