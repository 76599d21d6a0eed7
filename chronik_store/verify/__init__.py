"""Verify: look at everything that is stored of a log, change nothing.

Place: beside `partition_log`, above the rooms that it reads. Promise: each thing that is wrong
becomes a `Finding`; one damaged file or missing object does not end the check of the others. An
error that says nothing about the data (the bucket does not answer) is a finding too, and the
report then proves nothing about what it could not see. Invariant: read-only; objects that nothing
names are listed, never deleted (protocol 6).

    local    WAL         every entry of every file, by all its checksums; continues what is tiered
             segments    local copies: size and footer; deep: every byte
    manifest             contiguity
    bucket   published   the newest published number is ours, byte for byte
             objects     every listed one: size; deep: the hash of every byte; those nobody names
"""

from __future__ import annotations

from collections.abc import Callable

from chronik_store.environment import Environment
from chronik_store.errors import CorruptionError
from chronik_store.format.manifest_file import Manifest
from chronik_store.manifest.fold import check_manifest
from chronik_store.model import Progress, VerifyReport
from chronik_store.objectstore.base import ObjectStore
from chronik_store.verify.bucket import check_bucket
from chronik_store.verify.check import Check
from chronik_store.verify.local import VerifiableLog, check_local_segments, check_names, check_wal
from chronik_store.verify.progress import bucket_bytes, local_bytes


def verify_log(
    log: VerifiableLog,
    env: Environment,
    store: ObjectStore | None,
    *,
    deep: bool,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check the local files of a log and, with `store`, what is in the bucket.

    Works beside a running writer: what the pipeline removes meanwhile is not a finding.
    deep: read every byte of local segments and of the bucket. progress: see `PartitionLog.verify`.
    """
    manifest = log.manifest
    check = Check(env, progress)
    check.looked.expect(sum(file.size_bytes for file in log.wal.files()))
    check.looked.expect(local_bytes(manifest, env, log.paths.segments, deep=deep))
    if store is not None:
        check.looked.expect(bucket_bytes(manifest, deep=deep))
    check.run(log.paths.wal, check_wal, log)
    if not log.read_only:  # which lists what is there, and falls behind the writer's pruning
        check.run(log.paths.wal, check_names, log.wal, env)
    check.run("manifest", _check_contiguity, manifest)
    check.run(log.paths.segments, check_local_segments, log, env, deep)
    if store is not None:
        check_bucket(check, manifest, log.refreshed_manifest, store, deep)
    return check.report()


def verify_objects(
    manifest: Manifest,
    newest: Callable[[], Manifest],
    store: ObjectStore,
    env: Environment,
    *,
    deep: bool,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check what a manifest lists against the bucket; for logs opened from the bucket alone.

    newest: the manifest as it is by then.
    """
    check = Check(env, progress)
    check.looked.expect(bucket_bytes(manifest, deep=deep))
    check.run("manifest", _check_contiguity, manifest)
    check_bucket(check, manifest, newest, store, deep)
    return check.report()


def _check_contiguity(_check: Check, manifest: Manifest) -> None:
    check_manifest(manifest)
    segments = manifest.segments
    if segments and segments[0].base_offset > manifest.start_offset:
        raise CorruptionError(
            f"the first segment begins at {segments[0].base_offset}, behind the log's start "
            f"{manifest.start_offset}"
        )
