"""S3 on a real server: Ceph's RADOS gateway over BlueStore, started here."""

import secrets
import threading
import time

import pytest

from chronik_store.clock import SystemClock, SystemEntropy
from chronik_store.errors import AccessDeniedError, UnavailableError
from chronik_store.objectstore.base import PutOutcome
from chronik_store.objectstore.probe import prove_create_only
from chronik_store.objectstore.verified import put_verified
from chronik_store.testing.object_store_kit import together
from chronik_store.threads import SystemThreads
from tests.s3.s3_facts import S3Facts

pytestmark = pytest.mark.s3
MIB = 1 << 20


@pytest.fixture(scope="module")
def server(ceph_rgw):
    return ceph_rgw


class TestCephRgw(S3Facts):
    def test_in_every_race_of_twenty_exactly_one_wins(self, store, folder):
        for race in range(25):
            key = f"{folder}/race-{race}"
            outcomes = together(20, lambda n, key=key: store.put_if_absent(key, b"%d" % n))
            assert outcomes.count(PutOutcome.CREATED) == 1
            assert store.get(key) == b"%d" % outcomes.index(PutOutcome.CREATED)

    def test_rivals_in_separate_clients_collide_too(self, open_store, folder):
        stores = [open_store() for _ in range(4)]
        body = secrets.token_bytes(2 * MIB)
        results = together(4, lambda n: put_verified(stores[n], f"{folder}/seg", body))
        assert sorted(results) == ["adopted"] * 3 + ["created"]

    @pytest.mark.slow
    def test_a_segment_of_256_mib_is_one_conditional_put(self, open_store, proxy, folder):
        """Above 100 MiB s3fs would send parts, whose completion this server lets anybody win."""
        store = open_store(endpoint=proxy.url)
        body = memoryview(secrets.token_bytes(MIB) * 256)
        assert put_verified(store, f"{folder}/large", body) == "created"
        assert [line.split()[0] for line in proxy.requests] == ["PUT", "HEAD"]
        assert store.put_if_absent(f"{folder}/large", body) is PutOutcome.EXISTS
        assert store.get_range(f"{folder}/large", -100, 100) == body[-100:]

    def test_the_probe_passes(self, store):
        report = prove_create_only(
            store, threads=SystemThreads(), clock=SystemClock(), entropy=SystemEntropy()
        )
        assert report.problems == ()
        assert report.safe
        assert abs(report.clock_offset_seconds) < 5
        assert store.list("probe/") == []

    # --------------------------------------------------------------------------- credentials

    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            ({"secret_key": "wrong"}, "SignatureDoesNotMatch"),
            ({"access_key": "nobody"}, "InvalidAccessKeyId"),
        ],
    )
    def test_wrong_credentials_are_named_with_what_to_check(self, open_store, wrong, named):
        store = open_store(**wrong)
        for call in (
            lambda: store.put_if_absent("k", b"x"),
            lambda: store.get("k"),
            lambda: store.list(""),
            lambda: store.delete(["k"]),
        ):
            with pytest.raises(AccessDeniedError, match=f"{named}.*S3_SECRET_KEY") as caught:
                call()
            assert not caught.value.retriable
        with pytest.raises(AccessDeniedError, match="check the credentials"):
            store.head("k")

    def test_a_bucket_of_somebody_else_is_refused(self, open_store, server):
        foreign = server.create_foreign_bucket(f"foreign-{secrets.token_hex(4)}")
        store = open_store(into=foreign)
        for call in (
            lambda: store.put_if_absent("k", b"x"),
            lambda: store.head("k"),
            lambda: store.list(""),
        ):
            with pytest.raises(AccessDeniedError, match="s3:PutObject"):
                call()

    # -------------------------------------------------------------------------------- outage

    def test_a_killed_server_is_an_outage_and_its_objects_come_back(
        self, open_store, insisting, server, folder
    ):
        store = open_store(connect_timeout_seconds=1.0, read_timeout_seconds=2.0)
        store.put_if_absent(f"{folder}/before", b"kept")
        server.kill_gateway()
        begin = time.monotonic()
        with pytest.raises(UnavailableError) as caught:
            insisting(store, deadline_seconds=1.0).put_if_absent(f"{folder}/k", b"x")
        assert time.monotonic() - begin < 5
        assert caught.value.retriable
        with pytest.raises(UnavailableError):
            store.head(f"{folder}/before")

        restart = threading.Thread(target=server.start_gateway)
        restart.start()
        patient = insisting(store, deadline_seconds=60.0)
        assert put_verified(patient, f"{folder}/k", b"x") in {"created", "adopted"}
        restart.join()
        assert store.get(f"{folder}/before") == b"kept"
        assert store.get(f"{folder}/k") == b"x"

    def test_uploads_under_way_when_the_server_dies_are_whole_or_absent(
        self, open_store, insisting, server, folder
    ):
        store = open_store(connect_timeout_seconds=1.0, read_timeout_seconds=5.0)
        patient = insisting(store, deadline_seconds=60.0)
        bodies = {f"{folder}/{n}": secrets.token_bytes(MIB) * 12 for n in range(6)}
        results = {}

        def upload(key):
            results[key] = put_verified(patient, key, memoryview(bodies[key]))

        uploads = [threading.Thread(target=upload, args=(key,)) for key in bodies]
        for thread in uploads:
            thread.start()
        time.sleep(0.15)
        server.kill_gateway()
        server.start_gateway()
        for thread in uploads:
            thread.join(90)
        assert sorted(results) == sorted(bodies)
        assert all(store.get(key) == body for key, body in bodies.items())
