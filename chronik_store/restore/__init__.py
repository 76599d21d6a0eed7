"""Restore: make a data directory from a bucket, and fence the log that wrote there (protocol 5).

Place: beside `log_store`, above the rooms; the command line's `restore`. Promise: the directory
that it makes is opened by `LogStore.open` and goes on where the bucket's data ends; whoever owned
the bucket before can publish nothing more of what was there, hence prunes and deletes nothing more
(a partition of which nothing was is begun there, empty; a topic of which nothing was is that of
whoever publishes first: `fence`). Invariant: per partition the claim comes first, the new log's
first manifest second, local files third; the STORE file, without which nobody opens the directory,
is the last of all. A restore that was cut off anywhere is run again with the same arguments and
goes on.

    plan on disk -> claim: old log's next number names the new log -> new log's number 1 -> WAL
                 -> TOPICS, STORE -> plan removed

What the old log held past its tiered end is not in the bucket and not in the report's ranges: the
report names what is known to be missing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from chronik_store.config import LogConfig, check_config
from chronik_store.data_directory import FORMAT_VERSION, STORE_NAME, DataDirectory, absolute_path
from chronik_store.disk_errors import disk_errors, errors_of_new_logs
from chronik_store.environment import Environment
from chronik_store.errors import ConfigError, CorruptionError
from chronik_store.format.store_file import (
    StoreIdentity,
    TopicEntry,
    decode_store_identity,
)
from chronik_store.fs.tree import remove_tree
from chronik_store.lineage import Survey, is_tried, lineage_of, survey
from chronik_store.log_identity import LOCAL_OWNER
from chronik_store.objectstore.base import ObjectNotFoundError, ObjectStore
from chronik_store.objectstore.layout import STORE_KEY
from chronik_store.objectstore.open import open_object_store
from chronik_store.restore.plan import (
    PlannedLog,
    RestorePlan,
    load_plan,
    remove_plan,
    save_plan,
)
from chronik_store.restore.takeover import RestoredLog, restore_log
from chronik_store.wal.services import WalServices

_log = logging.getLogger("chronik_store.restore")

Progress = Callable[[str, int, int], None]
"""(what is being done, how many of it are done, of how many)."""


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore made: one entry for each partition.

    was_complete: an earlier run had finished already; nothing was done and `logs` is empty.
    """

    path: str
    url: str
    store_id: str
    logs: tuple[RestoredLog, ...]
    was_complete: bool = False


def restore(
    url: str,
    path: str | os.PathLike[str],
    *,
    until_offset: int | None = None,
    until_us: int | None = None,
    config: LogConfig = LogConfig(),  # noqa: B008 (frozen)
    env: Environment | None = None,
    progress: Progress | None = None,
) -> RestoreReport:
    """Make the data directory `path` from the bucket at `url`, which is taken over.

    Every topic and partition of the bucket is restored, also what its owner publishes while this
    runs. until_offset: each partition ends there at the latest. until_us: entries with an index
    timestamp after it (microseconds since 1970 UTC) are left out; what is cut off stays in the
    bucket as objects that nothing reads any more: the new log is what every later restore goes on
    from. The old owner, should it still run, stops tiering and keeps what it has; it must not be
    used any more.

    Repeatable: run it again with the same arguments after a crash or an outage. progress: called
    with what is being done, how many of it are done, and of how many.

    Raises:
        ConfigError: the bucket holds no store, or the directory is in use or meant for another.
        FencedError: another restore took the bucket over meanwhile.
        UnavailableError, AccessDeniedError, CorruptionError, FutureVersionError, DiskFullError.
    """
    env = Environment() if env is None else env
    absolute = absolute_path(path)
    check_config(config)
    # Before anything is claimed: that cannot be taken back.
    for name, limit in (("until_offset", until_offset), ("until_us", until_us)):
        if limit is not None and type(limit) is not int:
            raise TypeError(f"{name} must be an int, not {type(limit).__name__}")
    if until_offset is not None and until_offset < 0:
        raise ConfigError(f"until_offset is {until_offset}; it must not be negative")
    store = open_object_store(url, env=env, s3=config.s3, must_exist=True)
    try:
        with disk_errors(absolute, "look at"):
            is_new = not env.fs.exists(absolute)
        if is_new:
            _bucket_identity(store)  # lest a mistyped bucket leaves an empty directory
        directory = DataDirectory.claim(env, absolute)
        try:
            with errors_of_new_logs(absolute, "restore into"):
                job = _Job(env, config, store, directory, progress or _silent)
                return job.run(url, until_offset, until_us)
        finally:
            directory.close()
    finally:
        store.close()


def _silent(_what: str, _done: int, _of: int) -> None:
    """Nobody watches."""


def _by_topic(found: Survey) -> dict[str, list[int]]:
    """The numbers of the partitions that have a manifest, by topic; both in order."""
    partitions: dict[str, list[int]] = {}
    for topic, partition in found.partitions:
        partitions.setdefault(topic, []).append(partition)
    return partitions


def _bucket_identity(store: ObjectStore) -> StoreIdentity:
    try:
        data = store.get(STORE_KEY)
    except ObjectNotFoundError as error:
        raise ConfigError(
            f"{store.url} holds no Chronik store (no {STORE_KEY} object): check bucket and prefix"
        ) from error
    return decode_store_identity(data, path=f"{store.url}/{STORE_KEY}")


class _Job:
    """One run of a restore."""

    def __init__(
        self,
        env: Environment,
        config: LogConfig,
        store: ObjectStore,
        directory: DataDirectory,
        progress: Progress,
    ) -> None:
        self._env = env
        self._config = config
        self._store = store
        self._directory = directory
        self._progress = progress

    def run(self, url: str, until_offset: int | None, until_us: int | None) -> RestoreReport:
        plan = self._plan(url, until_offset, until_us)
        if self._env.fs.exists(f"{self._directory.path}/{STORE_NAME}"):
            # Only the plan was left over. The directory may have been used since: hands off.
            remove_plan(self._directory)
            return RestoreReport(self._directory.path, url, plan.store_id, (), was_complete=True)
        services = WalServices.create(self._env)
        taken: list[tuple[PlannedLog, RestoredLog]] = []
        deleted: set[str] = set()
        looked_at = 0
        try:
            while True:
                found = survey(self._store)
                plan = self._with_what_came(plan, found, deleted)
                if looked_at == len(plan.logs):
                    break
                for number, each in enumerate(plan.logs[looked_at:], looked_at):
                    # A deletion ends the folders in the same order: the first decides for all.
                    if each.topic_id not in deleted:
                        first = next((log for log, _ in taken if log.topic_id not in deleted), None)
                        made = self._one(plan, each, found, services, number, first)
                        if made is None:
                            deleted.add(each.topic_id)
                        else:
                            taken.append((each, made))
                looked_at = len(plan.logs)
        finally:
            services.close()
        taken = [(each, made) for each, made in taken if each.topic_id not in deleted]
        self._complete(plan, [each for each, _ in taken])
        self._progress("partitions", len(plan.logs), len(plan.logs))
        logs = tuple(made for _, made in taken)
        return RestoreReport(self._directory.path, url, plan.store_id, logs)

    def _one(
        self,
        plan: RestorePlan,
        each: PlannedLog,
        found: Survey,
        services: WalServices,
        number: int,
        first: PlannedLog | None,
    ) -> RestoredLog | None:
        self._progress("partitions", number, len(plan.logs))
        paths = self._directory.paths(each.topic, each.partition)
        # Whatever an earlier run left here was made from the same plan: it is made again.
        for local in (paths.wal, paths.segments, paths.scratch):
            remove_tree(self._env.fs, local)
        return restore_log(
            self._env,
            self._config,
            self._store,
            services,
            plan,
            each,
            paths,
            found.deleted,
            first,
        )

    # --- plan -------------------------------------------------------------------------------------

    def _plan(self, url: str, until_offset: int | None, until_us: int | None) -> RestorePlan:
        path = self._directory.path
        plan = load_plan(self._directory)
        fs = self._env.fs
        if plan is not None:
            if not plan.same_request(url, until_offset, until_us):
                raise ConfigError(
                    f"{path} holds an unfinished restore of {plan.url} (until_offset "
                    f"{plan.until_offset}, until_us {plan.until_us}): finish that with the same "
                    "arguments, or restore into another directory"
                )
            return plan
        if fs.exists(f"{path}/{STORE_NAME}") or self._has_topics():
            raise ConfigError(f"{path} is a data directory already: restore into an empty one")
        for name in ("wal", "segments"):
            found = next(fs.walk(f"{path}/{name}"), None)
            if found is not None:  # no plan of ours made it: nothing else may have these records
                raise ConfigError(
                    f"{path} has no {STORE_NAME} file but {found}, which the bucket may not have: "
                    "restore into an empty directory, and keep this one"
                )
        identity = _bucket_identity(self._store)
        plan = RestorePlan(
            url,
            identity.store_id,
            until_offset,
            until_us,
            self._env.clock.time_us(),
            self._planned(survey(self._store)),
        )
        # A list of topics without a STORE file: nobody opens the directory before it is complete.
        self._directory.topics.create()
        save_plan(self._directory, plan)
        return plan

    def _with_what_came(
        self, plan: RestorePlan, found: Survey, deleted: Collection[str]
    ) -> RestorePlan:
        """The plan, and on disk, with what the old owner has published since it was made: others'
        topics and partitions, and a namesake of one that was deleted. Nothing of them is claimed,
        while others are: what of it cannot be restored is left out, and said.
        """
        known = {(each.topic, each.partition) for each in plan.logs}
        wanted = {topic for topic, partition in found.partitions if (topic, partition) not in known}
        wanted |= {each.topic for each in plan.logs if each.topic_id in deleted}
        logs = {(each.topic, each.partition, each.topic_id) for each in plan.logs}
        taken = {each.topic: each.topic_id for each in plan.logs if each.topic_id not in deleted}
        came: list[PlannedLog] = []
        for topic, partitions in _by_topic(found).items():
            if topic not in wanted:
                continue
            try:
                planned = self._planned_topic(found, topic, partitions)
            except (ConfigError, CorruptionError) as error:
                _log.warning("what came of topic %s meanwhile is left out: %s", topic, error)
                continue
            for each in planned:
                is_of_it = taken.get(topic, each.topic_id) == each.topic_id
                if is_of_it and each[:3] not in logs:
                    came.append(each)
        if came:
            plan = plan._replace(logs=(*plan.logs, *came))
            save_plan(self._directory, plan)
        return plan

    def _has_topics(self) -> bool:
        """An empty list is our own, of a run that ended before its plan was on disk."""
        return self._directory.topics.load() and bool(self._directory.topics.all)

    def _planned(self, found: Survey) -> tuple[PlannedLog, ...]:
        planned: list[PlannedLog] = []
        for topic, partitions in _by_topic(found).items():
            planned += self._planned_topic(found, topic, partitions)
        return tuple(planned)

    def _planned_topic(
        self, found: Survey, topic: str, published: Sequence[int]
    ) -> list[PlannedLog]:
        """Every partition up to the greatest that has a manifest; the gaps become empty logs."""
        partitions: dict[int, str] = {}
        tried: set[int] = set()
        for partition in published:
            head, newest = lineage_of(self._store, topic, partition, found.deleted)
            if head is not None:
                partitions[partition] = head.object.manifest.topic_id
                if is_tried(head, newest):
                    tried.add(partition)
        ids = sorted(set(partitions.values()))
        settled = {topic_id for each, topic_id in partitions.items() if each not in tried}
        if len(ids) > 1 and len(settled) == 1:
            # Who has published once, and not looked yet whether the name is its own, has nothing.
            ids = [*settled]
            partitions = {each: ids[0] for each in partitions if partitions[each] == ids[0]}
        if len(ids) > 1:
            raise ConfigError(
                f"partitions of {topic} belong to topics of different ids ({ids}): a deletion is "
                "under way, or two owners have made a topic of this name"
            )
        return [
            PlannedLog(topic, partition, ids[0], self._env.entropy.token_bytes(16).hex())
            for partition in range(max(partitions, default=-1) + 1)
        ]

    # --- the end ----------------------------------------------------------------------------------

    def _complete(self, plan: RestorePlan, logs: list[PlannedLog]) -> None:
        """The directory becomes one that opens, with these logs of the plan."""
        counts: dict[tuple[str, str], int] = {}
        for each in logs:
            counts[each.topic, each.topic_id] = each.partition + 1
        for (topic, topic_id), partitions in sorted(counts.items()):
            self._directory.topics.put(TopicEntry(topic, topic_id, partitions, "live"))
        identity = StoreIdentity(
            format_version=FORMAT_VERSION,
            store_id=plan.store_id,
            url=plan.url,
            created_us=plan.started_us,
            owner=LOCAL_OWNER,
        )
        self._directory.files.write(STORE_NAME, identity.encode())
        remove_plan(self._directory)
        _log.info("%s: restored %d partitions", self._directory.path, len(logs))
