"""The search bundles of one partition: which are lost or damaged in the bucket, and new ones.

Place: over `log_store` and its pipeline; for the command line, and for a server, which asks for the
partitions that it leads. Promise: a bundle is built anew by the pipeline alone, as any other (named
in the log, put, listed, published; then the old one is garbage), so until a new one is listed the
old one stays, and a log that does not lead changes nothing. Invariant: nothing is remembered here.
Whoever wants bundles built anew keeps their keys, and asks again until none of them waits: here, or
where the log is led by then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from chronik_store.errors import ConfigError, CorruptionError
from chronik_store.format.manifest_file import Manifest
from chronik_store.format.segment_info import BundleInfo
from chronik_store.log_core import LogCore
from chronik_store.log_status import status_of
from chronik_store.log_store import LogStore
from chronik_store.model import BUNDLE_KEYS_MAX, BundlesFound, BundlesRebuilt
from chronik_store.objectstore.base import ObjectNotFoundError
from chronik_store.objectstore.layout import parse_bundle_key
from chronik_store.verify.bucket import check_bundle


class Bundles:
    """See the module. Of a log that is open for writing. Thread-safe.

    Each call raises LogClosedError after the log's `close`, and ConfigError where indexing is off.
    """

    def __init__(self, store: LogStore, core: LogCore) -> None:
        self._store = store
        self._core = core

    def find(
        self, offset: int = 0, *, everything: bool = False, seconds: float = math.inf
    ) -> BundlesFound:
        """Of the segments from that of `offset` on the bundles that are absent or damaged in the
        bucket, by every byte of theirs; at most BUNDLE_KEYS_MAX.

        everything: those that are sound, too; nothing is looked at then. seconds: one is looked at
        in any case, no other is begun after that time. UnavailableError: the bucket does not
        answer, so nothing is known.
        """
        self._must_index()
        clock, keys, looked = self._core.env.clock, list[str](), 0
        deadline = clock.monotonic() + seconds
        for segment in self._core.manifest.segments:
            if segment.bundle is None or segment.end_offset <= offset:
                continue
            if len(keys) >= BUNDLE_KEYS_MAX or (looked and clock.monotonic() >= deadline):
                return BundlesFound(tuple(keys), segment.base_offset)
            self._core.check_open()
            looked += 1
            if everything or self._is_lost(segment.bundle):
                keys.append(segment.bundle.key)
        return BundlesFound(tuple(keys))

    def _is_lost(self, bundle: BundleInfo) -> bool:
        try:
            check_bundle(self._store._bucket.store, bundle, deep=True)
        except (CorruptionError, ObjectNotFoundError):
            # Retention, or a successor, may have had it deleted meanwhile.
            return bundle.key in _listed(self._core.manifest)
        return False

    def rebuild(self, keys: Sequence[str]) -> BundlesRebuilt:
        """Have these bundles built anew, and run the pipeline once: it builds some, the oldest
        first, and does whatever else is due. Takes as long; what waits for it is in the answer.

        Repeatable: a bundle that has a successor already is not built again. ConfigError: these are
        not keys of this partition's bundles.
        """
        self._must_index()
        core = self._core
        self._check_keys(keys)
        pipeline = self._store._assembly.pipeline
        pipeline.rebuild_indexes(core, keys)
        report = pipeline.run_once(core)
        manifest = core.manifest
        listed = _listed(manifest)
        waiting = tuple(key for key in keys if key in listed)
        errors = report.errors
        if not errors and (manifest.fenced is not None or (waiting and report.idle)):
            errors = (self._why_it_rests(),)
        return BundlesRebuilt(_succeeded(manifest, keys), waiting, errors)

    def _must_index(self) -> None:
        if not self._core.config.indexing_enabled:
            raise ConfigError(
                "indexing is off, so no search bundle would be built: unset "
                "CHRONIK_WAL_INDEXING_ENABLED"
            )

    def _check_keys(self, keys: Sequence[str]) -> None:
        who = self._core.identity
        for key in keys:
            parsed = parse_bundle_key(key)
            if parsed is None or parsed[:2] != (who.topic, who.partition):
                raise ConfigError(f"{key!r} is no search bundle of {who.topic}/{who.partition}")

    def _why_it_rests(self) -> str:
        core = self._core
        if core.manifest.fenced is None and core.leader_term() is None:
            return "this log is not led here, or not any more"
        status = status_of(core)
        said = (*status.notes, status.last_error or "")
        return "; ".join(filter(None, said)) or "the pipeline has come to rest"


def _listed(manifest: Manifest) -> set[str]:
    return {each.bundle.key for each in manifest.segments if each.bundle is not None}


def _succeeded(manifest: Manifest, keys: Sequence[str]) -> int:
    """How many of these are replaced: not listed, while their segment still is."""
    listed = {
        (each.base_offset, each.end_offset): each.bundle.key
        for each in manifest.segments
        if each.bundle is not None
    }
    found = ((parse_bundle_key(key), key) for key in keys)
    now = ((listed.get(run[2:4]), key) for run, key in found if run is not None)
    return sum(there not in {None, key} for there, key in now)
