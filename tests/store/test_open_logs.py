"""One partition, one log: opening, closing and deleting meet each other at every point."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

import chronik_store as chronik
from chronik_store import open_logs
from chronik_store.open_logs import OpenLogs
from chronik_store.threads import SystemThreads
from tests.store.tasks import AT_LAST, Task, at_each_step

CONFIG = chronik.LogConfig(pipeline_enabled=False)


def open_store(path):
    return chronik.LogStore.open(path, config=CONFIG)


class Held:
    """Opens a log when it is let, or keeps an opened one back."""

    def __init__(self, store, *, after):
        self.arrived, self.go = threading.Event(), threading.Event()
        self.inner, self.after = store._assembly.open, after
        store._assembly.open = self

    def __call__(self, *args, **options):
        opened = self.inner(*args, **options) if self.after else None
        self.arrived.set()
        assert self.go.wait(AT_LAST)
        return self.inner(*args, **options) if opened is None else opened


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path / "d") as store:
        store.create_topic("t", partitions=2)
        store.partition("t").append(b"old")
    with open_store(tmp_path / "d") as store:
        yield store


@pytest.mark.parametrize("after", [False, True])
def test_close_waits_for_a_log_that_is_being_opened(tmp_path, store, after):
    """Else two stores write into one directory, and acknowledged records are lost."""
    held = Held(store, after=after)
    opening = Task(lambda: store.partition("t"))
    assert held.arrived.wait(AT_LAST)
    closing = Task(store.close)
    assert closing.waits()
    with pytest.raises(chronik.DirectoryLockedError):
        open_store(tmp_path / "d")
    held.go.set()
    closing.outcome()
    with pytest.raises(chronik.LogClosedError):
        opening.outcome().append(b"late")
    with open_store(tmp_path / "d") as again:
        assert 1 == again.partition("t").append(b"new").base_offset
        assert [b"old", b"new"] == [record.value for record in again.partition("t").scan()]


@pytest.mark.parametrize("after", [False, True])
def test_delete_waits_for_a_log_that_is_being_opened(tmp_path, store, after):
    """Else a namesake gets the log of the deleted topic, and cannot be opened any more."""
    held = Held(store, after=after)
    opening = Task(lambda: store.partition("t"))
    assert held.arrived.wait(AT_LAST)
    deleting = Task(lambda: store.delete_topic("t"))
    assert deleting.waits()
    held.go.set()
    deleting.outcome()  # before it is through, an append may still be in time
    with pytest.raises(chronik.LogClosedError):
        opening.outcome().append(b"late")
    store.create_topic("t")
    assert 0 == store.partition("t").append(b"new").base_offset
    store.close()
    with open_store(tmp_path / "d") as again:
        assert [b"new"] == [record.value for record in again.partition("t").scan()]


def test_who_waited_for_a_partition_that_is_deleted_learns_that(store, monkeypatch):
    log = store.partition("t")
    closed, go = threading.Event(), threading.Event()
    put = store._directory.topics.put

    def held(entry):
        closed.set()
        assert go.wait(AT_LAST)
        put(entry)

    monkeypatch.setattr(store._directory.topics, "put", held)
    deleting = Task(lambda: store.delete_topic("t"))
    assert closed.wait(AT_LAST)
    with pytest.raises(chronik.LogClosedError):  # nothing is acknowledged while it is in doubt
        log.append(b"late")
    opening = Task(lambda: store.partition("t"))
    assert opening.waits()
    go.set()
    with pytest.raises(chronik.TopicNotFoundError):
        opening.outcome()
    deleting.outcome()


def test_the_handle_of_a_deleted_topic_does_not_close_its_namesakes_log(store):
    old = store.partition("t")
    store.delete_topic("t")
    store.create_topic("t")
    new = store.partition("t")
    old.close()
    assert 0 == new.append(b"new").base_offset
    assert new is store.partition("t")


def test_a_log_is_not_opened_again_before_it_is_closed(store, monkeypatch):
    old = store.partition("t")
    closing_it, go = threading.Event(), threading.Event()
    close = old._core.wal.close

    def slow():
        closing_it.set()
        assert go.wait(AT_LAST)
        close()

    monkeypatch.setattr(old._core.wal, "close", slow)
    closing = Task(old.close)
    assert closing_it.wait(AT_LAST)
    opening = Task(lambda: store.partition("t"))
    assert opening.waits()
    go.set()
    closing.outcome()
    assert opening.outcome() is not old
    assert 1 == opening.outcome().append(b"new").base_offset


def test_one_opens_and_all_get_it(store):
    held = Held(store, after=False)
    tasks = [Task(lambda: store.partition("t")) for _ in range(4)]
    assert held.arrived.wait(AT_LAST)
    held.go.set()
    assert 1 == len({id(task.outcome()) for task in tasks})


class Interrupted(threading.Condition):
    """Whoever waits gets a Ctrl-C."""

    def wait(self, timeout=None):
        raise KeyboardInterrupt


def test_an_interrupted_close_leaves_the_rest_to_who_is_still_opening():
    closed, empty = [], []
    go, arrived = threading.Event(), threading.Event()

    def opener():
        arrived.set()
        assert go.wait(AT_LAST)
        return "late"

    logs = OpenLogs(SimpleNamespace(condition=Interrupted), closed.append)
    logs.get_or_open(("t", 0), lambda: "early")
    opening = Task(lambda: logs.get_or_open(("t", 1), opener))
    assert arrived.wait(AT_LAST)
    with pytest.raises(KeyboardInterrupt):
        logs.close()
    assert ["early"] == closed
    logs.when_empty(lambda: empty.append(list(closed)))
    assert [] == empty
    go.set()
    with pytest.raises(chronik.LogClosedError):
        opening.outcome()
    assert [["early", "late"]] == empty


def test_an_error_and_an_interrupt_leave_no_log_open():
    closed, empty = [], []
    errors = {"a": KeyboardInterrupt, "b": OSError, "c": ValueError}

    def close(log):
        closed.append(log)
        if log in errors:
            raise errors[log]

    logs = OpenLogs(SystemThreads(), close)
    for partition, log in enumerate("abc"):
        logs.get_or_open(("t", partition), lambda log=log: log)
    with pytest.raises(KeyboardInterrupt):
        logs.close()
    assert ["a", "a", "b", "c"] == closed  # Ctrl-C may have come in front of the first step
    with pytest.raises(chronik.LogClosedError):
        logs.get_or_open(("t", 0), lambda: "d")
    logs.when_empty(lambda: empty.append(True))
    assert [] == empty  # it came twice: somebody may be writing still
    errors.clear()
    logs.close()
    assert ["a", "a", "b", "c", "a"] == closed
    assert [] == logs.all()
    assert [True] == empty


STEPS = {
    "open": lambda logs, key: logs.get_or_open(key, lambda: "new"),
    "close": lambda logs, key: logs.close_one(key, logs.get(key)),
    "go": lambda logs, key: logs.while_closed([key, ("t", 1)], lambda: None),
}


@pytest.mark.parametrize("name", STEPS)
def test_ctrl_c_at_any_step_keeps_nobody_waiting_and_never_two_logs_over_the_same_files(name):
    """The partition stood in somebody's hands for ever, and so did whoever asked for it, or closed
    the store; or it was given back with its log open.
    """
    key = ("t", 0)
    for ctrl_c in at_each_step(open_logs):
        closed = []
        logs = OpenLogs(SystemThreads(), closed.append)
        if name != "open":
            logs.get_or_open(key, lambda: "old")
            logs.get_or_open(("t", 1), lambda: "other")
        with ctrl_c:
            STEPS[name](logs, key)
        again = Task(lambda logs=logs: logs.get_or_open(key, lambda: "next")).outcome()
        if name != "open":
            assert (again == "old") is ("old" not in closed)
        Task(logs.close).outcome()
        assert again in closed
        assert [] == logs.all()


def test_ctrl_c_at_any_step_of_close_leaves_no_log_open():
    for ctrl_c in at_each_step(open_logs, but_for={"close"}):
        closed, empty = [], []
        logs = OpenLogs(SystemThreads(), closed.append)
        for partition, log in enumerate("ab"):
            logs.get_or_open(("t", partition), lambda log=log: log)
        with ctrl_c:
            logs.close()
        logs.when_empty(lambda empty=empty: empty.append(True))
        assert {"a", "b"} == {*closed}
        assert [True] == empty
