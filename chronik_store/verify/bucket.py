"""What `verify` looks at in the bucket: what the manifest lists, and what nothing names.

Place: a half of `verify`. Promise: what retention deletes meanwhile is not a finding: whatever is
not found is looked up again in the newest manifest. Invariant: read-only; an object that nothing
names is listed, never deleted (protocol 6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from chronik_store.errors import FROM_A_COPY, CorruptionError
from chronik_store.format.checksum import Hasher, content_hash
from chronik_store.format.manifest_file import (
    BundleInfo,
    Manifest,
    SegmentInfo,
    decode_manifest_object,
)
from chronik_store.manifest.keys import named_keys
from chronik_store.objectstore.base import ObjectInfo, ObjectNotFoundError, ObjectStore
from chronik_store.objectstore.layout import (
    bundles_prefix,
    manifest_key,
    manifest_prefix,
    parse_manifest_key,
    segments_prefix,
)
from chronik_store.objectstore.object_source import ObjectSource
from chronik_store.segment.sealer import SegmentIdentity
from chronik_store.segment.source import ByteSource
from chronik_store.verify.check import READ_BYTES, Check, check_copy
from chronik_store.verify.progress import Looked

PAGE = 1000


def check_bucket(
    check: Check,
    manifest: Manifest,
    newest: Callable[[], Manifest],
    store: ObjectStore,
    deep: bool,
) -> None:
    """Every object that is listed, the published manifest, and what nothing names.

    It may take hours, in which the pipeline goes on: what is not found is looked up again.
    """
    identity = SegmentIdentity(manifest.topic, manifest.partition, manifest.topic_id)
    for segment in manifest.segments:
        key, bundle = segment.key, segment.bundle
        check.run_listed(key, newest, _check_segment_object, store, segment, identity, deep)
        if bundle is not None:
            check.run_listed(bundle.key, newest, _check_bundle_object, store, bundle, deep)
    check.run("published manifest", _check_published, newest, store)
    check.run("listing", _check_unnamed, newest, store)


def _check_segment_object(
    check: Check, store: ObjectStore, info: SegmentInfo, identity: SegmentIdentity, deep: bool
) -> None:
    check.objects += 1
    _check_size(store, info.key, info.size_bytes)
    check_copy(check, ObjectSource(store, info.key), info, identity, info.key, deep)


def _check_bundle_object(check: Check, store: ObjectStore, info: BundleInfo, deep: bool) -> None:
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


def _check_published(check: Check, newest: Callable[[], Manifest], store: ObjectStore) -> None:
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


def _check_unnamed(check: Check, newest: Callable[[], Manifest], store: ObjectStore) -> None:
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
