"""Verify: look at everything that is stored of a log, change nothing.

Place: beside `partition_log`, above the rooms that it reads. Promise: each thing that is wrong
becomes a `Finding`; one damaged file or missing object does not end the check of the others. An
error that says nothing about the data (the bucket does not answer) is a finding too, and the
report then proves nothing about what it could not see. Invariant: read-only; objects that nothing
names are listed, never deleted (protocol 6).

    WAL         every entry of every file, by all its checksums; continues what is tiered
    segments    local copies: size and footer; deep: every byte
    manifest    contiguity; the newest published number is ours, byte for byte
    bucket      every listed object: size; deep: the hash of every byte; objects nobody names
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from chronik_store.environment import Environment
from chronik_store.errors import FROM_A_COPY, ChronikError, CorruptionError, FutureVersionError
from chronik_store.format.checksum import Hasher, content_hash
from chronik_store.format.manifest_file import (
    BundleInfo,
    Manifest,
    SegmentInfo,
    decode_manifest_object,
)
from chronik_store.log_identity import LogIdentity, LogPaths
from chronik_store.manifest.fold import check_manifest
from chronik_store.manifest.keys import live_keys, named_keys
from chronik_store.model import Finding, Progress, Severity, VerifyReport
from chronik_store.objectstore.base import ObjectInfo, ObjectNotFoundError, ObjectStore
from chronik_store.objectstore.layout import (
    bundles_prefix,
    manifest_key,
    manifest_prefix,
    parse_manifest_key,
    parse_segment_key,
    segments_prefix,
)
from chronik_store.objectstore.object_source import ObjectSource
from chronik_store.segment.check import check_segment
from chronik_store.segment.reader import load_footer
from chronik_store.segment.sealer import SegmentIdentity
from chronik_store.segment.source import ByteSource, LocalSegments, SegmentAbsentError
from chronik_store.verify_progress import Looked, bucket_bytes, local_bytes

if TYPE_CHECKING:
    from chronik_store.wal.wal import Wal

READ_BYTES = 4 << 20
PAGE = 1000


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
    check = _Check(env, progress)
    check.looked.expect(sum(file.size_bytes for file in log.wal.files()))
    check.looked.expect(local_bytes(manifest, env, log.paths.segments, deep=deep))
    if store is not None:
        check.looked.expect(bucket_bytes(manifest, deep=deep))
    check.run(log.paths.wal, _check_wal, log)
    if not log.read_only:  # which lists what is there, and falls behind the writer's pruning
        check.run(log.paths.wal, _check_names, log.wal, env)
    check.run("manifest", _check_contiguity, manifest)
    check.run(log.paths.segments, _check_local, log, env, deep)
    if store is not None:
        _check_bucket(check, manifest, log.refreshed_manifest, store, deep)
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
    check = _Check(env, progress)
    check.looked.expect(bucket_bytes(manifest, deep=deep))
    check.run("manifest", _check_contiguity, manifest)
    _check_bucket(check, manifest, newest, store, deep)
    return check.report()


class _Check:
    """Findings and counts of one run, and how far it has come."""

    def __init__(self, env: Environment, progress: Progress | None) -> None:
        self.looked = Looked(progress)
        self._clock = env.clock
        self._started = env.clock.monotonic()
        self.findings: list[Finding] = []
        self.files = 0
        self.objects = 0
        self.entries = 0
        self.size_bytes = 0

    def find(self, severity: Severity, where: str, message: str) -> None:
        self.findings.append(Finding(severity, where, message))

    def run(self, where: str, check: Callable[..., None], *arguments: object) -> None:
        """Run `check(self, *arguments)`; what it raises is a finding about `where`."""
        try:
            check(self, *arguments)
        except (CorruptionError, FutureVersionError) as error:
            self.find("corruption", where, str(error))
        except ChronikError as error:
            self.find("warning", where, f"could not be checked: {error}")
        except OSError as error:
            self.find("warning", where, f"could not be read: {error}")
        except AssertionError as error:
            self.find("corruption", where, f"an invariant does not hold: {error}")

    def run_listed(
        self, key: str, newest: Callable[[], Manifest], check: Callable[..., None], *arguments: Any
    ) -> None:
        """`run`, of an object that was listed: retention may have had it deleted meanwhile."""
        before = len(self.findings)
        self.run(key, check, *arguments)
        with suppress(ChronikError):  # nobody can say: then what was found stands
            if len(self.findings) > before and key not in live_keys(newest()):
                del self.findings[before:]

    def report(self) -> VerifyReport:
        return VerifyReport(
            findings=tuple(self.findings),
            files_checked=self.files,
            objects_checked=self.objects,
            entries_checked=self.entries,
            bytes_checked=self.size_bytes,
            elapsed_seconds=self._clock.monotonic() - self._started,
        )


# --- local ------------------------------------------------------------------------------------


def _check_wal(check: _Check, log: VerifiableLog) -> None:
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


def _check_names(check: _Check, wal: Wal, env: Environment) -> None:
    """Through its descriptor a file can be read, and written, when its name is gone."""
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


def _check_contiguity(_check: _Check, manifest: Manifest) -> None:
    check_manifest(manifest)
    segments = manifest.segments
    if segments and segments[0].base_offset > manifest.start_offset:
        raise CorruptionError(
            f"the first segment begins at {segments[0].base_offset}, behind the log's start "
            f"{manifest.start_offset}"
        )


def _check_local(check: _Check, log: VerifiableLog, env: Environment, deep: bool) -> None:
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
    check: _Check,
    log: VerifiableLog,
    source: ByteSource,
    info: SegmentInfo,
    path: str,
    deep: bool,
) -> None:
    who = log.identity
    try:
        _check_segment(
            check, source, info, SegmentIdentity(who.topic, who.partition, who.topic_id), path, deep
        )
    except SegmentAbsentError:
        pass  # the pipeline evicted it meanwhile


def _check_segment(
    check: _Check,
    source: ByteSource,
    info: SegmentInfo,
    identity: SegmentIdentity,
    path: str,
    deep: bool,
) -> None:
    if deep:
        check.entries += check_segment(check.looked.through(source), info, identity, path=path)
        check.size_bytes += info.size_bytes
    else:
        load_footer(source, info, path=path)
        check.size_bytes += info.footer_bytes
        check.looked.at(info.footer_bytes)


# --- bucket -----------------------------------------------------------------------------------


def _check_bucket(
    check: _Check,
    manifest: Manifest,
    newest: Callable[[], Manifest],
    store: ObjectStore,
    deep: bool,
) -> None:
    """It may take hours, in which the pipeline goes on: what is not found is looked up again."""
    identity = SegmentIdentity(manifest.topic, manifest.partition, manifest.topic_id)
    for segment in manifest.segments:
        key, bundle = segment.key, segment.bundle
        check.run_listed(key, newest, _check_segment_object, store, segment, identity, deep)
        if bundle is not None:
            check.run_listed(bundle.key, newest, _check_bundle_object, store, bundle, deep)
    check.run("published manifest", _check_published, newest, store)
    check.run("listing", _check_unnamed, newest, store)


def _check_segment_object(
    check: _Check, store: ObjectStore, info: SegmentInfo, identity: SegmentIdentity, deep: bool
) -> None:
    check.objects += 1
    _check_size(store, info.key, info.size_bytes)
    _check_segment(check, ObjectSource(store, info.key), info, identity, info.key, deep)


def _check_bundle_object(check: _Check, store: ObjectStore, info: BundleInfo, deep: bool) -> None:
    """A bundle is derived: its loss costs a rebuild, not data."""
    check.objects += 1
    try:
        check_bundle(store, info, deep=deep, looked=check.looked)
        check.size_bytes += info.size_bytes if deep else 0
    except CorruptionError as error:
        what = f"{error.finding}; run `chronik rebuild-index`, with -s if a node has the directory"
        check.find("warning", info.key, what)


def check_bundle(
    store: ObjectStore, info: BundleInfo, *, deep: bool, looked: Looked | None = None
) -> None:
    """Is this search bundle in the bucket, with its size; deep: with all its bytes.

    CorruptionError if it is not; ObjectNotFoundError if it went meanwhile; UnavailableError.
    """
    _check_size(store, info.key, info.size_bytes)
    source = (looked or Looked(None)).through(ObjectSource(store, info.key))
    if deep and _hash_of(source, info.size_bytes) != info.hash:
        raise CorruptionError(f"{info.key}: its bytes are not those that were indexed")


def _check_size(store: ObjectStore, key: str, size_bytes: int) -> None:
    found = store.head(key)
    if found is None:
        raise CorruptionError(
            f"{store.url}: {key} is listed and absent", path=key, advice=FROM_A_COPY
        )
    if found.size_bytes != size_bytes:
        raise CorruptionError(
            f"{store.url}: {key} has {found.size_bytes} bytes, listed are {size_bytes}",
            path=key,
            advice=FROM_A_COPY,
        )


def _hash_of(source: ByteSource, size_bytes: int) -> str:
    hasher = Hasher()
    for position in range(0, size_bytes, READ_BYTES):
        hasher.update(source.read_range(position, min(READ_BYTES, size_bytes - position)))
    return hasher.digest_hex()


def _check_published(check: _Check, newest: Callable[[], Manifest], store: ObjectStore) -> None:
    manifest = newest()
    number = manifest.published_number
    if not number or manifest.fenced is not None:
        return
    key = manifest_key(manifest.topic, manifest.partition, manifest.log_id, number)
    check.objects += 1
    try:
        body = store.get(key)
    except ObjectNotFoundError as error:
        raise CorruptionError(
            f"{store.url}: {key} was published and is absent", advice=FROM_A_COPY
        ) from error
    if content_hash(body) != manifest.published_hash:
        raise CorruptionError(
            f"{store.url}: {key} is not the manifest that this log published",
            advice=f"{FROM_A_COPY}, or stop who else writes there: `chronik inspect` shows what "
            "it is",
        )


def _check_unnamed(check: _Check, newest: Callable[[], Manifest], store: ObjectStore) -> None:
    """List what stands under the partition's prefixes and no manifest names."""
    manifest = newest()
    named = named_keys(manifest)
    who = (manifest.topic, manifest.partition)
    strangers: list[str] = []
    for prefix in (segments_prefix(*who), bundles_prefix(*who)):
        strangers += [each.key for each in _listing(store, prefix) if each.key not in named]
    if strangers:
        # An object is named before it is put: one that came meanwhile is named by now.
        named |= named_keys(newest()) | _names_of_other_logs(manifest, store)
    for key in strangers:
        if key not in named:
            check.find(
                "note", key, "nothing names this object; it is kept. Delete it by hand if you know"
            )


def _names_of_other_logs(manifest: Manifest, store: ObjectStore) -> set[str]:
    """What the newest manifests of namesakes and predecessors name."""
    newest: dict[str, tuple[int, str]] = {}
    for each in _listing(store, manifest_prefix(manifest.topic, manifest.partition)):
        parsed = parse_manifest_key(each.key)
        if parsed is not None and parsed.number > newest.get(parsed.log_id, (0, ""))[0]:
            newest[parsed.log_id] = (parsed.number, each.key)
    names: set[str] = set()
    for _, key in newest.values():
        names |= named_keys(decode_manifest_object(store.get(key), path=key).manifest)
    return names


def _listing(store: ObjectStore, prefix: str) -> Iterator[ObjectInfo]:
    after = ""
    while page := store.list(prefix, start_after=after, limit=PAGE):
        yield from page
        after = page[-1].key
