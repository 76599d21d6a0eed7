"""Disks and buckets of simulated machines: time, turns, gates, faults."""

from __future__ import annotations

import errno

import pytest

from chronik_store.errors import UnavailableError
from chronik_store.objectstore.base import PutOutcome
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.virtual_time import CrashError, Machine, Simulation, Timing

SLOW_SYNC = Timing(sync_seconds=5.0, slow_probability=0.0)


def test_disk_calls_take_virtual_time() -> None:
    with Simulation() as simulation:
        node = simulation.machine("node", timing=SLOW_SYNC)

        def main() -> float:
            file = node.environment.fs.create("/a")
            for _ in range(20):
                file.sync_data()
            return simulation.now

        assert 40 < simulation.run(main) < 200


def test_calls_outside_of_a_run_take_no_time() -> None:
    with Simulation() as simulation:
        node = simulation.machine("node", timing=SLOW_SYNC)
        node.environment.fs.make_directories("/d")

        assert simulation.now == 0
        assert node.environment.fs.exists("/d")


def test_a_write_during_a_slow_sync_is_not_covered_by_it() -> None:
    with Simulation() as simulation:
        node = simulation.machine("node", timing=SLOW_SYNC)

        def main() -> bytes | None:
            fs = node.environment.fs
            file = fs.create("/a")
            fs.sync_directory("/")
            file.write_at(0, [b"before"])
            gate = simulation.gate("sync_data")
            job = node.spawn(file.sync_data, name="syncer")
            assert gate.wait_for_call()
            file.write_at(6, [b" during"])
            gate.open()
            job.join()
            return node.disk.peek_durable("/a")

        assert simulation.run(main) == b"before"


def test_a_gate_holds_a_call_before_or_after_its_effect() -> None:
    with Simulation() as simulation:
        node, other = simulation.machine("node"), simulation.machine("other")

        def rename(machine: Machine) -> None:
            machine.environment.fs.create("/a").close()
            machine.environment.fs.rename("/a", "/b")

        def main() -> list[list[str]]:
            seen = []
            before = simulation.gate("rename", target_end="/a", machine=node)
            after = simulation.gate("rename", machine=node, after=True)
            other.call(lambda: rename(other))
            job = node.spawn(lambda: rename(node), name="renamer")
            assert before.wait_for_call()
            seen.append(node.disk.paths())
            assert not after.wait_for_call(1.0)
            before.open()
            assert after.wait_for_call()
            seen.append(node.disk.paths())
            assert job.is_alive()
            after.open()
            job.join()
            return [*seen, other.disk.paths()]

        assert simulation.run(main) == [["/a"], ["/b"], ["/b"]]


def test_faults_of_the_disk_work_under_simulation() -> None:
    with Simulation() as simulation:
        node = simulation.machine("node", capacity_bytes=10)
        node.disk.hook = fail_next("sync_data", errno.EIO)

        def program() -> None:
            file = node.environment.fs.create("/a")
            with pytest.raises(OSError, match="No space left"):
                file.write_at(0, [b"x" * 11])
            with pytest.raises(OSError, match="Input/output"):
                file.sync_data()
            file.sync_data()

        simulation.run(lambda: node.call(program))


def test_two_machines_meet_in_the_bucket() -> None:
    for seed in range(10):
        with Simulation(seed) as simulation:
            store = MemoryObjectStore(clock=simulation.clock)
            nodes = [simulation.machine(f"node{number}") for number in range(3)]
            outcomes: list[PutOutcome] = []

            def put(node: Machine, store=store, outcomes=outcomes) -> None:
                bucket = node.bucket(store)
                outcomes.append(bucket.put_if_absent("key", node.name.encode()))
                assert bucket.get("key") == store.get("key")
                assert bucket.get_range("key", -2, 2) == store.get("key")[-2:]
                assert [info.key for info in bucket.list("")] == ["key"]
                found = bucket.head("key")
                assert found is not None
                assert found.size_bytes == 5
                assert bucket.url == store.url
                bucket.close()

            def main(nodes=nodes, put=put, store=store) -> None:
                jobs = [node.spawn(lambda n=node: put(n), name="put") for node in nodes]
                for job in jobs:
                    job.join()
                nodes[0].bucket(store).delete(["key"])

            simulation.run(main)
            assert sorted(outcome.value for outcome in outcomes) == ["created", "exists", "exists"]
            assert store.head("key") is None
            assert simulation.now > 0.01


def test_a_reply_is_lost_after_the_effect_and_a_request_before_it() -> None:
    with Simulation() as simulation:
        store = MemoryObjectStore(clock=simulation.clock)
        node = simulation.machine("node")
        faults = node.bucket_faults

        def lost(number: int, operation: str, key: str) -> None:
            raise UnavailableError("timed out")

        def program() -> None:
            bucket = node.bucket(store)
            faults.hook = lost
            with pytest.raises(UnavailableError, match="timed out"):
                bucket.put_if_absent("never", b"")
            faults.hook, faults.reply_hook = None, lost
            with pytest.raises(UnavailableError, match="timed out"):
                bucket.put_if_absent("there", b"")
            faults.reply_hook, faults.is_down = None, True
            with pytest.raises(UnavailableError, match="does not answer"):
                bucket.get("there")
            faults.is_down = False
            bucket.get("there")

        simulation.run(lambda: node.call(program))
        assert [info.key for info in store.list("")] == ["there"]
        assert faults.calls == 4


def test_a_machine_dies_between_a_put_and_its_reply() -> None:
    with Simulation() as simulation:
        store = MemoryObjectStore(clock=simulation.clock)
        node = simulation.machine("node")

        def die(number: int, operation: str, key: str) -> None:
            raise CrashError

        def program() -> None:
            try:
                node.bucket(store).put_if_absent("key", b"")
            finally:
                store.delete(["key"])

        def main() -> None:
            node.bucket_faults.reply_hook = die
            old = node.bucket(store)
            with pytest.raises(CrashError):
                node.call(program)
            with pytest.raises(CrashError):
                old.delete(["key"])
            with pytest.raises(CrashError, match="is down"):
                node.bucket(store)

        simulation.run(main)
        assert store.head("key") is not None


def test_two_processes_share_one_disk() -> None:
    with Simulation() as simulation:
        writer = simulation.machine("writer")
        reader = simulation.machine("reader", disk=writer.disk.another_process())

        def main() -> bytes:
            file = writer.environment.fs.create("/a")
            file.write_at(0, [b"x"])
            seen = reader.call(lambda: reader.environment.fs.open("/a").read_at(0, 9))
            writer.kill()
            assert reader.is_up
            reader.environment.fs.exists("/a")
            return seen

        assert simulation.run(main) == b"x"


def test_restarting_a_machine_that_is_up_is_refused() -> None:
    with Simulation() as simulation:
        node = simulation.machine("node")
        with pytest.raises(RuntimeError, match="is up"):
            node.restart()
        node.crash()
        node.crash()
        assert node.restart() is node.environment
