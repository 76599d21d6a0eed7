"""A directory of an embedded log becomes a node's: in one step, with all it has, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from chronik_store import LogConfig, LogStore
from chronik_store.conversion import convert, found_topics, is_founder
from chronik_store.environment import Environment
from chronik_store.errors import (
    ConfigError,
    CorruptionError,
    DirectoryLockedError,
    ReadOnlyError,
    TopicNotFoundError,
)
from chronik_store.replicated import core_of, doubt, open_as_node, owner_of

OWN = "__own"
QUIET = LogConfig(pipeline_enabled=False)


def config_of(path: Path) -> LogConfig:
    return QUIET.replace(object_store=f"file://{path}/bucket")


def filled(path: Path) -> dict[str, tuple[str, str]]:
    """{topic: (topic id, log id)} of a directory with records."""
    with LogStore.open(path / "d", config=config_of(path)) as store:
        for name in ("events", "other"):
            store.create_topic(name)
            store.partition(name).append([b"a", b"b"])
        return {
            info.name: (info.topic_id, core_of(store.partition(info.name)).identity.log_id)
            for info in store.topics()
        }


def converted(path: Path) -> str:
    return convert(path / "d", "7", own_topic=OWN, config=config_of(path), env=Environment())


def test_topics_and_logs_keep_their_ids(tmp_path: Path) -> None:
    before = filled(tmp_path)
    cluster_id = converted(tmp_path)

    assert f"{cluster_id}/7" == owner_of(tmp_path / "d", Environment())
    store = open_as_node(
        tmp_path / "d", cluster_id=cluster_id, node_id="7", dispatch=lambda call: call(),
        config=config_of(tmp_path), env=Environment(),
    )  # fmt: skip
    try:
        assert is_founder(store)
        assert before == {t.name: (t.topic_id, t.log_ids[0]) for t in found_topics(store)}
        assert 2 == store.partition("events").watermarks.end
    finally:
        store.close()


def test_9_an_operator_has_one_copy_of_a_node_count_as_damaged(tmp_path: Path) -> None:
    filled(tmp_path)
    directory, config, env = tmp_path / "d", config_of(tmp_path), Environment()
    with pytest.raises(ConfigError, match="not the directory of a cluster's node"):
        doubt(directory, "events", 0, config=config, env=env)
    cluster_id = converted(tmp_path)
    for topic, partition in (("nothing", 0), ("events", 1)):
        with pytest.raises(TopicNotFoundError, match="no copy"):
            doubt(directory, topic, partition, config=config, env=env)

    for _ in range(2):
        doubt(directory, "events", 0, config=config, env=env)

    with open_as_node(
        directory, cluster_id=cluster_id, node_id="7", dispatch=lambda call: call(),
        config=config, env=env,
    ) as store:  # fmt: skip
        suspect = {name: core_of(store.partition(name)).wal.suspect for name in ("events", "other")}
        assert {"events": True, "other": False} == suspect
        assert 2 == store.partition("events").watermarks.end
        with pytest.raises(DirectoryLockedError):
            doubt(directory, "events", 0, config=config, env=env)


def test_11_afterwards_it_belongs_to_the_node(tmp_path: Path) -> None:
    filled(tmp_path)
    converted(tmp_path)

    with LogStore.open(tmp_path / "d", config=QUIET) as store:
        with pytest.raises(ReadOnlyError):
            store.create_topic("more")
        assert [b"a", b"b"] == [r.value for r in store.partition("events").read(0)]
    with pytest.raises(ConfigError, match="already"):
        converted(tmp_path)


def test_a_bucket_inside_the_directory_is_refused_with_the_way_that_is_left(tmp_path: Path) -> None:
    with LogStore.open(tmp_path / "d", config=QUIET) as store:
        store.create_topic("events")
    with pytest.raises(ConfigError, match="export"):
        convert(tmp_path / "d", "1", own_topic=OWN, config=QUIET, env=Environment())

    assert "local" == owner_of(tmp_path / "d", Environment())


def test_a_directory_that_is_in_use_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    with LogStore.open(tmp_path / "d", config=QUIET), pytest.raises(DirectoryLockedError):
        converted(tmp_path)


def test_a_log_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    for file in (tmp_path / "d/wal/events/0").glob("*.log"):
        file.unlink()
    with pytest.raises(CorruptionError):
        converted(tmp_path)

    assert "local" == owner_of(tmp_path / "d", Environment())


def test_another_clusters_own_topic_goes(tmp_path: Path) -> None:
    filled(tmp_path)
    with LogStore.open(tmp_path / "d", config=QUIET) as store:
        store.create_topic(OWN)
    cluster_id = converted(tmp_path)

    store = open_as_node(
        tmp_path / "d", cluster_id=cluster_id, node_id="7", dispatch=lambda call: call(),
        config=config_of(tmp_path), env=Environment(),
    )  # fmt: skip
    try:
        assert {"events", "other"} == {topic.name for topic in found_topics(store)}
    finally:
        store.close()


def test_a_directory_that_is_not_there_has_no_owner(tmp_path: Path) -> None:
    assert owner_of(tmp_path / "nothing", Environment()) is None
