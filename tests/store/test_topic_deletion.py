"""A topic is deleted though what its directory knew of the bucket is lost or damaged."""

from __future__ import annotations

import errno
import logging

import pytest

from chronik_store import LogStore, topic_deletion
from chronik_store.errors import ChronikError, ReadOnlyError, UnavailableError
from chronik_store.restore import restore
from chronik_store.testing.disk_faults import fail_next, failure
from chronik_store.testing.simulated_disk import SimulatedDisk
from tests.store.on_simulated_disk import CONFIG, URL, copy_directory, env_of, open_store


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


def spoil(disk: SimulatedDisk, topic: str, partition: int) -> None:
    for path in disk.paths(f"/old/wal/{topic}/{partition}"):
        if path.endswith(".log"):
            disk.make_unreadable(path, 0, 4096)


def segments(disk: SimulatedDisk, topic: str) -> list[str]:
    return disk.paths(f"/bucket/segments/{topic}")


@pytest.mark.parametrize("partitions", [(1,), (0, 1)], ids=["one", "all"])
@pytest.mark.parametrize("how", [lose, damage, spoil])
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
    assert ([] if how is lose else said) == [
        each.partition(":")[0] for each in caplog.messages if "by its bucket" in each
    ]


def test_what_an_interrupted_deletion_has_left_is_found_again() -> None:
    """Nothing but its manifests names it: they go last."""
    disk = SimulatedDisk()
    filled(disk, "t")
    lose(disk, "t", 0)
    lose(disk, "t", 1)

    with open_store(disk) as store:
        disk.hook = fail_next("remove", errno.EIO, path_end=".seg")
        store.delete_topic("t")
        disk.hook = None
        assert segments(disk, "t") != []
        store.run_pipeline_once()
        assert () == store.topics()

    assert [] == segments(disk, "t")


@pytest.mark.parametrize("how", [lose, damage, spoil])
def test_what_a_restore_has_taken_over_stays(how, caplog) -> None:
    disk = SimulatedDisk()
    filled(disk, "t")
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    for partition in range(2):
        how(disk, "t", partition)

    with open_store(disk) as store:
        store.delete_topic("t")

    assert [
        each for each in caplog.messages if "a restore has taken it over, or this is a copy" in each
    ]
    with open_store(disk, "/new") as store:
        for partition in range(2):
            (record,) = store.partition("t", partition).read(0).records
            assert b"of %d" % partition == record.value


def test_a_topic_that_cannot_be_deleted_keeps_no_other_one() -> None:
    """Its files are another user's, say."""
    disk = SimulatedDisk()
    filled(disk, "a", "b")

    def deny(_: int, operation: str, path: str) -> None:
        if operation.startswith("remove") and path.startswith("/old/wal/a"):
            raise failure(errno.EACCES, path)

    disk.hook = deny
    with open_store(disk) as store:
        with pytest.raises(ReadOnlyError, match="topic a "):
            store.delete_topic("a")
        store.delete_topic("b")
        assert [] == segments(disk, "b")
        assert store.create_topic("b").partitions == 1
        topics = store._topics  # as a crash leaves it behind the mark
        topics.during(lambda: topics.mark_deleting(store._directory.topics.get("b")))
        (error,) = store.run_pipeline_once().errors
        assert "topic a " in error
        with pytest.raises(ReadOnlyError, match="topic a "):
            store.create_topic("a")
        assert [] == disk.paths("/old/wal/b")
        disk.hook = None
        assert () == store.run_pipeline_once().errors
        assert store.create_topic("a").partitions == 1


@pytest.mark.parametrize("operation", ["remove", "open"])
def test_files_of_one_topic_that_the_disk_holds_on_to_keep_no_other_one(operation: str) -> None:
    """It was taken for a bucket that does not answer: no topic behind it in the list was deleted,
    and no name of one was free.
    """
    disk = SimulatedDisk()
    filled(disk, "a", "b")
    busy = True

    def hold(_: int, called: str, path: str) -> None:
        if busy and called == operation and path.startswith("/old/wal/a"):
            raise failure(errno.EBUSY, path)

    with open_store(disk) as store:
        topics = store._topics  # as a crash leaves both behind their marks
        for name in "ab":
            entry = store._directory.topics.get(name)
            topics.during(lambda entry=entry: topics.mark_deleting(entry))
        disk.hook = hold
        (error,) = store.run_pipeline_once().errors
        assert "/old" in error
        assert [] == segments(disk, "b")
        assert [] == disk.paths("/old/wal/b")
        assert store.create_topic("b").partitions == 1
        with pytest.raises(UnavailableError):
            store.create_topic("a")
        busy = False
        assert () == store.run_pipeline_once().errors
        assert store.create_topic("a").partitions == 1


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
        entry, log = store._directory.topics.get("t"), store.partition("t", 1)
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


def one_more(store: LogStore) -> None:
    """Another segment, in a manifest of its own, and nothing of it is left here."""
    log = store.partition("t", 1)
    log.append(b"acknowledged")
    log.seal()
    run_until_idle(store)


def run_until_idle(store: LogStore) -> None:
    while not (report := store.run_pipeline_once()).idle:
        assert report.errors == ()


def shorter(store: LogStore) -> None:
    """What is listed then, a copy lists too."""
    one_more(store)
    store.partition("t", 1).drop_before(2)
    run_until_idle(store)


def sealed(store: LogStore) -> None:
    store.partition("t", 1).append(b"of the copy")
    store.partition("t", 1).seal()


@pytest.mark.parametrize("known", [1, 2], ids=["one manifest ahead", "two ahead"])
@pytest.mark.parametrize("first", [lambda _store: None, run_until_idle, sealed])
def test_a_copy_of_the_directory_deletes_nothing_that_the_original_goes_on_with(
    known, first, caplog
) -> None:
    disk = SimulatedDisk()
    filled(disk, "t")
    copy_directory(disk, "/old", "/copy")
    with open_store(disk) as store, open_store(disk, "/copy") as copy:
        for _ in range(known):
            one_more(store)
        first(copy)
        objects = disk.paths("/bucket")

        copy.delete_topic("t")

        assert objects == disk.paths("/bucket")
        assert () == copy.topics()
        assert [each for each in caplog.messages if "is deleted here, and stays in" in each]
        assert known + 1 == len([*store.partition("t", 1).scan()])
        one_more(store)  # nobody has fenced it


def test_a_copy_knows_a_manifest_that_lists_less_than_its_own_for_the_originals() -> None:
    disk = SimulatedDisk()
    filled(disk, "t")
    with open_store(disk) as store:
        one_more(store)
        copy_directory(disk, "/old", "/copy")
        shorter(store)
        with open_store(disk, "/copy") as copy:
            objects = disk.paths("/bucket")
            copy.delete_topic("t")
        assert objects == disk.paths("/bucket")
        assert [b"acknowledged"] == [each.value for each in store.partition("t", 1).scan()]


def test_a_copy_knows_a_manifest_that_announces_what_it_never_did_for_the_originals() -> None:
    """It lists no other segment, nor an entry further than the copy's own log goes by now."""
    disk = SimulatedDisk()
    filled(disk, "t")
    copy_directory(disk, "/old", "/copy")
    with open_store(disk) as store, open_store(disk, "/copy") as copy:
        for _ in range(4):
            sealed(copy)
        copy.partition("t", 1).drop_before(1)
        log = store.partition("t", 1)
        log.append(b"acknowledged")
        log.seal()
        disk.hook = fail_next("link", errno.EIO, path_end=".seg", times=1 << 30)
        assert 1 == log.run_pipeline_once().published
        disk.hook = None
        objects = disk.paths("/bucket")
        copy.delete_topic("t")
        assert objects == disk.paths("/bucket")
        run_until_idle(store)


def test_what_the_original_publishes_in_that_moment_stays(monkeypatch) -> None:
    """Behind the copy's look at whose the folder is, before its farewell."""
    disk = SimulatedDisk()
    filled(disk, "t")
    copy_directory(disk, "/old", "/copy")
    look = topic_deletion.is_taken_over
    with open_store(disk) as store, open_store(disk, "/copy") as copy:

        def look_too_early(*what) -> bool:
            found = look(*what)
            monkeypatch.undo()
            store.partition("t", 0).append(b"acknowledged")
            store.partition("t", 0).seal()
            run_until_idle(store)
            return found

        monkeypatch.setattr(topic_deletion, "is_taken_over", look_too_early)
        copy.delete_topic("t")
        for partition in range(2):
            assert b"of %d" % partition == next(store.partition("t", partition).scan()).value
        store.partition("t", 0).append(b"goes on")
        store.partition("t", 0).seal()
        run_until_idle(store)


def segment_more(store: LogStore) -> None:
    store.partition("t", 1).append(b"more")
    store.partition("t", 1).seal()


def prefix_less(store: LogStore) -> None:
    store.partition("t", 1).drop_before(1)


@pytest.mark.parametrize("change", [segment_more, prefix_less])
@pytest.mark.parametrize("loss", ["lost", "kept", "poisoned"])
def test_a_manifest_whose_entry_a_crash_prevented_is_our_own(change, loss) -> None:
    """Put, and no mark swears to what it says, nor is its own entry in the log."""
    disk = SimulatedDisk()
    filled(disk, "t")
    before = len(disk.paths("/bucket/manifests/t/1"))
    with open_store(disk) as store:
        change(store)
        put = False

        def no_entry_of_it(_: int, operation: str, path: str) -> None:
            nonlocal put
            put = put or (operation == "link" and path.endswith(".cbor"))
            if put and operation in {"write_at", "sync_data"} and "/wal/" in path:
                raise failure(errno.EIO, path)

        disk.hook = no_entry_of_it
        assert store.partition("t", 1).run_pipeline_once().errors
        image = disk if loss == "poisoned" else disk.crashed(loss)
        disk.hook = image.hook = None
        assert before + 1 == len(image.paths("/bucket/manifests/t/1"))
        if loss == "poisoned":
            store.delete_topic("t")
    if loss != "poisoned":
        with open_store(image) as store:
            store.delete_topic("t")

    assert [] == segments(image, "t")
    left = [path.rpartition(".")[2] for path in image.paths("/bucket/manifests/t")]
    assert ["tombstone"] == left
