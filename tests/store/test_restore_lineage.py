"""What a restored log takes over, and what becomes of two restores of one log (protocol 2, 5)."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from chronik_store import LogStore
from chronik_store.errors import (
    ChronikError,
    CorruptionError,
    FencedError,
)
from chronik_store.format.manifest_file import (
    IntentItem,
    LogBase,
    ManifestObject,
    decode_manifest_object,
)
from chronik_store.format.record_batch import RecordBatch
from chronik_store.format.store_file import TopicEntry
from chronik_store.lineage import FIRST_NUMBER
from chronik_store.manifest.state import empty_manifest
from chronik_store.objectstore.base import ObjectNotFoundError
from chronik_store.objectstore.layout import manifest_key, parse_manifest_key
from chronik_store.objectstore.local import LocalObjectStore
from chronik_store.replicated import sweep_topic
from chronik_store.restore import restore
from chronik_store.restore.succession import Kept, succeed
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.topic_deletion import OwnLog, is_taken_over
from tests.store.on_simulated_disk import CONFIG, URL, copy_directory, env_of, open_store


def batch(sequence: int) -> RecordBatch:
    return RecordBatch.build([b"%d" % sequence], producer_id=7, base_sequence=sequence)


def filled(disk: SimulatedDisk, segments: int = 2) -> None:
    with open_store(disk) as store:
        store.create_topic("t")
        log = store.partition("t")
        for sequence in range(segments):
            log.append(batch(sequence))
            log.seal()
        while not log.run_pipeline_once().idle:
            pass


def manifests(disk: SimulatedDisk) -> list[tuple[Any, ManifestObject]]:
    found = []
    for path in disk.paths("/bucket/manifests"):
        key = parse_manifest_key(path.removeprefix("/bucket/"))
        assert key is not None
        found.append((key, decode_manifest_object(disk.peek(path))))
    return found


def test_a_cut_at_the_end_of_a_segment_forgets_the_producers_behind_it() -> None:
    """Or what they send again would be swallowed as a duplicate of what was cut off."""
    disk = SimulatedDisk()
    filled(disk)
    restore(URL, "/new", until_offset=1, config=CONFIG, env=env_of(disk))
    with open_store(disk, "/new") as store:
        log = store.partition("t")
        assert log.append(batch(0)).duplicate
        assert (1, 2, False) == log.append(batch(1))


@pytest.mark.parametrize(
    ("limits", "end"), [({"until_offset": 8}, 8), ({"until_us": 1}, 8), ({"until_offset": 9}, 9)]
)
def test_a_log_that_begins_behind_dropped_offsets_is_cut_there(
    limits: dict[str, int], end: int
) -> None:
    """Entry 1 of a log that was restored without any record holds the offset that it began at."""
    disk = SimulatedDisk()
    with open_store(disk) as store:
        store.create_topic("t")
        log = store.partition("t")
        log.append([b"dropped"] * 8)
        log.drop_before(8)
        log.run_pipeline_once()
    restore(URL, "/empty", config=CONFIG, env=env_of(disk))
    with open_store(disk, "/empty") as store:
        log = store.partition("t")
        log.append([b"8", b"9"])
        log.seal()
        log.run_pipeline_once()
    report = restore(URL, "/cut", **limits, config=CONFIG, env=env_of(disk))
    assert (8, end) == (report.logs[0].start_offset, report.logs[0].end_offset)
    with open_store(disk, "/cut") as store:
        log = store.partition("t")
        assert (end, end + 1, False) == log.append(batch(0))
        publish(store, 1)
        assert [*[b"8"][: end - 8], b"0", b"1"] == [each.value for each in log.scan()]
        findings = log.verify(bucket=True, deep=True).findings
        assert not [each for each in findings if each.severity != "note"]


def test_the_term_is_above_every_one_that_the_old_log_had() -> None:
    disk = SimulatedDisk()
    filled(disk)
    for number in range(3):  # each open has a term of its own; no segment is of the later ones
        with open_store(disk) as store:
            log = store.partition("t")
            log.cursor("c").commit(number, reset=True)
            if number == 2:
                log.drop_before(1)
                log.run_pipeline_once()
    old = [found.term for _, found in manifests(disk)]
    assert max(old) > 2
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    (first,) = [found for _, found in manifests(disk) if found.term not in old]
    assert first.term > max(old)


def racing(act: Any) -> Any:
    """`put_if_absent`, with `act` before the first put of a new log's first manifest."""
    put = LocalObjectStore.put_if_absent
    seen: set[str] = set()

    def put_if_absent(self: Any, key: str, data: Any) -> Any:
        parsed = parse_manifest_key(key)
        if parsed is not None and parsed.number == FIRST_NUMBER and not seen:
            seen.add(key)
            if decode_manifest_object(bytes(data)).successor is None:
                act(self, put, parsed, data)
        return put(self, key, data)

    return put_if_absent


def test_a_restore_that_is_overtaken_before_its_first_manifest_is_told() -> None:
    disk = SimulatedDisk()
    filled(disk)

    def overtake(_store: Any, _put: Any, _key: Any, _data: Any) -> None:
        restore(URL, "/other", config=CONFIG, env=env_of(disk))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalObjectStore, "put_if_absent", racing(overtake))
        with pytest.raises(FencedError, match="taken over"):
            restore(URL, "/new", config=CONFIG, env=env_of(disk))
    assert not disk.exists("/new/STORE")
    with open_store(disk, "/other") as store:
        assert (2, 3, False) == store.partition("t").append(b"goes on")


def test_a_first_manifest_that_was_collected_long_ago_is_not_made_anew() -> None:
    """An image of a restore that was finished elsewhere, run once more."""
    disk = SimulatedDisk()
    filled(disk)

    def went_on(store: Any, put: Any, key: Any, data: Any) -> None:
        put(store, manifest_key(key.topic, key.partition, key.log_id, FIRST_NUMBER + 70), data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalObjectStore, "put_if_absent", racing(went_on))
        with pytest.raises(FencedError, match="taken over"):
            restore(URL, "/new", config=CONFIG, env=env_of(disk))


def test_of_what_was_announced_bundles_are_garbage_and_segments_stay() -> None:
    """A segment that was never listed may hold the only copy of what was acknowledged."""
    old = empty_manifest("t", 0, "a" * 32, "b" * 32)
    intents = (IntentItem(("a.seg",), 3, 1, 5, 0), IntentItem(("b.idx",), 0, 1, 6, 0))
    announced = ManifestObject(dataclasses.replace(old, intents=intents), 1, 6, "5" * 16)
    kept = Kept((), LogBase(0, 0, 0, 0), (), None, 0)

    first = succeed(announced, "5" * 16, kept, log_id="c" * 32, now_us=7)

    assert ["b.idx"] == [item.key for item in first.manifest.garbage]
    assert () == first.manifest.intents


def test_what_was_sealed_and_not_uploaded_is_reported_as_missing() -> None:
    disk = SimulatedDisk()
    filled(disk, segments=1)
    with open_store(disk) as store:
        log = store.partition("t")
        log.append(batch(1))
        log.seal()
        disk.hook = fail_next("link", 5, path_end=".seg", times=1 << 30)
        log.run_pipeline_once()
        disk.hook = None
    report = restore(URL, "/new", config=CONFIG, env=env_of(disk))
    assert (1, ((1, 2),)) == (report.logs[0].end_offset, report.logs[0].missing)


@pytest.mark.parametrize("knows", [True, False])
def test_a_topic_that_was_taken_over_is_deleted_here_and_not_in_the_bucket(knows: bool) -> None:
    """The old owner deletes nothing any more, whether it has noticed or not (protocol 5, 6)."""
    disk = SimulatedDisk()
    filled(disk)
    with open_store(disk) as old:
        log = old.partition("t")
        restore(URL, "/new", config=CONFIG, env=env_of(disk))
        if knows:
            log.append(b"not in the bucket")
            log.seal()
            log.run_pipeline_once()
            assert log.status().fenced
        objects = disk.paths("/bucket")
        old.delete_topic("t")
        assert old.topics() == ()
        assert objects == disk.paths("/bucket")
    with open_store(disk, "/new") as store:
        log = store.partition("t")
        assert [b"0", b"1"] == [each.value for each in log.scan()]
        assert not [each for each in log.verify(bucket=True).findings if each.severity != "note"]
        store.delete_topic("t")  # whose it is may delete it
    left = [path for path in disk.paths("/bucket") if "/segments/" in path or ".cbor" in path]
    assert left == []


def publish(store: LogStore, *sequences: int) -> None:
    log = store.partition("t")
    for sequence in sequences:
        log.append(batch(sequence))
        log.seal()
        log.run_pipeline_once()
    while not log.run_pipeline_once().idle:
        pass


@pytest.mark.parametrize("knows", [True, False])
def test_a_copy_of_a_directory_does_not_delete_what_the_original_goes_on_with(knows: bool) -> None:
    disk = SimulatedDisk()
    filled(disk)
    copy_directory(disk, "/old", "/copy")
    with open_store(disk) as store, open_store(disk, "/copy") as copy:
        publish(store, *range(2, 3 if knows else 6))
        if knows:  # by a number that might be its own, were it not for what stands there
            log = copy.partition("t")
            log.append(b"another history")
            log.seal()
            log.run_pipeline_once()
            assert log.status().fenced
        objects = disk.paths("/bucket")
        copy.delete_topic("t")
        assert objects == disk.paths("/bucket")


@pytest.mark.parametrize("whose", ["the old log's", "the new log's", "nobody knows"])
def test_a_sweep_of_a_cluster_looks_whose_it_is(whose: str) -> None:
    """Logs that were taken over, or that others took over from us, carry the topic's id, too."""
    disk = SimulatedDisk()
    filled(disk)
    with open_store(disk) as store:
        old = store.partition("t").status()
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    with open_store(disk, "/new") as store:
        new = store.partition("t").status()
        assert old.topic_id == new.topic_id
        entry = TopicEntry("t", old.topic_id, 1, "deleting")
        logs = {"the old log's": old.log_id, "the new log's": new.log_id}
        own = {0: OwnLog(logs[whose])} if whose in logs else {}
        is_ours = whose == "the new log's"
        assert is_taken_over(store._bucket.store, entry, own) is not is_ours
        if own:
            objects = disk.paths("/bucket/segments")
            sweep_topic(store, "t", old.topic_id, [own[0].log_id])
            assert disk.paths("/bucket/segments") == ([] if is_ours else objects)


def test_one_partition_that_is_ours_says_so_for_those_that_are_not_here() -> None:
    """As on a node that has some of them: the claim that it sees is of the log before its own."""
    disk = SimulatedDisk()
    with open_store(disk) as store:
        store.create_topic("t", partitions=2)
        for partition in range(2):
            store.partition("t", partition).append(b"x")
            store.partition("t", partition).seal()
        while not store.run_pipeline_once().idle:
            pass
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    with open_store(disk, "/new") as store:
        new = store.partition("t", 1).status()
        entry = TopicEntry("t", new.topic_id, 2, "deleting")
        assert is_taken_over(store._bucket.store, entry, {})
        assert not is_taken_over(store._bucket.store, entry, {1: OwnLog(new.log_id, 1)})


def test_a_topic_that_is_deleted_before_it_is_claimed_does_not_come_back_empty() -> None:
    """Under an id with a tombstone nobody would ever see what it publishes."""
    disk = SimulatedDisk()
    filled(disk)
    with open_store(disk) as old:
        old.create_topic("other")
        old.partition("other").append(b"x")
        old.partition("other").seal()
        old.run_pipeline_once()
        disk.hook = fail_next("link", 5, path_end=".cbor")
        with pytest.raises(ChronikError):
            restore(URL, "/new", config=CONFIG, env=env_of(disk))
        disk.hook = None
        old.delete_topic("t")
    report = restore(URL, "/new", config=CONFIG, env=env_of(disk))
    assert ["other"] == [each.topic for each in report.logs]
    with open_store(disk, "/new") as store:
        assert ["other"] == [topic.name for topic in store.topics()]
        store.create_topic("t")
        publish(store, 0)
    restore(URL, "/again", config=CONFIG, env=env_of(disk))
    with open_store(disk, "/again") as store:
        assert [b"0"] == [each.value for each in store.partition("t").scan()]


def test_two_logs_of_which_none_names_the_other_are_not_chosen_from() -> None:
    """Two stores wrote under one prefix: whichever were taken, the other's records would go."""
    disk, stranger = SimulatedDisk(seed=1), SimulatedDisk(seed=2)
    for each in (disk, stranger):
        filled(each)
    for path in stranger.paths("/bucket/manifests"):
        disk.make_directories(path.rpartition("/")[0])
        file = disk.create(path)
        file.write_at(0, [stranger.peek(path)])
        file.close()
    with pytest.raises(CorruptionError, match="none names another"):
        restore(URL, "/new", config=CONFIG, env=env_of(disk))
    assert not disk.exists("/new/STORE")


def test_a_manifest_that_is_collected_while_it_is_looked_at_is_looked_for_again() -> None:
    disk = SimulatedDisk()
    filled(disk)
    get, late = LocalObjectStore.get, []

    def collected_first(store: Any, key: str) -> bytes:
        if parse_manifest_key(key) is not None and not late:
            late.append(key)
            raise ObjectNotFoundError(key)
        return get(store, key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalObjectStore, "get", collected_first)
        report = restore(URL, "/new", config=CONFIG, env=env_of(disk))
    assert late
    assert report.logs[0].end_offset == 2
