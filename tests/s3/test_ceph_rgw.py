"""S3 on a real server: Ceph's RADOS gateway over BlueStore, started here."""

import pytest

from tests.s3.s3_facts import S3Facts

pytestmark = pytest.mark.s3


@pytest.fixture(scope="module")
def server(ceph_rgw):
    return ceph_rgw


class TestCephRgw(S3Facts):
    pass
