"""The bucket of a store: opened on first use, claimed once, proved before the first put.

Place: below `log_store`, above `objectstore`. Promise: nothing is put under a prefix that belongs
to another store, or into a bucket that does not honour create-only puts (api: Identity); a bucket
that cannot be reached does not stop the log from opening or appending. Invariant: the STORE object
exists only after the proof, so finding our own id there is the record of it.

Nodes of a cluster share a store id, so an id alone does not tell their bucket from another one that
a node of theirs has claimed: they agree on the digest of the one STORE object, and nothing is put
before that was found (`claim`, `agree`).
"""

from __future__ import annotations

import logging
import os

from chronik_store.config import LogConfig
from chronik_store.data_directory import DIRECTORIES, FORMAT_VERSION, DataDirectory
from chronik_store.environment import Environment
from chronik_store.errors import (
    ChronikError,
    ConfigError,
    IdentityMismatchError,
    UnavailableError,
)
from chronik_store.format.checksum import content_hash
from chronik_store.format.manifest_file import SegmentInfo
from chronik_store.format.store_file import StoreIdentity, decode_store_identity
from chronik_store.log_identity import LOCAL_OWNER
from chronik_store.objectstore.base import ObjectNotFoundError, ObjectStore, PutOutcome
from chronik_store.objectstore.cache import BlockCache, CachedObject
from chronik_store.objectstore.layout import STORE_KEY
from chronik_store.objectstore.open import check_is_no_data_directory, open_object_store
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
        is_shared: bool = False,
    ) -> None:
        self.store = store
        self._env = env
        self._config = config
        self._store_id = store_id
        self._owner = owner
        self._prepared = False
        self._is_shared = is_shared
        """With the other nodes of a cluster, which has to say which bucket is its own."""
        self._waits_for = "the cluster has not said yet which bucket is its own"
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
                f"{self._store_id}: use another prefix, or {self._way_in(found.owner)}"
            )
        return True

    def _way_in(self, owner: str) -> str:
        """To the bucket of another store: a cluster that is alive must not lose its own by it."""
        if owner == LOCAL_OWNER and not self._is_shared:
            return "take it over with `chronik restore`, which fences whoever writes there"
        return (
            "have a node join the cluster whose bucket it is: with an empty directory, an id that "
            "was never used, and `chronik serve --join`"
        )

    def check_identity_if_reachable(self, directory: DataDirectory) -> None:
        """At open: a foreign prefix is refused; in an outage the pipeline asks again later.

        That a new directory is bound to a bucket is said: a URL that is mistyped is as good as any.
        """
        if directory.is_new and directory.url is not None:
            logger.info(
                "%s is a new data directory, of store %s: it belongs to %s for good",
                directory.path, directory.store_id, self.store.url,
            )  # fmt: skip
        try:
            self._prepared = self.check_identity() and not self._is_shared
        except UnavailableError as error:
            logger.warning("the bucket cannot be used now, appends go on: %s", error)
        except IdentityMismatchError as error:
            if not directory.is_new:
                raise
            made = f"{directory.path} was made by this and holds nothing: remove it"
            raise IdentityMismatchError(f"{error}; {made}") from error

    def prepare(self) -> None:
        """Before the first put of this open: proof of create-only, then the claim.

        UnsafeBucketError names what the bucket does wrong; `allow_unsafe_bucket` overrules it.
        """
        if self._prepared:
            return
        if self._is_shared:  # `agree` has not prepared it
            raise UnavailableError(f"nothing is uploaded yet: {self._waits_for}")
        self._prove_and_claim()
        self._prepared = True

    def claim(self) -> str:
        """For the node that founds the cluster: what its STORE object is, made if there is none.

        Errors: as `prepare`.
        """
        try:
            self._prove_and_claim()
            digest = claim_in(self.store)
        except ChronikError as error:
            self._waits_for = str(error)
            raise
        if digest is None:
            raise UnavailableError(f"the STORE object of {self.store.url} has gone; ask again")
        return digest

    def agree(self, digest: str, url: str) -> None:
        """The cluster's bucket is the one whose STORE object has this digest: is it ours?

        url: what the node that claimed it calls it. IdentityMismatchError when it is another;
        UnavailableError when it cannot be asked: nothing is put until it was.
        """
        try:
            check_claim(self.store, digest, url)
        except ChronikError as error:
            self._waits_for = str(error)
            raise
        self._prepared = True

    def _prove_and_claim(self) -> None:
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
        else:
            logger.info("store %s is made at %s, which held none", self._store_id, self.store.url)

    def close(self) -> None:
        """Release cache and connections."""
        try:
            self.cache.close()
        finally:  # an interrupt ends the wait for its threads only
            self.store.close()


def claim_in(store: ObjectStore) -> str | None:
    """What tells one claim of a bucket from every other; None for a bucket without one."""
    try:
        return content_hash(store.get(STORE_KEY))
    except ObjectNotFoundError:
        return None


def check_claim(store: ObjectStore, digest: str, url: str) -> None:
    """IdentityMismatchError unless it holds the cluster's STORE object. See `StoreBucket.agree`."""
    found = claim_in(store)
    if found != digest:
        what = "has no STORE object" if found is None else "holds another store's STORE object"
        raise IdentityMismatchError(
            f"{store.url} is not the bucket of this cluster: it {what}. The cluster's is {url}, as "
            "the node calls it that claimed it: a node that was never a member starts with an "
            "empty directory and that bucket; if it is this one, see that it is mounted"
        )


def check_url(url: str | None, path: str, env: Environment, config: LogConfig) -> None:
    """Refuse, before anything is made, an object store that cannot be that of the directory `path`.

    ConfigError; and as `open_object_store`, of which nothing is kept.
    """
    if url is None:
        return
    store = open_object_store(url, env=env, s3=config.s3, read_only=True)
    store.close()
    bucket = store.url.removeprefix("file://")
    if bucket == store.url:
        return
    bucket = os.path.normpath(bucket)
    own = (f"{path}/{name}/" for name in DIRECTORIES)
    if bucket == path or f"{bucket}/".startswith(tuple(own)):
        raise ConfigError(
            f"{url} is where {path} keeps its own files: give another directory, or none for "
            f"{path}/object_store"
        )
    check_is_no_data_directory(store.url, env)
