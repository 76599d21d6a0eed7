"""Published manifests: dense, adopted when they are ours, a fence when they are not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from chronik_store.format.control import DropPrefix, Members
from chronik_store.format.manifest_file import ManifestObject, decode_manifest_object
from chronik_store.objectstore.layout import manifest_key, tombstone_key
from chronik_store.pipeline import collect

SUCCESSOR = "cc" * 16


def key_of(kit: Any, number: int) -> str:
    return manifest_key("t", 0, kit.LOG_ID, number)


def read(world: Any, kit: Any, number: int) -> ManifestObject:
    return decode_manifest_object(world.objects.get(key_of(kit, number)))


def numbers(world: Any) -> list[int]:
    return [int(key[-25:-5]) for key in world.object_keys("manifests/")]


def sequences(found: ManifestObject) -> list[int]:
    return [each.last_sequence for each in found.producers]


def tiered(kit: Any, runs: int = 1, **config: Any) -> tuple[Any, Any]:
    world = kit.World(**config)
    process = world.open()
    for _ in range(runs):
        process.append(5)
        process.drain()
    return world, process


def test_numbers_are_dense_and_chained_by_hash(kit: Any) -> None:
    from chronik_store.format.checksum import content_hash

    world, process = tiered(kit, runs=3)
    assert numbers(world) == [1, 2, 3]
    for number in (2, 3):
        before = world.objects.get(key_of(kit, number - 1))
        assert read(world, kit, number).predecessor_hash == content_hash(before)
    assert process.manifest.published_number == 3


def test_nothing_is_published_without_a_change(kit: Any) -> None:
    world, process = tiered(kit)
    for _ in range(3):
        process.append(1)
        process.run()
    assert numbers(world) == [1]


def test_the_object_lists_what_is_committed_and_says_up_to_which_entry(kit: Any) -> None:
    world, process = tiered(kit)
    found = read(world, kit, 1)
    assert found.manifest.segments == process.manifest.segments
    assert found.folded_to == found.manifest.generation == process.manifest.published_folded_to
    assert found.term == world.term


def test_a_manifest_whose_published_was_lost_is_adopted(kit: Any) -> None:
    world = kit.World()
    process = world.open()
    process.append(5)
    process.bucket.fail["reply"] = lambda key: kit.lost(key) if "manifests" in key else None
    assert "503" in process.run().errors[0]
    assert numbers(world) == [1]
    again = world.open()
    again.append(5)
    again.drain()
    assert numbers(world) == [1, 2]
    assert again.manifest.published_number == 2
    assert again.manifest.published_folded_to == again.manifest.generation


def claim(world: Any, kit: Any, number: int) -> None:
    """What `restore` puts: the next number, naming a successor."""
    newest = read(world, kit, number - 1)
    body = dataclasses.replace(newest, successor=SUCCESSOR).encode()
    world.objects.put_if_absent(key_of(kit, number), body)


def test_a_successor_fences_this_log_for_good(kit: Any) -> None:
    """Protocol 5, S3; known bug 19."""
    world, process = tiered(kit)
    claim(world, kit, 2)
    process.append(5)
    held = world.wal_offsets()
    report = process.run()
    assert "has claimed the folder" in report.errors[-1]
    fenced = process.manifest.fenced
    assert fenced is not None
    assert (fenced.successor_log_id, fenced.number) == (SUCCESSOR, 2)
    assert process.run().idle
    objects = world.object_keys()
    process.append(5)
    assert process.run().idle
    assert world.open().run().idle
    assert world.object_keys() == objects
    assert held <= world.wal_offsets()


def test_a_reopened_log_finds_the_claim_before_it_puts_anything(kit: Any) -> None:
    world, _ = tiered(kit)
    claim(world, kit, 2)
    objects = world.object_keys()
    process = world.open()
    process.append(5)
    process.run()
    assert process.manifest.fenced is not None
    assert world.object_keys() == objects


def copy_of(world: Any, kit: Any) -> Any:
    """The same directory on a second machine, over the same bucket."""
    twin = kit.World()
    twin.config = world.config
    twin.objects = world.objects
    twin.entries = list(world.entries)
    twin.files = [dataclasses.replace(each) for each in world.files]
    twin.acked = list(world.acked)
    twin.term = world.term
    return twin


def test_of_two_copies_of_a_log_the_slower_one_is_fenced(kit: Any) -> None:
    """Protocol 5, S1."""
    world, process = tiered(kit)
    twin = copy_of(world, kit)
    other = twin.open()
    other.append(6)
    process.append(5)
    process.drain()
    report = other.run()
    assert "belongs to" in report.errors[-1]
    assert other.manifest.fenced is not None
    assert set(range(5, 11)) <= twin.wal_offsets()
    process.append(5)
    process.drain()


def test_a_copy_that_is_many_numbers_behind_is_fenced_before_its_first_put(kit: Any) -> None:
    """Protocol 11."""
    world, process = tiered(kit)
    twin = copy_of(world, kit)
    for _ in range(3):
        process.append(5)
        process.drain()
    objects = world.object_keys()
    other = twin.open()
    other.append(5)
    assert "may be an old copy" in other.run().errors[0]
    assert world.object_keys() == objects


def test_a_collected_number_cannot_be_taken_by_a_sleeper(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known bug 32."""
    monkeypatch.setattr("chronik_store.pipeline.collect.MANIFESTS_KEPT", 4)
    world, process = tiered(kit)
    twin = copy_of(world, kit)
    sleeper = twin.open()
    sleeper.append(5)
    woken = []

    def wake(key: str) -> Exception | None:
        # Between the sleeper's check of the folder and its put the other goes on for long.
        if key == key_of(kit, 2) and not woken:
            woken.append(True)
            for _ in range(8):
                process.append(5)
                process.drain()
        return None

    sleeper.bucket.fail["put"] = wake
    report = sleeper.run()
    assert woken
    assert key_of(kit, 2) in world.object_keys()
    assert "old copy" in report.errors[-1]
    assert sleeper.manifest.published_number == 1
    process.append(5)
    process.drain()
    assert key_of(kit, 2) not in world.object_keys()


def test_another_bucket_under_the_same_url_stops_tiering(kit: Any) -> None:
    world, _ = tiered(kit)
    for key in world.object_keys("manifests/"):
        world.objects.delete([key])
    process = world.open()
    process.append(5)
    report = process.run()
    assert "manifest 1 of t/0 is not there" in report.errors[0]
    assert report.uploaded == 0
    assert set(range(5, 10)) <= world.wal_offsets()


def test_what_was_published_since_the_topic_was_deleted_goes_with_the_topic(kit: Any) -> None:
    """Its put arrived late, behind the deletion: else the bucket would show the topic again."""
    world = kit.World()
    process = world.open()
    process.append(5)
    process.bucket.fail["reply"] = lambda key: kit.lost(key) if "manifests" in key else None
    process.run()
    process.bucket.fail.clear()
    assert 1 == len(world.object_keys("manifests/"))
    tombstone = tombstone_key("t", kit.TOPIC_ID)
    world.objects.put_if_absent(tombstone, kit.TOPIC_ID.encode())

    assert "was deleted" in process.run().errors[-1]

    assert [tombstone] == world.object_keys("manifests/")
    assert world.folded().manifest.fenced is not None
    assert set(range(5)) == world.wal_offsets()


def test_a_running_log_notices_that_its_newest_manifest_is_lost(kit: Any) -> None:
    """Before its next upload, and again in each run until it is back."""
    world, process = tiered(kit, runs=2)
    key = key_of(kit, 2)
    body = world.objects.get(key)
    world.objects.delete([key])
    objects = world.object_keys()
    process.append(5)
    for _ in range(2):
        report = process.run()
        assert "manifest 2 of t/0 is not there" in report.errors[0]
        assert objects == world.object_keys()
        assert set(range(10, 15)) <= world.wal_offsets()
    assert process.manifest.fenced is None

    world.objects.put_if_absent(key, body)
    process.drain()
    assert numbers(world) == [1, 2, 3]


def test_a_run_asks_for_the_newest_manifest_once_and_an_idle_one_asks_nothing(kit: Any) -> None:
    world, process = tiered(kit, runs=2)

    def looks() -> list[str]:
        return [key for verb, key in process.bucket.calls if verb == "head" and "manifests" in key]

    process.bucket.calls.clear()
    for _ in range(3):
        assert process.run().idle
    assert [] == process.bucket.calls

    process.append(5)
    report = process.run()
    assert (1, 1) == (report.uploaded, report.published)
    assert report.pruned_files > 0
    assert [key_of(kit, 2)] == looks()
    follower = world.open()
    follower.leads = None
    follower.drain()
    follower.bucket.calls.clear()
    assert follower.run().idle
    assert [] == follower.bucket.calls


def test_a_damaged_manifest_is_an_error_and_no_fence(kit: Any) -> None:
    world = kit.World()
    process = world.open()
    world.objects.put_if_absent(key_of(kit, 1), b"garbage")
    process.append(5)
    assert process.run().errors
    assert process.manifest.fenced is None


def test_old_numbers_are_swept_and_the_newest_stay(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protocol 5, S4."""
    assert collect.MANIFESTS_KEPT == 64
    monkeypatch.setattr(collect, "MANIFESTS_KEPT", 4)
    world, _ = tiered(kit, runs=10)
    assert numbers(world) == [7, 8, 9, 10]


@pytest.mark.parametrize("drop_all", [False, True])
@pytest.mark.parametrize("forgets", [False, True])
def test_producers_are_as_of_the_tiered_end_not_newer(
    kit: Any, drop_all: bool, forgets: bool
) -> None:
    """Protocol 2."""
    world = kit.World()
    process = world.open()
    process.append(5, producer_id=7)
    process.drain()
    assert sequences(read(world, kit, 1)) == [0, 1, 2, 3, 4]

    def forgotten(_last_index: int) -> Any:
        raise KeyError

    again = world.open()
    if forgets:
        again.producers_at = forgotten
    offset = 5 if drop_all else 1
    again.propose(DropPrefix(offset=offset, reason="test", clock_us=0), term=world.term)
    again.drain()
    assert bool(again.manifest.segments) is not drop_all
    assert read(world, kit, 2).producers == read(world, kit, 1).producers


def test_producers_of_a_range_that_was_dropped_before_its_upload_are_published(kit: Any) -> None:
    """Protocol 2: a restore begins behind that range, so its batches are no unknown ones."""
    world = kit.World()
    process = world.open()
    process.append(5, producer_id=7)
    assert process.pipeline.seal_now(process)
    process.propose(DropPrefix(offset=5, reason="test", clock_us=0), term=world.term)
    process.drain()
    newest = read(world, kit, numbers(world)[-1])
    assert newest.manifest.next.offset == 5
    assert sequences(newest) == [0, 1, 2, 3, 4]


def test_a_leader_that_is_deposed_while_it_makes_a_manifest_puts_none(kit: Any) -> None:
    world = kit.World()
    process = world.open()
    process.append(5)
    known = process.producers_at

    def deposed(last_index: int) -> Any:
        if process.manifest.segments:
            process.leads = None  # reading them from the bucket takes its time
        return known(last_index)

    process.producers_at = deposed
    process.run()
    assert process.manifest.segments
    assert numbers(world) == []


def test_members_are_those_of_the_tiered_end_too(kit: Any) -> None:
    """Later ones may not be committed: only what is goes into the bucket (protocol 5)."""
    world = kit.World()
    process = world.open()
    process.append(5)
    process.members_at = lambda index: Members((f"as of {index}",), ())
    process.drain()
    found = read(world, kit, 1)
    assert found.members == Members((f"as of {found.manifest.next.index}",), ())


def test_a_manifest_that_reads_back_other_than_it_was_put_is_not_published(kit: Any) -> None:
    """A former one of ours, for one, which would pass for a predecessor's and be adopted."""
    world = kit.World()
    process = world.open()
    process.append(5)
    get = process.bucket.get

    def stale(key: str) -> bytes:
        if not key.startswith("manifests/"):
            return get(key)
        found = decode_manifest_object(get(key))
        return dataclasses.replace(found, members=Members(("other",), ())).encode()

    process.bucket.get = stale
    report = process.run()
    assert any("reads back other" in error for error in report.errors)
    assert process.manifest.published_number == 0
    assert world.wal_offsets() == set(range(5))


def beside_another_log(kit: Any, owner: str, **changes: Any) -> tuple[Any, Any]:
    """A log that has not published yet, and the first manifest of another one of its name."""
    other, _ = tiered(kit)
    found, log_id = read(other, kit, 1), "dd" * 16
    old = dataclasses.replace(found.manifest, log_id=log_id, **changes)
    world = kit.World()
    body = dataclasses.replace(found, manifest=old).encode()
    world.objects.put_if_absent(manifest_key("t", 0, log_id, 1), body)
    process = world.open()
    process.identity = dataclasses.replace(process.identity, owner=owner)
    process.append(5)
    return world, process


def test_a_namesake_in_force_fences_who_comes_second(kit: Any) -> None:
    _, process = beside_another_log(kit, "local", topic_id="ee" * 16)
    report = process.run()
    assert process.manifest.fenced is not None
    assert report.errors
    assert process.manifest.published_number == 0


def test_a_cluster_publishes_nothing_beside_a_namesake_until_that_has_ended(kit: Any) -> None:
    """It makes a topic anew as soon as a quorum of the old one has ended: its logs still wait to be
    swept then. But it may as well be another store's, of whoever has taken the bucket over: there
    were two logs of one name, and neither owner was told.
    """
    world, process = beside_another_log(kit, "cluster/n1", topic_id="ee" * 16)
    for _ in range(2):
        report = process.run()
        assert "another topic of the name t is in force" in str(report.errors)
        assert process.manifest.fenced is None
        assert {key.split("/")[3] for key in world.object_keys("manifests/")} == {"dd" * 16}
        assert world.wal_offsets() == set(range(5))

    world.objects.put_if_absent(tombstone_key("t", "ee" * 16), b"")
    process.drain()
    assert process.manifest.published_number > 0


def test_a_cluster_is_fenced_where_a_restore_has_begun_its_partition(kit: Any) -> None:
    world, process = beside_another_log(kit, "cluster/n1")
    report = process.run()
    assert "a restore has begun this partition" in str(report.errors)
    assert process.manifest.fenced is not None
    assert {key.split("/")[3] for key in world.object_keys("manifests/")} == {"dd" * 16}
