"""A witness at the doors of disk and bucket: what is deleted, put or pruned there must be allowed.

Place: on the hooks of a world's disk and bucket. Promise: whatever is about to go is looked at
first. Invariant: it reads bytes, and changes none.

It knows nothing of the pipeline's reasons. It looks at the bytes that are about to go, and at what
would be left: the newest published manifest and the objects that it lists. What it finds wrong is
noted, since an exception raised inside the store might be taken for one of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from chronik_store.errors import CorruptionError
from chronik_store.format.checksum import content_hash
from chronik_store.format.entry import EntryKind
from chronik_store.format.frame import FrameKind, decode_frame, frame_entry
from chronik_store.format.manifest_file import Manifest, decode_manifest_object
from chronik_store.format.wal_file import decode_wal_file_header
from chronik_store.objectstore.base import ObjectStore
from chronik_store.objectstore.layout import (
    bundles_prefix,
    manifest_key,
    manifest_prefix,
    parse_manifest_key,
    parse_segment_key,
    segments_prefix,
)

Run = tuple[int, int]


def record_runs(data: bytes) -> Iterator[Run]:
    """The offset ranges of the records in a WAL file, read with nothing but the format."""
    view = memoryview(data)
    header = decode_wal_file_header(view)
    position = header.header_bytes
    while (frame := decode_frame(view, position, file_id=header.file_id)) is not None:
        if frame.kind == FrameKind.ENTRY:
            try:
                entry, _ = frame_entry(view, frame)
            except CorruptionError:
                return
            if entry.kind == EntryKind.RECORDS:
                yield entry.base_offset, entry.end_offset
        position = frame.next_position


class Oracle:
    """Watches one log and its bucket. `log` is whatever PartitionLog is open now."""

    def __init__(self, bucket: ObjectStore, partition: int = 0) -> None:
        self.bucket = bucket
        self.partition = partition
        self._folders = tuple(
            folder("t", partition) for folder in (segments_prefix, bundles_prefix, manifest_prefix)
        )
        self.log: Any = None
        self.disk: Any = None
        self.violations: list[str] = []
        self.looked_at = 0
        self.uploaded_end = 0
        """No segment object reaches further: what lies behind is on the disk alone."""

    # --- hooks -----------------------------------------------------------------------------------

    def before_disk_call(self, _number: int, operation: str, path: str) -> None:
        if operation != "remove" or self.log is None or f"/t/{self.partition}/" not in path:
            return
        if "/wal/" in path and path.endswith(".log"):
            # What recovery copied stands in a younger file, too.
            self._look(path, record_runs(self.disk.peek(path)), self._in_the_wal(but=path))
        elif path.endswith(".seg"):
            run = parse_segment_key(segments_prefix("t", self.partition) + path.rpartition("/")[2])
            assert run is not None
            self._look(path, [(run.base_offset, run.end_offset)], self._in_the_wal())

    def before_bucket_call(self, _number: int, operation: str, key: str) -> None:
        if self.log is None or not key.startswith(self._folders):
            return
        if operation == "bucket.delete":
            self._note_if(key in self._alive(), f"{key} is listed, and deleted")
            found = parse_manifest_key(key)
            newest = self.log._core.manifest.published_number
            self._note_if(
                found is not None and found.number > newest - 64, f"{key} is one of the newest"
            )
        elif operation == "bucket.put_if_absent" and key.startswith(("segments/", "indexes/")):
            manifest: Manifest = self.log._core.manifest
            named = {name for intent in manifest.intents for name in intent.keys}
            self._note_if(key not in named, f"{key} is put, and the log does not name it")
            run = parse_segment_key(key)
            if run is not None:
                durable = self.log._core.durable.offset
                self._note_if(run.end_offset > durable, f"{key} is put, durable is {durable}")

    def after_bucket_call(self, _number: int, operation: str, key: str) -> None:
        """A manifest that is there can be relied upon: all that it lists is there, whole."""
        if operation != "bucket.put_if_absent" or not key.startswith(self._folders):
            return
        if (run := parse_segment_key(key)) is not None:
            self.uploaded_end = max(self.uploaded_end, run.end_offset)
        if parse_manifest_key(key) is not None:
            for segment in decode_manifest_object(self.bucket.get(key)).manifest.segments:
                self._note_if(not self._is_whole(segment), f"{key} lists {segment.key}: not there")

    # --- what is allowed -------------------------------------------------------------------------

    def _in_the_wal(self, *, but: str = "") -> Iterator[Run]:
        """What is durable in the WAL."""
        for path in self.disk.paths(f"/data/wal/t/{self.partition}"):
            data = self.disk.peek_durable(path)
            if path.endswith(".log") and path != but and data is not None:
                yield from record_runs(data)

    def _look(self, path: str, runs: Iterable[Run], elsewhere: Iterable[Run]) -> None:
        """`elsewhere` is looked at only if the bucket does not hold all of it."""
        self.looked_at += 1
        manifest = self._published()
        safe: list[Run] = []
        start = 0
        if manifest is not None:
            start = manifest.start_offset
            safe = [
                (each.base_offset, each.end_offset)
                for each in manifest.segments
                if self._is_whole(each)
            ]
        bare = [run for run in runs if not _is_covered(run, start, safe)]
        if bare:
            safe = sorted([*safe, *elsewhere])
        for run in bare:
            covered = _is_covered(run, start, safe)
            self._note_if(not covered, f"{path} goes with {run}, safe are {safe} >= {start}")

    def _published(self) -> Manifest | None:
        """What the bucket says by the number that is committed as published."""
        own: Manifest = self.log._core.manifest
        if not own.published_number:
            return None
        key = manifest_key(own.topic, own.partition, own.log_id, own.published_number)
        body = self.bucket.get(key)
        self._note_if(content_hash(body) != own.published_hash, f"{key} is not what was published")
        return decode_manifest_object(body).manifest

    def _is_whole(self, segment: Any) -> bool:
        info = self.bucket.head(segment.key)
        return info is not None and info.size_bytes == segment.size_bytes

    def _alive(self) -> set[str]:
        own: Manifest = self.log._core.manifest
        folder = manifest_prefix(own.topic, own.partition, own.log_id)
        newest = newest_manifest(self.bucket, folder)
        if newest is None:
            return set()
        alive = {each.key for each in newest.segments}
        return alive | {each.bundle.key for each in newest.segments if each.bundle is not None}

    def _note_if(self, wrong: bool, what: str) -> None:
        if wrong:
            self.violations.append(what)


def _is_covered(run: Run, start: int, safe: list[Run]) -> bool:
    """All offsets of `run` from `start` on are in `safe`, which is sorted."""
    left = max(run[0], start)
    for low, high in safe:
        if low <= left < high:
            left = high
    return left >= run[1]


def newest_manifest(bucket: ObjectStore, prefix: str) -> Manifest | None:
    """The manifest with the highest number below `prefix`, where one log has its own."""
    keys = [info.key for info in bucket.list(prefix, limit=100_000)]
    numbered = [(found.number, key) for key in keys if (found := parse_manifest_key(key))]
    if not numbered:
        return None
    return decode_manifest_object(bucket.get(max(numbered)[1])).manifest


def check_bucket(bucket: ObjectStore, log: Any) -> None:
    """When all is quiet: one object for each range, no gap, nothing that nobody names."""
    folder = segments_prefix(log.topic, log.partition)
    keys = [info.key for info in bucket.list(folder, limit=100_000)]
    runs = sorted(
        (run.base_offset, run.end_offset) for key in keys if (run := parse_segment_key(key))
    )
    marks = log.watermarks
    assert len(runs) == len(set(runs)), f"a range has two objects: {runs}"
    for (_, left), (right, _) in pairwise(runs):
        assert left == right, f"a gap or an overlap in the bucket: {runs}"
    if runs:
        assert runs[0][0] <= marks.start, (runs, marks)
        assert runs[-1][1] == marks.tiered, (runs, marks)
    report = log.verify(bucket=True, deep=True)
    assert report.findings == (), report.findings
