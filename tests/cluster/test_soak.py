"""The soak, for as long as a run of all tests allows; `python -m tests.cluster.soak` for a day."""

import os

import pytest

from tests.cluster import soak

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(0)]

SECONDS = float(os.environ.get("CHRONIK_SOAK_SECONDS", "60"))


def test_a_disturbed_cluster_loses_nothing_and_stores_nothing_twice(
    start_cluster, bucket, network, figure, seed
):
    said = []
    cluster = start_cluster(bucket, network=network, **soak.SETTINGS)
    try:
        load, disturbances = soak.soak(
            cluster, bucket, seconds=SECONDS, rate=600, seed=seed, say=said.append
        )
    finally:
        print("\n".join(said))
    figure(f"seed {seed}: {load.count} messages, {disturbances.done}")
