"""A bundle: the search index of one segment as one object.

    bundle.cbor            envelope: engine identity, offsets, counts, times, the members' checksums
    meta.json, *.idx, ...  the files of a Tantivy index, as Tantivy wrote them

Place: above `archive` and `engine`. Promise: what is opened is what was built, byte for byte, for
that range of offsets, by an engine that means the same by it; anything else is CorruptionError or
UnreadableIndexError, never an empty or a partial answer. Invariant: derived and not reproducible
(Tantivy names its files by chance): a bundle is told by the hash of its own bytes.

Every byte is checked three times over: the object's hash against the manifest, gzip's own CRC, and
each member against bundle.cbor, before Tantivy maps a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from chronik_store.errors import CorruptionError, UnavailableError
from chronik_store.format.checksum import Hasher
from chronik_store.format.envelope import Kind, seal_value, unseal_value
from chronik_store.format.segment_info import BundleInfo
from chronik_store.format.shape import HASH, INT64, NAME, UINT63, Row, Text, TupleOf
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.fs.base import FileSystem
from chronik_store.search import engine
from chronik_store.search.archive import CHUNK_BYTES, Member, Unpacker, describe, pack
from chronik_store.search.engine import IndexBuilder, IndexSearch, UnreadableIndexError
from chronik_store.search.scratch import disk, empty_directory, remove_tree

HEAD_NAME: Final = "bundle.cbor"
MEMBERS_MAX: Final = 4096
UNPACKED_BYTES_MAX: Final = 4 << 30
"""No bundle of a segment of at most 512 MiB comes near it."""

_HEAP_BYTES: Final = 64 << 20  # for Tantivy while it indexes: fewer pieces, so fewer merges

ReadRange = Callable[[int, int], bytes]
"""read_range(start, length): a range of an object's bytes, shorter only at its end."""

_FILES: Final = re.compile(
    r"(?:meta\.json|\.managed\.json|[0-9a-f]{32}\.(?:[0-9]+\.)?[a-z]{2,12})\Z"
)


@dataclass(frozen=True, slots=True)
class BundleHead:
    """What a bundle says of itself. Times are those of its records; 0 where it has none."""

    engine: str
    base_offset: int
    end_offset: int
    document_count: int
    min_timestamp_us: int
    max_timestamp_us: int
    members: tuple[Member, ...]


_KIND: Final = Kind(b"\xf5CKQ", 1, "search bundle")
_MEMBER: Final = Row(Member, {"name": Text(128), "size_bytes": UINT63, "hash": HASH})
_HEAD: Final = Row(
    BundleHead,
    {
        "engine": NAME,
        "base_offset": UINT63,
        "end_offset": UINT63,
        "document_count": UINT63,
        "min_timestamp_us": INT64,
        "max_timestamp_us": INT64,
        "members": TupleOf(_MEMBER, MEMBERS_MAX),
    },
)


@dataclass(frozen=True, slots=True)
class BuiltBundle:
    """A packed bundle on local disk. `info.key` is empty: the caller names it by `info.hash`."""

    path: str
    info: BundleInfo
    fs: FileSystem
    directory: str

    def discard(self) -> None:
        """Remove the scratch directory. Never raises: what stays is emptied by the next build."""
        remove_tree(self.fs, self.directory)


def head_of(unpacker: Unpacker, *, path: str) -> BundleHead:
    """What a bundle says of itself; CorruptionError."""
    head, _ = unseal_value(_KIND, _HEAD, unpacker.head(HEAD_NAME), path=path)
    return head


def is_readable(info: BundleInfo) -> bool:
    """False: the bundle counts as not indexed; build another that replaces it."""
    return engine.can_read(info.engine)


def build_bundle(
    batches: Iterable[StoredBatch],
    *,
    fs: FileSystem,
    directory: str,
    base_offset: int,
    end_offset: int,
) -> BuiltBundle:
    """Index the records of [base_offset, end_offset), which `batches` must hold gaplessly.

    directory: scratch of this call alone, on real disk; emptied first, and again on any error.
    Takes seconds and some 45 microseconds a record of 1 KB; the GIL is free for most of it.
    Raises CorruptionError if the batches are not that range, DiskFullError, UnavailableError.
    """
    index_directory, target = f"{directory}/index", f"{directory}/bundle.tar.gz"
    builder: IndexBuilder | None = None
    try:
        with disk(directory):
            empty_directory(fs, directory)
            fs.make_directories(index_directory)
        builder = IndexBuilder(index_directory, heap_bytes=_HEAP_BYTES)
        low, high = _index(builder, batches, base_offset, end_offset)
        builder.commit()
        builder.rest()
        count = builder.search().document_count
        if count != end_offset - base_offset:
            raise UnavailableError(f"the index holds {count} of {end_offset - base_offset} records")
        with disk(directory):
            names = [name for name in fs.list(index_directory) if _FILES.match(name)]
            members = describe(fs, index_directory, sorted(names))
            identity = engine.identity()
            head = BundleHead(identity, base_offset, end_offset, count, low, high, members)
            sealed = seal_value(_KIND, _HEAD, head)
            size, content = pack(fs, index_directory, (HEAD_NAME, sealed), members, target)
            remove_tree(fs, index_directory)
    except BaseException:
        if builder is not None:
            builder.abandon()
        remove_tree(fs, directory)
        raise
    paths, truncated = builder.paths.listed()
    info = BundleInfo("", size, content, identity, count, low, high, paths, truncated)
    return BuiltBundle(target, info, fs, directory)


def open_bundle(
    read_range: ReadRange,
    info: BundleInfo,
    *,
    fs: FileSystem,
    directory: str,
    base_offset: int,
    end_offset: int,
    admit: Callable[[int], None],
) -> IndexSearch:
    """Unpack a bundle into `directory` (emptied first, removed on error) and open it.

    admit: called with the bytes that it takes unpacked, before any of them is written.
    Raises UnreadableIndexError if its engine or words are not ours (it counts as not indexed),
    CorruptionError if its bytes are not those that `info` names or not of these offsets,
    DiskFullError, and what `read_range` and `admit` raise.
    """
    if not is_readable(info):
        raise UnreadableIndexError(
            f"search bundle {info.key}: written by {info.engine}, this is {engine.identity()}: "
            "it counts as not indexed and will be rebuilt"
        )
    if info.document_count != end_offset - base_offset:
        raise _corrupt(info, f"{info.document_count} documents", base_offset, end_offset)
    try:
        with disk(directory):
            empty_directory(fs, directory)
            hasher = Hasher()
            unpacker = Unpacker(_hashed(read_range, info, hasher), path=info.key)
            head = head_of(unpacker, path=info.key)
            _check_head(head, info, base_offset, end_offset)
            admit(sum(member.size_bytes for member in head.members))
            unpacker.extract(fs, directory, head.members)
            if hasher.digest_hex() != info.hash:
                raise _corrupt(info, "its bytes do not match their hash", base_offset, end_offset)
        search = engine.open_index(directory)
        if search.document_count != info.document_count:
            raise _corrupt(info, f"{search.document_count} documents", base_offset, end_offset)
    except BaseException:
        remove_tree(fs, directory)
        raise
    return search


def _index(
    builder: IndexBuilder, batches: Iterable[StoredBatch], base_offset: int, end_offset: int
) -> tuple[int, int]:
    """Feed the batches; the least and greatest timestamp."""
    expected, low, high = base_offset, 0, 0
    for batch in batches:
        if batch.base_offset != expected or batch.end_offset > end_offset:
            raise CorruptionError(
                f"records [{batch.base_offset}, {batch.end_offset}) where {expected} comes next "
                f"and {end_offset} ends the segment",
                offset_range=(base_offset, end_offset),
            )
        if not len(batch):
            continue
        times = batch.timestamps_us.tolist()
        if expected != base_offset:
            times += (low, high)
        low, high = min(times), max(times)
        for _ in builder.add(batch, expected, batch.end_offset):
            pass
        expected = batch.end_offset
    if expected != end_offset:
        raise CorruptionError(
            f"the records end at {expected}, not at {end_offset}",
            offset_range=(base_offset, end_offset),
        )
    return low, high


def _check_head(head: BundleHead, info: BundleInfo, base_offset: int, end_offset: int) -> None:
    if (head.base_offset, head.end_offset) != (base_offset, end_offset):
        what = f"it is of offsets [{head.base_offset}, {head.end_offset})"
        raise _corrupt(info, what, base_offset, end_offset)
    if head.engine != info.engine or head.document_count != info.document_count:
        raise _corrupt(info, "it is not the one that the manifest lists", base_offset, end_offset)
    if sum(member.size_bytes for member in head.members) > UNPACKED_BYTES_MAX:
        raise _corrupt(info, "it would unpack to more than any index", base_offset, end_offset)
    for member in head.members:
        if not _FILES.match(member.name):
            raise _corrupt(info, f"a file named {member.name!r}", base_offset, end_offset)


def _hashed(read_range: ReadRange, info: BundleInfo, hasher: Hasher) -> Iterator[bytes]:
    """The object's bytes, chunk by chunk, exactly as many as the manifest says."""
    position = 0
    while position < info.size_bytes:
        chunk = read_range(position, min(CHUNK_BYTES, info.size_bytes - position))
        if not chunk:
            raise CorruptionError(
                f"search bundle {info.key}: ends at byte {position} of {info.size_bytes}",
                path=info.key,
            )
        hasher.update(chunk)
        position += len(chunk)
        yield chunk


def _corrupt(info: BundleInfo, what: str, base_offset: int, end_offset: int) -> CorruptionError:
    return CorruptionError(
        f"search bundle {info.key}: {what}, not the index of [{base_offset}, {end_offset})",
        path=info.key,
        offset_range=(base_offset, end_offset),
    )
