"""What an S3 failure means here: one table from botocore's and aiohttp's errors to ours.

Place: beside `fsspec_s3`; loaded with it, never by `import chronik_store`. Promise: nothing of
botocore or aiohttp leaves the room, and the message names what to check. Invariant: of a mutating
call that failed, "not_durable" is said only with proof: the store answered 4xx, or no connection
was ever made. Everything else (5xx, a lost reply, a reset, a timeout) is "unknown".

A store refuses what a wrong clock has signed, and the answer to a HEAD has no room for the reason.
So each refusal's Date is compared with our clock: nobody should look for rights that are there.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from aiohttp import ClientConnectorError, ClientOSError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from chronik_store.errors import AccessDeniedError, Durability, UnavailableError
from chronik_store.objectstore.base import ObjectNotFoundError, ObjectStoreRefusedError

_CREDENTIALS = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "AuthorizationHeaderMalformed",
        "InvalidSecurity",
    }
)
_CREDENTIALS_HINT = "check S3_ACCESS_KEY, S3_SECRET_KEY and S3_REGION"
_RIGHTS_HINT = (
    "check the credentials, and that they may s3:GetObject, s3:PutObject, s3:DeleteObject and "
    "s3:ListBucket on this bucket and prefix"
)
_SKEW_SECONDS_MAX = 300.0
"""Stores refuse 900; one that is on its way there, or refuses earlier, is worth a word."""
_RETRIABLE_4XX = frozenset({408, 409, 425, 429})
_ABSENT = frozenset({"NoSuchKey", "NoSuchVersion"})


def status_of(error: BaseException) -> int:
    """The HTTP status of a store's answer, 0 if there was none."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(error: BaseException) -> str:
    """The S3 error code of a store's answer; "404" and the like for answers without a body."""
    return str(_details(error).get("Code", "")) if isinstance(error, ClientError) else ""


def translated(error: Exception, *, url: str, verb: str, key: str, now_us: int) -> UnavailableError:
    """Our error for what `verb` on `key` raised. `verb` is put, delete, get, head or list.

    now_us: what time it is here.
    """
    durability: Durability | None = None
    if verb in {"put", "delete"}:
        durability = "not_durable" if _certainly_not_done(error) else "unknown"
    where = f"{url}: {verb} {key!r}"
    if isinstance(error, ClientError):
        return _from_answer(error, where, url, durability, now_us)
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        return AccessDeniedError(
            f"{where}: no usable credentials; set S3_ACCESS_KEY and S3_SECRET_KEY and pass "
            "config=LogConfig.from_env(), or give botocore a profile or role",
            durability=durability,
        )
    if isinstance(error, ParamValidationError):
        return ObjectStoreRefusedError(
            f"{where}: the S3 client does not know this request ({_short(error)}); use botocore "
            "1.36 or newer, and a valid bucket name",
            durability=durability,
        )
    if isinstance(error, TimeoutError):
        return UnavailableError(
            f"{where}: {_short(error) or 'not finished in time'}", durability=durability
        )
    unconnected = _unconnected(error)
    if unconnected is not None:
        return _from_no_connection(unconnected, where, durability)
    broken = _from_client(error)
    if _certainly_not_done(error):
        said = f"no connection: {_short(error)}"
    elif isinstance(broken, ClientOSError | ConnectionError) and broken.strerror:
        said = f"the connection broke before the answer: {broken.strerror}"
    else:
        said = f"{type(error).__name__}: {_short(error)}"
    return UnavailableError(f"{where}: {said}", durability=durability)


def not_deleted(failed: Sequence[Mapping[str, str]], of: int, *, url: str) -> UnavailableError:
    """Our error for a DeleteObjects of so many keys that was answered with these failures."""
    first = failed[0]
    said = (
        f"{url}: {len(failed)} of {of} objects were not deleted, the first {first.get('Key')!r}: "
        f"{first.get('Code')}: {first.get('Message')}"
    )
    if all(each.get("Code") == "AccessDenied" for each in failed):
        return AccessDeniedError(f"{said}; {_RIGHTS_HINT}", durability="unknown")
    return UnavailableError(said, durability="unknown")


def _from_no_connection(
    error: ClientConnectorError, where: str, durability: Durability | None
) -> UnavailableError:
    cause = error.os_error
    said = f"{where}: no connection to {error.host}:{error.port}"
    # Their errno is 1, which is no "Operation not permitted". Asking again changes neither.
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ObjectStoreRefusedError(
            f"{said}: its certificate is not trusted ({cause.verify_message}); correct "
            "S3_ENDPOINT, or name the file of the authority that signed it in AWS_CA_BUNDLE",
            durability=durability,
        )
    if isinstance(cause, ssl.SSLError):
        reason = (cause.reason or _short(cause)).replace("_", " ").lower()
        if cause.reason == "WRONG_VERSION_NUMBER":
            return ObjectStoreRefusedError(
                f"{said}: it does not speak TLS ({reason}); is it http:// in S3_ENDPOINT?",
                durability=durability,
            )
        return UnavailableError(f"{said}: TLS failed: {reason}", durability=durability)
    known = bool(cause.errno and cause.errno > 0)  # a name server's number is below
    reason = os.strerror(cause.errno or 0) if known else cause.strerror or _short(cause)
    return UnavailableError(f"{said}: {reason}", durability=durability)


def _from_answer(
    error: ClientError, where: str, url: str, durability: Durability | None, now_us: int
) -> UnavailableError:
    status, code = status_of(error), code_of(error)
    message = _details(error).get("Message")
    # The answer to a HEAD has no body: its code is the status once more, its message the phrase.
    parts = [f"{status}" if code == str(status) else f"{status} {code}", *filter(None, [message])]
    said = f"{where}: {': '.join(parts)}"
    if code in _ABSENT:
        return ObjectNotFoundError(f"{where}: no such object")
    if code == "NoSuchBucket":
        return ObjectStoreRefusedError(
            f"{where}: the bucket does not exist; create it, or correct {url} and S3_ENDPOINT",
            durability=durability,
        )
    if code == "RequestTimeTooSkewed" or code in _CREDENTIALS or status in {401, 403}:
        return AccessDeniedError(f"{said}; {_what_to_check(error, now_us)}", durability=durability)
    if status == 501:
        return ObjectStoreRefusedError(
            f"{said}; this store lacks what the log stands on, create-only puts among it",
            durability="not_durable" if durability else None,
        )
    if status in {301, 307, 308}:
        return ObjectStoreRefusedError(
            f"{said}; the bucket is elsewhere: set S3_REGION or S3_ENDPOINT", durability=durability
        )
    if 400 <= status < 500 and status not in _RETRIABLE_4XX and code != "RequestTimeout":
        return ObjectStoreRefusedError(said, durability=durability)
    return UnavailableError(said, durability=durability)


def _what_to_check(refusal: ClientError, now_us: int) -> str:
    code, ahead_seconds = code_of(refusal), _ahead_seconds(refusal, now_us)
    is_about_time = code == "RequestTimeTooSkewed"
    rights = _CREDENTIALS_HINT if code in _CREDENTIALS else _RIGHTS_HINT
    # By its name: the answer may be read elsewhere, by a client of this node.
    clock = f"set the clock of {os.uname().nodename}"
    if ahead_seconds is None or abs(ahead_seconds) < _SKEW_SECONDS_MAX:
        return clock if is_about_time else rights
    side = "ahead of" if ahead_seconds > 0 else "behind"
    clock += f", which is about {_coarsely(abs(ahead_seconds))} {side} the store's"
    return clock if is_about_time else f"{clock}; if it is still refused, {rights}"


def _coarsely(seconds: float) -> str:
    """Alike each time: a failure that goes on is logged when its text changes."""
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{round(seconds / 3600)} hours"


def _ahead_seconds(answer: ClientError, now_us: int) -> float | None:
    """How far our clock is ahead of that of who answered; None where that does not tell."""
    headers = answer.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        theirs = parsedate_to_datetime(headers["date"])
        return now_us / 1e6 - (theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)).timestamp()
    except (KeyError, ValueError, OverflowError):
        return None


def _certainly_not_done(error: Exception) -> bool:
    if isinstance(error, ClientError):
        return 300 <= status_of(error) < 500 or status_of(error) == 501
    if isinstance(error, ConnectTimeoutError):
        return True
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        return True
    if isinstance(error, ParamValidationError):
        return True
    # botocore calls a reset in mid-request "could not connect" too; only aiohttp's own error
    # tells that no connection was made.
    return _unconnected(error) is not None


def _unconnected(error: Exception) -> ClientConnectorError | None:
    """What aiohttp said when it could not connect, if that is what botocore's error stands for."""
    cause = _from_client(error)
    return cause if isinstance(cause, ClientConnectorError) else None


def _from_client(error: Exception) -> object:
    """What the HTTP client raised, which botocore's error stands for; None if nothing is known."""
    return error.kwargs.get("error") if isinstance(error, BotoCoreError) else None


def _details(error: ClientError) -> dict[str, Any]:
    return dict(error.response.get("Error", {}))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
