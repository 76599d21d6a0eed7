"""Repair: bring a log with a damaged WAL back to where it opens by itself.

Place: above `log_store`; the command line's `repair`. Promise: `plan_repair` changes nothing and
says, for each partition, what would be done and what it costs; `apply_repair` does just that.
Nothing is deleted or cut: files that are taken out of the log are moved into quarantine whole.
Invariant: an offset is never given out a second time: where the bucket holds more than the disk,
repair refuses and `restore` is the way.

    none        the log opens; nothing to do
    set_aside   the damage lies in files that the bucket covers: they go, nothing is lost
    go_on       the log goes on behind its last good entry: what stood behind is given up
    restore     the bucket has more than the disk, or alone knows what is in it, or was changed by
                what stood behind the damage: restore into a new directory
    take_out    where the log begins is damaged, and the bucket does not have it: nothing can go on
                from there, so what is left is for a new directory, by reading it
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from chronik_store.config import LogConfig, check_config
from chronik_store.data_directory import DataDirectory, absolute_path
from chronik_store.disk_errors import disk_error
from chronik_store.environment import Environment
from chronik_store.errors import ReadOnlyError
from chronik_store.format.manifest_file import Manifest, SegmentInfo
from chronik_store.format.store_file import TopicEntry
from chronik_store.fs.tree import move_files
from chronik_store.lineage import Head, live_lineage_of
from chronik_store.log_identity import LOCAL_OWNER, NO_ID, LogPaths
from chronik_store.log_store import LogStore
from chronik_store.manifest.state import FoldedState
from chronik_store.model import Verdict
from chronik_store.objectstore.base import ObjectStore
from chronik_store.objectstore.open import open_object_store
from chronik_store.pipeline.fence import judge
from chronik_store.wal.chain import Opening, is_superseded, list_files, read_opening
from chronik_store.wal.recovery import Recovered, recover
from chronik_store.wal.settings import WalIdentity

Action = Literal["none", "set_aside", "go_on", "restore", "take_out"]


@dataclass(frozen=True, slots=True)
class PartitionRepair:
    """What is wrong with one partition's WAL, and what repair does about it.

    files: those that are moved into quarantine. first_offset, end_offset: what its WAL has, or has
    afterwards, and was not dropped. tiered_offset: where the bucket's newest manifest ends (0: it
    has none).
    """

    topic: str
    partition: int
    verdict: Verdict
    action: Action
    end_offset: int
    tiered_offset: int
    first_offset: int = 0
    files: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()


def plan_repair(
    path: str | os.PathLike[str],
    *,
    config: LogConfig = LogConfig(),  # noqa: B008 (frozen)
    env: Environment | None = None,
) -> tuple[PartitionRepair, ...]:
    """Look at every partition of a data directory; change nothing.

    Raises:
        ConfigError: it is no data directory. ReadOnlyError: a cluster owns it.
        UnavailableError: the bucket does not answer, so that nothing can be promised.
    """
    env = Environment() if env is None else env
    check_config(config)
    directory = DataDirectory.open(env, absolute_path(path), url=None, read_only=True, owner="")
    return _plan(env, config, directory)


def apply_repair(
    path: str | os.PathLike[str],
    *,
    config: LogConfig = LogConfig(),  # noqa: B008 (frozen)
    env: Environment | None = None,
) -> tuple[PartitionRepair, ...]:
    """Do what `plan_repair` says now; returns that plan. Repeatable after a crash.

    Raises: as `plan_repair`; DirectoryLockedError when the directory is open; DiskFullError.
    """
    env = Environment() if env is None else env
    check_config(config)
    absolute = absolute_path(path)
    directory = DataDirectory.open(env, absolute, url=None, read_only=False, owner=LOCAL_OWNER)
    try:
        plan = _plan(env, config, directory)
        for each in plan:
            if each.action == "set_aside":
                _quarantine(env, directory.paths(each.topic, each.partition), each.files)
    finally:
        directory.close()
    if any(each.action == "go_on" for each in plan):
        _go_on(env, config, absolute, plan)
        directory = DataDirectory.open(env, absolute, url=None, read_only=False, owner=LOCAL_OWNER)
        try:
            for each in plan:
                if each.action == "go_on":
                    _quarantine(env, directory.paths(each.topic, each.partition), each.files)
        finally:
            directory.close()
    return plan


# --- plan -------------------------------------------------------------------------------------


def _plan(
    env: Environment, config: LogConfig, directory: DataDirectory
) -> tuple[PartitionRepair, ...]:
    if directory.foreign_owner is not None:
        raise ReadOnlyError(
            f"{directory.path} belongs to {directory.foreign_owner}: a cluster's node repairs its "
            "logs itself. Start it: it sets damaged files aside and catches up from the others; "
            "keep its directory, for without it the node's id is of no more use"
        )
    store = open_object_store(
        directory.url,
        env=env,
        s3=config.s3,
        default_path=f"{directory.path}/object_store",
        read_only=True,
    )
    try:
        return tuple(
            _Patient(env, config, store, topic, number, directory.paths(topic.name, number)).plan()
            for topic in directory.topics.all
            if topic.state == "live"
            for number in range(topic.partitions)
        )
    except OSError as error:
        raise disk_error(directory.path, "look through", error) from error
    finally:
        store.close()


class _Patient:
    """One partition that is looked at."""

    def __init__(
        self,
        env: Environment,
        config: LogConfig,
        store: ObjectStore,
        topic: TopicEntry,
        partition: int,
        paths: LogPaths,
    ) -> None:
        self._env = env
        self._config = config
        self._store = store
        self._topic = topic
        self._partition = partition
        self._paths = paths
        self._who = WalIdentity(topic.name, partition, topic.topic_id, LOCAL_OWNER)
        self._start_offset = 0

    def plan(self) -> PartitionRepair:
        seqs, _ = list_files(self._env.fs, self._paths.wal)
        openings = [read_opening(self._env.fs, self._paths.wal, seq, self._who) for seq in seqs]
        found, manifest = self._recover()
        self._start_offset = manifest.start_offset
        if not seqs:
            # The topic is listed, so its WAL existed: lost, not new.
            found.verdict = "suspect"
            found.findings.append(f"{self._paths.wal} has no WAL file, though the topic is listed")
        lineage = live_lineage_of(self._store, self._topic.name, self._partition)
        if found.file is None:
            # No checkpoint is left, so neither is the log's id nor what it knew of the bucket.
            tiered = _end_of(lineage.head)
            if lineage.head is not None or not seqs:
                return self._repair("restore", found, 0, tiered)
            return self._repair("go_on", found, 0, 0, tuple(each.path for each in openings))
        head = lineage.newest.get(manifest.log_id)
        tiered = _end_of(head)
        report = found.report()
        if found.verdict != "suspect":
            return self._repair("none", found, report.end_offset, tiered)
        start = self._covered_start(openings)
        if start is not None:
            rest, _ = self._recover(start.seq)
            files = tuple(each.path for each in openings if each.seq < start.seq)
            return self._repair("set_aside", found, rest.report().end_offset, tiered, files)
        behind = tiered > report.end_offset or not _goes_with(head, manifest)
        has_beginning = head is not None and tiered >= _first(found)
        if behind or found.lacks == "segments" or (found.lacks and has_beginning):
            return self._repair("restore", found, report.end_offset, tiered)
        if found.lacks:
            return self._repair("take_out", found, report.end_offset, tiered)
        last_seq = found.file.seq
        # One in front that is not readable is not needed, or something would be lacking.
        files = tuple(each.path for each in openings if each.seq > last_seq or each.fault)
        return self._repair("go_on", found, report.end_offset, tiered, files)

    def _repair(
        self,
        action: Action,
        found: Recovered,
        end_offset: int,
        tiered_offset: int,
        files: tuple[str, ...] = (),
    ) -> PartitionRepair:
        return PartitionRepair(
            topic=self._topic.name,
            partition=self._partition,
            verdict=found.verdict,
            action=action,
            end_offset=end_offset,
            tiered_offset=tiered_offset,
            first_offset=max(_first(found), self._start_offset),
            files=files,
            findings=tuple(found.findings),
        )

    def _recover(self, first_seq: int = 0) -> tuple[Recovered, Manifest]:
        """What the files from `first_seq` on say."""
        topic = self._topic
        state = FoldedState(
            topic=topic.name,
            partition=self._partition,
            topic_id=topic.topic_id,
            log_id=NO_ID,
            producers_max=self._config.producers_max,
        )
        found = recover(
            self._env, self._paths.wal, self._who, state, live=False, first_seq=first_seq
        )
        state.commit(found.replay.table.last_index)  # nobody else has a say in what is committed
        return found, state.manifest

    def _covered_start(self, openings: Sequence[Opening]) -> Opening | None:
        """The first file from which on the log is whole, if segments in the bucket hold all before
        it. They need not be published: what is set aside is damaged, and is not deleted.
        """
        checkpoints = [each.checkpoint for each in openings if each.checkpoint is not None]
        if not checkpoints:
            return None
        newest = checkpoints[-1]
        manifest = newest.manifest
        for start in openings[1:]:
            base = None if start.checkpoint is None else start.checkpoint.base
            if base is None or base.index > manifest.next.index or not is_superseded(base, newest):
                continue
            found, _ = self._recover(start.seq)
            if found.verdict != "suspect" and self._objects_stand(manifest.segments):
                return start
        return None

    def _objects_stand(self, segments: Sequence[SegmentInfo]) -> bool:
        for segment in segments:
            found = self._store.head(segment.key)
            if found is None or found.size_bytes != segment.size_bytes:
                return False
        return True


def _end_of(head: Head | None) -> int:
    """Where the records end that a published manifest lists; 0: there is none."""
    return 0 if head is None else head.object.manifest.next.offset


def _goes_with(head: Head | None, manifest: Manifest) -> bool:
    """Whether the log can go on publishing behind `head`: it is the newest that `manifest` knows
    of, or the next one, put when the log was as it is. Else what stood behind the damage has
    changed the bucket, may have deleted objects, and the log would be fenced there.
    """
    if head is None or head.number <= manifest.published_number:
        return True
    is_next = head.number == manifest.published_number + 1
    return is_next and judge(manifest, head.object) == "adopt"


def _first(found: Recovered) -> int:
    """The offset from which on the WAL has records."""
    return found.replay.table.base.offset


# --- apply ------------------------------------------------------------------------------------


def _go_on(env: Environment, config: LogConfig, path: str, plan: Sequence[PartitionRepair]) -> None:
    """Begin a new WAL file behind the last good entry; its checkpoint says where the log ended."""
    config = config.replace(accept_suspect=True, pipeline_enabled=False)
    with LogStore.open(path, config=config, env=env) as store:
        for each in plan:
            if each.action == "go_on":
                core = store.partition(each.topic, each.partition)._core  # noqa: SLF001 (repair)
                assert core is not None
                core.begin()
                with core.wal.lock:
                    seq = core.wal.stage_suspect(False)
                core.wal.lead(seq)


def _quarantine(env: Environment, paths: LogPaths, files: Sequence[str]) -> None:
    """Move files out of the log, oldest first; what is gone was moved by an earlier run."""
    fs = env.fs
    try:
        move_files(fs, [path for path in files if fs.exists(path)], paths.quarantine)
        fs.sync_directory(paths.wal)
    except OSError as error:
        raise disk_error(paths.quarantine, "move damaged files into", error) from error
