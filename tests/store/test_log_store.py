"""A data directory full of partitions: topics, identity, locks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time

import pytest

import chronik_store as chronik
from chronik_store.environment import Environment
from chronik_store.model import PipelineReport
from chronik_store.pipeline import Pipeline, PipelineRunner
from chronik_store.store_ticker import StoreTicker
from chronik_store.testing.simulated_disk import SimulatedDisk

CONFIG = chronik.LogConfig(pipeline_enabled=False)


def open_store(path, **options):
    return chronik.LogStore.open(path, config=options.pop("config", CONFIG), **options)


def test_partitions_are_the_same_object_every_time(tmp_path):
    with open_store(tmp_path / "d") as store:
        store.create_topic("a", partitions=3)
        assert store.partition("a", 1) is store.partition("a", 1)
        store.partition("a", 1).append(b"x")
        store.partition("a", 2).append(b"y")
    with open_store(tmp_path / "d") as store:
        assert [0, 1, 1] == [store.partition("a", number).watermarks.end for number in range(3)]


def test_partition_never_creates(tmp_path):
    with open_store(tmp_path / "d") as store:
        store.create_topic("a")
        for topic, partition in [("b", 0), ("a", 1), ("a", -1), ("a", "0")]:
            with pytest.raises(chronik.TopicNotFoundError):
                store.partition(topic, partition)
        assert ["a"] == [info.name for info in store.topics()]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "a b", "é", "x" * 201, "a\0b", "-\n"]
)
def test_illegal_topic_names_are_refused(tmp_path, name):
    with open_store(tmp_path / "d") as store:
        with pytest.raises(chronik.ConfigError):
            store.create_topic(name)
        assert () == store.topics()


@pytest.mark.parametrize("partitions", [0, -1, 1.5, "2", True])
def test_a_topic_has_a_whole_number_of_partitions(tmp_path, partitions):
    with open_store(tmp_path / "d") as store, pytest.raises(chronik.ConfigError):
        store.create_topic("a", partitions=partitions)


def test_a_topic_exists_once(tmp_path):
    with open_store(tmp_path / "d") as store:
        first = store.create_topic("a")
        with pytest.raises(chronik.TopicExistsError):
            store.create_topic("a")
        assert first == store.create_topic("a", exist_ok=True)
        assert 4 == store.create_topic("a", partitions=4, exist_ok=True).partitions
        assert 4 == store.create_topic("a", partitions=2, exist_ok=True).partitions


def test_protocol_6_a_namesake_created_later_has_nothing_of_the_deleted_topic(tmp_path):
    with open_store(tmp_path / "d") as store:
        first = store.create_topic("a")
        store.partition("a").append([b"old"] * 10)
        store.partition("a").seal()
        store.run_pipeline_once()
        store.delete_topic("a")
        with pytest.raises(chronik.TopicNotFoundError):
            store.partition("a")
        second = store.create_topic("a")
        assert first.topic_id != second.topic_id
        log = store.partition("a")
        assert 0 == log.watermarks.end
        log.append([b"new"] * 3)
        log.seal()
        assert () == store.run_pipeline_once().errors
    with chronik.open_bucket(f"file://{tmp_path}/d/object_store", topic="a") as log:
        assert [b"new"] * 3 == [record.value for record in log.scan()]
    names = [str(path) for path in (tmp_path / "d" / "object_store").rglob("*.seg")]
    assert 1 == len(names)


def test_a_deleted_topic_leaves_a_tombstone_and_no_other_object(tmp_path):
    with open_store(tmp_path / "d") as store:
        topic = store.create_topic("a")
        store.partition("a").append([b"old"] * 10)
        store.partition("a").seal()
        store.run_pipeline_once()
        store.delete_topic("a")
        root = tmp_path / "d" / "object_store"
        left = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        assert {"STORE", f"manifests/a/{topic.topic_id}.tombstone"} == left


def test_search_merges_partitions(tmp_path):
    with open_store(tmp_path / "d") as store:
        store.create_topic("a", partitions=2)
        store.partition("a", 0).append([b"needle 0", b"hay"])
        store.partition("a", 1).append([b"needle 1"])
        found = store.search("a", "needle")
        assert 2 == found.total
        assert {(0, b"needle 0"), (1, b"needle 1")} == {
            (h.partition, h.record.value) for h in found
        }


def test_a_directory_has_one_writer(tmp_path):
    with open_store(tmp_path / "d"):
        with pytest.raises(chronik.DirectoryLockedError, match="this process") as caught:
            open_store(tmp_path / "d")
        assert os.getpid() == caught.value.pid
        open_store(tmp_path / "d", read_only=True).close()
    open_store(tmp_path / "d").close()


def test_another_process_that_holds_the_directory_is_named(tmp_path):
    program = (
        "import sys, chronik_store as c\n"
        "s = c.LogStore.open(sys.argv[1]); print('open', flush=True); sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "d")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=os.getcwd(),
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    try:
        assert b"open\n" == child.stdout.readline()
        with pytest.raises(chronik.DirectoryLockedError) as caught:
            open_store(tmp_path / "d")
        assert child.pid == caught.value.pid
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    open_store(tmp_path / "d").close()


def test_a_file_is_not_a_data_directory(tmp_path):
    (tmp_path / "d").write_bytes(b"")
    with pytest.raises(chronik.ConfigError, match="is a file"):
        open_store(tmp_path / "d")


def test_reading_a_directory_that_is_none_creates_nothing(tmp_path):
    with pytest.raises(chronik.ConfigError, match="not a Chronik data directory"):
        open_store(tmp_path / "d", read_only=True)
    assert not (tmp_path / "d").exists()


def test_a_directory_stays_with_its_bucket(tmp_path):
    here, there = f"file://{tmp_path}/one", f"file://{tmp_path}/two"
    open_store(tmp_path / "d", object_store=here).close()
    open_store(tmp_path / "d").close()
    with pytest.raises(chronik.IdentityMismatchError, match="holds nothing yet may be removed"):
        open_store(tmp_path / "d", object_store=there)


def test_a_bucket_prefix_belongs_to_one_store(tmp_path):
    url = f"file://{tmp_path}/bucket"
    with open_store(tmp_path / "one", object_store=url) as store:
        store.create_topic("a")
        store.partition("a").append(b"x")
        store.partition("a").seal()
        store.run_pipeline_once()
    with pytest.raises(chronik.IdentityMismatchError, match="another prefix"):
        open_store(tmp_path / "two", object_store=url)


@pytest.mark.parametrize(
    "url", ["", "bucket", "ftp://x/y", "file://relative", "s3://", "s3://u:p@b"]
)
def test_an_unusable_url_is_refused_before_anything_is_made(tmp_path, url):
    with pytest.raises(chronik.ConfigError):
        open_store(tmp_path / "d", object_store=url)
    assert not (tmp_path / "d").exists()


def test_a_lost_wal_directory_is_damage_not_an_empty_log(tmp_path):
    with open_store(tmp_path / "d") as store:
        store.create_topic("a")
        store.partition("a").append(b"x")
    for path in (tmp_path / "d" / "wal" / "a" / "0").iterdir():
        path.unlink()
    with open_store(tmp_path / "d") as store, pytest.raises(chronik.CorruptionError):
        store.partition("a")


def test_a_lost_store_file_is_damage(tmp_path):
    with open_store(tmp_path / "d") as store:
        store.create_topic("a")
    (tmp_path / "d" / "STORE").unlink()
    with pytest.raises(chronik.CorruptionError):
        open_store(tmp_path / "d")


@pytest.mark.parametrize("name", ["STORE", "TOPICS"])
def test_a_flipped_byte_in_a_small_file_is_refused(tmp_path, name):
    with open_store(tmp_path / "d") as store:
        store.create_topic("a")
    path = tmp_path / "d" / name
    good = path.read_bytes()
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 0x10
        path.write_bytes(bad)
        with pytest.raises((chronik.CorruptionError, chronik.FutureVersionError)):
            open_store(tmp_path / "d")
    path.write_bytes(good)
    open_store(tmp_path / "d").close()


def test_a_closed_store_says_so(tmp_path):
    store = open_store(tmp_path / "d")
    store.close()
    store.close()
    for call in (store.topics, store.status, store.run_pipeline_once,
                 lambda: store.create_topic("a"), lambda: store.partition("a")):  # fmt: skip
        with pytest.raises(chronik.LogClosedError):
            call()


def test_secrets_show_nowhere(tmp_path):
    s3 = chronik.S3Options(access_key="AKIASECRET", secret_key="hush-hush-secret")
    config = CONFIG.replace(s3=s3)
    with open_store(tmp_path / "d", config=config) as store:
        store.create_topic("a")
        shown = f"{config!r} {store!r} {store.status()!r} {store.partition('a').status()!r}"
    stored = b"".join(path.read_bytes() for path in (tmp_path / "d").rglob("*") if path.is_file())
    assert not re.search(r"AKIASECRET|hush-hush", shown + stored.decode("latin-1"))


def test_a_lost_list_of_topics_is_damage_and_nothing_takes_the_place_of_what_is_there(tmp_path):
    with open_store(tmp_path / "d") as store:
        store.create_topic("a")
        store.partition("a").append([b"x"] * 3)
    topics = (tmp_path / "d" / "TOPICS").read_bytes()
    (tmp_path / "d" / "TOPICS").unlink()
    for read_only in (False, True):
        with pytest.raises(chronik.CorruptionError, match="TOPICS"):
            open_store(tmp_path / "d", read_only=read_only)
    (tmp_path / "d" / "TOPICS").write_bytes(topics)
    with open_store(tmp_path / "d") as store:
        assert 3 == store.partition("a").watermarks.end


def test_what_no_list_names_is_set_aside_not_deleted(tmp_path):
    with open_store(tmp_path / "d") as store:
        store.create_topic("a")
        empty = (tmp_path / "d" / "TOPICS").read_bytes()
        store.create_topic("b")
        store.partition("b").append(b"precious")
    (tmp_path / "d" / "TOPICS").write_bytes(empty)
    with open_store(tmp_path / "d") as store:
        store.create_topic("b")
        assert 0 == store.partition("b").watermarks.end
    kept = list((tmp_path / "d" / "quarantine").rglob("wal_*.log"))
    assert any(b"precious" in path.read_bytes() for path in kept)


def test_protocol_6_a_deletion_in_an_outage_is_finished_later_and_first(tmp_path):
    bucket = tmp_path / "d" / "object_store"
    with open_store(tmp_path / "d") as store:
        store.create_topic("a")
        store.partition("a").append([b"old"] * 10)
        store.partition("a").seal()
        store.run_pipeline_once()
        bucket.rename(tmp_path / "away")
        bucket.write_bytes(b"")  # the bucket does not answer
        store.delete_topic("a")
        with pytest.raises(chronik.TopicNotFoundError):
            store.partition("a")
        with pytest.raises(chronik.ChronikError):
            store.create_topic("a")
        assert store.run_pipeline_once().errors
        bucket.unlink()
        (tmp_path / "away").rename(bucket)
        store.create_topic("a")
        store.partition("a").append(b"new")
        assert () == store.run_pipeline_once().errors
        assert [] == list(bucket.rglob("*.seg"))


@pytest.mark.parametrize("own", [True, False])
def test_blocks_of_a_bucket_on_the_same_disk_are_not_kept_there_twice(tmp_path, own):
    url = None if own else f"file://{tmp_path}/bucket"
    with open_store(tmp_path / "d", object_store=url) as store:
        store.create_topic("a")
        log = store.partition("a")
        log.append([b"x" * 1000] * 100)
        log.seal()
        assert () == log.run_pipeline_once().errors
        found = log.read(0)
        assert ("object_store", 100) == (found.tier, len(found.records))
        kept = list((tmp_path / "d" / "cache").glob("*"))
        assert own is (kept == [])


def test_ctrl_c_while_closing_waits_for_the_pipeline_closes_all_the_same(tmp_path, monkeypatch):
    """Else the last group stays without the mark that shows it to readers until a writer comes."""
    stuck = threading.Event()
    monkeypatch.setattr(
        Pipeline, "run_once", lambda *_: PipelineReport(errors=(str(stuck.wait(30)),))
    )
    config = CONFIG.replace(pipeline_enabled=True, pipeline_interval_seconds=0.01)
    store = open_store(tmp_path / "d", config=config)
    store.create_topic("a")
    log = store.partition("a")
    log.append([b"x"] * 10)
    time.sleep(0.1)  # the pipeline's thread is in its run

    ends, left = PipelineRunner.close, []

    def interrupted(runner):
        left.append(runner)
        raise KeyboardInterrupt

    monkeypatch.setattr(PipelineRunner, "close", interrupted)
    log.append([b"y"] * 10)
    with pytest.raises(KeyboardInterrupt):
        store.close()
    with pytest.raises(chronik.LogClosedError):
        log.append(b"z")
    with open_store(tmp_path / "d", read_only=True) as reader:
        assert 20 == reader.partition("a").watermarks.committed
    with open_store(tmp_path / "d") as again:  # the lock was released
        assert 20 == again.partition("a").watermarks.end
    stuck.set()
    ends(left[0])  # its thread must not go on behind other tests


@pytest.mark.parametrize("call", ["write_at", "sync_data"])
def test_ctrl_c_while_a_log_is_closed_releases_everything(call):
    disk = SimulatedDisk(seed=1)
    store = chronik.LogStore.open("/d", config=CONFIG, env=Environment(fs=disk))
    store.create_topic("a", partitions=2)
    for partition in (0, 1):
        store.partition("a", partition).append(b"x")
        store.partition("a", partition).append(b"y")  # nothing swears to it yet

    def interrupt(_number, operation, path):
        if operation == call and "/wal/a/0/" in path:
            raise KeyboardInterrupt

    disk.hook = interrupt
    with pytest.raises(KeyboardInterrupt):
        store.close()
    disk.hook = lambda *_: None
    assert [] == disk.open_files
    store.close()
    with chronik.LogStore.open("/d", config=CONFIG, env=Environment(fs=disk)) as again:
        for partition in (0, 1):
            found = again.partition("a", partition).scan()
            assert [b"x", b"y"] == [record.value for record in found]


@pytest.mark.parametrize("last", ["_ticker", "_logs", "_assembly", "_bucket"])
def test_the_lock_is_freed_last_and_whatever_happened(monkeypatch, last):
    """From there on another writer may come, to whom nothing of this one must be in the way."""
    env = Environment(fs=SimulatedDisk(seed=1))
    store = chronik.LogStore.open("/d", config=CONFIG, env=env)
    store.create_topic("a")
    store.partition("a").append(b"x")
    name = "close_services" if last == "_assembly" else "close"
    part = getattr(store, last)
    close = getattr(part, name)

    def closing():
        close()
        with pytest.raises(chronik.DirectoryLockedError):
            chronik.LogStore.open("/d", config=CONFIG, env=env)
        raise RuntimeError("tried")

    monkeypatch.setattr(part, name, closing)
    with pytest.raises(RuntimeError, match="tried"):
        store.close()
    with chronik.LogStore.open("/d", config=CONFIG, env=env) as again:
        assert [b"x"] == [record.value for record in again.partition("a").scan()]


@pytest.mark.parametrize("fails", ["identity", "thread"])
def test_an_open_that_fails_closes_its_bucket(tmp_path, monkeypatch, fails):
    url = f"file://{tmp_path}/bucket"
    with open_store(tmp_path / "one", object_store=url) as store:
        store._bucket.prepare()
    opened, closed = [], []
    inner = chronik.log_store.open_object_store

    def opens(*args, **options):
        store = inner(*args, **options)
        close = store.close
        store.close = lambda: (closed.append(store), close())
        opened.append(store)
        return store

    monkeypatch.setattr(chronik.log_store, "open_object_store", opens)
    if fails == "identity":
        with pytest.raises(chronik.IdentityMismatchError):
            open_store(tmp_path / "two", object_store=url)
    else:
        monkeypatch.setattr(StoreTicker, "start", lambda _: int("no thread"))
        with pytest.raises(ValueError, match="no thread"):
            open_store(tmp_path / "one", object_store=url)
        monkeypatch.undo()
        open_store(tmp_path / "one", object_store=url).close()
    assert {id(each) for each in opened} == {id(each) for each in closed}


def test_that_a_new_directory_is_bound_to_a_bucket_is_logged_and_so_is_the_new_store(
    tmp_path, caplog
):
    """A URL that is mistyped is as good as any other, and cannot be changed later."""
    caplog.set_level("INFO", "chronik_store.bucket")
    url = f"file://{tmp_path}/bucket"
    config = chronik.LogConfig(pipeline_enabled=False, object_store=url)
    for runs in range(2):
        with chronik.LogStore.open(tmp_path / "d", config=config) as store:
            store.create_topic("t", exist_ok=True)
            store.partition("t").append(b"x")
            store.partition("t").seal()
            assert not store.run_pipeline_once().errors
            known = store.status().store_id
        said = [each for each in caplog.messages if url in each]
        assert 2 == len(said), runs
    assert f"of store {known}: it belongs to {url} for good" in said[0]
    assert f"store {known} is made at {url}, which held none" == said[1]
    chronik.LogStore.open(tmp_path / "plain", config=chronik.LogConfig()).close()
    assert not [each for each in caplog.messages if "for good" in each][1:]
