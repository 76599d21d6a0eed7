import secrets

import pytest

from chronik_store.clock import SystemClock, SystemEntropy
from chronik_store.objectstore.fsspec_s3 import S3ObjectStore
from chronik_store.objectstore.retry import RetryingObjectStore, RetryPolicy
from chronik_store.testing.fault_proxy import FaultProxy
from chronik_store.threads import SystemThreads
from tests.s3.servers import CephRgw, Emulator


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    server = Emulator(tmp_path_factory.mktemp("emulator"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def ceph_rgw():
    if not CephRgw.is_installed():
        pytest.fail("no Ceph here: apt-get install ceph-mon ceph-mgr ceph-osd radosgw")
    with CephRgw.on_disk() as server:
        yield server


@pytest.fixture(scope="class")
def bucket(server):
    return server.create_bucket(f"test-{secrets.token_hex(6)}")


@pytest.fixture
def proxy(server):
    with FaultProxy(server.host, server.port) as running:
        yield running


@pytest.fixture
def open_store(server, bucket):
    """Opens S3 stores and closes them after the test."""
    opened = []

    def open_one(*, prefix="some/prefix", into=None, **options):
        store = S3ObjectStore(
            bucket if into is None else into,
            prefix,
            server.options(**options),
            threads=SystemThreads(),
            clock=SystemClock(),
        )
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store):
    return open_store()


@pytest.fixture
def insisting():
    """Wraps a store in the retry policy."""

    def wrap(store, **policy):
        return RetryingObjectStore(
            store,
            clock=SystemClock(),
            entropy=SystemEntropy(),
            policy=RetryPolicy(**{"first_wait_seconds": 0.02, **policy}),
        )

    return wrap
