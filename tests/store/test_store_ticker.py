"""Background work: one bad partition keeps nobody else from the bucket; tails are fed."""

from __future__ import annotations

import threading
import time

import chronik_store as chronik
from chronik_store import store_ticker
from chronik_store.environment import Environment
from chronik_store.store_ticker import StoreTicker
from chronik_store.threads import SystemThreads
from tests.store.tasks import at_each_step

CONFIG = chronik.LogConfig(pipeline_enabled=False)


def tail_of(log):
    [tail] = log._search._tails.values()
    return tail


def damage(path):
    files = sorted(path.glob("wal_*.log"))
    data = bytearray(files[0].read_bytes())
    data[40] ^= 0xFF
    files[0].write_bytes(data)


def test_a_damaged_partition_is_reported_and_the_others_go_on(tmp_path):
    with chronik.LogStore.open(tmp_path / "d", config=CONFIG) as store:
        store.create_topic("a", partitions=2)
        for partition in range(2):
            store.partition("a", partition).append([b"x"] * 10)
    damage(tmp_path / "d" / "wal" / "a" / "0")
    with chronik.LogStore.open(tmp_path / "d", config=CONFIG) as store:
        store.partition("a", 1).seal()
        report = store.run_pipeline_once()
        assert (1, 1) == (report.uploaded, len(report.errors))
        assert "chronik repair" in report.errors[0]
        status = store.status()
        assert ([1], 1) == ([each.partition for each in status.partitions], len(status.unavailable))


def test_the_pipeline_runs_by_itself(tmp_path):
    config = chronik.LogConfig(pipeline_interval_seconds=0.05, segment_bytes=1000)
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=config) as log:
        log.append([b"x" * 100] * 20)
        deadline = time.monotonic() + 30
        while log.read(0).tier != "object_store" and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "object_store" == log.read(0).tier
        assert 20 == log.watermarks.indexed


def test_a_round_that_begins_while_its_store_closes_reports_no_partition(tmp_path, caplog):
    """`produce` into one of several partitions said for each other one that it was left out."""
    with chronik.LogStore.open(tmp_path / "d", config=CONFIG) as store:
        store.create_topic("a", partitions=2)
    store = chronik.LogStore.open(tmp_path / "d", config=CONFIG)
    store.close()
    assert [] == store._ticker._cores()
    assert "" == caplog.text


def test_the_tail_index_of_a_searched_log_follows_its_appends(tmp_path):
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as log:
        log.append(b"needle one")
        assert 1 == log.search("needle").total
        log.append(b"needle two")
        deadline = time.monotonic() + 30
        while tail_of(log).document_count < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert 2 == tail_of(log).document_count
        assert 2 == log.search("needle").total


def test_a_tail_that_cannot_be_fed_costs_no_reader_its_marks(tmp_path, monkeypatch, caplog):
    """The thread of the marks ended with it, and readers beside the writer lagged for good."""
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as log:
        log.append(b"needle one")
        assert 1 == log.search("needle").total
        fed = threading.Event()

        def exhausted(_seconds):
            fed.set()
            raise MemoryError

        monkeypatch.setattr(log._search, "feed_tail", exhausted)
        log.append(b"needle two")
        assert fed.wait(30)
        log.append(b"needle three")
        with chronik.PartitionLog.open(tmp_path / "d", topic="t", read_only=True) as reader:
            assert b"needle three" == reader.read(2, wait_seconds=30).records[0].value
    assert "could not be fed" in caplog.text


def test_marks_are_written_as_soon_as_a_thread_can_be_had(tmp_path, caplog):
    class NoThreads(SystemThreads):
        some = False

        def spawn(self, target, *, name):
            if name == "chronik-mark" and not self.some:
                raise RuntimeError("can't start new thread")
            return super().spawn(target, name=name)

    threads = NoThreads()
    env = Environment(threads=threads)
    with chronik.LogStore.open(tmp_path / "d", config=CONFIG, env=env) as store:
        store.create_topic("t")
        log = store.partition("t")
        log.append(b"one")
        log.append(b"two")
        assert "on_synced" not in caplog.text
        threads.some = True
        log.append(b"three")
        with chronik.PartitionLog.open(tmp_path / "d", topic="t", read_only=True) as reader:
            assert b"three" == reader.read(2, wait_seconds=30).records[0].value


def test_ctrl_c_at_any_step_of_the_first_group_costs_the_others_no_mark():
    """It is one log's end; a thread that was not started was never asked for again, and readers
    beside the writer lagged behind all logs of the store.
    """
    for ctrl_c in at_each_step(store_ticker):
        started = []

        class Threads(SystemThreads):
            @staticmethod
            def spawn(_target, *, name, started=started):
                started.append(name)

        env = Environment(threads=Threads())
        ticker = StoreTicker(env, CONFIG, None, list, list, list, read_only=False)
        one, other = object(), object()
        with ctrl_c:
            ticker._note_unsworn(one)
        ticker._note_unsworn(other)
        assert "chronik-mark" in started
