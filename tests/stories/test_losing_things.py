"""Stories of loss: a process, a laptop, a bucket, a few bytes; and what is left of the log."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

import chronik_store as chronik_library
from tests.stories.telling import bucket, opened, order, orders, settle, values


def test_the_laptop_dies_and_the_log_comes_back_from_the_bucket(chronik) -> None:
    with opened() as log:
        log.append(orders(range(60)))
        log.cursor("billing").commit(40)
        settle(log)
        log.append(orders(range(60, 65)))  # and then, before the next half minute is over:
    shutil.rmtree("laptop")

    # Anybody can read it, with nothing but the URL.
    read = chronik("-d", bucket(), "consume", "orders", "-n", "3", "--format", r"%o %v\n")
    assert [f"{n} {order(n).decode()}" for n in range(3)] == read.lines
    with chronik_library.open_bucket(bucket(), topic="orders") as log:
        assert orders(range(60)) == values(log)
        assert [57] == [hit.offset for hit in log.search("order AND json.order:57")]

    # A new laptop takes over where the bucket ends, the consumer where it stood.
    assert 0 == chronik("restore", bucket(), "new", "--yes").code
    with opened("new") as log:
        assert orders(range(60)) == values(log)
        assert 40 == log.cursor("billing").offset
        assert 60 == log.append(order(60)).base_offset
        settle(log)
        assert log.verify(bucket=True, deep=True).ok


def test_the_producer_is_killed_in_the_middle_and_nothing_acknowledged_is_gone(
    chronik, started
) -> None:
    producer = started("-d", "laptop", "produce", "orders")
    for number in range(5000):
        producer.stdin.write(order(number) + b"\n")
    producer.stdin.flush()
    while not (seen := chronik("-d", "laptop", "consume", "orders", "-n", "1").lines):
        assert producer.poll() is None
    assert [order(0).decode()] == seen
    acknowledged = len(chronik("-d", "laptop", "consume", "orders").lines)
    producer.send_signal(signal.SIGKILL)
    producer.wait(timeout=30)

    with chronik_library.PartitionLog.open("laptop", topic="orders") as log:
        assert log.recovery.verdict in {"clean", "torn"}
        found = values(log)
        assert len(found) >= acknowledged
        assert orders(range(len(found))) == found
        assert len(found) == log.append(order(len(found))).base_offset


def test_the_bucket_is_down_for_a_while_and_retention_waits_for_it(chronik) -> None:
    with opened(retention_bytes=9000) as log:
        log.append(orders(range(50)))
        settle(log)
        Path("bucket").rename("unplugged")
        for number in range(50, 250):
            log.append(order(number))
        for _ in range(3):
            assert log.run_pipeline_once().errors
        marks = log.watermarks
        assert (0, 50, 250) == (marks.start, marks.tiered, marks.committed)
        # What is here is read; what is only in the bucket is unavailable, not gone.
        assert order(249) == log.read(249).records[0].value
        with pytest.raises(chronik_library.UnavailableError):
            log.read(0)
        assert "/bucket" in log.status().last_error

        Path("unplugged").rename("bucket")
        settle(log)
        settle(log)
        marks = log.watermarks
        assert 0 < marks.start < marks.tiered == 250
        assert orders(range(marks.start, 250)) == values(log)
    stored = sum(path.stat().st_size for path in Path("bucket/segments").rglob("*.seg"))
    assert stored <= 2 * 9000  # the segment at the border stays whole


def test_a_byte_rots_on_disk_and_the_operator_mends_what_can_be_mended(chronik) -> None:
    with opened() as log:
        for number in range(20):
            log.append(order(number))
    (path,) = [path for path in Path("laptop/wal/orders/0").glob("*.log") if order(12) in
               path.read_bytes()]  # fmt: skip
    rotten = bytearray(path.read_bytes())
    rotten[rotten.index(order(12)) + 30] ^= 0x40
    path.write_bytes(rotten)

    # It does not open for writing by itself, and says what to do.
    with pytest.raises(chronik_library.CorruptionError, match="repair"):
        opened()
    assert bytes(rotten) == path.read_bytes()
    assert 4 == chronik("-d", "laptop", "verify").code
    plan = chronik("-d", "laptop", "repair")
    assert 1 == plan.code
    assert "goes on behind the last good entry" in plan.out
    assert "nothing changed" in plan.err

    # What stands before the damage is kept; the damaged file is set aside, not deleted.
    assert 0 == chronik("-d", "laptop", "repair", "--apply").code
    with opened() as log:
        assert orders(range(12)) == values(log)
        assert 12 == log.append(b"again").base_offset
    assert any(bytes(rotten) == path.read_bytes() for path in Path("laptop").rglob("*.log*"))
    assert 0 == chronik("-d", "laptop", "verify").code


def test_the_index_is_lost_and_search_goes_on_and_is_built_anew(chronik) -> None:
    with opened() as log:
        log.append(orders(range(60)))
        settle(log)
        shutil.rmtree("bucket/indexes")
        found = log.search("json.order:33")
        assert ([33], True) == ([hit.offset for hit in found], found.complete)
    ran = chronik("-d", "laptop", "rebuild-index", "orders")
    assert 0 == ran.code, ran.err
    assert list(Path("bucket/indexes").rglob("*.tar.gz"))
    ran = chronik("-d", bucket(), "search", "orders", "json.order:33", "--format", r"%o\n")
    assert ["33"] == ran.lines
