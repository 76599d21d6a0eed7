"""What must hold on any S3 server; inherited by the tests of each one."""

import gc
import logging
import secrets
import time

import pytest

from chronik_store.errors import UnavailableError
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.objectstore.base import ObjectStoreRefusedError, PutOutcome
from chronik_store.objectstore.verified import put_verified
from chronik_store.testing.fault_proxy import ProxyFault
from chronik_store.testing.object_store_kit import ObjectStoreTests
from tests.s3.servers import SECRET_KEY


class S3Facts(ObjectStoreTests):
    large_mib = 24
    """Of what must be one request: clients cut from 5 or 8 on."""

    # ---------------------------------------------------------------------- what a call costs

    def test_each_call_is_one_request(self, open_store, proxy, folder):
        store = open_store(endpoint=proxy.url)
        key = f"{folder}/k"
        store.put_if_absent(key, b"x" * 100_000)
        store.get(key)
        store.get_range(key, 10, 100)
        store.get_range(key, -10, 10)
        store.head(key)
        store.list(f"{folder}/")
        store.delete([key])
        assert [line.split()[0] for line in proxy.requests] == [
            "PUT", "GET", "GET", "GET", "HEAD", "GET", "DELETE",
        ]  # fmt: skip

    def test_a_large_body_is_one_put(self, open_store, proxy, folder):
        store = open_store(endpoint=proxy.url)
        body = secrets.token_bytes(1 << 20) * self.large_mib
        assert store.put_if_absent(f"{folder}/large", memoryview(body)) is PutOutcome.CREATED
        assert len(proxy.requests) == 1
        assert store.put_if_absent(f"{folder}/large", memoryview(body)) is PutOutcome.EXISTS
        assert store.get(f"{folder}/large") == body

    def test_the_etag_is_the_md5_so_verifying_reads_nothing_back(self, open_store, proxy, folder):
        store = open_store(endpoint=proxy.url)
        assert put_verified(store, f"{folder}/v", b"x" * 200_000) == "created"
        assert put_verified(store, f"{folder}/v", b"x" * 200_000) == "adopted"
        verbs = [line.split()[0] for line in proxy.requests]
        assert verbs == ["PUT", "HEAD", "PUT", "HEAD"]

    def test_listings_go_over_pages(self, store, folder):
        # Deleted in one batch, so this covers DeleteObjects too.
        keys = [f"{folder}/{number:04}" for number in range(25)]
        for key in keys:
            store.put_if_absent(key, b"")
        found, after = [], ""
        while page := store.list(f"{folder}/", start_after=after, limit=10):
            found += [info.key for info in page]
            after = found[-1]
        assert found == keys
        store.delete(keys)
        assert store.list(f"{folder}/") == []

    # ---------------------------------------------------------------------------- one bucket

    def test_a_missing_bucket_is_named_and_never_taken_for_empty(self, open_store):
        store = open_store(into="no-such-bucket-here")
        calls = [
            lambda: store.put_if_absent("k", b"x"),
            lambda: store.get("k"),
            lambda: store.get_range("k", 0, 1),
            lambda: store.head("k"),
            lambda: store.list(""),
            lambda: store.delete(["k"]),
        ]
        for call in calls:
            with pytest.raises(ObjectStoreRefusedError, match="bucket does not exist"):
                call()

    def test_prefixes_part_stores_of_one_bucket(self, open_store, folder):
        mine, other, root = open_store(prefix="a"), open_store(prefix="a/b"), open_store(prefix="")
        mine.put_if_absent(f"{folder}/k", b"mine")
        assert other.head(f"{folder}/k") is None
        assert root.get(f"a/{folder}/k") == b"mine"
        assert [info.key for info in mine.list(f"{folder}/")] == [f"{folder}/k"]

    # -------------------------------------------------------------------------------- faults

    @pytest.mark.parametrize("status", [500, 503, 429])
    def test_a_passing_refusal_is_waited_out(self, open_store, proxy, insisting, folder, status):
        store = insisting(open_store(endpoint=proxy.url))
        proxy.add(ProxyFault("status", times=2, status=status))
        assert store.put_if_absent(f"{folder}/k", b"x") is PutOutcome.CREATED
        assert len(proxy.requests) == 3

    def test_there_is_one_retry_policy_and_it_ends(self, open_store, proxy, insisting, folder):
        store = insisting(open_store(endpoint=proxy.url), deadline_seconds=2)
        proxy.add(ProxyFault("status", times=None, status=503))
        begin = time.monotonic()
        with pytest.raises(UnavailableError) as caught:
            store.put_if_absent(f"{folder}/k", b"x")
        assert time.monotonic() - begin < 10
        assert caught.value.retriable
        # Waits of 0.1, 0.2, 0.4 ... seconds within 2, and two requests at least; two
        # policies multiplied would send dozens.
        assert 2 <= len(proxy.requests) <= 10

    def test_without_a_policy_one_call_is_one_request(self, open_store, proxy, folder):
        store = open_store(endpoint=proxy.url)
        proxy.add(ProxyFault("status", times=None, status=503))
        for call in (store.get, store.head, lambda key: store.put_if_absent(key, b"")):
            proxy.requests.clear()
            with pytest.raises(UnavailableError):
                call(f"{folder}/k")
            assert len(proxy.requests) == 1

    # One reply lost: the HTTP client repeats the request by itself. Three: our policy does.
    @pytest.mark.parametrize("times", [1, 3])
    @pytest.mark.parametrize("size", [10, 3 << 20])
    def test_a_create_whose_reply_is_lost_is_adopted(
        self, open_store, proxy, insisting, folder, size, times
    ):
        store = insisting(open_store(endpoint=proxy.url))
        body = secrets.token_bytes(size)
        proxy.add(ProxyFault("reset_after", match="^PUT", times=times))
        assert put_verified(store, f"{folder}/k", body) == "adopted"
        assert store.get(f"{folder}/k") == body

    def test_a_lost_reply_leaves_the_outcome_unknown(self, open_store, proxy, folder):
        store = open_store(endpoint=proxy.url)
        proxy.add(ProxyFault("reset_after", match="^PUT", times=2))
        with pytest.raises(UnavailableError) as caught:
            store.put_if_absent(f"{folder}/k", b"x")
        assert caught.value.durability == "unknown"
        assert store.get(f"{folder}/k") == b"x"

    def test_a_request_that_never_arrived_is_repeated(self, open_store, proxy, insisting, folder):
        store = insisting(open_store(endpoint=proxy.url))
        proxy.add(ProxyFault("reset_before", times=2))
        assert put_verified(store, f"{folder}/k", b"x" * 3_000_000) == "created"

    @pytest.mark.parametrize("size", [20_000, 3_000_000])
    @pytest.mark.parametrize(
        "fault",
        [
            ("reset_before", "^PUT", 2),
            ("reset_after", "^PUT", 2),
            ("status", "^PUT", 1),
            ("status", "^HEAD", 1),
        ],
        ids=lambda fault: " ".join(map(str, fault)),
    )
    def test_a_mapped_file_can_be_closed_after_an_attempt_that_failed(
        self, open_store, proxy, insisting, folder, tmp_path, size, fault
    ):
        """What the failed attempt held is free at once, not when the collector comes by."""
        store = insisting(open_store(endpoint=proxy.url))
        path = tmp_path / "segment"
        path.write_bytes(secrets.token_bytes(size))
        act, match, times = fault
        proxy.add(ProxyFault(act, match=match, times=times))
        file = PosixFileSystem().open(str(path))
        gc.disable()
        try:
            with file.map() as body:
                assert put_verified(store, f"{folder}/k", body) in {"created", "adopted"}
        finally:
            gc.enable()
            file.close()

    def test_a_server_that_hangs_is_given_up(self, open_store, proxy, insisting, folder):
        direct = open_store(endpoint=proxy.url, read_timeout_seconds=0.5)
        open_store().put_if_absent(f"{folder}/k", b"x")
        proxy.add(ProxyFault("hang", times=None, seconds=30))
        begin = time.monotonic()
        with pytest.raises(UnavailableError):
            direct.get(f"{folder}/k")
        with pytest.raises(UnavailableError) as caught:
            direct.put_if_absent(f"{folder}/l", b"x" * 20_000_000)
        assert time.monotonic() - begin < 25  # the proxy would hang for 30
        assert caught.value.durability == "unknown"
        proxy.clear()
        proxy.add(ProxyFault("hang", seconds=30))
        assert insisting(direct).get(f"{folder}/k") == b"x"

    @pytest.mark.parametrize("kept", [0, 1000, 99_999])
    def test_a_body_cut_short_is_never_handed_out(self, open_store, proxy, insisting, folder, kept):
        store = open_store(endpoint=proxy.url)
        body = secrets.token_bytes(100_000)
        store.put_if_absent(f"{folder}/k", body)
        proxy.add(ProxyFault("truncate", match="^GET", times=2, body_bytes=kept))
        with pytest.raises(UnavailableError):
            store.get(f"{folder}/k")
        assert insisting(store).get(f"{folder}/k") == body

    def test_a_conflict_with_another_request_is_settled(self, open_store, proxy, insisting, folder):
        store = insisting(open_store(endpoint=proxy.url))
        proxy.add(ProxyFault("status", match="^PUT", status=409))
        assert store.put_if_absent(f"{folder}/k", b"mine") is PutOutcome.CREATED
        proxy.add(ProxyFault("status", match="^PUT", status=409))
        assert store.put_if_absent(f"{folder}/k", b"late") is PutOutcome.EXISTS
        assert store.get(f"{folder}/k") == b"mine"

    def test_no_server_means_certainly_not_done(self, open_store, proxy):
        store = open_store(endpoint="http://127.0.0.1:9")
        with pytest.raises(UnavailableError, match="no connection") as caught:
            store.put_if_absent("k", b"x")
        assert caught.value.durability == "not_durable"

    def test_latency_is_no_error(self, open_store, proxy, folder):
        store = open_store(endpoint=proxy.url)
        proxy.add(ProxyFault("latency", times=None, seconds=0.2))
        assert store.put_if_absent(f"{folder}/k", b"x" * 2_000_000) is PutOutcome.CREATED
        assert len(store.get(f"{folder}/k")) == 2_000_000

    # ------------------------------------------------------------------------------- secrets

    def test_no_secret_is_shown_or_logged(self, open_store, proxy, caplog):
        secret = "s3cr3t-that-must-not-leak"
        caplog.set_level(logging.DEBUG)
        store = open_store(endpoint=proxy.url, secret_key=secret)
        proxy.add(ProxyFault("status", times=None, status=403))
        shown = [store.url, repr(store), repr(store._options)]
        for call in (store.get, store.head, lambda key: store.put_if_absent(key, b"")):
            with pytest.raises(UnavailableError) as caught:
                call("k")
            error = caught.value
            while error is not None:
                shown += [str(error), repr(error), repr(getattr(error, "response", ""))]
                error = error.__cause__ or error.__context__
        assert secret not in "\n".join([*shown, caplog.text])
        assert SECRET_KEY not in caplog.text

    def test_a_closed_store_says_so(self, open_store):
        store = open_store()
        store.close()
        with pytest.raises(ObjectStoreRefusedError, match="closed"):
            store.get("k")
