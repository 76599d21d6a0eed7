"""What must hold between a cluster and its bucket, whoever leads.

Place: beside the judge, whose word on what is committed it takes; `node_bucket` and `node` ask it
before anything is put, deleted or pruned. Promise: what is wrong is noted with its time. Invariant:
it reads the bucket directly, and changes nothing.

    named before it exists    a segment is put when the log of who puts it names it
    listed means there        a committed segment is in the bucket: each entry, as it was committed
    published means there     every segment of a manifest is in the bucket when the manifest is put
    dense                     manifests have the numbers 1, 2, 3 ... and none is put twice
    nothing alive goes        no key is deleted that the newest log or the newest manifest lists
    pruned means published    a WAL file goes when the newest manifest covers its entries
    dropped means tiered      retention takes what was in the bucket, and nothing else
    in the end                every committed entry is in a member's log, in the bucket or dropped;
                              what the bucket has besides came from calls that took effect late
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from chronik_server.testing.judge import Judge
from chronik_store.errors import ChronikError
from chronik_store.format.entry import decode_entry_header
from chronik_store.format.manifest_file import Manifest, SegmentInfo, decode_manifest_object
from chronik_store.manifest.keys import announced_keys, live_keys, named_keys
from chronik_store.objectstore.base import ObjectStore
from chronik_store.objectstore.layout import parse_manifest_key
from chronik_store.objectstore.object_source import ObjectSource
from chronik_store.segment.reader import SegmentReader

if TYPE_CHECKING:
    from chronik_server.testing.node import Node

SEGMENTS = "segments/"
MANIFESTS = "manifests/"


class Witness:
    """See the module. nodes: by name, each in its newest life."""

    def __init__(self, bucket: ObjectStore, judge: Judge, nodes: Mapping[str, Node]) -> None:
        self._bucket = bucket
        self._judge = judge
        self._nodes = nodes
        self._listed: set[str] = set()
        self._listed_end = 0
        self._numbers: list[int] = []
        self.strays: set[str] = set()
        """Put when no log named them any more: their put had been on its way for too long."""

    # --- what is known ---------------------------------------------------------------------------

    def newest(self) -> Manifest | None:
        """That of the node, dead or alive, that has seen most."""
        nodes = max(self._nodes.values(), key=lambda n: n.replica.commit_index, default=None)
        return None if nodes is None else nodes.core.manifest

    def published(self) -> Manifest | None:
        """What the bucket alone tells."""
        newest = max(self._manifests(), default=None)
        if newest is None:
            return None
        return decode_manifest_object(self._bucket.get(newest[1])).manifest

    def _manifests(self) -> list[tuple[int, str]]:
        keys = [info.key for info in self._bucket.list(MANIFESTS, limit=100_000)]
        return [(found.number, key) for key in keys if (found := parse_manifest_key(key))]

    # --- hooks -----------------------------------------------------------------------------------

    def before_put(self, node: Node, key: str) -> None:
        """A put takes effect."""
        if key.startswith(SEGMENTS):
            self._check(key in named_keys(node.core.manifest), f"{node.name} puts {key}: not named")
            newest = self.newest()
            if newest is not None and key not in named_keys(newest):
                self.strays.add(key)
        found = parse_manifest_key(key)
        if found is not None and self._bucket.head(key) is None:
            last = max(self._numbers, default=0)
            self._check(found.number == last + 1, f"{key} is put, the last one was {last}")
            self._numbers.append(found.number)

    def after_put(self, key: str) -> None:
        """A put took effect: what a manifest lists is there."""
        if parse_manifest_key(key) is not None:
            for segment in decode_manifest_object(self._bucket.get(key)).manifest.segments:
                self._check(self._is_there(segment), f"{key} lists {segment.key}: not there")

    def before_delete(self, keys: Iterable[str]) -> None:
        """A deletion takes effect."""
        newest, published = self.newest(), self.published()
        alive = set() if newest is None else live_keys(newest) | announced_keys(newest)
        shown = set() if published is None else live_keys(published)
        for key in keys:
            self._check(key not in alive, f"{key} is deleted, and the log names it")
            self._check(key not in shown, f"{key} is deleted, and the newest manifest lists it")

    def before_prune(self, node: Node, last_index: int) -> None:
        """WAL files with entries up to `last_index` are about to go."""
        published = self.published()
        covered = 0 if published is None else published.next.index
        self._check(last_index <= covered, f"{node.name} prunes {last_index}, covered: {covered}")
        if published is not None:
            for segment in published.segments:
                self._check(self._is_there(segment), f"{segment.key} is not there: pruned")

    def committed(self, node: Node) -> None:
        """`node` shows a new commit: segments listed by it are in the bucket, entry by entry."""
        manifest = node.core.manifest
        for segment in manifest.segments:
            if segment.key not in self._listed:
                self._listed.add(segment.key)
                self._listed_end = max(self._listed_end, segment.end_offset)
                self._compare(segment)
        dropped = manifest.start_offset
        self._check(dropped <= self._listed_end, f"dropped to {dropped}, not in the bucket yet")

    # --- in the end ------------------------------------------------------------------------------

    def check_rest(self, leader: Node) -> None:
        """All is quiet, published and collected."""
        manifest, published = leader.core.manifest, self.published()
        if published is None or live_keys(published) != live_keys(manifest):
            self._check(published is None and not manifest.segments, "not all is published")
        here = {info.key for info in self._bucket.list(SEGMENTS, limit=100_000)}
        missing, more = live_keys(manifest) - here, here - live_keys(manifest) - self.strays
        self._check(not missing, f"listed and not there: {sorted(missing)}")
        self._check(not more, f"in the bucket and named by nobody: {sorted(more)}")
        for segment in manifest.segments:
            self._compare(segment)
        runs = [(each.first_index, each.last_index) for each in manifest.segments]
        for index, (_, data) in self._judge.committed.items():
            if index >= leader.replica.first_index or any(a <= index <= b for a, b in runs):
                continue
            dropped = decode_entry_header(data).end_offset <= manifest.start_offset
            self._check(dropped, f"committed entry {index} is nowhere")

    def _compare(self, segment: SegmentInfo) -> None:
        """Each entry of the object is what was committed at its index."""
        try:
            reader = SegmentReader.open(ObjectSource(self._bucket, segment.key), segment)
            for entry in reader.iterate():
                known = self._judge.committed.get(entry.header.index)
                same = known is None or known == (entry.header.term, entry.encode())
                self._judge.compared += 1
                self._check(same, f"{segment.key} differs at {entry.header.index}")
        except ChronikError as error:
            self._check(False, f"{segment.key} is listed: {error}")

    def _is_there(self, segment: SegmentInfo) -> bool:
        found = self._bucket.head(segment.key)
        return found is not None and found.size_bytes == segment.size_bytes

    def _check(self, holds: bool, what: str) -> None:
        if not holds:
            self._judge.violate(f"bucket: {what}")
