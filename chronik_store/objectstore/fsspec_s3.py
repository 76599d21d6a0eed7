"""S3, and what speaks its protocol: `s3://bucket/prefix`.

Place: an implementation of `base.ObjectStore`; with `fsspec_store` the only owner of fsspec and
s3fs, imported on first use (300 ms). Promise: each call is one request (plus one after a HEAD
that says 404, plus one after a 409), bounded in time, and not retried here: `retry` is the one
policy. All that happens below it is that aiohttp sends a request whose connection broke once
more, at once, so that even a first put may find its own object: EXISTS. Invariant: an object is
created by exactly one PutObject with If-None-Match: * and Content-MD5, however large or empty.

s3fs makes and owns the client (session, credentials, pool). Requests go to that client and not
through s3fs's file calls, because those

    - put more than 100 MB in parts, whose completion some stores let 20 rivals win;
    - send an empty body through a call that overwrites;
    - ask for the size first when a whole object is read, and cache listings;
    - retry on their own, and hide 412 in a plain OSError.

The loop is this store's own, on its own thread: a program that blocks fsspec's shared loop must
not stall tiering.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import hashlib
from collections.abc import Coroutine, Sequence
from datetime import datetime
from typing import Any, TypeVar

from chronik_store.clock import Clock
from chronik_store.config import S3Options
from chronik_store.errors import ConfigError, UnavailableError
from chronik_store.objectstore.base import (
    Buffer,
    ObjectInfo,
    ObjectStoreRefusedError,
    PutOutcome,
)
from chronik_store.objectstore.layout import check_key, check_prefix
from chronik_store.objectstore.ranges import check_range
from chronik_store.objectstore.s3_body import BodyReader
from chronik_store.threads import Threads

try:
    from botocore.exceptions import ClientError
    from s3fs import S3FileSystem

    from chronik_store.objectstore.fsspec_s3_errors import (
        code_of,
        not_deleted,
        status_of,
        translated,
    )
except ImportError as missing:
    raise ConfigError("s3:// needs s3fs: pip install 'chronik[s3]'") from missing

_Result = TypeVar("_Result")
_Page = list[ObjectInfo]
SMALL_BODY_BYTES = 1 << 20
"""A body up to this goes out as bytes; a larger one is read piece by piece from its buffer."""
TRANSFER_RATE_MIN = 512 * 1024
"""Bytes a second; a body that moves slower has failed. Read timeouts alone let one trickle."""
PAGE_KEYS = 1000
DELETE_KEYS_MAX = 1000
EMPTY_PAGES_MAX = 1000
"""Pages without keys, in a row, after which a listing is given up. A store may pass over many
deleted objects between two that are there."""


class S3ObjectStore:
    """A bucket prefix on S3. Thread-safe; any number of calls at once.

    Args:
        bucket, prefix: where; the prefix without '/' at its ends.
        options: endpoint, region, credentials, timeouts.
        threads: source of the thread that runs the client's loop.
        clock: compared with the store's when that refuses us. Requests are signed by botocore,
            which reads the machine's own.

    Construction starts that thread and touches no network.
    """

    def __init__(
        self, bucket: str, prefix: str, options: S3Options, *, threads: Threads, clock: Clock
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._options = options
        self._clock = clock
        self._loop = asyncio.new_event_loop()
        self._files = _file_system(options, self._loop)
        self._lock = threads.lock()
        self._closed = False
        """Guarded by `_lock`: what is handed to the loop is handed over before the loop ends."""
        try:
            self._thread = threads.spawn(self._run_loop, name=f"chronik-s3-{bucket}")
        except RuntimeError as error:
            self._loop.close()
            raise UnavailableError(
                f"{self.url}: no thread for the connections: {error}; let this process have more"
            ) from error

    @property
    def url(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def put_if_absent(self, key: str, data: Buffer) -> PutOutcome:
        name = self._name(key)
        view = memoryview(data).cast("B")
        reader = BodyReader(view) if view.nbytes > SMALL_BODY_BYTES else None
        try:
            digest = hashlib.md5(view, usedforsecurity=False).digest()
            request = self._put(name, reader or bytes(view), base64.b64encode(digest).decode())
            if reader is not None:
                request = self._unless_stalled(request, reader)
            self._call("put", key, request, self._patience_seconds(view.nbytes))
        except _AlreadyExistsError as error:
            error.__traceback__ = None  # as in `_call`
            return PutOutcome.EXISTS
        finally:
            if reader is not None:
                reader.release()
        return PutOutcome.CREATED

    def get(self, key: str) -> bytes:
        name = self._name(key)
        return self._call("get", key, self._get(name, None)).data

    def get_range(self, key: str, start: int, length: int) -> bytes:
        check_range(start, length)
        name = self._name(key)
        if length == 0:
            return b""
        wanted = f"bytes={start}" if start < 0 else f"bytes={start}-{start + length - 1}"
        part = self._call("get", key, self._get(name, wanted))
        if part.is_whole:  # a server that knows no ranges sent everything
            first = max(0, len(part.data) + start) if start < 0 else start
            return part.data[first : first + length]
        return part.data[:length]

    def head(self, key: str) -> ObjectInfo | None:
        return self._call("head", key, self._head(key, self._name(key)))

    def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> list[ObjectInfo]:
        whole = self._prefix + check_prefix(prefix)
        after = self._prefix + start_after if start_after else ""
        found: _Page = []
        token, empty_pages = "", 0
        more = True
        while more and len(found) < limit:
            count = min(PAGE_KEYS, limit - len(found))
            request = self._list_page(whole, after, count, token)
            page, more, next_token = self._call("list", prefix, request)
            found += page
            if page:
                after = self._prefix + page[-1].key
                token, empty_pages = "", 0
            elif more:  # nothing that is known would be asked for next: only the store's own token
                empty_pages += 1
                if next_token in {"", token} or empty_pages > EMPTY_PAGES_MAX:
                    raise UnavailableError(
                        f"{self.url}: list {prefix!r}: the store says that there is more, and "
                        f"lists nothing of it on {empty_pages} pages"
                    )
                token = next_token
        return found

    def delete(self, keys: Sequence[str]) -> None:
        names = [self._name(key) for key in keys]
        for first in range(0, len(names), DELETE_KEYS_MAX):
            batch = names[first : first + DELETE_KEYS_MAX]
            self._call("delete", keys[first], self._delete(batch))

    def close(self) -> None:
        """Close the connections and end the thread. Calls under way fail as unavailable."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(self._options.connect_timeout_seconds)

    # ------------------------------------------------------------------------- on the loop

    async def _put(self, name: str, body: object, md5: str) -> None:
        client = await self._client()
        try:
            await client.put_object(
                Bucket=self._bucket, Key=name, Body=body, IfNoneMatch="*", ContentMD5=md5
            )
        except ClientError as error:
            if status_of(error) == 412:
                raise _AlreadyExistsError from error
            # 409: another request on this key was under way; it may have won.
            if status_of(error) == 409 and await self._is_there(client, name):
                raise _AlreadyExistsError from error
            raise

    async def _unless_stalled(self, request: Coroutine[Any, Any, None], body: BodyReader) -> None:
        """End an upload that stands still: no socket timeout covers sending."""
        stall_seconds = self._patience_seconds(0)
        task = asyncio.ensure_future(request)
        seen = -1
        try:
            while not task.done():
                if body.tell() == seen:
                    raise TimeoutError(f"the store took nothing for {stall_seconds:.1f} s")
                seen = body.tell()
                await asyncio.wait({task}, timeout=stall_seconds)
            task.result()
        finally:
            task.cancel()

    async def _get(self, name: str, wanted: str | None) -> _Part:
        client = await self._client()
        try:
            answer = await client.get_object(
                Bucket=self._bucket, Key=name, **({"Range": wanted} if wanted else {})
            )
        except ClientError as error:
            if status_of(error) == 416:  # the range starts behind the end: nothing is there
                return _Part(b"", is_whole=False)
            raise
        expected = int(answer["ContentLength"])
        async with answer["Body"] as body, asyncio.timeout(self._patience_seconds(expected)):
            data: bytes = await body.read()
        if len(data) != expected:
            raise TimeoutError(f"{len(data)} of {expected} bytes came")
        return _Part(data, is_whole="ContentRange" not in answer)

    async def _head(self, key: str, name: str) -> ObjectInfo | None:
        client = await self._client()
        try:
            answer = await client.head_object(Bucket=self._bucket, Key=name)
        except ClientError as error:
            if status_of(error) != 404:
                raise
            # A HEAD's 404 has no body: the object or the whole bucket may be missing. Only the
            # answer to a GET tells, and absence needs proof.
            if await self._is_proved_absent(client, name):
                return None
            raise UnavailableError(f"{self.url}: {key!r} appeared between two requests") from error
        return ObjectInfo(key, int(answer["ContentLength"]), _etag(answer), _modified_us(answer))

    async def _is_proved_absent(self, client: Any, name: str) -> bool:
        try:
            answer = await client.get_object(Bucket=self._bucket, Key=name, Range="bytes=0-0")
        except ClientError as error:
            if code_of(error) == "NoSuchKey":
                return True
            if status_of(error) == 416:  # an empty object
                return False
            raise
        answer["Body"].close()
        return False

    async def _is_there(self, client: Any, name: str) -> bool:
        try:
            await client.head_object(Bucket=self._bucket, Key=name)
        except ClientError as error:
            if status_of(error) == 404:
                return False
            raise
        return True

    async def _list_page(
        self, prefix: str, after: str, count: int, token: str
    ) -> tuple[_Page, bool, str]:
        """What is listed, whether there is more, and the token to ask for it. A token of the page
        before goes before `after`.
        """
        client = await self._client()
        answer = await client.list_objects_v2(
            Bucket=self._bucket,
            Prefix=prefix,
            StartAfter=after,
            MaxKeys=count,
            **({"ContinuationToken": token} if token else {}),
        )
        page = [
            ObjectInfo(
                entry["Key"][len(self._prefix) :],
                int(entry["Size"]),
                _etag(entry),
                _modified_us(entry),
            )
            for entry in answer.get("Contents", ())
        ]
        if not page and "IsTruncated" not in answer:  # a 200 whose body broke off before its start
            raise UnavailableError(f"{self.url}: list {prefix!r}: what was answered is no listing")
        return page, bool(answer.get("IsTruncated")), answer.get("NextContinuationToken") or ""

    async def _delete(self, names: Sequence[str]) -> None:
        client = await self._client()
        if len(names) == 1:  # some stores know no DeleteObjects
            try:
                await client.delete_object(Bucket=self._bucket, Key=names[0])
            except ClientError as error:
                if code_of(error) != "NoSuchKey":  # so some stores answer where others say 204
                    raise
            return
        answer = await client.delete_objects(
            Bucket=self._bucket,
            Delete={"Objects": [{"Key": name} for name in names], "Quiet": True},
        )
        failed = [entry for entry in answer.get("Errors", ()) if entry.get("Code") != "NoSuchKey"]
        if failed:
            raise not_deleted(failed, len(names), url=self.url)

    async def _client(self) -> Any:
        return await self._files.set_session()

    # ------------------------------------------------------------------------------ plumbing

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _patience_seconds(self, body_bytes: int) -> float:
        options = self._options
        return (
            options.connect_timeout_seconds
            + options.read_timeout_seconds
            + body_bytes / TRANSFER_RATE_MIN
        )

    def _call(
        self,
        verb: str,
        key: str,
        request: Coroutine[Any, Any, _Result],
        patience_seconds: float | None = None,
    ) -> _Result:
        """Run a request on the loop; what it raises leaves as ours."""
        limit = (
            None
            if patience_seconds is None and verb == "get"
            else (patience_seconds or self._patience_seconds(0))
        )
        future = self._schedule(request, limit)
        try:
            return future.result()
        except (_AlreadyExistsError, UnavailableError):
            raise
        except concurrent.futures.CancelledError as error:
            request.close()  # it may not have begun
            raise UnavailableError(
                f"{self.url}: {verb} {key!r}: the store was closed meanwhile",
                durability="unknown" if verb in {"put", "delete"} else None,
            ) from error
        except Exception as error:
            # Without its frames: the client's errors stand in rings, which would keep ours, and
            # with them the mapped file that is being sent, until the collector comes.
            error.__traceback__ = None
            now_us = self._clock.time_us()
            raise translated(error, url=self.url, verb=verb, key=key, now_us=now_us) from error
        finally:
            future.cancel()  # an interrupt of the waiting thread ends the request too
            del future  # it holds the error, whose frames hold it

    def _schedule(
        self, request: Coroutine[Any, Any, _Result], limit_seconds: float | None
    ) -> concurrent.futures.Future[_Result]:
        bounded = _bounded(request, limit_seconds)
        with self._lock:
            if not self._closed:
                return asyncio.run_coroutine_threadsafe(bounded, self._loop)
        bounded.close()
        request.close()
        raise ObjectStoreRefusedError(f"{self.url}: the store is closed")

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._shut_down())
            self._loop.close()

    async def _shut_down(self) -> None:
        await _end_the_others()
        if self._files._s3 is not None:  # noqa: SLF001 - s3fs has no public close for its client
            await self._files._s3.close()  # noqa: SLF001
        await _end_the_others()  # nobody may wait for what will never run again
        await asyncio.get_running_loop().shutdown_default_executor()


class _AlreadyExistsError(Exception):
    """The store answered that the key is taken."""


class _Part:
    """The body of an answer, and whether it is the whole object."""

    __slots__ = ("data", "is_whole")

    def __init__(self, data: bytes, *, is_whole: bool) -> None:
        self.data = data
        self.is_whole = is_whole


async def _end_the_others() -> None:
    """Cancel all other tasks of this loop, and wait for their end."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


async def _bounded(request: Coroutine[Any, Any, _Result], limit_seconds: float | None) -> _Result:
    async with asyncio.timeout(limit_seconds):
        return await request


def _file_system(options: S3Options, loop: asyncio.AbstractEventLoop) -> Any:
    config: dict[str, Any] = {
        # One attempt: `retry` is the only policy. When required: Content-MD5 is what every store
        # checks; a CRC32 on top costs a second pass over 256 MB and Ceph ignores it.
        "retries": {"mode": "standard", "total_max_attempts": 1},
        "connect_timeout": options.connect_timeout_seconds,
        "read_timeout": options.read_timeout_seconds,
        "max_pool_connections": options.max_connections,
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "s3": {"addressing_style": "path" if options.path_style else "auto"},
    }
    return S3FileSystem(
        key=options.access_key,
        secret=options.secret_key,
        endpoint_url=options.endpoint,
        client_kwargs={"region_name": options.region} if options.region else {},
        config_kwargs=config,
        use_listings_cache=False,
        skip_instance_cache=True,
        asynchronous=True,
        loop=loop,
    )


def _etag(answer: dict[str, Any]) -> str | None:
    etag = answer.get("ETag")
    return str(etag).strip('"') if etag else None


def _modified_us(answer: dict[str, Any]) -> int | None:
    modified = answer.get("LastModified")
    return int(modified.timestamp() * 1e6) if isinstance(modified, datetime) else None
