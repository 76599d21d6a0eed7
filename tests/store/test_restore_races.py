"""Who was first: old owner, deletion, restore and reader meet in one bucket (protocol 5)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from chronik_store import LogStore, lineage, open_bucket
from chronik_store.clock import SystemEntropy
from chronik_store.environment import Environment
from chronik_store.errors import FencedError, TopicNotFoundError, UnavailableError
from chronik_store.objectstore.layout import parse_manifest_key
from chronik_store.objectstore.local import LocalObjectStore
from chronik_store.pipeline import fence, publish
from chronik_store.restore import restore
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.simulated_disk import SimulatedDisk
from tests.store.on_simulated_disk import CONFIG, URL, env_of, open_store
from tests.store.test_restore_lineage import filled, manifests


@pytest.mark.parametrize("looked", [True, False], ids=["looked before", "looks now"])
def test_an_old_owner_does_not_begin_anew_where_the_new_one_has_deleted_its_topic(
    looked: bool,
) -> None:
    """The claim that fenced it went with the topic: its next number is free again."""
    disk = SimulatedDisk()
    filled(disk)
    old = open_store(disk)
    log = old.partition("t")
    if looked:
        log.append(b"one more")
        log.seal()
        log.run_pipeline_once()
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    with open_store(disk, "/new") as store:
        store.delete_topic("t")
    log.append(b"nobody else has this")
    log.seal()
    report = log.run_pipeline_once()
    assert "was deleted" in str(report.errors)
    assert log.status().fenced
    log.run_pipeline_once()
    assert [path for path in disk.paths("/bucket/manifests") if path.endswith(".cbor")] == []
    assert next(log.scan(log.watermarks.end - 1)).value == b"nobody else has this"
    old.close()


@pytest.mark.parametrize("first", ["old", "new"])
def test_of_two_owners_that_make_one_name_the_first_to_publish_has_it(first: str) -> None:
    """A restore claims what has a manifest; what the old owner has on its disk alone has none."""
    disk = SimulatedDisk()
    filled(disk)
    old = open_store(disk)
    old.create_topic("young")
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    new = open_store(disk, "/new")
    new.create_topic("young")
    stores = {"old": old, "new": new}
    order = ["old", "new"] if first == "old" else ["new", "old"]
    reports = []
    for who in order:
        log = stores[who].partition("young")
        log.append(who.encode())
        log.seal()
        reports.append(log.run_pipeline_once())
    assert reports[0].errors == ()
    assert "this name was taken" in str(reports[1].errors)
    late = stores[order[1]].partition("young")
    assert late.status().fenced
    assert [order[1].encode()] == [record.value for record in late.scan()]
    late.append(b"kept here")
    late.seal()
    late.run_pipeline_once()
    with open_bucket(URL, topic="young", config=CONFIG, env=env_of(disk)) as log:
        assert [first.encode()] == [record.value for record in log.scan()]
    for store in stores.values():
        store.close()


def test_who_published_second_and_died_before_it_looked_is_in_nobodys_way() -> None:
    """Nor is one that cannot look, since the bucket went away right then."""
    disk = SimulatedDisk()
    filled(disk)
    old = open_store(disk)
    old.create_topic("young")
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    new = open_store(disk, "/new")
    new.create_topic("young")
    for store, values in ((old, (b"0", b"1")), (new, (b"other",))):
        log = store.partition("young")
        for value in values:
            log.append(value)
            log.seal()
            with pytest.MonkeyPatch.context() as patch:
                if store is new:
                    patch.setattr(publish, "check_is_alone", fail)
                log.run_pipeline_once()
    with open_bucket(URL, topic="young", config=CONFIG, env=env_of(disk)) as reader:
        assert [b"0", b"1"] == [record.value for record in reader.scan()]
    restore(URL, "/third", config=CONFIG, env=env_of(disk))
    with open_store(disk, "/third") as third:
        assert [b"0", b"1"] == [record.value for record in third.partition("young").scan()]
    assert "this name was taken" in str(new.partition("young").run_pipeline_once().errors)
    for store in (old, new):
        store.close()


def fail(*_arguments: object) -> None:
    raise UnavailableError("the bucket is away")


def test_a_first_manifest_that_was_claimed_before_its_owner_knew_is_not_taken_back() -> None:
    """Its reply was lost; the new owner goes on from it."""
    disk = SimulatedDisk()
    with open_store(disk) as store:
        store.create_topic("t")
        log = store.partition("t")
        log.append(b"0")
        log.seal()
        put = LocalObjectStore.put_if_absent

        def lost(self: Any, key: str, data: Any) -> Any:
            outcome = put(self, key, data)
            if parse_manifest_key(key) is not None:
                raise UnavailableError("no reply", durability="unknown")
            return outcome

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LocalObjectStore, "put_if_absent", lost)
            assert "no reply" in str(log.run_pipeline_once().errors)
        restore(URL, "/new", config=CONFIG, env=env_of(disk))
        before = [key.number for key, _ in manifests(disk)]
        assert "a restore has claimed" in str(log.run_pipeline_once().errors)
        assert log.status().fenced
        assert before == [key.number for key, _ in manifests(disk)]


def at_put(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Run `act` before the first put of a manifest of that number."""
    put = LocalObjectStore.put_if_absent
    done: list[str] = []

    def put_if_absent(self: Any, key: str, data: Any) -> Any:
        parsed = parse_manifest_key(key)
        if parsed is not None and parsed.number == number and not done:
            done.append(key)
            act()
        return put(self, key, data)

    monkeypatch.setattr(LocalObjectStore, "put_if_absent", put_if_absent)


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_topic_that_is_restored_in_the_middle_of_its_deletion_is_the_new_owners(
    monkeypatch: pytest.MonkeyPatch, partitions: int
) -> None:
    """The old owner has looked, and found no claim: its farewell is what is refused."""
    disk = SimulatedDisk()
    filled_partitions(disk, partitions)
    with open_store(disk) as old:
        at_put(monkeypatch, 2, lambda: restore(URL, "/new", config=CONFIG, env=env_of(disk)))
        old.delete_topic("t")
        assert old.topics() == ()
    with open_store(disk, "/new") as store:
        for partition in range(partitions):
            log = store.partition("t", partition)
            assert [b"x"] == [each.value for each in log.scan()]
            assert log.verify(bucket=True).findings == ()
    assert not [path for path in disk.paths("/bucket") if path.endswith(".tombstone")]


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_topic_that_is_deleted_in_the_middle_of_its_restore_is_not_restored(
    monkeypatch: pytest.MonkeyPatch, partitions: int
) -> None:
    """The restore has looked, and found it alive: its claim is what is refused. The deletion itself
    gets no further than that, and is finished later."""
    disk = SimulatedDisk()
    filled_partitions(disk, partitions)
    with open_store(disk) as old:

        def begin_to_delete() -> None:
            disk.hook = fail_next("link", 5, path_end=".tombstone")
            old.delete_topic("t")
            disk.hook = None

        at_put(monkeypatch, 2, begin_to_delete)
        report = restore(URL, "/new", config=CONFIG, env=env_of(disk))
        assert report.logs == ()
        with pytest.raises(TopicNotFoundError):
            open_bucket(URL, topic="t", config=CONFIG, env=env_of(disk))
        assert old.run_pipeline_once().errors == ()
    with open_store(disk, "/new") as store:
        assert store.topics() == ()
    assert not [path for path in disk.paths("/new/wal") if "/t/" in path]
    left = [path for path in disk.paths("/bucket") if "/segments/" in path or ".cbor" in path]
    assert left == []


def tier(store: LogStore, topic: str, value: bytes, partition: int = 0) -> None:
    log = store.partition(topic, partition)
    log.append(value)
    log.seal()
    assert log.run_pipeline_once().errors == ()


def cut_off(disk: SimulatedDisk) -> None:
    """A restore that has its plan, and has claimed nothing."""
    disk.hook = fail_next("link", 5, path_end=".cbor")
    with pytest.raises(UnavailableError):
        restore(URL, "/new", config=CONFIG, env=env_of(disk))
    disk.hook = None


def shown(store: LogStore) -> dict[tuple[str, int], list[bytes]]:
    return {
        (topic.name, number): [each.value for each in store.partition(topic.name, number).scan()]
        for topic in store.topics()
        for number in range(topic.partitions)
    }


def test_a_namesake_that_came_since_the_plan_is_not_taken_for_the_one_that_it_names() -> None:
    """Its records came under the old one's id: what was uploaded next was damage to `verify`, and
    a deletion left manifests of objects that it had deleted.
    """
    disk = SimulatedDisk()
    with open_store(disk) as old:
        old.create_topic("t")
        tier(old, "t", b"first life")
        cut_off(disk)
        old.delete_topic("t")
        topic_id = old.create_topic("t").topic_id
        tier(old, "t", b"second life")
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    with open_store(disk, "/new") as new:
        assert [topic_id] == [topic.topic_id for topic in new.topics()]
        tier(new, "t", b"goes on")
        assert {("t", 0): [b"second life", b"goes on"]} == shown(new)
        assert new.partition("t").verify(bucket=True, deep=True).ok
        new.delete_topic("t")
    assert [] == [path for path in disk.paths("/bucket/manifests") if path.endswith(".cbor")]


@pytest.mark.parametrize("when", ["before it is run again", "while it runs"])
def test_what_is_published_behind_the_plan_is_restored_too(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SimulatedDisk()
    with open_store(disk) as old:
        old.create_topic("t")
        tier(old, "t", b"0")

        def go_on() -> None:
            old.create_topic("t", partitions=3, exist_ok=True)
            tier(old, "t", b"2", partition=2)
            old.create_topic("young")
            tier(old, "young", b"y")

        if when == "while it runs":
            module = sys.modules["chronik_store.restore"]
            take = module.restore_log

            def taking(*arguments: Any) -> Any:
                if not old.topics()[1:]:
                    go_on()
                return take(*arguments)

            monkeypatch.setattr(module, "restore_log", taking)
        else:
            cut_off(disk)
            go_on()
        report = restore(URL, "/new", config=CONFIG, env=env_of(disk))
    assert 4 == len(report.logs)
    with open_store(disk, "/new") as new:
        whole = {("t", 0): [b"0"], ("t", 1): [], ("t", 2): [b"2"], ("young", 0): [b"y"]}
        assert whole == shown(new)


def test_what_came_and_is_nobodys_for_certain_does_not_stop_a_restore(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the first claim: whoever is fenced by then has no bucket, and the new one none yet.

    A name is torn so by stores of a version that looked at its own partition alone.
    """
    monkeypatch.setattr(fence, "namesake", lambda *_place: None)
    disk = SimulatedDisk()
    with open_store(disk) as old:
        old.create_topic("t")
        tier(old, "t", b"0")
        restore(URL, "/other", config=CONFIG, env=env_of(disk))
        with open_store(disk, "/other") as other:
            cut_off(disk)
            for partition, store in enumerate((old, other)):
                store.create_topic("young", partitions=2)
                tier(store, "young", b"y", partition=partition)
    report = restore(URL, "/new", config=CONFIG, env=env_of(disk))
    assert ["t"] == [each.topic for each in report.logs]
    assert "what came of topic young meanwhile is left out" in caplog.text
    assert "two owners have made a topic of this name" in caplog.text
    with open_store(disk, "/new") as new:
        assert {("t", 0): [b"0"]} == shown(new)


def filled_partitions(disk: SimulatedDisk, partitions: int) -> None:
    """A manifest in each."""
    with open_store(disk) as store:
        store.create_topic("t", partitions=partitions)
        for partition in range(partitions):
            store.partition("t", partition).append(b"x")
            store.partition("t", partition).seal()
        while not store.run_pipeline_once().idle:
            pass


@pytest.mark.parametrize("published", [True, False], ids=["published", "begun empty"])
def test_of_two_restores_at_once_one_has_all_partitions(
    published: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one comes when the first has one partition, and is done before that goes on: the
    first took the other partition back, and each had a part of the topic.
    """
    disk = SimulatedDisk()
    filled_partitions(disk, 2)
    if not published:
        disk.remove(next(path for path in disk.paths("/bucket/manifests/t/0")))
    module = sys.modules["chronik_store.restore"]
    take, calls = module.restore_log, []

    def taking(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            restore(URL, "/other", config=CONFIG, env=env_of(disk))
        return take(*arguments)

    monkeypatch.setattr(module, "restore_log", taking)
    with pytest.raises(FencedError, match="t/0 was taken over from this restore"):
        restore(URL, "/new", config=CONFIG, env=env_of(disk))
    with pytest.raises(FencedError, match="t/0 was taken over from this restore"):
        restore(URL, "/new", config=CONFIG, env=env_of(disk))
    with open_store(disk, "/other") as other:
        for partition in range(2):
            tier(other, "t", b"more", partition)
            log = other.partition("t", partition)
            assert not log.status().fenced
            kept = [b"x"] if partition or published else []
            assert [*kept, b"more"] == [each.value for each in log.scan()]


class ChosenId(SystemEntropy):
    """All ids are of this byte: the place of a log in a listing."""

    def __init__(self, byte: bytes) -> None:
        self.byte = byte

    def token_bytes(self, count: int) -> bytes:
        return self.byte * count


@pytest.mark.parametrize("page", [1, 1000])
def test_a_restore_between_two_pages_of_a_listing_is_no_damage(
    monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    """The claim stands before what was listed last, the log that it names behind it."""
    disk = SimulatedDisk()
    filled(disk)
    first, last = (
        Environment(fs=disk, threads=MortalThreads(), entropy=ChosenId(byte))
        for byte in (b"\x00", b"\xff")
    )
    restore(URL, "/first", config=CONFIG, env=first)
    looks = LocalObjectStore.list
    restored: list[object] = []

    def restored_meanwhile(self: Any, prefix: str, **options: Any) -> Any:
        found = looks(self, prefix, **options)
        if not restored and found and parse_manifest_key(found[-1].key).log_id != "00" * 16:
            restored.append(None)
            restore(URL, "/last", config=CONFIG, env=last)
        return found

    monkeypatch.setattr(lineage, "PAGE", page)
    monkeypatch.setattr(LocalObjectStore, "list", restored_meanwhile)
    with open_bucket(URL, topic="t", config=CONFIG, env=env_of(disk)) as log:
        assert [b"0", b"1"] == [record.value for record in log.scan()]
        assert log.status().log_id == "ff" * 16
