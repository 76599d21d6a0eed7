"""Decoded footers, kept while they are of use.

Place: beside `reader`; one cache serves all partitions of a store. Promise: with a warm footer a
read costs one range read. A footer is stored under the segment's key, which ends in the hash of
its bytes, so the copies of all tiers share it and none of them can go stale. Invariant: never more
than `max_bytes` of encoded footers. No lock is held while one is loaded: two threads may load the
same footer, which is harmless.
"""

from __future__ import annotations

from collections import OrderedDict

from chronik_store.format.manifest_file import SegmentInfo
from chronik_store.format.segment_file import SegmentFooter
from chronik_store.segment.reader import load_footer
from chronik_store.segment.source import ByteSource
from chronik_store.threads import Threads

DEFAULT_BYTES = 16 << 20


class FooterCache:
    """The most recently used footers. Thread-safe."""

    def __init__(self, threads: Threads, *, max_bytes: int = DEFAULT_BYTES) -> None:
        self._lock = threads.lock()
        self._max_bytes = max_bytes
        self._bytes = 0
        self._footers: OrderedDict[str, tuple[int, SegmentFooter]] = OrderedDict()

    def get(self, info: SegmentInfo, source: ByteSource, *, path: str = "") -> SegmentFooter:
        """The footer of the segment: from memory, else one range read of `source`.

        Errors: those of `load_footer`.
        """
        with self._lock:
            found = self._footers.get(info.key)
            if found is not None:
                self._footers.move_to_end(info.key)
                return found[1]
        footer = load_footer(source, info, path=path)
        with self._lock:
            if info.key not in self._footers:
                self._footers[info.key] = info.footer_bytes, footer
                self._bytes += info.footer_bytes
            while self._bytes > self._max_bytes:
                _, (size, _) = self._footers.popitem(last=False)
                self._bytes -= size
        return footer
