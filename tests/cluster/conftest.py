"""What the cluster tests share: a bucket of each kind, a cluster for one test, and figures.

The five tests run on a directory as their bucket; where `-m` names `s3` too, on a Ceph RGW as well
(`pytest tests/cluster -m "cluster and s3"`). Figures are reported at the end, never asserted.
"""

import secrets

import pytest

from tests.cluster.buckets import DirectoryBucket, S3Bucket
from tests.cluster.network import Network
from tests.cluster.processes import Cluster
from tests.s3.servers import CephRgw, Emulator


def pytest_collection_modifyitems(config, items):
    """Without a word about s3, a directory is the bucket."""
    if "s3" in (config.option.markexpr or ""):
        return  # pytest's own selection decides
    ours = [each for each in items if each.get_closest_marker("cluster")]
    left_out = [each for each in ours if each.get_closest_marker("s3")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [each for each in items if each not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows the end of each node's log."""
    report = yield
    if report.failed and report.when == "call":
        for cluster in item.funcargs.get("start_cluster", _Nothing).started:
            report.sections += [(f"log of {node}", node.tail()) for node in cluster.nodes]
    return report


class _Nothing:
    started = ()


def pytest_terminal_summary(terminalreporter):
    """The figures, of all workers."""
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {value}"
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == "figure"
    ]
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def tmp_path(disk_path):
    """Servers wait for their disks, as everywhere."""
    return disk_path


@pytest.fixture
def figure(record_property):
    """Reports a line of measurement."""
    return lambda line: record_property("figure", line)


@pytest.fixture(scope="session")
def ceph_rgw():
    """One gateway for the session."""
    if not CephRgw.is_installed():
        pytest.fail("no Ceph here: apt-get install ceph-mon ceph-mgr ceph-osd radosgw")
    with CephRgw.on_disk() as server:
        yield server


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    """One emulator for the session."""
    server = Emulator(tmp_path_factory.mktemp("emulator"))
    yield server
    server.stop()


@pytest.fixture
def s3_bucket(request):
    """A fresh bucket of a server that can fail: "emulator", "rgw", or "rgw itself" without a proxy
    in between. The test says which, by an indirect parameter.
    """
    server = request.getfixturevalue("emulator" if request.param == "emulator" else "ceph_rgw")
    name = f"cluster-{secrets.token_hex(6)}"
    made = S3Bucket(server, name, is_direct=request.param == "rgw itself")
    yield made
    made.close()


@pytest.fixture(params=["directory", pytest.param("rgw", marks=pytest.mark.s3)])
def either_bucket(request, tmp_path):
    """A fresh bucket of each kind."""
    if request.param == "directory":
        made = DirectoryBucket(tmp_path / "bucket")
    else:
        server = request.getfixturevalue("ceph_rgw")
        made = S3Bucket(server, f"cluster-{secrets.token_hex(6)}")
    yield made
    made.close()


@pytest.fixture
def rgw_bucket(ceph_rgw):
    """A fresh bucket of a real S3 server."""
    made = S3Bucket(ceph_rgw, f"cluster-{secrets.token_hex(6)}")
    yield made
    made.close()


@pytest.fixture
def bucket(tmp_path):
    """A fresh bucket in a directory."""
    made = DirectoryBucket(tmp_path / "bucket")
    yield made
    made.close()


@pytest.fixture
def network():
    """What the nodes of a cluster reach each other through."""
    with Network() as made:
        yield made


class Starter:
    """Starts clusters of one test."""

    def __init__(self, folder):
        self.folder = folder
        self.started = []

    def __call__(self, bucket, *, prepare=None, **settings):
        """prepare(node): called for each node before it starts."""
        cluster = Cluster(self.folder, bucket, **settings)
        self.started.append(cluster)
        for node in cluster.nodes if prepare is not None else ():
            prepare(node)
        return cluster.__enter__()


@pytest.fixture
def start_cluster(tmp_path):
    """Starts three nodes over a bucket: `start_cluster(bucket, CHRONIK_...="...")`."""
    starter = Starter(tmp_path)
    yield starter
    for cluster in starter.started:
        cluster.end()
