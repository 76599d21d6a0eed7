"""Directed schedules of protocol section 9: what recovery says of a damaged tail."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from chronik_store.environment import Environment
from chronik_store.errors import ChronikError, CorruptionError
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.testing.worlds.store_world import buckets_of
from tests.crash.harness import Life
from tests.simulation.replica_log import CONFIG, Author, ReplicaLog

SECTOR = 512


def replica_on(disk: SimulatedDisk, *, accept_suspect: bool = False) -> ReplicaLog:
    config = CONFIG.replace(wal_file_bytes=1 << 20, accept_suspect=accept_suspect)
    return ReplicaLog(Environment(fs=disk, threads=MortalThreads()), config=config)


def wal_path(disk: SimulatedDisk) -> str:
    return [path for path in disk.paths("/data/wal") if path.endswith(".log")][-1]


def groups(rng: random.Random) -> tuple[bytes, bytes, int]:
    """(the file before a group, the file with it, entries before) of some group of some frames."""
    disk = SimulatedDisk(seed=1)
    log = replica_on(disk)
    author = Author(log.end, 1)
    first = [author.records([b"a" * rng.randrange(700)]) for _ in range(rng.randint(1, 3))]
    log.core.wal.lead(log.replica.append_entries(0, 0, first).ticket)
    path = wal_path(disk)
    before = disk.peek(path)
    values = [
        rng.choice((b"", b"x", b"v" * rng.randrange(900), bytes(rng.randrange(1200))))
        for _ in range(rng.randint(1, 4))
    ]
    second = [author.records([value]) for value in values]
    log.core.wal.lead(log.replica.append_entries(len(first), 1, second).ticket)
    after = disk.peek(path)
    assert len(disk.paths("/data/wal")) == 1
    del log
    return before.ljust(len(after), b"\0"), after, len(first)


def outcomes(before: bytes, after: bytes, rng: random.Random, limit: int) -> Iterator[bytes]:
    """Every way in which a power cut may keep a group's sectors (or a sample of them)."""
    starts = [
        at for at in range(0, len(after), SECTOR) if before[at:][:SECTOR] != after[at:][:SECTOR]
    ]
    subsets = list(itertools.product((False, True), repeat=len(starts)))
    for kept in rng.sample(subsets, min(limit, len(subsets))):
        image = bytearray(before)
        for at, keep in zip(starts, kept, strict=True):
            if keep:
                image[at : at + SECTOR] = after[at : at + SECTOR]
        yield bytes(image)


@pytest.mark.parametrize(
    ("number", "limit"),
    [*((number, 16) for number in range(12))]
    + [pytest.param(number, 512, marks=pytest.mark.slow) for number in range(100, 160)],
)
def test_9_s2_no_healthy_power_cut_is_called_damage(number: int, limit: int, seed: int) -> None:
    """Whatever subset of a group's sectors reaches the disk, records of zeros or not."""
    rng = random.Random(f"{seed}/{number}")
    with buckets_of(lambda _env: None):
        before, after, count = groups(rng)
        for image in outcomes(before, after, rng, limit):
            disk = SimulatedDisk(seed=1)
            replica_on(disk).core.wal.lead(2)
            disk.overwrite(wal_path(disk), 0, image)
            log = replica_on(disk)
            assert log.log.recovery.verdict in {"clean", "torn"}
            assert log.replica.last_index >= count
            log.close()


@pytest.mark.parametrize("number", range(6))
def test_9_s1_a_flip_in_what_was_synced_is_never_cut_off_as_torn(number: int, seed: int) -> None:
    """The last group has no frame behind it that swears to it; a flip there is still no tear."""
    rng = random.Random(f"{seed}/{number}")
    with buckets_of(lambda _env: None):
        _, after, _ = groups(rng)
        end = len(after.rstrip(b"\0"))
        lost = 0
        for at in rng.sample(range(SECTOR, end), 40):
            image = bytearray(after)
            image[at] ^= 1 << rng.randrange(8)
            disk = SimulatedDisk(seed=1)
            replica_on(disk).core.wal.lead(2)
            disk.overwrite(wal_path(disk), 0, bytes(image))
            whole = replica_of(after)
            try:
                log = replica_on(disk)
            except ChronikError:
                continue
            lost += log.replica.last_index < whole
            log.close()
        assert lost == 0, f"{lost} of 40 flips silently cost entries"


def replica_of(image: bytes) -> int:
    """How many entries this file holds."""
    disk = SimulatedDisk(seed=1)
    replica_on(disk).core.wal.lead(2)
    disk.overwrite(wal_path(disk), 0, image)
    log = replica_on(disk)
    last = log.replica.last_index
    log.close()
    return last


def test_9_s3_a_suspect_log_stays_suspect_through_another_crash() -> None:
    with buckets_of(lambda _env: None):
        disk = SimulatedDisk(seed=1)
        log = replica_on(disk)
        author = Author(log.end, 1)
        for _ in range(4):
            entry = author.records([b"v" * 300])
            log.core.wal.lead(
                log.replica.append_entries(entry.header.index - 1, 1, [entry]).ticket
                if entry.header.index > 1
                else log.replica.append_entries(0, 0, [entry]).ticket
            )
        path = wal_path(disk)
        disk.flip_bit(path, disk.peek(path).index(b"v" * 300) + 700)
        with pytest.raises(CorruptionError):
            replica_on(disk.crash("kept"))
        for mode in ("lost", "torn", "kept"):
            suspect = replica_on(disk.crash("kept"), accept_suspect=True)
            assert suspect.replica.suspect
            again = replica_on(suspect.core.env.fs.crash(mode))
            assert again.replica.suspect  # the new files are clean, the memory of it is durable
            assert again.replica.last_index < 4
            again.core.wal.lead(again.replica.set_suspect(False))
            healed = replica_on(again.core.env.fs.crash(mode))
            assert not healed.replica.suspect


def test_9_suspect_refuses_by_default_and_goes_on_from_the_good_part_if_told(life: Life) -> None:
    for _ in range(6):
        life.append(1)
    path = [each for each in life.disk.paths("/data/wal") if each.endswith(".log")][-1]
    place = life.disk.peek(path).index(life.ledger.known[2][:7])
    life.plug.dead = True
    after = life.fails("kept")
    after.disk.flip_bit(path, place + 3)
    bytes_before = after.disk.peek(path)
    with pytest.raises(CorruptionError) as caught:
        after.open()
    assert "repair" in str(caught.value)
    assert "accept_suspect" in str(caught.value)
    assert bytes_before == after.disk.peek(path)  # nothing was cut
    after._store.close()  # type: ignore[union-attr]
    after.config = after.config.replace(accept_suspect=True)
    after.open()
    kept = [record.value for record in after.log.scan()]
    assert kept == [after.ledger.known[offset] for offset in range(len(kept))]
    assert 2 == len(kept)
    assert (2, 3) == after.log.append(b"goes on")[:2]
    after.store.close()
    after.config = after.config.replace(accept_suspect=False)
    after.open()  # what was accepted once is settled
    assert b"goes on" == list(after.log.scan())[-1].value
    after.store.close()
