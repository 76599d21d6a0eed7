"""Bugs of the log itself: what is durable, acknowledged, recovered, remembered.

Place: see the package. Promise: each function puts one bug in, and its docstring names it.
Invariant: a bug replaces what a good function does, never where it is called.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from chronik_store.append_path import AppendPath
from chronik_store.format.frame import FrameHeader, FrameKind, Marks
from chronik_store.log_core import LogCore
from chronik_store.manifest.producers import ProducerTable
from chronik_store.manifest.state import FoldedState
from chronik_store.model import Position
from chronik_store.wal import recovery
from chronik_store.wal.active_file import ActiveFile
from chronik_store.wal.durable import DurableLimit
from chronik_store.wal.entry_table import LogFile
from chronik_store.wal.group import encode_group
from chronik_store.wal.group_commit import GroupCommit
from chronik_store.wal.replay import Replay
from chronik_store.wal.verdict import Judgement, judge

_Put = Callable[[Any, str, Any], None]


class _Without:
    """A file system of which one call does nothing."""

    def __init__(self, inner: Any, name: str) -> None:
        self._inner = inner
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            return lambda *_: None
        return getattr(self._inner, name)


def _write(self: Any, group: Any, marks: Any, sync: Callable[[Any], None]) -> None:
    """As `ActiveFile.write`, with another way to sync."""
    buffers = encode_group(group.frames, self.file.origin, marks, self.file.file_id)
    descriptors = self._services.descriptors
    lent = descriptors.lend(self.file.path, write=True)
    try:
        lent.file.write_at(self.end, buffers)
        sync(lent.file)
    finally:
        descriptors.give_back(lent)


def acknowledge_before_sync(put: _Put) -> None:
    """A group counts as durable when it was written; nobody waits for the disk."""

    def write(self: Any, group: Any, marks: Any) -> None:
        _write(self, group, marks, lambda _file: None)

    put(ActiveFile, "write", write)


def retry_a_failed_sync(put: _Put) -> None:
    """A sync that failed is tried again, and the second one, which proves nothing, is believed."""

    def insist(file: Any) -> None:
        try:
            file.sync_data()
        except OSError:
            file.sync_data()

    def write(self: Any, group: Any, marks: Any) -> None:
        _write(self, group, marks, insist)

    put(ActiveFile, "write", write)


def skip_directory_sync(put: _Put) -> None:
    """A new WAL file is used before its name is on disk."""
    create = ActiveFile.create

    def create_without(self: Any, group: Any, checkpoint: Any, marks: Any) -> int:
        good, self._env = (
            self._env,
            dataclasses.replace(self._env, fs=_Without(self._env.fs, "sync_directory")),
        )
        try:
            return create(self, group, checkpoint, marks)
        finally:
            self._env = good

    put(ActiveFile, "create", create_without)


def sync_counts_for_what_was_cut(put: _Put) -> None:
    """A sync that began before a truncation makes durable what was written in its place since."""

    def truncate(self: Any, position: Position) -> None:
        if position.index < self.position.index:
            self.position = position

    put(DurableLimit, "truncate", truncate)


def trust_the_page_cache(put: _Put) -> None:
    """What recovery reads counts as being on disk: nothing is copied and synced."""
    put(Replay, "copy_from", property(lambda self: self.table.last_index + 1))


def forget_truncations(put: _Put) -> None:
    """Recovery passes over truncation frames, as if they were folded already."""
    apply = Replay.apply

    def apply_others(self: Any, frame: FrameHeader, view: memoryview, file: LogFile) -> None:
        if frame.kind == FrameKind.TRUNCATE:
            self.last_seq = frame.seq
        else:
            apply(self, frame, view, file)

    put(Replay, "apply", apply_others)


def cut_what_was_sworn(put: _Put) -> None:
    """Damage at the end of the log is always called a torn write, and cut off."""

    def judge_mildly(*args: Any, **options: Any) -> Judgement:
        found = judge(*args, **options)
        if found.verdict != "suspect":
            return found
        return dataclasses.replace(found, verdict="torn", reason="")

    put(recovery, "judge", judge_mildly)


def call_torn_groups_damage(put: _Put) -> None:
    """Every write that a power cut broke off is called damage; the log refuses to open."""

    def judge_harshly(*args: Any, **options: Any) -> Judgement:
        found = judge(*args, **options)
        if found.verdict != "torn":
            return found
        return dataclasses.replace(found, verdict="suspect", reason="it is broken")

    put(recovery, "judge", judge_harshly)


def checkpoint_without_producers(put: _Put) -> None:
    """Producers are not carried into new WAL files; pruning forgets them."""
    checkpoint = FoldedState.checkpoint

    def bare(self: Any, **options: Any) -> Any:
        return dataclasses.replace(checkpoint(self, **options), producers=())

    put(FoldedState, "checkpoint", bare)


def checkpoint_without_manifest(put: _Put) -> None:
    """The manifest is not carried into new WAL files: what was pruned from tier 1 is absent."""
    checkpoint = FoldedState.checkpoint

    def bare(self: Any, **options: Any) -> Any:
        made = checkpoint(self, **options)
        return dataclasses.replace(
            made, manifest=dataclasses.replace(made.manifest, segments=(), cursors=())
        )

    put(FoldedState, "checkpoint", bare)


def frames_without_commit_mark(put: _Put) -> None:
    """Frames do not say what was committed; a log that is opened beside its writer shows less
    than it has shown.
    """
    marks = GroupCommit._marks_locked

    def bare(self: Any) -> Marks:
        return marks(self)._replace(committed_index=0)

    put(GroupCommit, "_marks_locked", bare)


def swear_before_the_sync(put: _Put) -> None:
    """Frames claim that their own group is on disk already."""
    marks = GroupCommit._marks_locked

    def bold(self: Any) -> Marks:
        found = marks(self)
        return found._replace(synced_seq=max(found.synced_seq, self.staging.last_seq))

    put(GroupCommit, "_marks_locked", bold)


def dedupe_on_committed_only(put: _Put) -> None:
    """A retried batch is compared with committed batches, not with those in flight."""

    def window(self: Any, producer_id: int) -> Any:
        return self._committed.get(producer_id, ())

    put(ProducerTable, "_window", window)


def answer_a_retry_at_once(put: _Put) -> None:
    """A retried batch is acknowledged although its original is not committed yet."""
    join = AppendPath._join_locked

    def answer(self: Any, pending: Any) -> bool:
        if pending.place.duplicate:
            pending.result = pending.place
            return False
        return join(self, pending)

    put(AppendPath, "_join_locked", answer)


def truncation_keeps_producers(put: _Put) -> None:
    """A batch that was cut off is still taken for stored: its retry is swallowed."""
    put(ProducerTable, "truncate", lambda _self, _index: None)


def unknown_outcome_is_not_done(put: _Put) -> None:
    """Appends in flight when the disk fails are reported as certainly not stored."""
    error = LogCore.poisoned_error

    def sure(self: Any, _durability: str = "unknown") -> Any:
        return error(self, "not_durable")

    commit_error = GroupCommit.poisoned_error

    def sure_too(self: Any, _durability: str = "unknown") -> Any:
        return commit_error(self, "not_durable")

    put(LogCore, "poisoned_error", sure)
    put(GroupCommit, "poisoned_error", sure_too)


def acknowledge_what_is_staged(put: _Put) -> None:
    """`append_nowait` is answered when its batch is in memory."""

    def answer(_self: Any, pending: Any) -> bool:
        pending.result = pending.place
        return False

    put(AppendPath, "_join_locked", answer)


def commit_moves_back(put: _Put) -> None:
    """`committed` follows whoever spoke last, also to the left."""

    def advance(self: Any, index: int) -> None:
        with self._lock:
            self.known_commit = index
            position = min(self.wal.durable, self.wal.position_after(index))
            self._committed = position
            self._advance_locked()
        self._on_moved()

    put(LogCore, "advance_commit", advance)


def go_on_after_a_failed_sync(put: _Put) -> None:
    """A failed write or sync fails its appends, and the log goes on as if nothing had been."""
    poison = GroupCommit.poison

    def forgive(self: Any, cause: BaseException) -> None:
        poison(self, cause)
        if isinstance(cause, OSError):
            self.poisoned = None

    put(GroupCommit, "poison", forgive)


def trust_any_clock(put: _Put) -> None:
    """A record's own time goes into the time index, however far in the future it is."""
    init = AppendPath.__init__

    def unbounded(self: Any, core: Any) -> None:
        init(self, core)
        self._max_future_us = 1 << 60

    put(AppendPath, "__init__", unbounded)
