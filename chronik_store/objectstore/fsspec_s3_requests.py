"""The requests of the S3 store, as coroutines of the loop that its client runs on.

Place: under `fsspec_s3`, which checks the keys, calls these from any thread and bounds their time.
Promise: each is one request (plus one after a HEAD that says 404, plus one after a 409), made
once; what the client raises comes out as it is. Invariant: an object is created by exactly one
PutObject with If-None-Match: * and Content-MD5, however large or empty.

s3fs makes and owns the client (session, credentials, pool). Requests go to that client and not
through s3fs's file calls, because those

    - put more than 100 MB in parts, whose completion some stores let 20 rivals win;
    - send an empty body through a call that overwrites;
    - ask for the size first when a whole object is read, and cache listings;
    - retry on their own, and hide 412 in a plain OSError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from botocore.exceptions import ClientError
from s3fs import S3FileSystem

from chronik_store.config import S3Options
from chronik_store.errors import UnavailableError
from chronik_store.objectstore.base import ObjectInfo
from chronik_store.objectstore.fsspec_s3_errors import code_of, not_deleted, status_of
from chronik_store.objectstore.s3_body import BodyReader

TRANSFER_RATE_MIN = 512 * 1024
"""Bytes a second; a body that moves slower has failed. Read timeouts alone let one trickle."""


class AlreadyExistsError(Exception):
    """The store answered that the key is taken."""


class Body(NamedTuple):
    """The body of an answer, and whether it is the whole object."""

    data: bytes
    is_whole: bool


class Page(NamedTuple):
    """What is listed, whether there is more, and the store's token to ask for it."""

    found: list[ObjectInfo]
    more: bool
    token: str


class S3Requests:
    """Requests about the keys under one prefix. Each runs on `loop`, which the caller owns."""

    def __init__(
        self, bucket: str, prefix: str, options: S3Options, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._options = options
        self._files = _file_system(options, loop)
        self.url = f"s3://{bucket}/{self._prefix}".rstrip("/")

    def patience_seconds(self, body_bytes: int) -> float:
        """How long a request may take that moves so many bytes."""
        options = self._options
        return (
            options.connect_timeout_seconds
            + options.read_timeout_seconds
            + body_bytes / TRANSFER_RATE_MIN
        )

    async def put(self, key: str, body: bytes | BodyReader, md5: str) -> None:
        """Create an object. AlreadyExistsError: the key is taken."""
        if isinstance(body, BodyReader):
            await self._unless_stalled(self._put(key, body, md5), body)
        else:
            await self._put(key, body, md5)

    async def _put(self, key: str, body: object, md5: str) -> None:
        client, name = await self._client(), self._prefix + key
        try:
            await client.put_object(
                Bucket=self._bucket, Key=name, Body=body, IfNoneMatch="*", ContentMD5=md5
            )
        except ClientError as error:
            if status_of(error) == 412:
                raise AlreadyExistsError from error
            # 409: another request on this key was under way; it may have won.
            if status_of(error) == 409 and await self._is_there(client, name):
                raise AlreadyExistsError from error
            raise

    async def _unless_stalled(self, request: Coroutine[Any, Any, None], body: BodyReader) -> None:
        """End an upload that stands still: no socket timeout covers sending."""
        stall_seconds = self.patience_seconds(0)
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

    async def get(self, key: str, wanted: str | None = None) -> Body:
        """An object, or the range of it that is `wanted` (in HTTP's words)."""
        client, name = await self._client(), self._prefix + key
        try:
            answer = await client.get_object(
                Bucket=self._bucket, Key=name, **({"Range": wanted} if wanted else {})
            )
        except ClientError as error:
            if status_of(error) == 416:  # the range starts behind the end: nothing is there
                return Body(b"", is_whole=False)
            raise
        expected = int(answer["ContentLength"])
        async with answer["Body"] as body, asyncio.timeout(self.patience_seconds(expected)):
            data: bytes = await body.read()
        if len(data) != expected:
            raise TimeoutError(f"{len(data)} of {expected} bytes came")
        return Body(data, is_whole="ContentRange" not in answer)

    async def head(self, key: str) -> ObjectInfo | None:
        """What is known of an object; None: it is proved that there is none."""
        client, name = await self._client(), self._prefix + key
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

    async def list_page(self, prefix: str, after: str, count: int, token: str) -> Page:
        """Up to `count` objects behind `after`. A token of the page before goes before `after`."""
        client = await self._client()
        answer = await client.list_objects_v2(
            Bucket=self._bucket,
            Prefix=self._prefix + prefix,
            StartAfter=self._prefix + after if after else "",
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
        token = answer.get("NextContinuationToken") or ""
        return Page(page, bool(answer.get("IsTruncated")), token)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there count as deleted."""
        client, names = await self._client(), [self._prefix + key for key in keys]
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

    async def close(self) -> None:
        """Close the client's connections."""
        if self._files._s3 is not None:  # noqa: SLF001 - s3fs has no public close for its client
            await self._files._s3.close()  # noqa: SLF001

    async def _client(self) -> Any:
        return await self._files.set_session()


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
