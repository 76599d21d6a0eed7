"""The room on virtual time: every schedule is a seed, and a lock held over a call ends the run."""

import os

import pytest

from chronik_store.errors import ChronikError
from chronik_store.objectstore.base import PutOutcome
from chronik_store.objectstore.cache import BlockCache
from chronik_store.objectstore.local import LocalObjectStore
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.objectstore.probe import prove_create_only
from chronik_store.objectstore.retry import RetryingObjectStore
from chronik_store.objectstore.verified import put_verified
from chronik_store.testing.faulty_object_store import FaultyObjectStore
from chronik_store.testing.virtual_time import Simulation

BLOCK = 4096
BODY = os.urandom(30 * BLOCK + 77)


def faulty_store(env, **rates):
    store = FaultyObjectStore(
        MemoryObjectStore(clock=env.clock),
        clock=env.clock,
        entropy=env.entropy,
        latency_seconds=0.02,
    )
    store.rates.update(rates)
    return store


@pytest.mark.parametrize("seed", range(12))
def test_readers_share_a_small_cache_over_a_bucket_that_fails(seed):
    with Simulation(seed=seed) as simulation:
        node = simulation.machine("node")
        env = node.environment

        def main():
            bucket = faulty_store(env)
            bucket.put_if_absent("k", BODY)
            bucket.rates.update({"unavailable": 0.1, "truncate": 0.05, "slow": 0.05})
            cache = BlockCache(
                threads=env.threads,
                fs=env.fs,
                directory="/cache",
                memory_bytes=4 * BLOCK,
                disk_bytes=10 * BLOCK,
                read_ahead_bytes=4 * BLOCK,
                block_bytes=BLOCK,
            )
            source = cache.open_object(bucket, "k", len(BODY))
            whole = []

            def read_all():
                parts, at = [], 0
                while at < len(BODY):
                    try:
                        parts.append(source.read_range(at, 5000))
                    except ChronikError:
                        continue
                    at += len(parts[-1])
                whole.append(b"".join(parts))

            readers = [env.threads.spawn(read_all, name=f"reader-{n}") for n in range(4)]
            for reader in readers:
                reader.join()
            assert whole == [BODY] * 4
            assert cache.stats().memory_bytes <= 4 * BLOCK
            cache.close()

        simulation.run(lambda: node.call(main))


@pytest.mark.parametrize("seed", range(12))
def test_uploaders_of_one_segment_agree_whatever_the_bucket_does(seed):
    with Simulation(seed=seed) as simulation:
        node = simulation.machine("node")
        env = node.environment

        def main():
            bucket = faulty_store(env, unavailable=0.2, timeout_after=0.2, late=0.1, slow=0.1)
            store = RetryingObjectStore(bucket, clock=env.clock, entropy=env.entropy)
            results = []

            def upload():
                while True:
                    try:
                        results.append(put_verified(store, "seg", BODY))
                    except ChronikError:
                        continue
                    return

            for thread in [env.threads.spawn(upload, name=f"up-{n}") for n in range(3)]:
                thread.join()
            bucket.clear()
            assert results.count("created") <= 1
            assert len(results) == 3
            assert bucket.get("seg") == BODY
            assert bucket.put_if_absent("seg", b"late") is PutOutcome.EXISTS

        simulation.run(lambda: node.call(main))


@pytest.mark.parametrize("seed", range(6))
def test_the_probe_and_the_local_store_run_there_too(seed):
    with Simulation(seed=seed) as simulation:
        node = simulation.machine("node")
        env = node.environment

        def main():
            store = LocalObjectStore(env.fs, "/bucket", entropy=env.entropy, clock=env.clock)
            report = prove_create_only(
                store, threads=env.threads, clock=env.clock, entropy=env.entropy
            )
            assert report.problems == ()
            assert store.list("") == []

        simulation.run(lambda: node.call(main))
