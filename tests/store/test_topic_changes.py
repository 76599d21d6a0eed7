"""Topics come and go: whatever the disk and the pipeline are doing meanwhile."""

from __future__ import annotations

import errno
import threading

import pytest

import chronik_store as chronik
from chronik_store import topic_changes
from chronik_store.environment import Environment
from chronik_store.format.store_file import TopicEntry
from chronik_store.objectstore.base import PutOutcome
from chronik_store.objectstore.open import open_object_store
from chronik_store.testing.disk_faults import Gate, fail_next
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.testing.tree import failure
from chronik_store.topic_deletion import delete_published
from tests.store.tasks import AT_LAST, Interrupted, Task, at_each_step

CONFIG = chronik.LogConfig(pipeline_enabled=False, indexing_enabled=False, garbage_seconds=0)


def open_store(disk):
    """A store whose disk can be made to fail; its bucket is a directory of that disk."""
    return chronik.LogStore.open("/d", config=CONFIG, env=Environment(fs=disk))


def values(log):
    return [record.value for record in log.scan()]


def test_a_partition_that_cannot_be_closed_does_not_keep_its_topic():
    """A full disk is the reason to delete; what is deleted need not be sworn to."""
    disk = SimulatedDisk(seed=1)
    with open_store(disk) as store:
        store.create_topic("t", partitions=2)
        for partition in (0, 1):
            for _ in range(3):
                store.partition("t", partition).append(b"old")

        def full(_number, operation, path):
            if operation in {"write_at", "sync_data"} and "/wal/t/0/" in path:
                raise failure(errno.ENOSPC, path)

        disk.hook = full
        store.delete_topic("t")
        disk.hook = lambda *_: None
        assert () == store.topics()
        store.create_topic("t", partitions=2)
        for _ in range(3):
            store.partition("t", 1).append(b"new")
    with open_store(disk) as store:
        assert [b"new"] * 3 == values(store.partition("t", 1))


@pytest.mark.parametrize("held", ["segments/", "manifests/"])
def test_delete_waits_for_the_run_that_is_putting_an_object(held):
    """Else a segment stays in the bucket that nothing names, or a manifest that bars the way."""
    with open_store(SimulatedDisk(seed=1)) as store:
        topic = store.create_topic("t")
        log = store.partition("t")
        log.append(b"secret" * 100)
        log.seal()
        putting, go = threading.Event(), threading.Event()
        bucket = store._bucket.store
        put_if_absent = bucket.put_if_absent

        def put(key, data):
            if key.startswith(held) and not key.endswith(".tombstone"):
                putting.set()
                assert go.wait(AT_LAST)
            return put_if_absent(key, data)

        bucket.put_if_absent = put
        running = Task(store.run_pipeline_once)
        assert putting.wait(AT_LAST)
        deleting = Task(lambda: store.delete_topic("t"))
        assert deleting.waits()
        go.set()
        deleting.outcome()
        assert () == running.outcome().errors
        left = {info.key for info in bucket.list("")}
        assert {"STORE", f"manifests/t/{topic.topic_id}.tombstone"} == left


def fail_after_rename(disk):
    """The new TOPICS has its name, and the sync of that name fails."""
    rename = fail_next("sync_directory", errno.EIO)
    renamed = False

    def hook(number, operation, path):
        nonlocal renamed
        if renamed:
            rename(number, operation, path)
        renamed = renamed or (operation == "rename" and path.endswith("/TOPICS.tmp"))

    disk.hook = hook


@pytest.mark.parametrize("end", ["reopened", "lost", "kept", "again"])
def test_nothing_is_acknowledged_by_a_topic_whose_deletion_may_be_on_disk(end):
    disk = SimulatedDisk(seed=1)
    store = open_store(disk)
    store.create_topic("t")
    store.create_topic("other")
    log = store.partition("t")
    log.append(b"1")
    fail_after_rename(disk)
    with pytest.raises(chronik.UnavailableError) as caught:
        store.delete_topic("t")
    assert "unknown" == caught.value.durability
    with pytest.raises(chronik.LogClosedError):
        log.append(b"2")
    with pytest.raises(chronik.UnavailableError, match="nobody knows"):
        store.partition("t")
    store.run_pipeline_once()
    store.partition("other").append(b"goes on")
    if end == "again":
        store.delete_topic("t")
        store.create_topic("t")
        store.partition("t").append(b"3")
        store.close()
        with open_store(disk.crashed("lost")) as store:
            assert [b"3"] == values(store.partition("t"))
        return
    if end != "reopened":
        disk = disk.crashed(end)
    store.close()
    with open_store(disk) as store:
        assert [b"goes on"] == values(store.partition("other"))
        if "t" in {info.name for info in store.topics()}:
            assert [b"1"] == values(store.partition("t"))
        else:
            store.create_topic("t")
            assert [] == values(store.partition("t"))


def test_a_topic_that_may_not_be_on_disk_takes_no_records_until_it_is():
    disk = SimulatedDisk(seed=1)
    with open_store(disk) as store:
        fail_after_rename(disk)
        with pytest.raises(chronik.UnavailableError):
            store.create_topic("t")
        with pytest.raises(chronik.UnavailableError, match="nobody knows"):
            store.partition("t")
        store.create_topic("t")
        store.partition("t").append(b"1")
        with open_store(disk.crashed("lost")) as again:
            assert [b"1"] == values(again.partition("t"))


def test_a_change_that_failed_before_it_had_a_name_is_none():
    disk = SimulatedDisk(seed=1)
    with open_store(disk) as store:
        store.create_topic("t")
        store.partition("t").append(b"1")
        disk.hook = fail_next("write_at", errno.ENOSPC, path_end="/TOPICS.tmp")
        with pytest.raises(chronik.DiskFullError):
            store.delete_topic("t")
        assert 1 == store.partition("t").append(b"2").base_offset


def meanwhile(monkeypatch, act):
    """`act`, by another thread as it were, while the next change waits for its turn."""
    turn = topic_changes._Turn
    take = turn._take

    def taken(changes, mine):
        monkeypatch.undo()
        act()
        take(changes, mine)

    monkeypatch.setattr(turn, "_take", taken)


def left_half_way(store, name):
    """A deletion that is marked and waits for its bucket."""
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*_):
            raise chronik.UnavailableError("the bucket is away")

        patch.setattr(topic_changes, "delete_topic_data", refuse)
        store.delete_topic(name)


def uploaded(store, value):
    log = store.partition("t")
    log.append(value)
    log.seal()
    assert () == store.run_pipeline_once().errors


def test_a_deletion_that_another_thread_carried_out_touches_no_namesake(monkeypatch):
    with open_store(SimulatedDisk(seed=1)) as store:
        store.create_topic("t", partitions=2)
        uploaded(store, b"old")
        left_half_way(store, "t")

        def act():
            store.create_topic("t")
            uploaded(store, b"new")

        meanwhile(monkeypatch, act)
        assert () == store.run_pipeline_once().errors
        assert [b"new"] == values(store.partition("t"))
        assert store.partition("t").verify(bucket=True, deep=True).ok


def test_a_topic_made_while_its_namesake_is_deleted_waits_until_that_is_gone(monkeypatch):
    """Before, it set the files of the other one aside, whose deletion then failed for ever."""
    disk = SimulatedDisk(seed=1)
    with open_store(disk) as store:
        store.create_topic("t", partitions=2)
        uploaded(store, b"old")
        meanwhile(monkeypatch, lambda: left_half_way(store, "t"))
        made = store.create_topic("t", exist_ok=True)
        assert 1 == made.partitions
        assert () == store.run_pipeline_once().errors
        assert [made] == list(store.topics())
        assert [] == values(store.partition("t"))
        assert [] == disk.paths("/d/quarantine")
        assert [] == [path for path in disk.paths("/d/object_store/segments") if "/t/" in path]


def test_a_change_that_is_under_way_is_no_failed_one():
    disk = SimulatedDisk(seed=1)
    with open_store(disk) as store:
        store.create_topic("t")
        seen = []

        def hook(_number, operation, path):
            if operation == "sync_directory" and path == "/d" and not seen:
                seen.append(None)
                seen[0] = store.partition("t")

        disk.hook = hook
        store.create_topic("t", partitions=2, exist_ok=True)
        assert [store.partition("t")] == seen


def test_a_deletion_that_comes_late_leaves_a_namesakes_objects_alone(tmp_path):
    """In a cluster the name is free before the bucket is swept (protocol 6)."""
    config = CONFIG.replace(pipeline_enabled=False)

    def published(path, url):
        with chronik.LogStore.open(path, object_store=url, config=config) as store:
            topic = store.create_topic("t")
            store.partition("t").append(b"x")
            store.partition("t").seal()
            while not store.partition("t").run_pipeline_once().idle:
                pass
            return TopicEntry("t", topic.topic_id, 1, "live")

    old = published(tmp_path / "old", f"file://{tmp_path}/bucket")
    published(tmp_path / "new", f"file://{tmp_path}/other")
    bucket, other = (
        open_object_store(f"file://{tmp_path}/{each}", env=Environment(), s3=config.s3)
        for each in ("bucket", "other")
    )
    theirs = {each.key for folder in ("manifests/", "segments/") for each in other.list(folder)}
    for key in theirs:
        assert bucket.put_if_absent(key, other.get(key)) is PutOutcome.CREATED

    delete_published(bucket, old)

    left = {each.key for folder in ("manifests/", "segments/") for each in bucket.list(folder)}
    assert theirs == left


@pytest.mark.parametrize("number", range(12))
def test_what_was_deleted_does_not_come_back_with_the_power(number):
    """The list forgets a topic when its files are surely gone: nobody would look for them then."""
    disk = SimulatedDisk(seed=number)
    store = open_store(disk)
    store.create_topic("t", partitions=2)
    store.partition("t").append(b"old")
    store.delete_topic("t")
    image = disk.crash("any")
    with open_store(image) as after:
        assert () == after.topics()
    assert [] == [path for path in image.paths("/d") if "/t/" in path]


def test_a_deletion_that_waits_for_the_bucket_keeps_no_topic_from_being_made(monkeypatch):
    """Whatever was made waited for as long as the bucket was asked, once for each deleted one."""
    with open_store(SimulatedDisk(seed=1)) as store:
        for name in ("gone", "there"):
            store.create_topic(name)
        asked, go_on = threading.Event(), threading.Event()
        plain = topic_changes.delete_topic_data

        def slowly(*arguments):
            asked.set()
            assert go_on.wait(AT_LAST)
            plain(*arguments)

        monkeypatch.setattr(topic_changes, "delete_topic_data", slowly)
        deleting = Task(lambda: store.delete_topic("gone"))
        assert asked.wait(AT_LAST)
        store.create_topic("new")
        store.partition("new").append([b"x"])
        go_on.set()
        deleting.outcome()
        assert ["new", "there"] == [topic.name for topic in store.topics()]


def test_ctrl_c_in_front_of_a_change_leaves_nobody_waiting():
    """The turn counted as taken for ever: no topic was made or deleted any more."""
    with open_store(SimulatedDisk(seed=1)) as store:
        turn = store._topics
        turn._changed = Interrupted(turn._changed)
        with pytest.raises(KeyboardInterrupt):
            store.create_topic("t")
        Task(lambda: store.create_topic("t")).outcome()
        assert ["t"] == [info.name for info in store.topics()]


@pytest.mark.parametrize("tier", ["wal", "object_store"])
def test_a_read_under_which_its_topic_is_deleted_says_that_the_log_is_closed(tier):
    """It said that objects had been deleted by other hands, or that offsets were in no tier."""
    disk = SimulatedDisk(seed=1)
    with open_store(disk) as store:
        store.create_topic("t")
        log = store.partition("t")
        log.append(b"x")
        log.seal()
        held = log._core.wal.files()[0].path
        if tier == "object_store":
            while not store.run_pipeline_once().idle:
                pass
            held = ".seg"
        log._core.wal.shrink_tail(0)
        gate = disk.hook = Gate("open", path_end=held)
        reading = Task(lambda: log.read(0))
        assert gate.arrived.wait(AT_LAST)
        disk.hook = lambda *_: None
        store.delete_topic("t")
        gate.open()
        with pytest.raises(chronik.LogClosedError):
            reading.outcome()


@pytest.mark.parametrize("name", ["create", "delete"])
def test_ctrl_c_at_any_step_of_a_change_keeps_nobody_waiting(name):
    """In front of the first step of `__exit__` it left the turn taken for ever: no topic was made
    or deleted any more, and the store could not be closed.
    """
    store = open_store(SimulatedDisk(seed=1))
    for ctrl_c in at_each_step(topic_changes):
        store.create_topic("t", exist_ok=True)
        with ctrl_c:
            if name == "create":
                store.create_topic("u", exist_ok=True)
            else:
                store.delete_topic("t")
        Task(lambda: store.create_topic("next", exist_ok=True)).outcome()
        store.delete_topic("next")
    Task(store.close).outcome()
