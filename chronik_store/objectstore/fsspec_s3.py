"""S3, and what speaks its protocol: `s3://bucket/prefix`.

Place: an implementation of `base.ObjectStore`; with `fsspec_store` the only owner of fsspec and
s3fs, imported on first use (300 ms). Promise: each call is one request (plus one after a HEAD
that says 404, plus one after a 409), bounded in time, and not retried here: `retry` is the one
policy. All that happens below it is that aiohttp sends a request whose connection broke once
more, at once, so that even a first put may find its own object: EXISTS. Invariant: an object is
created by exactly one PutObject with If-None-Match: * and Content-MD5 (`fsspec_s3_requests`).

The loop is this store's own, on its own thread: a program that blocks fsspec's shared loop must
not stall tiering.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import hashlib
from collections.abc import Coroutine, Sequence
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
from chronik_store.objectstore.patience import cut
from chronik_store.objectstore.ranges import check_range
from chronik_store.objectstore.s3_body import BodyReader
from chronik_store.threads import Threads

try:
    from chronik_store.objectstore.fsspec_s3_errors import translated
    from chronik_store.objectstore.fsspec_s3_requests import AlreadyExistsError, S3Requests
except ImportError as missing:
    raise ConfigError("s3:// needs s3fs: pip install 'chronik[s3]'") from missing

_Result = TypeVar("_Result")
_Listing = list[ObjectInfo]
SMALL_BODY_BYTES = 1 << 20
"""A body up to this goes out as bytes; a larger one is read piece by piece from its buffer."""
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
        self._options = options
        self._clock = clock
        self._loop = asyncio.new_event_loop()
        self._requests = S3Requests(bucket, prefix, options, self._loop)
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
        return self._requests.url

    def put_if_absent(self, key: str, data: Buffer) -> PutOutcome:
        check_key(key)
        view = memoryview(data).cast("B")
        reader = BodyReader(view) if view.nbytes > SMALL_BODY_BYTES else None
        try:
            digest = hashlib.md5(view, usedforsecurity=False).digest()
            md5 = base64.b64encode(digest).decode()
            request = self._requests.put(key, reader or bytes(view), md5)
            self._call("put", key, request, self._requests.patience_seconds(view.nbytes))
        except AlreadyExistsError as error:
            error.__traceback__ = None  # as in `_call`
            return PutOutcome.EXISTS
        finally:
            if reader is not None:
                reader.release()
        return PutOutcome.CREATED

    def get(self, key: str) -> bytes:
        return self._call("get", key, self._requests.get(check_key(key))).data

    def get_range(self, key: str, start: int, length: int) -> bytes:
        check_range(start, length)
        check_key(key)
        if length == 0:
            return b""
        wanted = f"bytes={start}" if start < 0 else f"bytes={start}-{start + length - 1}"
        part = self._call("get", key, self._requests.get(key, wanted))
        if part.is_whole:  # a server that knows no ranges sent everything
            first = max(0, len(part.data) + start) if start < 0 else start
            return part.data[first : first + length]
        return part.data[:length]

    def head(self, key: str) -> ObjectInfo | None:
        return self._call("head", key, self._requests.head(check_key(key)))

    def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> list[ObjectInfo]:
        check_prefix(prefix)
        found: _Listing = []
        after, token, empty_pages = start_after, "", 0
        more = True
        while more and len(found) < limit:
            count = min(PAGE_KEYS, limit - len(found))
            request = self._requests.list_page(prefix, after, count, token)
            page, more, next_token = self._call("list", prefix, request)
            found += page
            if page:
                after = page[-1].key
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
        for key in keys:
            check_key(key)
        for first in range(0, len(keys), DELETE_KEYS_MAX):
            batch = keys[first : first + DELETE_KEYS_MAX]
            self._call("delete", keys[first], self._requests.delete(batch))

    def close(self) -> None:
        """Close the connections and end the thread. Calls under way fail as unavailable."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(self._options.connect_timeout_seconds)

    # ------------------------------------------------------------------------------ plumbing

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
            else (patience_seconds or self._requests.patience_seconds(0))
        )
        future = self._schedule(request, cut(limit, self._clock))
        try:
            return future.result()
        except (AlreadyExistsError, UnavailableError):
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
        await self._requests.close()
        await _end_the_others()  # nobody may wait for what will never run again
        await asyncio.get_running_loop().shutdown_default_executor()


async def _end_the_others() -> None:
    """Cancel all other tasks of this loop, and wait for their end."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


async def _bounded(request: Coroutine[Any, Any, _Result], limit_seconds: float | None) -> _Result:
    bound = asyncio.timeout(limit_seconds)
    try:
        async with bound:
            return await request
    except TimeoutError as error:
        if bound.expired():
            error.args = (f"not finished within {limit_seconds:.1f} s",)
        raise
