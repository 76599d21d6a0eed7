"""A log opened from its bucket alone: what a deletion left behind is not in the way."""

from __future__ import annotations

import pytest

import chronik_store as chronik
from chronik_store.repair import plan_repair

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
