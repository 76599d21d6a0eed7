"""From a URL to an object store.

Place: the front door of the `objectstore` room. Promise: opening touches no network; a URL that
cannot be meant is a ConfigError that lists what can. Invariant: a URL never carries secrets: one
with user, password or query is refused without being repeated.

    None               a directory, `default_path`
    file:///absolute   a directory
    memory://name      this process's memory, shared by name (tests, demos)
    s3://bucket        S3 and what speaks its protocol           (extra `s3`)
    gs:// az:// ...    other fsspec file systems, if the create-only probe passes
"""

from __future__ import annotations

import re

from chronik_store.config import S3Options
from chronik_store.environment import Environment
from chronik_store.errors import AccessDeniedError, ConfigError, UnavailableError
from chronik_store.objectstore.base import ObjectStore, ObjectStoreRefusedError
from chronik_store.objectstore.layout import check_key
from chronik_store.objectstore.local import LocalObjectStore
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.objectstore.retry import RetryingObjectStore, RetryPolicy

SCHEMES = "file:///absolute/path, s3://bucket/prefix, memory://name/prefix, gs://..., az://..."
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
URL_BYTES_MAX = 4096
_TOPICS = "TOPICS"
"""What every data directory has and no bucket: see `data_directory`."""

PREFIX_BYTES_MAX = 120
"""With the longest key of `layout`, still below S3's 1,024 bytes."""
_OTHER_SCHEMES = frozenset({"gs", "gcs", "az", "abfs", "abfss", "adl"})


def open_object_store(
    url: str | None,
    *,
    env: Environment,
    s3: S3Options | None = None,
    default_path: str | None = None,
    read_only: bool = False,
    must_exist: bool = False,
    retry: RetryPolicy | None = None,
) -> ObjectStore:
    """The object store behind `url`, or the directory `default_path` if there is none.

    must_exist: a local directory that is not there is an error, as a bucket is; nothing is made.

    Stores behind a network come wrapped in the one retry policy; local ones do not, since a disk
    that fails once is not asked again.

    Raises:
        ConfigError: the URL cannot be used, or its scheme's extra is not installed.
        UnavailableError: the local directory cannot be made, or is not there (`must_exist`).
    """
    if url is None:
        if default_path is None:
            raise ConfigError(f"no object store given; use one of {SCHEMES}")
        return _local(default_path, env, read_only=read_only)
    if not isinstance(url, str):
        raise TypeError(f"an object store is given as a URL in a str, not {type(url).__name__}")
    match = _URL.fullmatch(url)
    if match is None:
        raise ConfigError(f"object store {_shown(url)} is not a URL; use one of {SCHEMES}")
    if not _is_writable(url):
        raise ConfigError(
            f"object store {_shown(url)} has more than {URL_BYTES_MAX} bytes, or a name that "
            "is not UTF-8"
        )
    scheme, rest = match["scheme"], match["rest"]
    if scheme == "file":
        path = _checked_path(rest)
        if must_exist and not _exists(path, env):
            raise ObjectStoreRefusedError(
                f"there is no bucket file://{path}: the directory does not exist (a typing error, "
                "or something that is not mounted)"
            )
        if must_exist or not read_only:
            check_is_no_data_directory(url, env)
        return _local(path, env, read_only=read_only)
    bucket, prefix = _split(scheme, rest)
    if scheme == "memory":
        return MemoryObjectStore(bucket, prefix, clock=env.clock)
    return RetryingObjectStore(
        _remote(scheme, bucket, prefix, env, S3Options() if s3 is None else s3),
        clock=env.clock,
        entropy=env.entropy,
        policy=retry,
    )


def _remote(
    scheme: str, bucket: str, prefix: str, env: Environment, options: S3Options
) -> ObjectStore:
    # On first use only: s3fs takes 300 ms to import, and most logs have no bucket.
    if scheme in {"s3", "s3a"}:
        from chronik_store.objectstore.fsspec_s3 import S3ObjectStore

        return S3ObjectStore(bucket, prefix, options, threads=env.threads, clock=env.clock)
    if scheme in _OTHER_SCHEMES:
        from chronik_store.objectstore.fsspec_store import open_fsspec

        return open_fsspec(scheme, bucket, prefix)
    raise ConfigError(f"object store scheme {scheme!r} is not known; use one of {SCHEMES}")


def _is_writable(url: str) -> bool:
    """The STORE file and object hold it: UTF-8, of so many bytes at most."""
    try:
        return len(url.encode()) <= URL_BYTES_MAX
    except UnicodeEncodeError:  # surrogates: a name in another encoding
        return False


def check_is_no_data_directory(url: str, env: Environment) -> None:
    """ConfigError where a store keeps its own files: a bucket there would have its segments under
    the names of local copies, which are removed once they are in the bucket.
    """
    path = url.removeprefix("file://")
    if path != url and _exists(f"{path.rstrip('/')}/{_TOPICS}", env):
        raise ConfigError(
            f"{url} is a data directory, not a bucket (it has a file {_TOPICS}): give another "
            "directory; unless it was made with another one, its own bucket is object_store in it"
        )


def _exists(path: str, env: Environment) -> bool:
    try:
        return env.fs.exists(path)
    except PermissionError as error:
        raise AccessDeniedError(
            f"file://{path} cannot be looked at: permission denied; check the owner and mode of "
            "the directories above it"
        ) from error
    except OSError as error:
        raise UnavailableError(
            f"file://{path} cannot be looked at: {error.strerror or error}"
        ) from error


def _local(path: str, env: Environment, *, read_only: bool) -> ObjectStore:
    path = _checked_path(path)
    return LocalObjectStore(env.fs, path, entropy=env.entropy, clock=env.clock, read_only=read_only)


def _checked_path(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise ConfigError(
            f"object store path {path[:200]!r} must be absolute, as in file:///var/lib/chronik"
        )
    if ".." in path.split("/"):
        raise ConfigError(f"object store path {path[:200]!r} must not contain '..'")
    return path


def _split(scheme: str, rest: str) -> tuple[str, str]:
    bucket, _, prefix = rest.partition("/")
    if "@" in rest or "?" in rest or "#" in rest:
        raise ConfigError(
            f"a {scheme}:// URL takes no user, password, query or fragment; give credentials by "
            "S3_ACCESS_KEY and S3_SECRET_KEY or by the provider's own means"
        )
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(f"{scheme}:// needs a bucket name, as in {scheme}://bucket/prefix")
    prefix = prefix.strip("/")
    if prefix:
        check_key(prefix)
    if len(prefix.encode()) > PREFIX_BYTES_MAX:
        raise ConfigError(f"the prefix of a {scheme}:// URL has at most {PREFIX_BYTES_MAX} bytes")
    return bucket, prefix


def _shown(url: str) -> str:
    """The start of a URL that could not be read, unless a secret may be in it."""
    return "given" if "@" in url or "?" in url else repr(url[:100])
