"""Two logs of one name, neither of which the bucket knows: exactly one goes on (protocol 5)."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from chronik_store import LogStore, open_bucket
from chronik_store.errors import ChronikError, UnavailableError
from chronik_store.pipeline import fence, publish
from chronik_store.restore import restore, takeover
from chronik_store.testing.crash import CrashError
from chronik_store.testing.disk_faults import crash_at
from chronik_store.testing.simulated_disk import SimulatedDisk
from tests.store.on_simulated_disk import CONFIG, URL, env_of, open_store
from tests.store.test_restore_lineage import filled


def appended(store: LogStore, topic: str, value: bytes, partition: int = 0):
    log = store.partition(topic, partition)
    log.append(value)
    log.seal()
    return log


def values(log):
    return [record.value for record in log.scan()]


def test_of_two_that_publish_first_at_the_same_moment_one_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each has put its first manifest, and sees the other's before that is taken back."""
    disk = SimulatedDisk()
    filled(disk)
    old = open_store(disk)
    old.create_topic("young")
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    new = open_store(disk, "/new")
    new.create_topic("young")
    logs = [appended(store, "young", name) for store, name in ((old, b"old"), (new, b"new"))]
    look, seen = fence.beside, []

    def both_look(store, topic, partition, log_id):
        if not seen:  # the old one: its rival puts, and looks
            seen.append(None)
            logs[1].run_pipeline_once()
            return seen[1]
        if len(seen) == 1:
            seen.append(look(store, topic, partition, logs[0].status().log_id))
        return look(store, topic, partition, log_id)

    monkeypatch.setattr(fence, "beside", both_look)
    logs[0].run_pipeline_once()
    for _ in range(3):
        for log in reversed(logs):
            log.run_pipeline_once()
    assert sorted(log.status().fenced for log in logs) == [False, True]
    (winner,) = (log for log in logs if not log.status().fenced)
    with open_bucket(URL, topic="young", config=CONFIG, env=env_of(disk)) as reader:
        assert values(reader) == values(winner)
    for store in (old, new):
        store.close()


@pytest.mark.parametrize("first", ["old", "new"])
def test_a_restore_takes_over_partitions_that_had_published_nothing(first: str) -> None:
    """Their old owner lives, and has records of them on its disk alone."""
    disk = SimulatedDisk()
    old = open_store(disk)
    old.create_topic("t", partitions=2)
    appended(old, "t", b"tiered", 1).run_pipeline_once()
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    new = open_store(disk, "/new")
    stores = {"old": old, "new": new}
    for who in [first, "new" if first == "old" else "old"]:
        appended(stores[who], "t", who.encode()).run_pipeline_once()
    assert old.partition("t").status().fenced
    assert not new.partition("t").status().fenced
    assert values(old.partition("t")) == [b"old"]
    with open_bucket(URL, topic="t", config=CONFIG, env=env_of(disk)) as reader:
        assert values(reader) == [b"new"]
    restore(URL, "/third", config=CONFIG, env=env_of(disk))
    with open_store(disk, "/third") as third:
        assert values(third.partition("t")) == [b"new"]
    for store in (old, new):
        store.close()


@pytest.mark.parametrize("published", ["before", "after, and looked", "after, and died"])
def test_an_old_owner_may_publish_first_while_it_is_taken_over(
    published: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right before the restore's own first manifest of the partition, or right behind it."""
    disk = SimulatedDisk()
    old = open_store(disk)
    old.create_topic("t", partitions=2)
    appended(old, "t", b"tiered", 1).run_pipeline_once()
    log = appended(old, "t", b"old")
    put = takeover._publish
    runs = [published]

    def interrupted(*arguments):
        run = runs.pop() if runs else ""
        if run == "before":
            log.run_pipeline_once()
        made = put(*arguments)
        if run.startswith("after"):
            with monkeypatch.context() as patch:
                if run.endswith("died"):
                    patch.setattr(publish, "check_is_alone", dies)
                log.run_pipeline_once()
        return made

    monkeypatch.setattr(takeover, "_publish", interrupted)
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    assert runs == []
    kept = [] if published == "after, and looked" else [b"old"]
    new = open_store(disk, "/new")
    assert values(new.partition("t")) == kept
    log.append(b"only here")
    log.seal()
    log.run_pipeline_once()
    assert log.status().fenced
    appended(new, "t", b"new").run_pipeline_once()
    with open_bucket(URL, topic="t", config=CONFIG, env=env_of(disk)) as reader:
        assert values(reader) == [*kept, b"new"]
    for store in (old, new):
        store.close()


@pytest.mark.parametrize("every", [7, pytest.param(2, marks=pytest.mark.slow)])
def test_a_crash_at_any_call_of_a_restore_keeps_the_place_for_it(every: int) -> None:
    """The old owner publishes right after the crash, or right after the next run."""
    calls = 0
    for at in itertools.count(1, every):
        disk = SimulatedDisk(seed=at)
        old = open_store(disk)
        old.create_topic("t", partitions=2)
        appended(old, "t", b"tiered", 1).run_pipeline_once()
        log = appended(old, "t", b"old")
        process = disk.another_process()
        process.hook = crash_at(at)
        with contextlib.suppress(CrashError, ChronikError):
            restore(URL, "/new", config=CONFIG, env=env_of(process))
            calls = at
        disk_of_new = process.kill()
        early = at % 2 == 0
        if early:
            log.run_pipeline_once()
        if disk_of_new.exists("/new/RESTORE") or not disk_of_new.exists("/new/STORE"):
            restore(URL, "/new", config=CONFIG, env=env_of(disk_of_new))
        log.append(b"late")
        log.seal()
        log.run_pipeline_once()
        assert log.status().fenced, at
        with open_store(disk_of_new, "/new") as new:
            log = new.partition("t")
            assert values(log) in ([b"old"], []), at
            kept = values(log)
            assert appended(new, "t", b"new").run_pipeline_once().errors == (), at
        with open_bucket(URL, topic="t", config=CONFIG, env=env_of(disk)) as reader:
            assert values(reader) == [*kept, b"new"], at
        old.close()
        if calls:
            break
    assert calls > 100


def test_a_restore_that_dies_before_it_looks_is_in_nobodys_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The old owner has published first right before, and goes on: the bucket was called torn, for
    its readers and for the restore that was run again.
    """
    disk = SimulatedDisk()
    old = open_store(disk)
    old.create_topic("t", partitions=2)
    appended(old, "t", b"tiered", 1).run_pipeline_once()
    log = appended(old, "t", b"0")
    put = takeover._publish

    def put_late(store, planned, first):
        if planned.partition == 0:
            log.run_pipeline_once()
        return put(store, planned, first)

    with monkeypatch.context() as patch:
        patch.setattr(takeover, "_publish", put_late)
        patch.setattr(takeover, "beside", dies)
        with pytest.raises(UnavailableError):
            restore(URL, "/new", config=CONFIG, env=env_of(disk))
    assert appended(old, "t", b"1").run_pipeline_once().errors == ()
    with open_bucket(URL, topic="t", config=CONFIG, env=env_of(disk)) as reader:
        assert values(reader) == [b"0", b"1"]
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    appended(old, "t", b"only here").run_pipeline_once()
    assert log.status().fenced
    with open_store(disk, "/new") as new:
        assert appended(new, "t", b"2").run_pipeline_once().errors == ()
        assert values(new.partition("t")) == [b"0", b"1", b"2"]
    with open_bucket(URL, topic="t", config=CONFIG, env=env_of(disk)) as reader:
        assert values(reader) == [b"0", b"1", b"2"]
    old.close()


def dies(*_arguments):
    raise UnavailableError("the bucket is away")


@pytest.mark.parametrize("first", ["old", "new"])
def test_partitions_of_one_name_are_of_one_topic(first: str) -> None:
    """Each owner made the topic, and publishes another partition first: the name would be torn, and
    the bucket could not be restored.
    """
    disk = SimulatedDisk()
    filled(disk)
    old = open_store(disk)
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    new = open_store(disk, "/new")
    owners = [old, new] if first == "old" else [new, old]
    for store in owners:
        store.create_topic("young", partitions=11)
    appended(owners[0], "young", b"10", 10).run_pipeline_once()
    late = appended(owners[1], "young", b"0", 0)
    assert "this name was taken" in str(late.run_pipeline_once().errors)
    assert late.status().fenced
    appended(owners[0], "young", b"0", 0).run_pipeline_once()
    restore(URL, "/third", config=CONFIG, env=env_of(disk))
    with open_store(disk, "/third") as third:
        assert values(third.partition("young", 10)) == [b"10"]
        assert values(third.partition("young", 0)) == [b"0"]
    for store in (old, new):
        store.close()


def two_owners(disk: SimulatedDisk) -> tuple[LogStore, LogStore]:
    """An old owner and a new one, which have both made a topic that the bucket knows nothing of."""
    filled(disk)
    old = open_store(disk)
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    new = open_store(disk, "/new")
    for store in (old, new):
        store.create_topic("young", partitions=4)
    return old, new


def died_before_it_looked(store: LogStore, value: bytes, partition: int):
    log = appended(store, "young", value, partition)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "check_is_alone", dies)
        log.run_pipeline_once()
    return log


def test_who_published_once_and_died_takes_no_name_from_one_that_has_it() -> None:
    disk = SimulatedDisk()
    old, new = two_owners(disk)
    for value in (b"0", b"1"):
        appended(new, "young", value, 1).run_pipeline_once()
    new.close()
    died_before_it_looked(old, b"late", 0)
    with open_store(disk, "/new") as new:
        assert appended(new, "young", b"2", 2).run_pipeline_once().errors == ()
        assert appended(new, "young", b"3", 3).run_pipeline_once().errors == ()
    old.close()


def test_a_partition_that_has_not_looked_does_not_vouch_for_another() -> None:
    """The first one's look failed; the name was somebody else's by then."""
    disk = SimulatedDisk()
    old, new = two_owners(disk)
    appended(old, "young", b"old", 3).run_pipeline_once()
    unseen = died_before_it_looked(new, b"1", 1)
    log = appended(new, "young", b"2", 2)
    assert "this name was taken" in str(log.run_pipeline_once().errors)
    assert "this name was taken" in str(unseen.run_pipeline_once().errors)
    for store in (old, new):
        store.close()


def test_a_restore_passes_over_who_published_once_and_died_before_it_looked() -> None:
    """In another partition than the topic that is in force: the name is not torn by that."""
    disk = SimulatedDisk()
    old, new = two_owners(disk)
    for value in (b"0", b"1"):
        appended(new, "young", value, 0).run_pipeline_once()
    late = died_before_it_looked(old, b"late", 1)
    appended(new, "young", b"2", 2).run_pipeline_once()
    restore(URL, "/third", config=CONFIG, env=env_of(disk))
    late.run_pipeline_once()
    assert late.status().fenced
    with open_store(disk, "/third") as third:
        assert values(third.partition("young", 0)) == [b"0", b"1"]
        assert values(third.partition("young", 1)) == []
        assert appended(third, "young", b"new", 1).run_pipeline_once().errors == ()
    with open_bucket(URL, topic="young", partition=1, config=CONFIG, env=env_of(disk)) as reader:
        assert values(reader) == [b"new"]
    for store in (old, new):
        store.close()


def test_what_is_left_of_a_deleted_namesake_takes_no_name() -> None:
    """Its manifests are still there, behind its tombstone: the deletion was cut short."""
    disk = SimulatedDisk()
    with open_store(disk) as store:
        store.create_topic("t", partitions=2)
        appended(store, "t", b"gone", 1).run_pipeline_once()
        left = {path: disk.peek(path) for path in disk.paths("/bucket/manifests")}
        store.delete_topic("t")
        for path, data in left.items():
            file = disk.create(path)
            file.write_at(0, [data])
            file.close()
        store.create_topic("t", partitions=2)
        report = appended(store, "t", b"new", 0).run_pipeline_once()
        assert report.errors == ()
        assert not store.partition("t").status().fenced
