"""An embedded log's directory becomes the first node of a cluster.

Place: beside `replicated`; called by the server's command line. Promise: nothing is copied and
nothing moves: the directory, its logs and its folder in the bucket are the cluster's from then on,
under the ids that they have, so the store's id is the cluster's. What cannot be shared is refused
with the way that is left. Invariant: the owner in STORE changes last, in one step; until then the
directory is what it was.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import NamedTuple

from chronik_store.config import LogConfig
from chronik_store.data_directory import STORE_NAME
from chronik_store.disk_errors import disk_errors
from chronik_store.environment import Environment
from chronik_store.errors import ChronikError, ConfigError
from chronik_store.log_store import LogStore
from chronik_store.replicated import core_of, remember, remembered

FOUNDER_NAME = "FOUNDER"
"""File of a directory whose node is the first of its cluster, and was an embedded log before."""


def convert(
    path: str | os.PathLike[str],
    node_id: str,
    *,
    own_topic: str,
    config: LogConfig,
    env: Environment,
) -> str:
    """Make the directory node `node_id` of a cluster of one; returns the cluster's id.

    own_topic: a cluster's own; one that was restored with the rest says how another cluster was
    laid out, and goes.
    ConfigError: its bucket is inside it, or it is a node already. Else as `LogStore.open`, and
    what keeps a partition from being opened: it is repaired first, or restored.
    """
    quiet = config.replace(pipeline_enabled=False)
    with LogStore.open(path, config=quiet, env=env) as store:
        directory = store._directory
        if directory.foreign_owner is not None:
            raise ConfigError(f"{directory.path} is {directory.foreign_owner} already")
        if directory.url is None:
            raise ConfigError(
                f"the bucket of {directory.path} is inside it, where no other node can reach it: "
                "start a cluster over a bucket of its own, and take the records over with "
                "`chronik export` and `chronik -s HOST:PORT produce --records`"
            )
        if directory.topics.get(own_topic) is not None:
            store.delete_topic(own_topic)
        store._topics.finish_deletions()
        for found in store._all_logs():
            if isinstance(found, ChronikError):
                raise found
        store._bucket.prepare()
        remember(store, FOUNDER_NAME, 1)
        assert directory.identity is not None
        identity = replace(directory.identity, owner=f"{directory.store_id}/{node_id}")
        with disk_errors(directory.path, "convert"):
            directory.files.write(STORE_NAME, identity.encode())
        return directory.store_id


def is_founder(store: LogStore) -> bool:
    """This directory was converted: its node needs nobody to begin."""
    return remembered(store, FOUNDER_NAME) == 1


class FoundTopic(NamedTuple):
    """A topic that was there before the cluster."""

    name: str
    topic_id: str
    log_ids: tuple[str, ...]


def found_topics(store: LogStore) -> list[FoundTopic]:
    """What the directory of a founder holds."""
    return [
        FoundTopic(
            info.name,
            info.topic_id,
            tuple(
                core_of(store.partition(info.name, number)).identity.log_id
                for number in range(info.partitions)
            ),
        )
        for info in store.topics()
    ]
