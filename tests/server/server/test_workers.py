"""Threads that a node has from its start: what they are for is done, whatever the system has left.

The pids limit of a container is reached by somebody else in it, or `ulimit -u` by another program
of the same user.
"""

import asyncio
import socket
import threading
import urllib.request
from types import SimpleNamespace

import pytest

from chronik_server import health
from chronik_server.addresses import Address
from chronik_server.health import Health
from chronik_server.metrics import ServerMetrics
from chronik_server.raft.node import READERS, RaftNode
from chronik_server.raft.settings import RaftSettings
from chronik_server.running import LOOP_THREADS, run
from chronik_server.workers import workers
from chronik_store.errors import UnavailableError


@pytest.fixture
def leave(monkeypatch):
    """leave(n): the system has n threads more."""
    start = threading.Thread.start
    left = [0]

    def starting(thread):
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    def only(count):
        left[0] = count
        monkeypatch.setattr(threading.Thread, "start", starting)

    return only


def meet(parties):
    """A call that returns when so many of it run at the same time."""
    barrier = threading.Barrier(parties)
    return lambda: barrier.wait(10)


def test_all_workers_are_there_before_there_is_work(leave):
    pool = workers(3, "some")
    leave(0)
    together = meet(3)
    calls = [pool.submit(together) for _ in range(3)]
    assert [0, 1, 2] == sorted(call.result(10) for call in calls)
    pool.shutdown()


def test_too_few_threads_are_said_at_once_and_given_back(leave):
    before = threading.active_count()
    leave(2)
    with pytest.raises(UnavailableError, match="this process gets no thread: can't start new"):
        workers(3, "some")
    for thread in threading.enumerate():
        if thread.name.startswith("some"):
            thread.join(10)
    assert before == threading.active_count()


def test_a_server_works_and_ends_as_asked_without_a_thread_left(leave):
    """At its end asyncio wanted one more: exit code 1, with a traceback."""

    async def main(_stop):
        leave(0)
        together = meet(LOOP_THREADS)
        await asyncio.gather(*(asyncio.to_thread(together) for _ in range(LOOP_THREADS)))
        return 7

    assert 7 == run(main)


def test_a_server_that_gets_no_threads_says_so(leave):
    leave(1)

    async def main(_stop):
        raise AssertionError("it did not begin")

    with pytest.raises(UnavailableError, match="gets no thread"):
        run(main)


def test_a_follower_behind_is_read_for_without_a_thread_left(leave):
    """The first to fall behind was never sent anything again: what its leader wanted to read waited
    in the pool, and nobody for what came of it.
    """

    async def main():
        node = RaftNode("1", boot_id="b1", transport=None, on_fatal=print, settings=RaftSettings())
        leave(0)
        together, done = meet(READERS), asyncio.Queue()
        for _ in range(READERS):
            node.offload(together, done.put_nowait)
        async with asyncio.timeout(10):
            found = [await done.get() for _ in range(READERS)]
        node.stop()
        return found

    assert list(range(READERS)) == sorted(asyncio.run(main()))


def test_a_health_listener_without_a_thread_says_so(leave):
    async def main():
        page = Health(SimpleNamespace(metrics=ServerMetrics()), asyncio.get_running_loop())
        leave(0)
        with pytest.raises(UnavailableError, match="gets no thread"):
            page.start(Address("127.0.0.1", 0))
        page.stop()  # as it is called, whatever came before

    asyncio.run(main())


def test_a_node_without_a_thread_left_does_not_look_dead(leave, monkeypatch):
    """Who watches `/live` was hung up on, and would have restarted a node that served everybody."""
    monkeypatch.setattr(health, "CONNECTION_SECONDS", 0.3)

    def visit(address):
        with socket.create_connection((address.host, address.port), 5):  # and says nothing
            return [get(f"http://{address}/live") for _ in range(2)]

    def get(url):
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(workers(1, "visitor"))
        page = Health(SimpleNamespace(metrics=ServerMetrics()), loop)
        address = page.start(Address("127.0.0.1", 0))
        leave(0)
        try:
            return await asyncio.to_thread(visit, address)
        finally:
            await asyncio.to_thread(page.stop)
            leave(1)  # asyncio's, at its end

    assert [200, 200] == asyncio.run(main())
