"""The bucket of a store: opened on first use, claimed once, proved before the first put.

Place: below `log_store`, above `objectstore`. Promise: nothing is put under a prefix that belongs
to another store, or into a bucket that does not honour create-only puts (api: Identity); a bucket
that cannot be reached does not stop the log from opening or appending. Invariant: the STORE object
exists only after the proof, so finding our own id there is the record of it.
"""

from __future__ import annotations

import logging

from chronik_store.config import LogConfig
from chronik_store.data_directory import FORMAT_VERSION
from chronik_store.environment import Environment
from chronik_store.errors import IdentityMismatchError, UnavailableError
from chronik_store.format.manifest_file import SegmentInfo
from chronik_store.format.store_file import StoreIdentity, decode_store_identity
from chronik_store.objectstore.base import ObjectNotFoundError, ObjectStore, PutOutcome
from chronik_store.objectstore.cache import BlockCache, CachedObject
from chronik_store.objectstore.layout import STORE_KEY
from chronik_store.objectstore.probe import prove_create_only
from chronik_store.read_chain import CachedObjects

logger = logging.getLogger("chronik_store.bucket")


class StoreBucket:
    """One bucket prefix and its cache. Thread-safe: every step may be repeated."""

    def __init__(
        self,
        env: Environment,
        config: LogConfig,
        store: ObjectStore,
        *,
        store_id: str | None,
        owner: str,
        cache_directory: str | None,
    ) -> None:
        self.store = store
        self._env = env
        self._config = config
        self._store_id = store_id
        self._owner = owner
        self._prepared = False
        self.cache = BlockCache(
            threads=env.threads,
            fs=env.fs,
            directory=cache_directory,
            memory_bytes=config.cache_memory_bytes,
            disk_bytes=config.cache_disk_bytes if cache_directory is not None else 0,
            read_ahead_bytes=config.read_ahead_bytes,
            disk_reserve_bytes=config.disk_throttle_bytes,
        )
        self.objects = CachedObjects(self.cache, store)

    def open_object(self, info: SegmentInfo) -> CachedObject:
        """A segment's bytes, through the cache."""
        return self.cache.open_object(self.store, info.key, info.size_bytes)

    def check_identity(self) -> bool:
        """True if the prefix is ours, False if unclaimed; else IdentityMismatchError."""
        try:
            data = self.store.get(STORE_KEY)
        except ObjectNotFoundError:
            return False
        found = decode_store_identity(data, path=f"{self.store.url}/{STORE_KEY}")
        if found.store_id != self._store_id:
            raise IdentityMismatchError(
                f"{self.store.url} belongs to store {found.store_id}, this directory is store "
                f"{self._store_id}: use another prefix, or take it over with `chronik restore`"
            )
        return True

    def check_identity_if_reachable(self) -> None:
        """At open: a foreign prefix is refused; in an outage the pipeline asks again later."""
        try:
            self._prepared = self.check_identity()
        except UnavailableError as error:
            logger.warning("the bucket cannot be used now, appends go on: %s", error)

    def prepare(self) -> None:
        """Before the first put of this open: proof of create-only, then the claim.

        UnsafeBucketError names what the bucket does wrong; `allow_unsafe_bucket` overrules it.
        """
        if self._prepared:
            return
        if not self.check_identity():
            report = prove_create_only(
                self.store,
                threads=self._env.threads,
                clock=self._env.clock,
                entropy=self._env.entropy,
            )
            if not self._config.allow_unsafe_bucket:
                report.raise_if_unsafe()
            elif not report.safe:
                logger.warning("%s is not safe: %s", self.store.url, report.problems)
            self._claim()
        self._prepared = True

    def _claim(self) -> None:
        assert self._store_id is not None
        identity = StoreIdentity(
            format_version=FORMAT_VERSION,
            store_id=self._store_id,
            url=self.store.url,
            created_us=self._env.clock.time_us(),
            owner=self._owner,
        )
        if self.store.put_if_absent(STORE_KEY, identity.encode()) is PutOutcome.EXISTS:
            self.check_identity()

    def close(self) -> None:
        """Release cache and connections."""
        self.cache.close()
        self.store.close()
