"""Calls of the S3 store against its `close`. Nothing here reaches a network."""

from __future__ import annotations

import asyncio
import threading

import pytest

from chronik_store.clock import SystemClock
from chronik_store.config import S3Options
from chronik_store.errors import UnavailableError
from chronik_store.objectstore import fsspec_s3
from chronik_store.objectstore.base import ObjectStoreRefusedError
from chronik_store.objectstore.fsspec_s3 import S3ObjectStore
from chronik_store.threads import SystemThreads

OPTIONS = S3Options(
    endpoint="http://127.0.0.1:9",
    access_key="a",
    secret_key="b",
    connect_timeout_seconds=5,
    read_timeout_seconds=5,
)


@pytest.fixture
def store():
    store = S3ObjectStore("bucket", "p", OPTIONS, threads=SystemThreads(), clock=SystemClock())
    yield store
    store.close()


def called(call):
    """(thread, outcomes): a call in a thread of its own."""
    outcomes = []

    def run():
        try:
            outcomes.append(call())
        except BaseException as error:
            outcomes.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcomes


def before_scheduling(monkeypatch, hook):
    """Run `hook` in the calling thread, right before the next request is handed to the loop."""
    bounded = fsspec_s3._bounded
    hooks = [hook]

    def wrapped(request, limit):
        if hooks:
            hooks.pop()()
        return bounded(request, limit)

    monkeypatch.setattr(fsspec_s3, "_bounded", wrapped)


def test_a_call_that_close_overtakes_is_refused(store, monkeypatch):
    before_scheduling(monkeypatch, store.close)

    with pytest.raises(ObjectStoreRefusedError, match="the store is closed"):
        store.get("k")


def test_a_call_while_the_loop_ends_does_not_wait_for_ever(store, monkeypatch):
    ends, goes_on = threading.Event(), threading.Event()

    async def slow_close():
        ends.set()
        await asyncio.to_thread(goes_on.wait, 10)

    class Client:
        close = staticmethod(slow_close)

    def meanwhile():
        threading.Thread(target=store.close, daemon=True).start()
        assert ends.wait(10)

    store._requests._files._s3 = (
        Client()
    )  # its connections end slowly; every task is cancelled by then
    before_scheduling(monkeypatch, meanwhile)
    thread, outcomes = called(lambda: store.get("k"))
    thread.join(4)
    goes_on.set()
    thread.join(4)
    store._thread.join(10)

    assert [ObjectStoreRefusedError] == [type(outcome) for outcome in outcomes]


def test_a_call_under_way_fails_as_unavailable(store, monkeypatch):
    begun = threading.Event()

    async def hangs(*_):
        begun.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(store._requests, "get", hangs)
    thread, outcomes = called(lambda: store.get("k"))
    assert begun.wait(10)
    store.close()
    thread.join(10)

    assert [UnavailableError] == [type(outcome) for outcome in outcomes]
    assert "closed meanwhile" in str(outcomes[0])


def test_close_is_idempotent_and_later_calls_are_refused(store):
    store.close()
    store.close()

    with pytest.raises(ObjectStoreRefusedError):
        store.put_if_absent("k", b"v")
