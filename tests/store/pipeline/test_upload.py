"""Sealed ranges become objects, in order, exactly once, whatever fails in between."""

from __future__ import annotations

from typing import Any

from chronik_store.fs.base import SYNC_BYTES


def test_a_full_segment_is_sealed_uploaded_published_and_pruned_in_one_run(kit: Any) -> None:
    world = kit.World()
    process = world.open()
    process.append(5)
    report = process.run()
    assert report.errors == ()
    assert (report.sealed, report.uploaded, report.published) == (1, 1, 1)
    assert world.ranges_in_bucket() == [(0, 5)]
    assert report.pruned_files >= 1
    assert set() == world.wal_offsets()
    assert process.run().idle


def test_every_crash_point_ends_with_one_object_for_each_range(kit: Any) -> None:
    def story(process: Any) -> None:
        for _ in range(3):
            process.append(5)
            process.run()
        process.drain()

    points = 0
    for world, where in kit.crash_points(kit.World, story):
        points += 1
        again = world.open()
        again.append(15 - len(world.acked))
        again.drain()
        assert sorted(set(world.ranges_in_bucket())) == sorted(world.ranges_in_bucket()), where
        ends = [0]
        for base, end in sorted(world.ranges_in_bucket()):
            assert base == ends[-1], where
            ends.append(end)
        assert ends[-1] == 15, where
        unnamed = set(world.object_keys("segments/")) - world.named()
        assert set() == unnamed, where
    assert points > 30


def ready(kit: Any, segments: int = 1, **config: Any) -> tuple[Any, Any]:
    """A world with sealed segments of five records that are not uploaded."""
    world = kit.World(**config)
    process = world.open()
    for _ in range(segments):
        process.append(5)
        assert process.pipeline.seal_now(process)
    return world, process


def test_an_outage_stalls_the_first_segment_and_nothing_overtakes_it(kit: Any) -> None:
    """Known bug 25."""
    world, process = ready(kit, segments=3)
    first = "segments/t/0/" + f"{0:020}"
    process.bucket.fail["put"] = lambda key: kit.lost(key) if key.startswith(first) else None
    for _ in range(4):
        report = process.run()
        assert [each.split(":")[0] for each in report.errors] == ["t/0 upload"]
        assert report.uploaded == 0
    assert world.ranges_in_bucket() == []
    assert isinstance(process.errors["upload"], Exception)
    process.bucket.fail.clear()
    process.drain()
    assert world.ranges_in_bucket() == [(0, 5), (5, 10), (10, 15)]
    assert process.errors["upload"] is None


def test_an_outage_costs_one_intent_and_one_local_file(kit: Any) -> None:
    world, process = ready(kit)
    process.bucket.fail["put"] = kit.lost
    process.run()
    entries, calls = len(world.entries), world.disk.calls_by_operation["create"]
    for _ in range(5):
        process.run()
    assert len(world.entries) == entries
    assert world.disk.calls_by_operation["create"] == calls


def test_a_lost_reply_ends_in_adoption_not_in_a_second_object(kit: Any) -> None:
    """Known bug 34."""
    world, process = ready(kit)
    replies = iter([kit.lost("")])
    process.bucket.fail["reply"] = lambda _key: next(replies, None)
    report = process.run()
    assert (report.uploaded, report.adopted) == (0, 0)
    report = process.run()
    assert (report.uploaded, report.adopted) == (0, 1)
    assert world.ranges_in_bucket() == [(0, 5)]
    assert process.bucket.puts.count(world.object_keys("segments/")[0]) == 1


def test_every_key_is_named_in_the_log_before_its_first_put(kit: Any) -> None:
    """Protocol 18."""
    world, process = ready(kit, segments=2)
    seen: list[str] = []

    def named(key: str) -> Exception | None:
        if key.startswith("segments/"):
            seen.append(key)
            assert key in world.named()
        return None

    process.bucket.fail["put"] = named
    process.drain()
    assert len(seen) == 2


def test_a_new_leader_derives_the_same_key_and_adopts_the_object(kit: Any) -> None:
    """Protocol 8, S1; known bug 28."""
    world, process = ready(kit)
    process.bucket.fail["reply"] = kit.lost
    process.run()
    before = world.object_keys("segments/")
    report = world.open().run()
    assert (report.uploaded, report.adopted) == (0, 1)
    assert world.object_keys("segments/") == before


def test_losing_the_lead_in_front_of_the_put_puts_nothing(kit: Any) -> None:
    world, process = ready(kit)
    process.bucket.fail["list"] = lambda _key: setattr(process, "leads", process.leads + 1)
    report = process.run()
    assert report.errors == ()
    assert world.object_keys("segments/") == []


def test_losing_the_lead_during_the_put_proposes_nothing(kit: Any) -> None:
    """Protocol 8, S4; known bug 2."""
    world, process = ready(kit)
    process.bucket.fail["reply"] = lambda _key: setattr(process, "leads", None)
    entries = len(world.entries)
    report = process.run()
    assert report.errors == ()
    assert [type_of(each) for each in world.entries[entries:]] == ["NOOP", "INTENT"][-1:]
    assert world.ranges_in_bucket() == [(0, 5)]


def type_of(entry: Any) -> str:
    from chronik_store.format.entry import EntryKind

    return EntryKind(entry.header.kind).name


def test_a_local_file_that_changed_is_never_uploaded_and_is_written_anew(kit: Any) -> None:
    world, process = ready(kit)
    process.bucket.fail["put"] = kit.lost
    process.run()
    [path] = world.disk.paths("/data/segments")
    world.disk.flip_bit(path, 700)
    process.bucket.fail.clear()
    assert "bytes changed" in process.run().errors[0]
    assert world.object_keys("segments/") == []
    process.drain()
    assert world.ranges_in_bucket() == [(0, 5)]


def test_a_local_file_that_cannot_be_read_is_written_anew(kit: Any) -> None:
    world, process = ready(kit)
    process.bucket.fail["put"] = kit.lost
    process.run()
    [path] = world.disk.paths("/data/segments")
    world.disk.make_unreadable(path, 0)
    process.bucket.fail.clear()
    assert "the disk cannot read it" in process.run().errors[0]
    process.drain()
    assert world.ranges_in_bucket() == [(0, 5)]


def test_a_local_file_that_vanished_is_written_anew(kit: Any) -> None:
    world, process = ready(kit)
    process.bucket.fail["put"] = kit.lost
    process.run()
    [path] = world.disk.paths("/data/segments")
    world.disk.vanish(path)
    process.bucket.fail.clear()
    assert len(process.run().errors) == 1
    process.drain()
    assert world.ranges_in_bucket() == [(0, 5)]


def test_the_bucket_is_prepared_before_the_first_put_and_once(kit: Any) -> None:
    world = kit.World()
    process = world.open()
    process.append(3)
    process.run()
    assert process.prepared == 0
    process.append(3)
    process.drain()
    process.append(5)
    process.drain()
    assert process.prepared == 1


def test_a_bucket_that_is_refused_stalls_tiering_and_keeps_everything(kit: Any) -> None:
    from chronik_store.errors import UnsafeBucketError

    world, process = ready(kit)

    def refuse() -> None:
        raise UnsafeBucketError("create-only puts are ignored here")

    object.__setattr__(process.tiering, "prepare_bucket", refuse)
    report = process.run()
    assert "create-only puts are ignored" in report.errors[0]
    assert world.object_keys() == []
    assert world.wal_offsets() == set(range(5))


def test_a_run_is_bounded(kit: Any) -> None:
    _, process = ready(kit, segments=20)
    assert process.run().uploaded == 16
    assert process.run().uploaded == 4


def test_losing_the_lead_while_the_file_is_read_puts_nothing(kit: Any) -> None:
    world, process = ready(kit)

    def step_down(_call: int, operation: str, _path: str) -> None:
        if operation == "map":
            process.leads = None

    world.disk.hook = step_down
    assert process.run().errors == ()
    assert world.object_keys("segments/") == []


def test_a_log_that_forgot_its_producers_derives_the_same_segments(kit: Any) -> None:
    def forgotten(_last_index: int) -> Any:
        raise KeyError

    keys = []
    for forgets in (False, True):
        world = kit.World(segment_bytes=1 << 20)
        process = world.open()
        for number in range(3):
            process.append(3, producer_id=7)
            process.append(2, producer_id=8 + number)
            assert process.pipeline.seal_now(process)
            if forgets:
                # A new process whose log starts behind the SEAL, and nothing remembered.
                world.term -= 1
                process = world.open()
                process._noop = True
                process.producers_at = forgotten
            process.drain()
        keys.append(world.object_keys("segments/"))
    assert len(keys[0]) == 3
    assert keys[0] == keys[1]


def test_a_full_disk_is_emptied_by_the_upload_and_does_not_stop_it(kit: Any) -> None:
    world, process = ready(kit, segments=3)
    world.disk.capacity_bytes = 1000
    process.drain()
    assert world.ranges_in_bucket() == [(0, 5), (5, 10), (10, 15)]
    assert world.wal_offsets() == set()
    assert process.tiering.budget.taken_bytes == 0
    roomy, other = ready(kit, segments=3)
    other.drain()
    assert roomy.object_keys("segments/") == world.object_keys("segments/")


def test_a_full_disk_is_emptied_of_a_segment_that_is_synced_as_it_grows(kit: Any) -> None:
    world = kit.World(segment_bytes=4 * SYNC_BYTES)
    process = world.open()
    process.append(5, size=SYNC_BYTES // 2)
    assert process.pipeline.seal_now(process)
    world.disk.capacity_bytes = 1000
    process.drain()
    assert world.ranges_in_bucket() == [(0, 5)]
    assert world.wal_offsets() == set()


def test_no_segment_file_takes_the_room_that_is_kept_for_the_log(kit: Any) -> None:
    """The disk would take it; the WAL's next write might be the one that finds it full."""
    made = []

    def note(_number: int, operation: str, path: str) -> None:
        if operation == "create" and "/segments/" in path:
            made.append(path)

    world, process = ready(kit, disk_reserve_bytes=10_000)
    world.disk.capacity_bytes = 11_000
    world.disk.hook = note
    process.drain()
    assert world.ranges_in_bucket() == [(0, 5)]
    assert made == []


def test_a_full_disk_puts_nothing_for_a_leader_that_was_deposed(kit: Any) -> None:
    world, process = ready(kit)
    world.disk.capacity_bytes = 1000
    propose = process.propose

    def deposed_behind_it(command: Any, *, term: int) -> int:
        index: int = propose(command, term=term)
        if type(command).__name__ == "Intent":
            process.leads = None
        return index

    process.propose = deposed_behind_it
    process.run()
    assert process.manifest.intents
    assert world.object_keys("segments/") == []


def test_a_full_disk_and_a_bucket_that_is_away_keep_everything(kit: Any) -> None:
    world, process = ready(kit)
    world.disk.capacity_bytes = 1000
    process.bucket.fail["put"] = kit.lost
    for _ in range(3):
        assert len(process.run().errors) == 2
    assert world.wal_offsets() == set(range(5))
    process.bucket.fail.clear()
    process.drain()
    assert world.ranges_in_bucket() == [(0, 5)]


def test_a_prefix_dropped_during_the_put_leaves_a_named_object_and_no_error(kit: Any) -> None:
    """Protocol 8, S3; known bug 9."""
    from chronik_store.format.control import DropPrefix

    world, process = ready(kit, segments=2)

    def drop(key: str) -> None:
        if key.startswith("segments/") and process.manifest.start_offset == 0:
            drop_to_5 = DropPrefix(offset=5, reason="test", clock_us=0)
            process.propose(drop_to_5, term=world.term)

    process.bucket.fail["reply"] = drop
    process.drain()
    assert [each.base_offset for each in process.manifest.segments] == [5]
    assert set(world.object_keys("segments/")) <= world.named()
    last = world.open()
    last.append(5)
    last.drain()
    world.clock.advance(101)
    last.drain()
    assert world.ranges_in_bucket() == [(5, 10), (10, 15)]
