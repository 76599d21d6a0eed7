"""Other buckets through fsspec: `gs://`, `az://` and their like.

Place: an implementation of `base.ObjectStore` on any synchronous fsspec file system; with
`fsspec_s3` the only owner of fsspec. Promise: the contract, as far as the file system keeps it:
create-only is asked for by `mode="create"`, which not every file system honours, so that nothing
is stored here before the create-only probe has passed (`probe`). Invariant: listings are never
taken from a cache.

Untested against the real services; the conformance kit runs on fsspec's own memory file system.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from chronik_store.errors import AccessDeniedError, ConfigError, UnavailableError
from chronik_store.objectstore.base import Buffer, ObjectInfo, ObjectNotFoundError, PutOutcome
from chronik_store.objectstore.layout import check_key, check_prefix
from chronik_store.objectstore.ranges import check_range, clip_range

_ETAG_FIELDS = ("etag", "ETag", "e_tag")
_MODIFIED_FIELDS = ("updated", "last_modified", "LastModified", "mtime", "created")


def open_fsspec(scheme: str, bucket: str, prefix: str) -> FsspecObjectStore:
    """The store on the file system that fsspec has for `scheme`.

    Raises:
        ConfigError: the file system's package (gcsfs, adlfs, ...) is not installed, or refuses
            its settings.
    """
    import fsspec

    try:
        files = fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{scheme}://: {error}") from error
    root = f"{bucket}/{prefix}".rstrip("/")
    return FsspecObjectStore(files, root, url=f"{scheme}://{root}")


class FsspecObjectStore:
    """A folder of an fsspec file system as an object store. Thread-safe if that is.

    Args:
        files: a synchronous fsspec file system.
        root: the folder below which all keys are, without '/' at its end.
        url: how to show it; without secrets.
    """

    def __init__(self, files: Any, root: str, *, url: str) -> None:
        self._files = files
        self._root = root
        self._url = url

    @property
    def url(self) -> str:
        return self._url

    def put_if_absent(self, key: str, data: Buffer) -> PutOutcome:
        path = self._path(key)
        with self._translated("put", key):
            try:
                self._files.pipe_file(path, bytes(data), mode="create")
            except FileExistsError:
                return PutOutcome.EXISTS
        return PutOutcome.CREATED

    def get(self, key: str) -> bytes:
        path = self._path(key)
        with self._translated("get", key):
            return bytes(self._files.cat_file(path))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        check_range(start, length)
        path = self._path(key)
        with self._translated("get", key):
            size = int(self._files.info(path)["size"])
            first, stop = clip_range(start, length, size)
            if first >= stop:
                return b""
            return bytes(self._files.cat_file(path, start=first, end=stop))

    def head(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        with self._translated("head", key):
            try:
                info = self._files.info(path)
            except FileNotFoundError:
                return None
        return None if info.get("type") == "directory" else _info(key, info)

    def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> list[ObjectInfo]:
        check_prefix(prefix)
        folder = prefix.rpartition("/")[0]
        with self._translated("list", prefix):
            self._files.invalidate_cache()
            found = self._files.find(self._path(folder) if folder else self._root, detail=True)
        entries = {self._key(path): info for path, info in found.items()}
        keys = sorted(key for key in entries if key.startswith(prefix) and key > start_after)
        return [_info(key, entries[key]) for key in keys[:limit]]

    def delete(self, keys: Sequence[str]) -> None:
        for key, path in [(key, self._path(key)) for key in keys]:
            with self._translated("delete", key), suppress(FileNotFoundError):
                self._files.rm_file(path)

    def close(self) -> None:
        """Fsspec closes its connections by itself."""

    def _path(self, key: str) -> str:
        return f"{self._root}/{check_key(key)}"

    def _key(self, path: str) -> str:
        # Some file systems answer with a leading '/' that was not asked with.
        return path.lstrip("/")[len(self._root.lstrip("/")) + 1 :]

    @contextmanager
    def _translated(self, verb: str, key: str) -> Iterator[None]:
        durability: Any = "unknown" if verb in {"put", "delete"} else None
        where = f"{self._url}: {verb} {key!r}"
        try:
            yield
        except (UnavailableError, GeneratorExit):
            raise
        except FileNotFoundError as error:
            if verb == "list":
                raise UnavailableError(f"{where}: {error}") from error
            raise ObjectNotFoundError(f"{where}: no such object") from error
        except PermissionError as error:
            raise AccessDeniedError(
                f"{where}: permission denied; check the credentials", durability=durability
            ) from error
        # Each file system raises what its client raises; there is no common base to name.
        except Exception as error:
            raise UnavailableError(
                f"{where}: {type(error).__name__}: {error}", durability=durability
            ) from error


def _info(key: str, info: dict[str, Any]) -> ObjectInfo:
    etag = next((str(info[name]) for name in _ETAG_FIELDS if info.get(name)), None)
    modified = next((info[name] for name in _MODIFIED_FIELDS if info.get(name)), None)
    modified_us = int(modified.timestamp() * 1e6) if isinstance(modified, datetime) else None
    return ObjectInfo(key, int(info["size"]), etag and etag.strip('"'), modified_us)
