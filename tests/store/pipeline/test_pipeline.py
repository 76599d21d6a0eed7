"""One run over all stages: in order, bounded, one at a time, and each failure in its place."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import chronik_store.pipeline as room
from chronik_store.errors import LogClosedError, UnavailableError


def with_stage(monkeypatch: pytest.MonkeyPatch, name: str, stage: Any) -> None:
    stages = tuple((each, stage if each == name else run) for each, run in room.STAGES)
    monkeypatch.setattr(room, "STAGES", stages)


def test_an_index_comes_last_since_it_takes_longest() -> None:
    assert [name for name, _ in room.STAGES] == [
        "seal",
        "upload",
        "publish",
        "prune",
        "retain",
        "collect",
        "index",
    ]


@pytest.mark.parametrize("name", [name for name, _ in room.STAGES])
def test_a_failing_stage_is_reported_and_the_others_still_run(
    kit: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    ran: list[str] = []

    def watch(stage_name: str, stage: Any) -> Any:
        def run(turn: Any) -> None:
            ran.append(stage_name)
            if stage_name == name:
                raise UnavailableError("not now")
            stage(turn)

        return run

    stages = tuple((each, watch(each, stage)) for each, stage in room.STAGES)
    monkeypatch.setattr(room, "STAGES", stages)
    process = kit.World().open()
    process.append(5)
    report = process.run()
    assert report.errors == (f"t/0 {name}: not now",)
    assert ran == [each for each, _ in stages]
    assert str(process.errors[name]) == "not now"


def test_an_error_is_cleared_by_the_next_good_run(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = kit.World().open()

    def fails(_turn: Any) -> None:
        raise UnavailableError("not now")

    with pytest.MonkeyPatch.context() as patch:
        with_stage(patch, "retain", fails)
        process.run()
    assert process.errors["retain"] is not None
    process.run()
    assert process.errors["retain"] is None


def test_a_defect_in_a_stage_is_named_as_one(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_turn: Any) -> None:
        raise AssertionError("published segments are not contiguous")

    with_stage(monkeypatch, "prune", breaks)
    process = kit.World().open()
    [error] = process.run().errors
    assert error == "t/0 prune: AssertionError: published segments are not contiguous"


def test_a_log_that_closes_ends_the_run_without_an_error(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(_turn: Any) -> None:
        raise LogClosedError("closed")

    with_stage(monkeypatch, "upload", closed)
    process = kit.World().open()
    process.append(5)
    report = process.run()
    assert report.errors == ()
    assert report.published == 0


def test_an_outage_is_logged_once_and_reported_each_time(
    kit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    process = kit.World().open()
    process.append(5)
    process.bucket.fail["put"] = kit.lost
    for _ in range(5):
        assert len(process.run().errors) == 2
    warnings = [each for each in caplog.records if each.levelname == "WARNING"]
    assert len(warnings) == 2


def test_runs_of_one_partition_wait_for_each_other(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[int] = []
    most: list[int] = []
    gate = threading.Event()

    def slow(_turn: Any) -> None:
        inside.append(1)
        most.append(len(inside))
        gate.wait(0.05)
        inside.pop()

    with_stage(monkeypatch, "seal", slow)
    process = kit.World().open()
    threads = [threading.Thread(target=process.run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 6
    assert max(most) == 1


def test_who_waits_for_a_run_is_not_overtaken_by_a_loop_of_runs(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline with a backlog runs at once again; whoever asked meanwhile waited for its end."""
    inside, go = threading.Event(), threading.Event()
    ran: list[str] = []

    def seal(_turn: Any) -> None:
        ran.append(threading.current_thread().name)
        inside.set()
        assert go.wait(30)

    with_stage(monkeypatch, "seal", seal)
    process = kit.World().open()
    loop = threading.Thread(target=lambda: [process.run() for _ in range(20)], name="loop")
    other = threading.Thread(target=process.run, name="other")
    loop.start()
    assert inside.wait(30)
    other.start()
    other.join(0.2)
    assert ran == ["loop"]
    go.set()
    for thread in (loop, other):
        thread.join(30)
    assert ran[:3] == ["loop", "other", "loop"]
    assert len(ran) == 21


def test_runs_of_two_partitions_do_not_wait_for_each_other(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=5)

    def meet(_turn: Any) -> None:
        both.wait()

    with_stage(monkeypatch, "seal", meet)
    first, second = kit.World().open(), kit.World().open()
    second.identity = type(second.identity)(partition=1)
    second.pipeline = first.pipeline
    threads = [threading.Thread(target=each.run) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not both.broken


def test_a_crash_in_a_stage_leaves_the_partition_free_for_the_next_run(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_turn: Any) -> None:
        raise KeyboardInterrupt

    process = kit.World().open()
    with pytest.MonkeyPatch.context() as patch:
        with_stage(patch, "seal", interrupted)
        with pytest.raises(KeyboardInterrupt):
            process.run()
    assert process.run().errors == ()


def test_leadership_that_swings_back_and_forth_uploads_each_range_once(kit: Any) -> None:
    """Two nodes over one log and one bucket; whoever leads is cut off in the middle of a put."""
    world = kit.World()
    first = world.open()
    for turn_of in range(6):
        leader = first if turn_of == 0 else world.open()
        leader.append(5)
        calls = iter([None, kit.lost("")])
        leader.bucket.fail["reply"] = lambda _key, calls=calls: next(calls, kit.lost(""))
        leader.run()
        leader.leads = None
    last = world.open()
    last.append(5)
    last.drain()
    ranges = sorted(world.ranges_in_bucket())
    assert len(ranges) == len(set(ranges))
    assert ranges[0][0] == 0
    assert ranges[-1][1] == len(world.acked)


def held_run(kit: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run that stands in its upload: (process, its thread, let it go, the stages that it ran)."""
    inside, go = threading.Event(), threading.Event()
    ran: list[str] = []

    def stage_of(name: str) -> Any:
        def stage(_turn: Any) -> None:
            ran.append(name)
            if name == "upload":
                inside.set()
                assert go.wait(30)

        return stage

    stages = tuple((name, stage_of(name)) for name, _ in room.STAGES)
    monkeypatch.setattr(room, "STAGES", stages)
    process = kit.World().open()
    thread = threading.Thread(target=process.run, daemon=True)
    thread.start()
    assert inside.wait(30)
    return process, thread, go, ran


def test_forget_waits_for_the_run_under_way_which_begins_no_further_stage(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion that does not wait misses the object that the run is putting."""
    process, thread, go, ran = held_run(kit, monkeypatch)
    process.closed = True
    forgetting = threading.Thread(target=process.pipeline.forget, args=(process,), daemon=True)
    forgetting.start()
    forgetting.join(0.2)
    assert forgetting.is_alive()
    go.set()
    forgetting.join(30)
    assert not forgetting.is_alive()
    assert ran == ["seal", "upload"]
    thread.join(30)


def test_nobody_waits_for_a_run_that_was_abandoned(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, thread, go, _ = held_run(kit, monkeypatch)
    forgetting = threading.Thread(target=process.pipeline.forget, args=(process,), daemon=True)
    forgetting.start()
    process.pipeline.abandon()
    forgetting.join(30)
    assert not forgetting.is_alive()
    go.set()
    thread.join(30)


def test_a_run_that_closes_its_own_log_does_not_wait_for_itself(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = kit.World().open()

    def close(_turn: Any) -> None:
        process.closed = True
        process.pipeline.forget(process)

    with_stage(monkeypatch, "upload", close)
    thread = threading.Thread(target=process.run, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


def test_nothing_is_run_for_a_log_that_is_closed(kit: Any) -> None:
    """A list of partitions may be old, and a namesake may have the files by now."""
    process = kit.World().open()
    process.append(5)
    process.closed = True
    assert process.run().idle
    assert [] == process.world.object_keys()
    with pytest.raises(LogClosedError):
        process.pipeline.rebuild_indexes(process)


def test_who_wants_bundles_built_anew_waits_for_no_run(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take minutes; a server that waited for it would wait for another one behind it."""
    process, thread, go, _ = held_run(kit, monkeypatch)
    asking = threading.Thread(target=process.pipeline.rebuild_indexes, args=(process,), daemon=True)
    asking.start()
    asking.join(30)
    assert not asking.is_alive()
    assert thread.is_alive()
    go.set()
    thread.join(30)
