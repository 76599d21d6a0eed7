import os
import pickle
import socket
import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from botocore import exceptions as boto

from chronik_store.errors import AccessDeniedError, UnavailableError
from chronik_store.objectstore.base import ObjectNotFoundError, ObjectStoreRefusedError
from chronik_store.objectstore.fsspec_s3_errors import code_of, status_of, translated

ENDPOINT = {"endpoint_url": "http://x"}
NO_CONNECTION = aiohttp.ClientConnectorError(
    ConnectionKey("x", 80, False, None, None, None, None), OSError(111, "refused")
)


def no_tls(reason):
    """What aiohttp raises when the handshake fails. The errno of all of these is 1, EPERM."""
    if reason == "CERTIFICATE_VERIFY_FAILED":
        cause = ssl.SSLCertVerificationError(1, f"[SSL: {reason}] certificate verify failed")
        cause.verify_message = "self-signed certificate"
    else:
        cause = ssl.SSLError(1, f"[SSL: {reason}] {reason.lower()} (_ssl.c:1006)")
    cause.reason = reason
    key = ConnectionKey("10.0.0.1", 443, True, True, None, None, None)
    return aiohttp.ClientConnectorSSLError(key, cause)


NOW_US = 1_795_957_200_000_000
"""Sun, 29 Nov 2026 13:00:00 GMT."""


def answer(status, code, message="why", date=None):
    details = {"Code": code, "Message": message}
    headers = {} if date is None else {"date": date}
    return boto.ClientError(
        {
            "Error": details,
            "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
        },
        "PutObject",
    )


def of(error, verb="put"):
    return translated(error, url="s3://bucket/p", verb=verb, key="k", now_us=NOW_US)


@pytest.mark.parametrize(
    ("error", "expected", "retriable", "durability"),
    [
        (answer(404, "NoSuchKey"), ObjectNotFoundError, False, None),
        (answer(404, "NoSuchBucket"), ObjectStoreRefusedError, False, "not_durable"),
        (answer(403, "AccessDenied"), AccessDeniedError, False, "not_durable"),
        (answer(403, "403"), AccessDeniedError, False, "not_durable"),
        (answer(403, "InvalidAccessKeyId"), AccessDeniedError, False, "not_durable"),
        (answer(403, "SignatureDoesNotMatch"), AccessDeniedError, False, "not_durable"),
        (answer(403, "RequestTimeTooSkewed"), AccessDeniedError, False, "not_durable"),
        (answer(400, "ExpiredToken"), AccessDeniedError, False, "not_durable"),
        (answer(400, "BadDigest"), ObjectStoreRefusedError, False, "not_durable"),
        (answer(400, "RequestTimeout"), UnavailableError, True, "not_durable"),
        (answer(301, "PermanentRedirect"), ObjectStoreRefusedError, False, "not_durable"),
        (answer(501, "NotImplemented"), ObjectStoreRefusedError, False, "not_durable"),
        (answer(409, "OperationAborted"), UnavailableError, True, "not_durable"),
        (answer(429, "TooManyRequests"), UnavailableError, True, "not_durable"),
        (answer(503, "SlowDown"), UnavailableError, True, "unknown"),
        (answer(500, "InternalError"), UnavailableError, True, "unknown"),
        (boto.NoCredentialsError(), AccessDeniedError, False, "not_durable"),
        (boto.ParamValidationError(report="r"), ObjectStoreRefusedError, False, "not_durable"),
        (boto.ConnectTimeoutError(**ENDPOINT), UnavailableError, True, "not_durable"),
        (boto.EndpointConnectionError(**ENDPOINT, error=NO_CONNECTION), UnavailableError, True,
         "not_durable"),
        (boto.EndpointConnectionError(**ENDPOINT, error=ConnectionResetError()), UnavailableError,
         True, "unknown"),
        (boto.SSLError(**ENDPOINT, error=no_tls("CERTIFICATE_VERIFY_FAILED")),
         ObjectStoreRefusedError, False, "not_durable"),
        (boto.SSLError(**ENDPOINT, error=no_tls("WRONG_VERSION_NUMBER")), ObjectStoreRefusedError,
         False, "not_durable"),
        (boto.SSLError(**ENDPOINT, error=no_tls("UNEXPECTED_EOF")), UnavailableError, True,
         "not_durable"),
        (boto.ReadTimeoutError(**ENDPOINT), UnavailableError, True, "unknown"),
        (boto.ConnectionClosedError(**ENDPOINT), UnavailableError, True, "unknown"),
        (TimeoutError(), UnavailableError, True, "unknown"),
        (aiohttp.ClientPayloadError("cut"), UnavailableError, True, "unknown"),
        (OSError("anything"), UnavailableError, True, "unknown"),
    ],
)  # fmt: skip
def test_each_failure_has_one_meaning(error, expected, retriable, durability):
    ours = of(error)
    assert type(ours) is expected
    assert ours.retriable is retriable
    assert ours.durability == durability
    assert "s3://bucket/p" in str(ours)
    assert of(error, verb="get").durability is None
    assert str(pickle.loads(pickle.dumps(ours))) == str(ours)


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (answer(403, "InvalidAccessKeyId"), "S3_ACCESS_KEY"),
        (answer(403, "SignatureDoesNotMatch"), "S3_SECRET_KEY"),
        (answer(403, "AccessDenied"), "s3:PutObject"),
        (answer(403, "RequestTimeTooSkewed"), "clock"),
        (answer(404, "NoSuchBucket"), "create it"),
        (answer(301, "PermanentRedirect"), "S3_REGION"),
        (boto.NoCredentialsError(), "S3_SECRET_KEY"),
        (boto.NoCredentialsError(), "pass config=LogConfig.from_env()"),
        (answer(503, "SlowDown", "please slow down"), "please slow down"),
    ],
)
def test_the_message_says_what_to_check(error, hint):
    assert hint in str(of(error))


def test_an_answer_without_details_is_read_too():
    bare = boto.ClientError({}, "HeadObject")
    assert (status_of(bare), code_of(bare)) == (0, "")
    assert type(of(bare)) is UnavailableError
    assert (status_of(ValueError()), code_of(ValueError())) == (0, "")


def test_a_server_that_is_not_there_is_named_with_the_reason():
    key = aiohttp.client_reqrep.ConnectionKey("10.0.0.1", 7480, False, True, None, None, None)
    cause = aiohttp.ClientConnectorError(key, ConnectionRefusedError(111, "Connect call failed"))
    said = str(of(boto.EndpointConnectionError(**ENDPOINT, error=cause), verb="list"))
    assert said.endswith(": no connection to 10.0.0.1:7480: Connection refused")


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (no_tls("CERTIFICATE_VERIFY_FAILED"), "no connection to 10.0.0.1:443: its certificate is "
         "not trusted (self-signed certificate); correct S3_ENDPOINT, or name the file of the "
         "authority that signed it in AWS_CA_BUNDLE"),
        (no_tls("WRONG_VERSION_NUMBER"), "no connection to 10.0.0.1:443: it does not speak TLS "
         "(wrong version number); is it http:// in S3_ENDPOINT?"),
        (no_tls("UNEXPECTED_EOF"), "no connection to 10.0.0.1:443: TLS failed: unexpected eof"),
        (aiohttp.ClientOSError(104, "Connection reset by peer"),
         "the connection broke before the answer: Connection reset by peer"),
    ],
)  # fmt: skip
def test_why_nothing_came_is_said_in_words(cause, said):
    error = boto.EndpointConnectionError(**ENDPOINT, error=cause)
    assert str(of(error, verb="list")) == f"s3://bucket/p: list 'k': {said}"


def test_only_a_connection_can_break():
    """A file with certificates that is not there is no answer of the network."""
    cause = FileNotFoundError(2, "No such file or directory")
    assert "connection" not in str(of(boto.HTTPClientError(error=cause)))


def test_a_name_that_is_none_is_said_without_its_number():
    key = ConnectionKey("nohost", 443, True, True, None, None, None)
    cause = aiohttp.ClientConnectorDNSError(key, socket.gaierror(-2, "Name or service not known"))
    said = str(of(boto.EndpointConnectionError(**ENDPOINT, error=cause), verb="list"))
    assert said.endswith(": no connection to nohost:443: Name or service not known")


def test_an_answer_without_a_message_says_nothing_of_one():
    error = answer(403, "SignatureDoesNotMatch")
    error.response["Error"].pop("Message", None)
    assert "403 SignatureDoesNotMatch; check S3_ACCESS_KEY" in str(of(error))


def test_the_answer_to_a_head_says_its_status_once():
    assert "head 'k': 403: Forbidden; check" in str(of(answer(403, "403", "Forbidden"), "head"))


HERE = os.uname().nodename
AHEAD, BEHIND = "Sun, 29 Nov 2026 11:00:00 GMT", "Sun, 29 Nov 2026 17:00:00 -0000"


@pytest.mark.parametrize(
    ("code", "date", "said"),
    [
        # The answer to a HEAD has no body, hence no code.
        (
            "403",
            AHEAD,
            f"set the clock of {HERE}, which is about 2 hours ahead of the store's; if it is",
        ),
        (
            "403",
            BEHIND,
            f"set the clock of {HERE}, which is about 4 hours behind the store's; if it is",
        ),
        ("403", "Sun, 29 Nov 2026 12:39:31 GMT", "about 20 minutes ahead of the store's"),
        ("403", "Sun, 29 Nov 2026 12:39:32 GMT", "about 20 minutes ahead of the store's"),
        ("AccessDenied", AHEAD, "s3:PutObject"),
        ("SignatureDoesNotMatch", AHEAD, "if it is still refused, check S3_ACCESS_KEY"),
        ("RequestTimeTooSkewed", BEHIND, f"{HERE}, which is about 4 hours behind the store's"),
        ("RequestTimeTooSkewed", None, f"set the clock of {HERE}"),
    ],
)
def test_a_refusal_by_a_store_whose_clock_differs_names_the_clock_and_by_how_much(code, date, said):
    error = of(answer(403, code, date=date))
    assert type(error) is AccessDeniedError
    assert said in str(error)
    assert f"set the clock of {HERE}" in str(error)


@pytest.mark.parametrize("date", ["Sun, 29 Nov 2026 12:56:00 GMT", "yesterday", "", None])
def test_a_refusal_by_a_store_whose_clock_is_ours_or_unknown_is_about_rights(date):
    assert "clock" not in str(of(answer(403, "403", date=date)))
    assert "s3:PutObject" in str(of(answer(403, "403", date=date)))
