"""Every partition asked one thing while topics come and go."""

from __future__ import annotations

import pytest

import chronik_store as chronik

CONFIG = chronik.LogConfig(pipeline_enabled=False)


def open_store(path, *, read_only=False):
    return chronik.LogStore.open(path, config=CONFIG, read_only=read_only)


@pytest.mark.parametrize("read_only", [False, True], ids=["owner", "reader"])
def test_a_topic_deleted_while_the_store_is_looked_at_is_no_fault(tmp_path, monkeypatch, read_only):
    with open_store(tmp_path / "d") as store:
        for name in ("a", "b"):
            store.create_topic(name)
            store.partition(name).append(b"x")
        seer = open_store(tmp_path / "d", read_only=True) if read_only else store
        honest = chronik.PartitionLog.status

        def meanwhile(log):
            if store.topics()[0].name != "a":
                return honest(log)
            store.delete_topic("a")
            if read_only:
                log.close()
            return honest(log)

        monkeypatch.setattr(chronik.PartitionLog, "status", meanwhile)
        status = seer.status()
        assert (["b"], ()) == ([each.topic for each in status.partitions], status.unavailable)
        if read_only:
            seer.close()


def test_a_log_closed_while_the_store_is_looked_at_is_opened_again(tmp_path, monkeypatch):
    with open_store(tmp_path / "d") as store:
        store.create_topic("a")
        store.partition("a").append(b"x")
        honest, closed = chronik.PartitionLog.status, []

        def meanwhile(log):
            if not closed:
                closed.append(log)
                log.close()
            return honest(log)

        monkeypatch.setattr(chronik.PartitionLog, "status", meanwhile)
        status = store.status()
        assert [("a", 1)] == [(each.topic, each.watermarks.end) for each in status.partitions]
        assert status.unavailable == ()
        assert store.partition("a") is not closed[0]


def test_a_store_closed_while_it_is_looked_at_says_so_of_each_partition(tmp_path, monkeypatch):
    store = open_store(tmp_path / "d")
    store.create_topic("a")
    honest = chronik.PartitionLog.status

    def meanwhile(log):
        store.close()
        return honest(log)

    monkeypatch.setattr(chronik.PartitionLog, "status", meanwhile)
    status = store.status()
    assert status.partitions == ()
    assert "closed" in status.unavailable[0]


def test_a_reader_is_told_that_a_topic_was_deleted_not_that_it_is_damaged(tmp_path):
    with open_store(tmp_path / "d") as store:
        store.create_topic("a")
        store.partition("a").append(b"x")
        with open_store(tmp_path / "d", read_only=True) as reader:
            assert ["a"] == [each.name for each in reader.topics()]
            store.delete_topic("a")
            with pytest.raises(chronik.TopicNotFoundError, match="no topic 'a'"):
                reader.partition("a")
