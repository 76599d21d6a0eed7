"""Stories of several hands on one log: readers, writers, successors, rivals, other versions."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from pathlib import Path

import pytest

import chronik_store as chronik_library
from tests.stories.telling import CONFIG, bucket, opened, order, orders, settle, values


def test_one_process_writes_and_another_follows(chronik, started) -> None:
    with opened() as log:
        log.append(orders(range(10)))
        follower = started("-d", "laptop", "consume", "orders", "--follow", "-n", "300",
                           "--format", r"%o %v\n")  # fmt: skip
        for number in range(10, 150):
            log.append(order(number))
        settle(log)  # files go from under the follower, into the bucket
        for number in range(150, 300):
            log.append(order(number))
        out, err = follower.communicate(timeout=60)
    assert [f"{n} {order(n).decode()}" for n in range(300)] == out.decode().splitlines()
    assert (0, b"") == (follower.returncode, err)


def test_a_restore_to_yesterday_and_the_old_owner_is_fenced(chronik) -> None:
    with opened() as log:
        log.append(orders(range(30)))
        time.sleep(0.01)
        noon_us = time.time_ns() // 1000
        noon = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(noon_us / 1e6))
        noon += f".{noon_us % 1_000_000:06}Z"
        log.append(orders(range(100, 130)))  # a bad release writes nonsense
        settle(log)

        ran = chronik("restore", bucket(), "new", "--until", noon, "--yes")
        assert 0 == ran.code
        assert "30 left out as asked" in ran.out
        with opened("new") as successor:
            assert orders(range(30)) == values(successor)
            successor.append(orders(range(30, 33)))
            settle(successor)

        # The old process lives on and has not heard: nothing that it does reaches the bucket.
        log.append(b"from the past")
        log.seal()
        assert "taken over" in str(log.run_pipeline_once().errors) or log.status().fenced
        assert log.status().fenced
        assert b"from the past" == values(log)[-1]  # it is kept, there
    with chronik_library.open_bucket(bucket(), topic="orders") as log:
        assert orders(range(33)) == values(log)


def test_a_second_laptop_does_not_write_into_the_firsts_bucket(chronik) -> None:
    with opened("first") as log:
        log.append(order(0))
        settle(log)
    before = sorted(path.name for path in Path("bucket").rglob("*"))
    with pytest.raises(chronik_library.IdentityMismatchError, match="restore"):
        opened("second")
    assert before == sorted(path.name for path in Path("bucket").rglob("*"))
    ran = chronik("-d", "third", "--object-store", bucket(), "produce", "orders", "/dev/null")
    assert 3 == ran.code
    assert "take it over with `chronik restore`" in ran.err


def test_a_directory_of_a_newer_version_is_refused_and_left_alone(chronik) -> None:
    with opened() as log:
        log.append(orders(range(3)))
    newer = bytearray(Path("laptop/STORE").read_bytes())
    (version,) = struct.unpack_from("<H", newer, 4)
    struct.pack_into("<H", newer, 4, version + 1)
    Path("laptop/STORE").write_bytes(newer)
    files = {path: path.read_bytes() for path in Path("laptop").rglob("*") if path.is_file()}

    with pytest.raises(chronik_library.FutureVersionError, match="version"):
        opened()
    for verb in (["consume", "orders"], ["status"], ["verify"], ["produce", "orders", "/dev/null"]):
        ran = chronik("-d", "laptop", *verb)
        assert 3 == ran.code, verb
        assert "version" in ran.err
    assert files == {path: path.read_bytes() for path in files}


def test_two_writers_agree_by_comparing_before_they_append() -> None:
    """A counter in a log: whoever is late reads what came in between, and tries again."""
    with opened() as log:
        log.append(b"0")

        def add(times: int) -> None:
            done = 0
            while done < times:
                end = log.watermarks.committed
                last = int(log.read(end - 1).records[0].value)
                try:
                    log.append(b"%d" % (last + 1), expected_offset=end)
                except chronik_library.OffsetConflictError:
                    continue
                done += 1

        threads = [threading.Thread(target=add, args=(25,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert [b"%d" % number for number in range(76)] == values(log)


def test_a_web_service_appends_from_many_tasks_and_stops_in_the_middle() -> None:
    answered: list[tuple[int, bytes]] = []

    async def serve() -> None:
        enough = asyncio.Event()
        async with chronik_library.aio.AsyncPartitionLog.open(
            "laptop", topic="orders", object_store=bucket(), config=CONFIG
        ) as log:

            async def handle(number: int) -> None:
                for step in range(20):
                    value = order(number * 100 + step)
                    result = await log.append(value)
                    answered.append((result.base_offset, value))
                    if len(answered) == 100:
                        enough.set()

            tasks = [asyncio.create_task(handle(number)) for number in range(30)]
            await enough.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(serve())
    with opened() as log:
        found = dict(enumerate(values(log)))
        assert len(answered) >= 100
        assert all(found[offset] == value for offset, value in answered)
        assert len(set(found.values())) == len(found)  # a cancelled wait writes nothing twice


def test_a_worker_that_crashes_between_work_and_commit_does_it_again_and_no_more() -> None:
    done: list[int] = []

    def work(until: int | None) -> None:
        with opened() as log:
            cursor = log.cursor("worker")
            for record in cursor.records():
                done.append(record.offset)
                if record.offset == until:
                    return  # gone before the commit
                cursor.commit(record.offset + 1)

    with opened() as log:
        log.append(orders(range(10)))
    work(until=4)
    work(until=None)
    work(until=None)
    assert [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9] == done


def test_a_topic_moves_to_another_store_through_a_file(chronik) -> None:
    with opened() as log:
        log.append(
            [
                chronik_library.Record(b"\xff\x00", key=b"", headers=(("trace", b"\x01"),)),
                chronik_library.Record(order(1), key=b"k", timestamp_us=1_700_000_000_000_000),
            ]
        )
        settle(log)
        log.append(order(2))
        expected = [(r.value, r.key, r.timestamp_us, tuple(r.headers)) for r in log.scan()]
    assert 0 == chronik("-d", "laptop", "export", "orders", "--to", "orders.jsonl").code
    assert 0 == chronik("-d", "other", "produce", "orders", "--records", "orders.jsonl").code
    with chronik_library.PartitionLog.open("other", topic="orders") as log:
        moved = [(r.value, r.key, r.timestamp_us, tuple(r.headers)) for r in log.scan()]
    assert expected == moved


def test_a_topic_is_deleted_and_made_again_and_has_nothing_of_the_old_one(chronik) -> None:
    with opened() as log:
        log.append(orders(range(50)))
        settle(log)
    assert 0 == chronik("-d", "laptop", "topic", "delete", "orders", "--yes").code
    assert not list(Path("bucket/segments").rglob("*.seg"))
    with opened() as log:
        assert (0, 0) == (log.watermarks.start, log.watermarks.end)
        log.append(b"new")
        settle(log)
    assert ["new"] == chronik("-d", bucket(), "consume", "orders").lines
