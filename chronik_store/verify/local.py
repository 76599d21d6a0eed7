"""What `verify` looks at on this disk: the files of the WAL, the local copies of segments.

Place: a half of `verify`. Promise: what the pipeline removes meanwhile is not a finding.
Invariant: read-only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from chronik_store.environment import Environment
from chronik_store.format.manifest_file import Manifest, SegmentInfo
from chronik_store.log_identity import LogIdentity, LogPaths
from chronik_store.objectstore.layout import parse_segment_key, segments_prefix
from chronik_store.segment.sealer import SegmentIdentity
from chronik_store.segment.source import ByteSource, LocalSegments, SegmentAbsentError
from chronik_store.verify.check import READ_BYTES, Check, check_copy

if TYPE_CHECKING:
    from chronik_store.wal.wal import Wal


class VerifiableLog(Protocol):
    """The part of a partition core that is looked at."""

    @property
    def identity(self) -> LogIdentity: ...
    @property
    def paths(self) -> LogPaths: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def wal(self) -> Wal: ...
    @property
    def manifest(self) -> Manifest: ...
    def refreshed_manifest(self) -> Manifest: ...


def check_wal(check: Check, log: VerifiableLog) -> None:
    """Every entry of every file, and whether the first one continues what is tiered."""
    wal = log.wal
    files = wal.files()
    size_bytes = sum(file.size_bytes for file in files)
    check.size_bytes += size_bytes
    for file in files:
        check.files += 1
        if file.damaged:
            check.find(
                "corruption", file.path, "damaged behind its last good frame; see `chronik repair`"
            )
    first_index, last_index = wal.first_index, wal.last_index
    # Asked for after the WAL: a file is pruned after the manifest that covers it.
    tiered_index = log.manifest.next.index
    if first_index > tiered_index + 1:
        check.find(
            "corruption",
            log.paths.wal,
            f"the WAL begins at entry {first_index}, the bucket ends at {tiered_index}: the "
            "entries in between are in neither",
        )
    with wal.pin(first_index):
        index = first_index
        while index <= last_index:
            try:
                entries = wal.read(index, last_index, READ_BYTES)
            except IndexError:
                if wal.first_index <= index:
                    break  # truncated meanwhile by a new leader: nothing of it was committed
                index = wal.first_index  # pruned meanwhile; what is left is looked at
                continue
            check.entries += len(entries)
            # What the files hold beside entries, zeros and dead ones, counts with them.
            share_bytes = size_bytes * len(entries) // (last_index - index + 1)
            check.looked.at(share_bytes)
            size_bytes -= share_bytes
            index = entries[-1].header.index + 1
    check.looked.at(size_bytes)


def check_names(check: Check, wal: Wal, env: Environment) -> None:
    """Whether every file of the WAL still has its name: through its descriptor one can be read, and
    written, without.
    """
    durable = wal.durable
    gone = [
        file.path
        for file in wal.files()
        if file.first_index < durable.index and not env.fs.exists(file.path)
    ]
    still_wanted = {file.path for file in wal.files()} if gone else set()
    for path in gone:
        if path in still_wanted:  # else it was pruned meanwhile
            check.find(
                "corruption",
                path,
                "somebody has removed it or moved it away; what it holds can be read until this "
                "log is closed: read it out, and append it elsewhere",
            )


def check_local_segments(check: Check, log: VerifiableLog, env: Environment, deep: bool) -> None:
    """The copies that the manifest lists, and files beside them that are not of this log."""
    local = LocalSegments(env.fs, log.paths.segments)
    try:
        names = env.fs.list(local.directory)
    except FileNotFoundError:
        return
    listed = {each.key.rpartition("/")[2]: each for each in log.manifest.segments}
    prefix = segments_prefix(log.identity.topic, log.identity.partition)
    for name in names:
        path = f"{local.directory}/{name}"
        info = listed.get(name)
        if info is not None:
            check.files += 1
            source = local.source(info.key)
            check.run(path, _check_local_segment, log, source, info, path, deep)
        elif parse_segment_key(prefix + name) is None and not name.endswith(".tmp"):
            check.find("note", path, "not a file of this log")


def _check_local_segment(
    check: Check,
    log: VerifiableLog,
    source: ByteSource,
    info: SegmentInfo,
    path: str,
    deep: bool,
) -> None:
    who = log.identity
    try:
        check_copy(
            check, source, info, SegmentIdentity(who.topic, who.partition, who.topic_id), path, deep
        )
    except SegmentAbsentError:
        pass  # the pipeline evicted it meanwhile
