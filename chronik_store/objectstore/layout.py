"""Where objects live in a bucket: pure building and parsing of keys.

Place: the bottom of the `objectstore` room; no I/O. Promise: every key of a store is made here,
and `parse_*` reads back exactly what the builders write (None for anything else), so that a
listing can be told apart without opening objects. Invariant: keys never repeat: segment and
bundle keys end in the hash of their bytes, manifest numbers are dense per log id, probe keys are
random. No key leaves its prefix: `check_key` refuses path tricks for every implementation alike.

    STORE                                                             identity of the store
    segments/{topic}/{partition}/{base}-{end}-{term}-{hash}.seg        raw records
    indexes/{topic}/partition-{partition}/{base}-{end}-{term}-{hash}.tar.gz   search bundles
    manifests/{topic}/{partition}/{log_id}/{number}.cbor               what exists, and the fence
    manifests/{topic}/{topic_id}.tombstone                             this topic was deleted
    probe/{token}                                                      throw-away, by `probe`

Offsets and numbers have 20 digits, so that byte order is numeric order. Nothing is escaped: a
topic name that could need it is refused.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from chronik_store.arguments import check_name
from chronik_store.errors import ConfigError

STORE_KEY = "STORE"
SEGMENTS_PREFIX = "segments/"
INDEXES_PREFIX = "indexes/"
MANIFESTS_PREFIX = "manifests/"
PROBE_PREFIX = "probe/"
TOPIC_NAME_BYTES_MAX = 200
KEY_BYTES_MAX = 900
"""S3 allows 1,024 bytes for prefix and key together; what is left belongs to the prefix."""

_TOPIC = r"[A-Za-z0-9._-]{1,200}"
_RUN = r"(?P<base>\d{20})-(?P<end>\d{20})-(?P<term>\d{1,20})-(?P<hash>[0-9a-f]{16,64})"
_TOPIC_NAME = re.compile(_TOPIC)
_HASH = re.compile(r"[0-9a-f]{16,64}")
_ID = re.compile(r"[0-9a-f]{32}")
_TOKEN = re.compile(r"[A-Za-z0-9-]{1,64}")
_SEGMENT = re.compile(rf"segments/(?P<topic>{_TOPIC})/(?P<partition>\d{{1,10}})/{_RUN}\.seg")
_BUNDLE = re.compile(
    rf"indexes/(?P<topic>{_TOPIC})/partition-(?P<partition>\d{{1,10}})/{_RUN}\.tar\.gz"
)
_MANIFEST = re.compile(
    rf"manifests/(?P<topic>{_TOPIC})/(?P<partition>\d{{1,10}})/(?P<log_id>[0-9a-f]{{32}})/"
    r"(?P<number>\d{20})\.cbor"
)
_TOMBSTONE = re.compile(rf"manifests/(?P<topic>{_TOPIC})/(?P<topic_id>[0-9a-f]{{32}})\.tombstone")


class RunKey(NamedTuple):
    """What the key of a segment or bundle tells of the run of entries behind it."""

    topic: str
    partition: int
    base_offset: int
    end_offset: int
    term: int
    content_hash: str


class ManifestKey(NamedTuple):
    """What the key of a manifest tells."""

    topic: str
    partition: int
    log_id: str
    number: int


class TombstoneKey(NamedTuple):
    """What the key of a tombstone tells."""

    topic: str
    topic_id: str


def check_topic_name(topic: str) -> str:
    """The name itself, if it can stand in a key and a path; else ConfigError."""
    check_topic_type(topic)
    if not _TOPIC_NAME.fullmatch(topic) or topic in {".", ".."}:
        raise ConfigError(
            f"topic name {topic[:210]!r} is not usable: 1 to {TOPIC_NAME_BYTES_MAX} of A-Z a-z "
            "0-9 . _ - and neither '.' nor '..'"
        )
    return topic


def check_topic_type(topic: object) -> None:
    """TypeError unless it is a str: what is looked up need not be a name that can be made."""
    check_name(topic, "a topic's name")


def check_key(key: str) -> str:
    """The key itself, if it stays below its store's prefix everywhere; else ConfigError."""
    problem = None
    if not key or len(key.encode("utf-8", "replace")) > KEY_BYTES_MAX:
        problem = f"must have 1 to {KEY_BYTES_MAX} bytes"
    elif any(part in {"", ".", ".."} for part in key.split("/")):
        problem = "has an empty, '.' or '..' part"
    elif not key.isprintable() or "\\" in key:
        problem = "has a control character or a backslash"
    if problem is not None:
        raise ConfigError(f"object key {key[:100]!r} {problem}")
    return key


def check_prefix(prefix: str) -> str:
    """Like `check_key` for the start of a key: may be empty or end inside a part."""
    if prefix:
        check_key(prefix[:-1] if prefix.endswith("/") and prefix != "/" else prefix)
    return prefix


def segment_key(
    topic: str, partition: int, base_offset: int, end_offset: int, term: int, content_hash: str
) -> str:
    """The key of a sealed segment; `term` is that of the SEAL entry, on every replica."""
    run = _run(base_offset, end_offset, term, content_hash)
    return f"{SEGMENTS_PREFIX}{check_topic_name(topic)}/{_partition(partition)}/{run}.seg"


def segments_prefix(topic: str, partition: int) -> str:
    """Where all segments of a partition are."""
    return f"{SEGMENTS_PREFIX}{check_topic_name(topic)}/{_partition(partition)}/"


def parse_segment_key(key: str) -> RunKey | None:
    """The parts of a segment's key, or None if it is not one."""
    return _parse_run(_SEGMENT, key)


def bundle_key(
    topic: str, partition: int, base_offset: int, end_offset: int, term: int, content_hash: str
) -> str:
    """The key of a search bundle; `content_hash` is that of the bundle's own bytes."""
    run = _run(base_offset, end_offset, term, content_hash)
    return (
        f"{INDEXES_PREFIX}{check_topic_name(topic)}/partition-{_partition(partition)}/{run}.tar.gz"
    )


def bundles_prefix(topic: str, partition: int) -> str:
    """Where all search bundles of a partition are."""
    return f"{INDEXES_PREFIX}{check_topic_name(topic)}/partition-{_partition(partition)}/"


def parse_bundle_key(key: str) -> RunKey | None:
    """The parts of a bundle's key, or None if it is not one."""
    return _parse_run(_BUNDLE, key)


def manifest_key(topic: str, partition: int, log_id: str, number: int) -> str:
    """The key of a published manifest. No term in it: rivals must collide (protocol 5)."""
    return f"{manifest_prefix(topic, partition, log_id)}{_digits20(number, 'number')}.cbor"


def manifest_prefix(topic: str, partition: int, log_id: str | None = None) -> str:
    """Where the manifests of one log are, or (no `log_id`) those of every log of a partition."""
    folder = f"{MANIFESTS_PREFIX}{check_topic_name(topic)}/{_partition(partition)}/"
    return folder if log_id is None else f"{folder}{_identity(log_id, 'log_id')}/"


def parse_manifest_key(key: str) -> ManifestKey | None:
    """The parts of a manifest's key, or None if it is not one."""
    match = _MANIFEST.fullmatch(key)
    if match is None or match["topic"] in {".", ".."}:
        return None
    return ManifestKey(
        match["topic"], int(match["partition"]), match["log_id"], int(match["number"])
    )


def tombstone_key(topic: str, topic_id: str) -> str:
    """The object that says that the topic of this id was deleted (protocol 6)."""
    return (
        f"{MANIFESTS_PREFIX}{check_topic_name(topic)}/{_identity(topic_id, 'topic_id')}.tombstone"
    )


def parse_tombstone_key(key: str) -> TombstoneKey | None:
    """The parts of a tombstone's key, or None if it is not one."""
    match = _TOMBSTONE.fullmatch(key)
    if match is None or match["topic"] in {".", ".."}:
        return None
    return TombstoneKey(match["topic"], match["topic_id"])


def probe_key(token: str) -> str:
    """A throw-away key for the create-only probe."""
    if not _TOKEN.fullmatch(token):
        raise ConfigError(f"probe token {token[:80]!r}: 1 to 64 of A-Z a-z 0-9 -")
    return f"{PROBE_PREFIX}{token}"


def _run(base_offset: int, end_offset: int, term: int, content_hash: str) -> str:
    if end_offset < base_offset:
        raise ConfigError(f"a run of offsets ends at {end_offset}, before its base {base_offset}")
    if term < 0 or not _HASH.fullmatch(content_hash):
        raise ConfigError(f"term {term} or hash {content_hash[:80]!r} cannot stand in a key")
    base = _digits20(base_offset, "base_offset")
    return f"{base}-{_digits20(end_offset, 'end_offset')}-{term}-{content_hash}"


def _parse_run(pattern: re.Pattern[str], key: str) -> RunKey | None:
    match = pattern.fullmatch(key)
    if match is None or match["topic"] in {".", ".."}:
        return None
    base_offset, end_offset = int(match["base"]), int(match["end"])
    if end_offset < base_offset:
        return None
    return RunKey(
        match["topic"],
        int(match["partition"]),
        base_offset,
        end_offset,
        int(match["term"]),
        match["hash"],
    )


def _partition(partition: int) -> int:
    if not 0 <= partition < 10**10:
        raise ConfigError(f"partition {partition} is not usable: 0 to 9999999999")
    return partition


def _digits20(value: int, name: str) -> str:
    if not 0 <= value < 2**64:
        raise ConfigError(f"{name} {value} does not fit a key: 0 to 2**64 - 1")
    return f"{value:020}"


def _identity(value: str, name: str) -> str:
    if not _ID.fullmatch(value):
        raise ConfigError(f"{name} {value[:80]!r} is not 32 lower-case hex digits")
    return value
