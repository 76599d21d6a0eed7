"""When a log or a store is closed, nobody writes into its directory any more, for others may."""

from __future__ import annotations

import threading
from concurrent.futures import wait
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

import chronik_store as chronik
from chronik_store import log_assembly, log_core, log_store, open_logs, partition_log
from chronik_store.environment import Environment
from chronik_store.testing.disk_faults import Gate
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.wal import active_file, hands, wal
from chronik_store.wal.staging import Staging
from tests.store.on_simulated_disk import CONFIG, open_store
from tests.store.tasks import AT_LAST, Task, at_each_step

FIRST = b"first"


@pytest.fixture
def disk() -> SimulatedDisk:
    """With a topic that holds one record; everything of it is sworn to."""
    disk = SimulatedDisk(seed=1)
    with open_store(disk) as store:
        store.create_topic("t")
        store.partition("t").append(FIRST)
    return disk


def values(log: Any) -> list[bytes]:
    return [record.value for record in log.scan()]


def closing_waits(disk: SimulatedDisk, store: Any) -> Task:
    """`store.close` in a thread of its own; nobody else gets the directory meanwhile."""
    closing = Task(store.close)
    assert closing.waits()
    with pytest.raises(chronik.DirectoryLockedError):
        open_store(disk)
    return closing


@pytest.mark.parametrize("operation", ["exists", "sync_directory", "create", "rename"])
@pytest.mark.parametrize("what", ["append", "cursor"])
def test_close_waits_for_the_first_file_of_this_open(disk, operation, what):
    """It was made behind the back of the next owner, over the file that this one had begun."""
    store = open_store(disk)
    log = store.partition("t")
    change = {"append": lambda: log.append(b"late"), "cursor": lambda: log.cursor("c").commit(1)}
    ends = {"create": ".log.tmp", "rename": ".log.tmp"}
    gate = disk.hook = Gate(operation, path_end=ends.get(operation, "/wal/t/0"))
    late = Task(change[what])
    assert gate.arrived.wait(AT_LAST)
    closing = closing_waits(disk, store)
    gate.open()
    closing.outcome()
    with pytest.raises(chronik.LogClosedError) as caught:
        late.outcome()
    assert "not_durable" == caught.value.durability
    for _ in range(2):
        with open_store(disk) as again:
            again.partition("t").append(b"more")
    with open_store(disk) as again:
        assert [FIRST, b"more", b"more"] == values(again.partition("t"))


def test_no_file_is_begun_once_the_log_is_closed(disk):
    """Whoever was let in just before `close` comes too late; a pool's thread may come any time."""
    store = open_store(disk)
    core = store.partition("t")._core
    store.close()
    before = disk.paths("/old/wal")
    with pytest.raises(chronik.LogClosedError):
        core.begin()
    assert before == disk.paths("/old/wal")
    assert core.wal.poisoned is None


def test_close_of_a_poisoned_log_waits_for_the_group_in_flight(disk, monkeypatch):
    """One appender had no memory while another one's new file was on its way: that came to stand
    over the one of the next open, with what had been acknowledged in it.
    """
    store = open_store(disk)
    log = store.partition("t")
    log.append(b"second")
    gate = disk.hook = Gate("create", path_end=".log.tmp")
    sealing = Task(log.seal)
    assert gate.arrived.wait(AT_LAST)

    def no_memory(*_: object) -> int:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "add", no_memory)
        with pytest.raises(MemoryError):
            log.append(b"third")
    closing = closing_waits(disk, store)
    gate.open()
    closing.outcome()
    with pytest.raises(chronik.LogPoisonedError):
        sealing.outcome()
    with open_store(disk) as again:
        for _ in range(3):
            again.partition("t").append(b"more")
    with open_store(disk) as again:
        assert [FIRST, b"second"] + 3 * [b"more"] == values(again.partition("t"))


def test_what_a_look_pins_is_not_removed_from_a_namesake(disk):
    """The pruned file that `verify` read last went when it was done; by then its name was that of
    the new topic's file, with all that had been acknowledged in it.
    """
    store = open_store(disk)
    log = store.partition("t")
    log.append(b"second")
    log.seal()
    arrived, go = threading.Event(), threading.Event()

    def progress(*_: object) -> None:
        arrived.set()
        assert go.wait(AT_LAST)

    looking = Task(lambda: log.verify(progress=progress))
    assert arrived.wait(AT_LAST)
    while not log.run_pipeline_once().idle:
        pass
    assert log._core.wal._pruner.waiting
    store.delete_topic("t")
    store.create_topic("t")
    fresh = store.partition("t")
    fresh.append(b"new")
    go.set()
    looking.outcome()
    fresh.append(b"newer")
    store.close()
    with open_store(disk) as again:
        assert [b"new", b"newer"] == values(again.partition("t"))


def test_zeros_are_not_given_back_in_the_file_of_a_namesake(disk):
    """The filler was about to; the hole was in the new topic's file, amid what was acknowledged."""
    store = open_store(disk)
    log = store.partition("t")
    wal = log._core.wal
    log.append(b"second")
    log.seal()
    left = wal._table.files[0]
    with wal.lock:
        wal._active._left.append((left, 1 << 16))
    gate = disk.hook = Gate("open", path_end=left.path)
    filling = Task(wal._active.fill)
    assert gate.arrived.wait(AT_LAST)
    disk.hook = lambda *_: None
    deleting = Task(lambda: store.delete_topic("t"))
    assert deleting.waits()
    assert left.path in disk.paths("/old/wal")
    gate.open()
    deleting.outcome()
    filling.outcome()
    assert wal._active.fill() is False
    store.close()


CHANGES = {
    "create": ("create", "/TOPICS.tmp", lambda store: store.create_topic("u")),
    "delete": ("remove_directory", "/wal/t/0", lambda store: store.delete_topic("t")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_close_waits_for_a_change_of_topics(disk, name):
    """It wrote its own list over that of the next owner, whose new topics were gone."""
    operation, end, change = CHANGES[name]
    store = open_store(disk)
    gate = disk.hook = Gate(operation, path_end=end)
    changing = Task(lambda: change(store))
    assert gate.arrived.wait(AT_LAST)
    closing = closing_waits(disk, store)
    gate.open()
    closing.outcome()
    changing.outcome()
    with pytest.raises(chronik.LogClosedError):  # of a thread that was let in just before
        store._topics.create("v", 1, exist_ok=False)
    with open_store(disk) as again:
        again.create_topic("w")
        again.partition("w").append(b"new")
        left = {"create": ["t", "u", "w"], "delete": ["w"]}[name]
        assert left == [info.name for info in again.topics()]


def test_a_topic_that_was_marked_when_close_came_is_deleted(disk, monkeypatch):
    """It was an error, of a deletion that nothing takes back."""
    store = open_store(disk)
    topics, mark = store._topics, store._topics.mark_deleting

    def close_comes(entry):
        mark(entry)
        topics._deleting.end()

    monkeypatch.setattr(topics, "mark_deleting", close_comes)
    store.delete_topic("t")
    store.close()
    with open_store(disk) as again:
        assert again.topics() == ()
        again.create_topic("t")
        assert values(again.partition("t")) == []


@pytest.mark.parametrize("name", CHANGES)
def test_an_interrupt_while_close_waits_gives_the_directory_up_when_the_change_is_over(
    disk, name, monkeypatch
):
    operation, end, change = CHANGES[name]
    store = open_store(disk)
    gate = disk.hook = Gate(operation, path_end=end)
    changing = Task(lambda: change(store))
    assert gate.arrived.wait(AT_LAST)

    def ctrl_c() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store._topics, "end", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            store.close()
    with pytest.raises(chronik.DirectoryLockedError):
        open_store(disk)
    gate.open()
    changing.join(AT_LAST)
    open_store(disk).close()


CLOSED = [
    *((what, each) for what in ("log", "store") for each in (hands, log_core, open_logs, wal)),
    *(("log", each) for each in (log_assembly, partition_log)),
    ("store", log_store),
]


@pytest.mark.parametrize(
    ("what", "module"), CLOSED, ids=[f"{each[0]}-{each[1].__name__}" for each in CLOSED]
)
def test_what_ctrl_c_leaves_of_close_the_next_call_does(what, module):
    """In front of the first steps it left the directory locked until the process ended: no call of
    `close` did anything any more. Amid the last mark the log's lock was left taken: it hung.
    """
    for ctrl_c in at_each_step(module):
        disk = SimulatedDisk(seed=1)
        env = Environment(fs=disk)  # with the system's threads, of which Ctrl-C leaves none locked
        store = chronik.LogStore.open("/d", config=CONFIG, env=env)
        store.create_topic("t")
        log = store.partition("t")
        future = log.append_nowait(FIRST)
        with ctrl_c:
            {"log": log, "store": store}[what].close()
        for each in (log, store):
            with suppress(chronik.LogPoisonedError):
                Task(each.close).outcome()
        assert wait([future], AT_LAST).done  # by another thread, perhaps, that is still at it
        with chronik.LogStore.open("/d", config=CONFIG, env=env) as again:
            assert again.partition("t").read(0).next_offset in {0, 1}
            assert values(again.partition("t")) == [FIRST] or future.exception() is not None


@pytest.mark.parametrize("times", [1, 2, 3])
def test_the_directory_is_not_given_up_while_somebody_writes_however_often_ctrl_c_comes(
    disk, times
):
    """The filler wrote its zeros into a directory that was another process's by then."""
    store = open_store(disk)
    log = store.partition("t")
    log.append(b"second")
    wal = log._core.wal
    active, left = wal._active, [KeyboardInterrupt] * times
    active._left.append((active.file, active.file.size))
    gate = disk.hook = Gate("open", path_end=active.file.path)
    filling = Task(active.fill)
    assert gate.arrived.wait(AT_LAST)

    def wait(_seconds: float) -> None:
        if left:
            raise left.pop()
        gate.open()
        filling.outcome()

    event = SimpleNamespace(wait=wait, clear=lambda: None, set=lambda: None)
    wal._hands._threads = SimpleNamespace(event=lambda: event)
    with pytest.raises(KeyboardInterrupt):
        store.close()
    if left or filling.is_alive():
        with pytest.raises(chronik.DirectoryLockedError):
            open_store(disk)
        with suppress(KeyboardInterrupt):
            store.close()
    assert not filling.is_alive()
    open_store(disk).close()


@pytest.mark.parametrize("module", [hands, wal, active_file, log_core])
def test_close_does_not_wait_for_an_append_that_ctrl_c_ended_and_whose_traceback_is_there(module):
    """As in the `__exit__` of a store: it counted as at work for as long."""
    for ctrl_c in at_each_step(module):
        store = chronik.LogStore.open(
            "/d", config=CONFIG, env=Environment(fs=SimulatedDisk(seed=1))
        )
        store.create_topic("t")
        with ctrl_c:
            try:
                store.partition("t").append(FIRST)
            finally:
                with suppress(chronik.LogPoisonedError):
                    Task(store.close).outcome()
