"""A log opened from its bucket alone: what a deletion left behind is not in the way."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import chronik_store as chronik
from chronik_store.format.manifest_file import decode_manifest_object
from chronik_store.objectstore.cache import BlockCache
from chronik_store.objectstore.layout import parse_manifest_key
from chronik_store.objectstore.local import LocalObjectStore
from chronik_store.repair import plan_repair
from chronik_store.search.bundle_cache import BundleCache

CONFIG = chronik.LogConfig(pipeline_enabled=False, indexing_enabled=False)


@pytest.fixture
def stray(tmp_path):
    """A directory and its bucket; a manifest of a deleted topic came after the deletion."""
    url = f"file://{tmp_path}/bucket"
    with chronik.LogStore.open(tmp_path / "d", object_store=url, config=CONFIG) as store:
        store.create_topic("t")
        published(store, b"old")
        [manifest] = (tmp_path / "bucket").rglob("*.cbor")
        body = manifest.read_bytes()
        store.delete_topic("t")
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_bytes(body)
    return url


def published(store, value):
    log = store.partition("t")
    log.append(value)
    log.seal()
    assert () == store.run_pipeline_once().errors


def test_a_manifest_of_a_deleted_topic_is_no_log(stray):
    with pytest.raises(chronik.TopicNotFoundError):
        chronik.open_bucket(stray, topic="t")


def test_a_namesake_is_opened_and_followed_beside_it(stray, tmp_path):
    with chronik.LogStore.open(tmp_path / "d", config=CONFIG) as store:
        store.create_topic("t")
        published(store, b"new")
        with chronik.open_bucket(stray, topic="t") as log:
            assert [b"new"] == [record.value for record in log.scan()]
            published(store, b"newer")
            assert [b"new", b"newer"] == [record.value for record in log.scan()]


def test_repair_looks_past_it(stray, tmp_path):
    with chronik.LogStore.open(tmp_path / "d", config=CONFIG) as store:
        store.create_topic("t")
        published(store, b"new")
    [plan] = plan_repair(tmp_path / "d", config=CONFIG)
    assert ("none", 1) == (plan.action, plan.tiered_offset)
    for path in (tmp_path / "d" / "wal" / "t" / "0").iterdir():
        path.unlink()
    [plan] = plan_repair(tmp_path / "d", config=CONFIG)
    assert ("restore", 1) == (plan.action, plan.tiered_offset)


def test_a_reader_of_a_deleted_topic_is_not_given_its_namesakes_records(tmp_path):
    url = f"file://{tmp_path}/bucket"
    with chronik.LogStore.open(tmp_path / "d", object_store=url, config=CONFIG) as store:
        store.create_topic("t")
        published(store, b"old")
        with chronik.open_bucket(url, topic="t") as reader:
            follower = reader.scan(follow=True)
            assert b"old" == next(follower).value
            store.delete_topic("t")
            store.create_topic("t")
            published(store, b"new")
            published(store, b"newer")
            for call in (lambda: next(follower), lambda: reader.read(1), reader.status):
                with pytest.raises(chronik.TopicNotFoundError, match="deleted"):
                    call()


@pytest.fixture
def cut(tmp_path):
    """A bucket with ten records; what restores the first five and goes on in other words."""
    url = f"file://{tmp_path}/bucket"
    with chronik.LogStore.open(tmp_path / "d", object_store=url, config=CONFIG) as store:
        store.create_topic("t")
        published(store, [b"fish %d" % number for number in range(10)])

    def go_on():
        chronik.restore(url, tmp_path / "new", until_offset=5)
        with chronik.LogStore.open(tmp_path / "new", config=CONFIG) as store:
            published(store, [b"bird %d" % number for number in range(10)])

    return url, go_on


def assert_finds_the_new_log(reader):
    for word, count in (("fish", 5), ("bird", 10)):
        found = reader.search(word, limit=20)
        assert (count, True) == (found.total, found.complete)
        assert all(word.encode() in hit.record.value for hit in found)


def test_a_search_knows_nothing_of_what_a_restore_cut_off(cut):
    """Without bundles all of it is indexed by the reader itself, which has done so before."""
    url, go_on = cut
    with chronik.open_bucket(url, topic="t", config=CONFIG) as reader:
        assert 10 == reader.search("fish").total
        go_on()
        assert 15 == reader.watermarks.end
        assert_finds_the_new_log(reader)


def test_a_look_that_took_long_does_not_go_back_to_the_log_before(cut, monkeypatch):
    url, go_on = cut
    with chronik.open_bucket(url, topic="t", config=CONFIG) as reader:
        look = reader._view._newest

        def slow():
            monkeypatch.undo()
            seen = look()
            go_on()
            assert 15 == reader.watermarks.end  # another thread's
            return seen

        monkeypatch.setattr(reader._view, "_newest", slow)
        reader._view.refresh()
        assert 15 == reader._view.end_offset


def test_a_bucket_that_lists_an_older_manifest_takes_nothing_back(tmp_path, monkeypatch):
    """A listing that is late must not unsay what a reader was told."""
    url = f"file://{tmp_path}/bucket"
    with chronik.LogStore.open(tmp_path / "d", object_store=url, config=CONFIG) as store:
        store.create_topic("t")
        published(store, [b"first"])
        with chronik.open_bucket(url, topic="t", config=CONFIG) as reader:
            late = reader._view._newest()
            published(store, [b"second"])
            assert 2 == reader._view.refresh().offset
            monkeypatch.setattr(reader._view, "_newest", lambda: late)
            assert 2 == reader._view.refresh().offset


def test_a_look_that_began_last_and_listed_first_does_not_go_back_either(
    cut, tmp_path, monkeypatch
):
    """Of two threads' looks: its listing was before the restore's claim, the other one's behind."""
    url, go_on = cut
    with chronik.open_bucket(url, topic="t", config=CONFIG) as reader:
        listed_first = reader._view._newest()
        go_on()
        assert 15 == reader.watermarks.end
        with monkeypatch.context() as patch:
            patch.setattr(reader._view, "_newest", lambda: listed_first)
            assert 15 == reader._view.refresh().offset
        chronik.restore(url, tmp_path / "newest", until_offset=12)
        assert 12 == reader.watermarks.end


@pytest.mark.parametrize("waits", [BundleCache, BlockCache])
def test_ctrl_c_while_it_closes_leaves_neither_connections_nor_scratch(cut, monkeypatch, waits):
    """Closing waits for what is being fetched, as long as the bucket takes; a second `close` does
    nothing.
    """
    url, _ = cut
    closed = []
    monkeypatch.setattr(LocalObjectStore, "close", lambda store: closed.append(store.url))
    reader = chronik.open_bucket(url, topic="t", config=CONFIG)
    assert 10 == reader.search("fish").total
    scratch = Path(reader._search._scratch._root())
    assert scratch.is_dir()

    def interrupted(_cache):
        raise KeyboardInterrupt

    monkeypatch.setattr(waits, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reader.close()
    assert [url] == closed
    assert not scratch.exists()


def test_a_follower_of_a_log_that_is_cut_steps_over_nothing_behind_its_offset(tmp_path):
    """The old log had entries of a cursor between its records; what is cut from it has none."""
    url = f"file://{tmp_path}/bucket"
    with chronik.PartitionLog.open(
        tmp_path / "d", topic="t", object_store=url, config=CONFIG
    ) as log:
        for number in range(10):
            log.append(b"fish %d" % number)
            log.cursor("c").commit(number + 1)
        log.seal()
        log.run_pipeline_once()
    with chronik.open_bucket(url, topic="t", config=CONFIG) as reader:
        follower = reader.scan(follow=True)
        assert list(range(10)) == [next(follower).offset for _ in range(10)]
        chronik.restore(url, tmp_path / "new", until_offset=8)
        with chronik.LogStore.open(tmp_path / "new", config=CONFIG) as store:
            for number in range(8, 28):
                store.partition("t").append(b"bird %d" % number)
            published(store, b"bird 28")
        seen = [record.value for record in itertools.islice(follower, 5)]
        assert [b"bird %d" % number for number in range(10, 15)] == seen


@pytest.fixture
def half_done(cut, tmp_path, monkeypatch):
    """As `cut`, behind a restore that has claimed the log and published nothing yet."""
    url, go_on = cut
    with chronik.LogStore.open(tmp_path / "d", config=CONFIG) as store:
        published(store, b"fish 10")  # so that a manifest names the number of the one before it

    def begin(directory):
        put = LocalObjectStore.put_if_absent

        def cut_off(self, key, data):
            manifest = parse_manifest_key(key)
            if manifest is not None and decode_manifest_object(bytes(data)).successor is None:
                raise chronik.UnavailableError("the bucket went away")
            return put(self, key, data)

        with monkeypatch.context() as patch:
            patch.setattr(LocalObjectStore, "put_if_absent", cut_off)
            with pytest.raises(chronik.UnavailableError):
                chronik.restore(url, tmp_path / directory, until_offset=5)

    begin("new")
    return url, go_on, begin


def test_a_search_during_a_restore_is_of_the_log_before(half_done):
    """Or what it has indexed would be taken for the new log's, at the same offsets."""
    url, go_on, _ = half_done
    with chronik.open_bucket(url, topic="t", config=CONFIG) as reader:
        assert 11 == reader.search("fish").total
        go_on()
        assert 15 == reader.watermarks.end
        assert_finds_the_new_log(reader)


@pytest.mark.parametrize("others", [(), ("other",), ("other", "third")])
def test_a_restore_that_is_under_way_is_no_corruption(half_done, others):
    """Nor are several, each of which took over from one that had published nothing yet."""
    url, _, begin = half_done
    with chronik.open_bucket(url, topic="t", config=CONFIG) as reader:
        before = reader.status().log_id
        for directory in others:
            begin(directory)
        findings = reader.verify(bucket=True).findings
        assert [] == [each for each in findings if each.severity != "note"]
        assert (before, 11) == (reader.status().log_id, reader.watermarks.end)
