"""A data directory: its lock, its identity, where things are in it.

Place: below `log_store`, above `topic_list` and `small_files`, which have its parts. Promise: one
writer at a time; a directory belongs to one store and one bucket prefix for life. Invariant: STORE
is created once, and changed only when the directory is given to a cluster (`conversion`).

    {path}/LOCK  STORE  TOPICS  wal/  segments/  cache/  scratch/  quarantine/  object_store/
"""

from __future__ import annotations

import json
import os
import re

from chronik_store.disk_errors import disk_error, disk_errors, mended_by_hand
from chronik_store.environment import Environment
from chronik_store.errors import (
    ConfigError,
    CorruptionError,
    DirectoryLockedError,
    FutureVersionError,
    IdentityMismatchError,
)
from chronik_store.format.store_file import StoreIdentity, decode_store_identity
from chronik_store.fs.base import FileLock
from chronik_store.log_identity import LOCAL_OWNER, LogPaths
from chronik_store.small_files import SmallFiles
from chronik_store.topic_list import TOPICS_NAME, TopicList

FORMAT_VERSION = 1
LOCK_NAME, STORE_NAME = "LOCK", "STORE"
RESTORE_NAME = "RESTORE"
"""What a restore is about to do; gone when it has done it. It writes STORE last."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
"""With one slash, too: as a path it means the same as with two."""
DIRECTORIES = ("wal", "segments", "cache", "scratch", "quarantine")


def absolute_path(path: str | os.PathLike[str]) -> str:
    """The path of a data directory as the rooms below know it. ConfigError if it can be none.

    Not UTF-8 either: neither the STORE object nor Tantivy can hold such a path, so nothing would
    ever be uploaded or searched. Nor a URL: what was written there would be on this disk, below a
    directory `s3:`, and not where its owner believes it to be.
    """
    text = os.fsdecode(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{text!a} cannot be a data directory: its path is not UTF-8; rename it"
        ) from None
    if not text or "\0" in text:
        raise ConfigError(f"{text!r} cannot be a data directory: give the path of a directory")
    if _URL.match(text):
        raise ConfigError(
            f"{text!r} cannot be a data directory: it is a URL; give a path here, and a bucket's "
            "URL as object_store, or to open_bucket, which reads it alone"
        )
    return os.path.abspath(text)  # noqa: PTH100 (paths are strings below here)


class DataDirectory:
    """An opened data directory. Not thread-safe: `LogStore` serialises changes."""

    def __init__(self, env: Environment, path: str, *, read_only: bool) -> None:
        self.env = env
        self.path = path
        self.read_only = read_only
        self.files = SmallFiles(env.fs, path)
        self.topics = TopicList(self.files, path)
        self.identity: StoreIdentity | None = None
        self.is_new = False
        """It was made by this open."""
        self.is_given_up = False
        """It may be another's by now."""
        self._lock: FileLock | None = None

    @classmethod
    def open(
        cls,
        env: Environment,
        path: str,
        *,
        url: str | None,
        read_only: bool,
        owner: str,
        store_id: str | None = None,
    ) -> DataDirectory:
        """Lock (unless read-only), check or create the identity, load the topics.

        url: the object store asked for, without secrets; None takes what the directory has.
        store_id: of a new directory; None makes one. The nodes of a cluster share theirs.
        """
        directory = cls(env, path, read_only=read_only)
        try:
            with disk_errors(path, "open"):
                directory._prepare()
                directory._load(url, owner, store_id)
        except BaseException:
            directory.close()
            raise
        return directory

    @classmethod
    def claim(cls, env: Environment, path: str) -> DataDirectory:
        """Lock and lay out a directory without an identity: `restore` writes STORE last.

        Errors: as `open`, for what concerns the path and the lock.
        """
        directory = cls(env, path, read_only=False)
        try:
            directory._prepare()
        except OSError as error:
            directory.close()
            raise disk_error(path, "open", error) from error
        return directory

    def _prepare(self) -> None:
        fs, path = self.env.fs, self.path
        if fs.exists(path) and not fs.stat(path).is_directory:
            raise ConfigError(f"{path} is a file; a data directory is needed")
        if self.read_only:
            if not any(fs.exists(f"{path}/{name}") for name in (STORE_NAME, TOPICS_NAME)):
                raise ConfigError(
                    f"{path} is not a Chronik data directory (it has no {STORE_NAME} file); "
                    "open it without read_only to create one"
                )
            return
        fs.make_directories(path)
        content = json.dumps({"pid": os.getpid(), "host": os.uname().nodename}).encode()
        try:
            self._lock = fs.lock(f"{path}/{LOCK_NAME}", content)
        except BlockingIOError:
            raise self._locked_error() from None
        for name in DIRECTORIES:
            # Which syncs `path` as well: a list of topics that is read is one that lasts.
            fs.make_directories(f"{path}/{name}")

    def _locked_error(self) -> DirectoryLockedError:
        pid, host = None, None
        try:
            file = self.env.fs.open(f"{self.path}/{LOCK_NAME}")
            try:
                holder = json.loads(file.read_at(0, 4096).rstrip(b"\0"))
            finally:
                file.close()
            pid, host = holder["pid"], holder["host"]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            pass  # the holder is a courtesy of the message; the lock itself is the kernel's
        other = "another process" if pid is None else f"process {pid} on {host}"
        who = "this process" if pid == os.getpid() else other
        return DirectoryLockedError(
            f"{self.path} is open for writing in {who}: close that one, or open this one with "
            "read_only=True",
            pid=pid,
            host=host,
        )

    def _load(self, url: str | None, owner: str, store_id: str | None) -> None:
        data = self.files.read(STORE_NAME)
        if data is None:
            if self.env.fs.exists(f"{self.path}/{RESTORE_NAME}"):
                raise CorruptionError(
                    f"a restore into {self.path} was cut off",
                    path=self.path,
                    advice="run the same `chronik restore` again",
                )
            if self.env.fs.exists(f"{self.path}/{TOPICS_NAME}"):
                raise CorruptionError(
                    f"the directory has topics but no {STORE_NAME} file",
                    path=f"{self.path}/{STORE_NAME}",
                    advice="restore it from a copy or from the bucket (`chronik restore`)",
                )
            self.identity = self._create(url, owner, store_id)
        else:
            with mended_by_hand():
                self.identity = decode_store_identity(data, path=f"{self.path}/{STORE_NAME}")
            self._check(self.identity, url)
        with mended_by_hand():
            is_listed = self.topics.load()
        if not is_listed and next(self.env.fs.walk(f"{self.path}/wal"), None) is not None:
            # An empty list here would let a new topic take the place of what is there.
            raise CorruptionError(
                f"the directory has WAL files but no {TOPICS_NAME} file",
                path=f"{self.path}/{TOPICS_NAME}",
                advice="restore that file from a copy, or the directory from the bucket "
                "(`chronik restore`)",
            )
        if not self.read_only:
            if not is_listed:
                self.topics.create()
            # Last: a directory that is refused stays as it is.
            self.files.settle()

    def _create(self, url: str | None, owner: str, store_id: str | None) -> StoreIdentity:
        identity = StoreIdentity(
            format_version=FORMAT_VERSION,
            store_id=store_id or self.env.entropy.token_bytes(16).hex(),
            url=url,
            created_us=self.env.clock.time_us(),
            owner=owner,
        )
        self.files.write(STORE_NAME, identity.encode())
        self.is_new = True
        return identity

    def _check(self, identity: StoreIdentity, url: str | None) -> None:
        if identity.format_version > FORMAT_VERSION:
            raise FutureVersionError(
                f"{self.path} was written in format {identity.format_version}, this version reads "
                f"up to {FORMAT_VERSION}: upgrade",
                path=f"{self.path}/{STORE_NAME}",
                found=identity.format_version,
                supported=FORMAT_VERSION,
            )
        # A prefix is the same one with and without the slash behind it.
        if url is not None and url.rstrip("/") != (identity.url or "").rstrip("/"):
            raise IdentityMismatchError(
                f"{self.path} belongs to {identity.url or 'its own object_store directory'}, not "
                f"to {url}: open it without another URL; `chronik restore` "
                "makes a directory of another bucket, and one that holds nothing yet may be removed"
            )

    @property
    def store_id(self) -> str:
        """32 hex digits."""
        assert self.identity is not None
        return self.identity.store_id

    @property
    def url(self) -> str | None:
        """The object store this directory was created with; None: its own directory."""
        assert self.identity is not None
        return self.identity.url

    @property
    def owner(self) -> str:
        """LOCAL_OWNER, or the cluster node that the directory was created for."""
        assert self.identity is not None
        return self.identity.owner

    @property
    def foreign_owner(self) -> str | None:
        """The cluster node that owns the directory, or None when it is an embedded one."""
        assert self.identity is not None
        return None if self.identity.owner == LOCAL_OWNER else self.identity.owner

    def paths(self, topic: str, partition: int) -> LogPaths:
        """Where one partition's files are."""
        tail = f"{topic}/{partition}"
        return LogPaths(
            wal=f"{self.path}/wal/{tail}",
            segments=f"{self.path}/segments/{tail}",
            # Beside what search keeps there (`SearchScratch`): "tail" is a topic's name, too.
            scratch=f"{self.path}/scratch/partitions/{tail}",
            quarantine=f"{self.path}/quarantine/{tail}",
        )

    def close(self) -> None:
        """Release the lock. Idempotent, and may be called by several at once."""
        if self._lock is not None:
            with disk_errors(self.path, "release the lock of"):
                self._lock.release()
        self.is_given_up = True
