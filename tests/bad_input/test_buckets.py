"""A bucket that is missing, forbidden, unsafe, slow or gone: all is kept, appends go on."""

from __future__ import annotations

import importlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import chronik_store as chronik
from chronik_store.clock import SystemClock
from chronik_store.config import S3Options
from chronik_store.objectstore.base import PutOutcome
from chronik_store.objectstore.memory import MemoryObjectStore, forget_memory_bucket
from chronik_store.testing.faulty_object_store import Fault, FaultyObjectStore
from tests.bad_input.kept import CONFIG, values

URL = "memory://bad-input"


@pytest.fixture
def bucket(monkeypatch):
    """One bucket that fails on command, for every open of this test."""
    forget_memory_bucket("bad-input")
    faulty = FaultyObjectStore(
        MemoryObjectStore("bad-input", "", clock=SystemClock()), clock=SystemClock()
    )
    use(monkeypatch, faulty)
    yield faulty
    forget_memory_bucket("bad-input")


def use(monkeypatch, store):
    for name in ("log_store", "bucket_log", "restore"):
        module = importlib.import_module(f"chronik_store.{name}")
        monkeypatch.setattr(module, "open_object_store", lambda *_, **__: store)


def opened(path, **changes):
    config = CONFIG.replace(wal_file_bytes=4096, garbage_seconds=0.0, **changes)
    return chronik.PartitionLog.open(path, topic="t", object_store=URL, config=config)


def run_until_idle(log):
    for _ in range(20):
        report = log.run_pipeline_once()
        assert () == report.errors
        if report.idle:
            return
    raise AssertionError("never idle")


def value(number):
    return b"%05d " % number + b"v" * 500


def written(count):
    return [value(number) for number in range(count)]


# --- gone in the middle ---------------------------------------------------------------------------


def calls_of_a_run(bucket, path):
    """How many calls a full run of the pipeline makes on this bucket."""
    with opened(path) as log:
        for number in range(10):
            log.append(value(number))
        log.seal()
        before = len(bucket.calls)
        run_until_idle(log)
        return len(bucket.calls) - before


@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("first", "kind"), [(1, "outage"), (2, "denied"), (3, "lost reply")])
def test_an_outage_in_any_stage_stops_tiering_there_and_nothing_else(
    tmp_path, bucket, first, kind, stride
):
    calls = calls_of_a_run(bucket, tmp_path / "counted")
    assert calls > 15
    for number in range(min(first, stride), calls + 1, stride):
        bucket.clear()
        bucket.delete([info.key for info in bucket.list("")])
        with opened(tmp_path / f"{kind}-{number}") as log:
            for each in range(10):
                log.append(value(each))
            log.seal()
            fault = {
                "outage": Fault("unavailable", skip=number - 1, times=None),
                "denied": Fault("denied", skip=number - 1, times=None),
                "lost reply": Fault("timeout_after", skip=number - 1, times=1),
            }[kind]
            bucket.add(fault)
            errors = [error for _ in range(4) for error in log.run_pipeline_once().errors]
            if kind != "lost reply":
                assert errors, number
                assert all("memory://bad-input" in error for error in errors), errors
                assert log.status().notes, number
            # Whatever has happened: appends go on, and every record is read from where it is.
            for each in range(10, 13):
                log.append(value(each))
            bucket_was_needed = log.watermarks.tiered > 0 and log._core.wal.first_index > 1
            if kind == "lost reply" or not bucket_was_needed:
                assert written(13) == values(log), number
            bucket.clear()
            assert written(13) == values(log), number
            log.seal()
            run_until_idle(log)
            line = log.watermarks
            assert (13, 13) == (line.tiered, line.indexed), number
            assert written(13) == values(log), number
            assert 1 == log.search("00012").total
        with chronik.open_bucket(URL, topic="t") as log:
            assert written(13) == values(log), number
            assert log.verify(deep=True).ok


def test_a_log_opens_appends_and_reads_while_the_bucket_is_away(tmp_path, bucket):
    bucket.outage = True
    with opened(tmp_path / "d") as log:
        for number in range(30):
            log.append(value(number))
        log.seal()
        files = log.status().wal_files
        for _ in range(3):
            report = log.run_pipeline_once()
            assert report.errors
            assert 0 == report.pruned_files + report.uploaded + report.published
        assert files <= log.status().wal_files
        assert written(30) == values(log)
        assert 1 == log.search("00007").total
        assert not log.verify(bucket=True).ok
        with pytest.raises(chronik.UnavailableError):
            chronik.open_bucket(URL, topic="t")
    with opened(tmp_path / "d") as log:
        assert written(30) == values(log)
        bucket.clear()
        log.seal()
        run_until_idle(log)
        assert 30 == log.watermarks.tiered


def test_what_is_only_in_the_bucket_is_unavailable_and_not_absent(tmp_path, bucket):
    with opened(tmp_path / "d", cache_memory_bytes=0, cache_disk_bytes=0) as log:
        for number in range(10):
            log.append(value(number))
        log.seal()
        run_until_idle(log)
        for number in range(10, 13):
            log.append(value(number))
        assert log._core.wal.first_index > 1, "the test is about what was pruned"
    with opened(tmp_path / "d", cache_memory_bytes=0, cache_disk_bytes=0) as log:
        bucket.outage = True
        with pytest.raises(chronik.UnavailableError):
            log.read(0)
        with pytest.raises(chronik.UnavailableError):
            list(log.scan())
        found = log.search("v" * 500)
        assert not found.complete
        assert any(start <= 0 < stop for part in found.coverage for start, stop in part.missing)
        with pytest.raises(chronik.UnavailableError):
            log.search("00003", require_complete=True)
        assert written(13)[10:] == [record.value for record in log.scan(10)]
        log.append(value(13))
        bucket.clear()
        assert written(14) == values(log)
        assert 1 == log.search("00003", require_complete=True).total


def test_a_bucket_that_hangs_holds_up_no_append(tmp_path, bucket):
    entered, release = threading.Event(), threading.Event()

    def hang(call, phase):
        if call.operation == "put" and "segments/" in call.key and phase == "before":
            entered.set()
            assert release.wait(30)

    with opened(tmp_path / "d") as log:
        log.append(value(0))
        log.seal()
        bucket.hook = hang
        pipeline = threading.Thread(target=log.run_pipeline_once)
        pipeline.start()
        assert entered.wait(30)
        for number in range(1, 20):
            log.append(value(number))
        assert written(20) == values(log)
        assert 1 == log.search("00019").total
        log.cursor("c").commit(20)
        log.status()
        release.set()
        pipeline.join(30)
        assert 1 == log.watermarks.tiered


@pytest.mark.parametrize("kind", ["flip", "truncate"])
def test_a_bucket_that_answers_with_other_bytes_is_not_believed(tmp_path, bucket, kind):
    with opened(tmp_path / "d", cache_memory_bytes=0, cache_disk_bytes=0) as log:
        for number in range(10):
            log.append(value(number))
        log.seal()
        run_until_idle(log)
    bucket.add(Fault(kind, times=None))
    with pytest.raises(chronik.ChronikError), chronik.open_bucket(URL, topic="t") as log:
        values(log)
    bucket.clear()
    with chronik.open_bucket(URL, topic="t") as log:
        bucket.add(Fault(kind, operation="range", times=None))
        with pytest.raises(chronik.ChronikError):
            values(log)
        found = log.search("00003")
        assert not found.complete or 1 == found.total
        bucket.clear()
        assert written(10) == values(log)


# --- somebody else's, or not fit for it -----------------------------------------------------------


def test_a_prefix_that_another_store_took_meanwhile_is_left_alone(tmp_path, bucket):
    bucket.outage = True
    late = opened(tmp_path / "late")
    late.append(value(0))
    late.seal()
    bucket.clear()
    with opened(tmp_path / "first") as first:
        first.append(b"first")
        first.seal()
        run_until_idle(first)
    objects = [info.key for info in bucket.list("")]
    with late:
        for _ in range(2):
            errors = late.run_pipeline_once().errors
            assert any("belongs to store" in error for error in errors), errors
        assert objects == [info.key for info in bucket.list("")]
        assert written(1) == values(late)
    with chronik.open_bucket(URL, topic="t") as log:
        assert [b"first"] == values(log)
    with pytest.raises(chronik.IdentityMismatchError, match="restore"):
        opened(tmp_path / "late")


class Overwriting:
    """A bucket that ignores If-None-Match: each put succeeds, whatever is there."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def put_if_absent(self, key, data):
        self.inner.delete([key])
        self.inner.put_if_absent(key, data)
        return PutOutcome.CREATED


def test_a_bucket_that_overwrites_is_refused_by_name(tmp_path, bucket, monkeypatch):
    use(monkeypatch, Overwriting(bucket))
    with opened(tmp_path / "d") as log:
        for number in range(5):
            log.append(value(number))
        log.seal()
        for _ in range(2):
            errors = log.run_pipeline_once().errors
            assert any("cannot hold a log safely" in error for error in errors), errors
            assert any("allow_unsafe_bucket" in error for error in errors)
        assert [] == bucket.list("")
        assert written(5) == values(log)
        assert 0 == log.watermarks.tiered


def test_who_insists_may_use_it(tmp_path, bucket, monkeypatch, caplog):
    use(monkeypatch, Overwriting(bucket))
    with opened(tmp_path / "d", allow_unsafe_bucket=True) as log:
        for number in range(5):
            log.append(value(number))
        log.seal()
        run_until_idle(log)
        assert 5 == log.watermarks.tiered
    assert "not safe" in caplog.text
    with chronik.open_bucket(URL, topic="t") as log:
        assert written(5) == values(log)


# --- S3: what the server says ---------------------------------------------------------------------

ANSWERS = {
    "missing bucket": (404, "NoSuchBucket", "the bucket does not exist"),
    "unknown key id": (403, "InvalidAccessKeyId", "S3_ACCESS_KEY"),
    "wrong secret": (403, "SignatureDoesNotMatch", "S3_SECRET_KEY"),
    "expired": (400, "ExpiredToken", "S3_ACCESS_KEY"),
    "forbidden": (403, "AccessDenied", "s3:PutObject"),
    "skewed": (403, "RequestTimeTooSkewed", "clock"),
}


@pytest.fixture
def s3():
    """A server that gives one answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, code = server.answer
            body = b"<Error><Code>%s</Code><Message>no</Message></Error>" % code.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_PUT = do_HEAD = do_POST = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", ANSWERS)
def test_what_an_s3_server_refuses_says_what_to_do(tmp_path, s3, name):
    status, code, says = ANSWERS[name]
    s3.answer = (status, code)
    options = S3Options(
        endpoint=f"http://127.0.0.1:{s3.server_port}", region="us-east-1",
        access_key="AKIAEXAMPLE", secret_key="hush-hush",
    )  # fmt: skip
    config = CONFIG.replace(s3=options)
    url = "s3://bucket/prefix"
    with chronik.PartitionLog.open(
        tmp_path / "d", topic="t", object_store=url, config=config
    ) as log:
        log.append(b"a")
        log.seal()
        errors = log.run_pipeline_once().errors
        assert any(says in error for error in errors), errors
        assert not any("hush" in error for error in errors)
        assert log.status().notes
        assert [b"a"] == values(log)
    with pytest.raises(chronik.UnavailableError, match=says) as caught:
        chronik.open_bucket(url, topic="t", config=config)
    assert not caught.value.retriable
    with pytest.raises(chronik.UnavailableError, match=says):
        chronik.restore(url, tmp_path / "new", config=config)


# --- directories as buckets -----------------------------------------------------------------------


def test_a_bucket_directory_that_is_missing_empty_or_a_file(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name in ("missing", "empty", "file", "file/below"):
        with pytest.raises(chronik.ChronikError) as caught:
            chronik.open_bucket(f"file://{tmp_path}/{name}", topic="t")
        assert name.split("/", maxsplit=1)[0] in str(caught.value)
    assert {"empty", "file"} == {each.name for each in tmp_path.iterdir()}
    assert [] == list((tmp_path / "empty").iterdir())
    for name in ("missing", "empty", "file", "file/below"):
        with pytest.raises(chronik.ChronikError):
            chronik.restore(f"file://{tmp_path}/{name}", tmp_path / "new")
    with pytest.raises(chronik.ConfigError, match="not a Chronik data directory"):
        chronik.LogStore.open(tmp_path / "new", read_only=True)


def test_a_bucket_directory_that_goes_away_comes_back_whole(tmp_path):
    url = f"file://{tmp_path}/bucket"
    config = CONFIG.replace(wal_file_bytes=4096, cache_memory_bytes=0, cache_disk_bytes=0)
    with chronik.PartitionLog.open(
        tmp_path / "d", topic="t", object_store=url, config=config
    ) as log:
        for number in range(10):
            log.append(value(number))
        log.seal()
        run_until_idle(log)
        log.append(value(10))
        aside = (tmp_path / "bucket").rename(tmp_path / "aside")
        with pytest.raises(chronik.ChronikError):
            values(log)
        log.append(value(11))
        log.seal()
        assert log.run_pipeline_once().errors
        assert not log.verify(bucket=True).ok
        assert not (tmp_path / "bucket").exists()  # an empty one would answer for it
        with pytest.raises(chronik.UnavailableError):
            chronik.open_bucket(url, topic="t")
        aside.rename(tmp_path / "bucket")
        run_until_idle(log)
        assert written(12) == values(log)
    with chronik.open_bucket(url, topic="t") as log:
        assert written(12) == values(log)
