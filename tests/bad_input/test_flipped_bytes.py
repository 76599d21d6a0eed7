"""One wrong byte, at every place of every kind of file: the same data, or an error; nothing else.

Never other data, never a hole that nobody mentions. Each test goes through all positions of one
small file; a second value for the byte and the larger files are `slow`.
"""

from __future__ import annotations

import pytest

import chronik_store as chronik
from chronik_store.environment import Environment
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.simulated_disk import SimulatedDisk
from tests.bad_input.kept import CONFIG
from tests.depth import share

QUIET = CONFIG.replace(
    disk_reserve_bytes=0, disk_throttle_bytes=0, cache_disk_bytes=0, cache_memory_bytes=0
)
RECORDS = [
    chronik.Record(b"needle", b"k", 1_700_000_000_000_000, (("h", b"1"),)),
    chronik.Record(b"hay", None, 1_700_000_001_000_000),
    chronik.Record(b"", b"", 1_700_000_002_000_000),
]


def env_of(disk):
    return Environment(fs=disk, threads=MortalThreads())


def open_store(disk, *, read_only=False, **changes):
    return chronik.LogStore.open(
        "/d",
        object_store="file:///bucket",
        config=QUIET.replace(**changes),
        env=env_of(disk),
        read_only=read_only,
    )


def seen(log):
    """All that a reader can ask for, for comparison."""
    return (
        [(r.offset, r.value, r.key, r.timestamp_us, r.headers) for r in log.scan()],
        [log.offset_for_timestamp(r.timestamp_us) for r in RECORDS],
        (log.watermarks.start, log.watermarks.end),
        dict(log.status().cursors),
    )


def one_of(disk, below, number=-1):
    return disk.paths(below)[number]


def each_flip(disk, path, positions, mask=0x10):
    """Lets each byte be wrong in turn; the file is whole again afterwards."""
    good = disk.peek(path)
    for position in positions:
        disk.overwrite(path, position, bytes([good[position] ^ mask]))
        yield position
        disk.overwrite(path, position, good[position : position + 1])
    assert good == disk.peek(path)


def used_bytes(data):
    """Without the zeros that were written ahead, but for the first of them."""
    return min(len(data), len(data.rstrip(b"\0")) + 40)


def outcome(call):
    """What it gives, or the typed error that it ends in."""
    try:
        return call()
    except chronik.ChronikError as error:
        return error


# --- WAL ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["closed", "killed"])
def wal(request):
    """A store that was closed, or killed behind the sync of its last append; what it holds."""
    disk = SimulatedDisk()
    store = open_store(disk)
    store.create_topic("t")
    log = store.partition("t")
    for record in RECORDS:
        log.append(record)
    log.cursor("c").commit(2)
    whole = seen(log)
    if request.param == "closed":
        store.close()
    disk = disk.kill()
    return disk, whole


def read_wal(disk):
    with open_store(disk.crashed("kept")) as store:
        log = store.partition("t")
        found = seen(log)
        log.append(b"more")
        assert len(RECORDS) + 1 == log.watermarks.end
        return found


def read_beside(disk, whole):
    """A reader shows what marks prove, and names the damage when it hides something."""
    with open_store(disk, read_only=True) as store:
        log = store.partition("t")
        found = seen(log)
        if found != whole:
            assert found[0] == whole[0][: len(found[0])]
            if log.recovery.verdict == "suspect":
                assert any("suspect" in note for note in log.status().notes)
                assert not log.verify().ok
                return None
            # Only the group behind the last mark: a writer may be at it.
            assert [record[:2] for record in whole[0][:-1]] == [
                record[:2] for record in found[0][: len(whole[0]) - 1]
            ]
        return found


def check_wal(wal, mask, step):
    disk, whole = wal
    path = one_of(disk, "/d/wal")
    refused = 0
    for position in each_flip(disk, path, range(0, used_bytes(disk.peek(path)), step), mask):
        found = outcome(lambda: read_wal(disk))
        if isinstance(found, chronik.ChronikError):
            kinds = (chronik.CorruptionError, chronik.FutureVersionError)
            assert isinstance(found, kinds), (position, found)
            refused += 1
        else:
            assert whole == found, position
        shown = outcome(lambda: read_beside(disk, whole))
        if isinstance(shown, chronik.ChronikError):
            assert isinstance(shown, chronik.FutureVersionError), (position, shown)
    assert refused > 50
    assert whole == read_wal(disk)


def test_a_wal_file(wal):
    check_wal(wal, 0x10, step=7)


@pytest.mark.slow
@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_wal_file_with_every_byte_wrong_in_other_ways(wal, mask):
    check_wal(wal, mask, step=share(2, every=1))


# --- the bucket -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket():
    """A bucket with two segments, two manifests and more; what is seen through it."""
    disk = SimulatedDisk()
    with open_store(disk) as store:
        store.create_topic("t")
        log = store.partition("t")
        for record in RECORDS:
            log.append(record)
            log.seal()
            for _ in range(2):
                assert not log.run_pipeline_once().errors
        log.cursor("c").commit(2)
        log.append(b"only here")
    with read_bucket(disk) as log:
        return disk, seen(log)


def read_bucket(disk):
    return chronik.open_bucket("file:///bucket", topic="t", config=QUIET, env=env_of(disk))


def see_bucket(disk):
    with read_bucket(disk) as log:
        return seen(log)


@pytest.mark.parametrize(
    ("number", "step"), [(0, 5), (-1, 7), pytest.param(-1, 1, marks=pytest.mark.slow)]
)
def test_a_segment_object(bucket, number, step):
    disk, whole = bucket
    path = one_of(disk, "/bucket/segments", number)
    refused = 0
    for position in each_flip(disk, path, range(0, len(disk.peek(path)), step)):
        found = outcome(lambda: see_bucket(disk))
        if isinstance(found, chronik.ChronikError):
            kinds = (chronik.CorruptionError, chronik.FutureVersionError)
            assert isinstance(found, kinds), (position, found)
            refused += 1
        else:
            assert whole == found, position
    assert refused > 50
    assert whole == see_bucket(disk)


@pytest.mark.parametrize("number", [0, -2, -1])
def test_a_manifest_object(bucket, number):
    disk, whole = bucket
    path = one_of(disk, "/bucket/manifests", number)
    newest = number == -1
    for position in each_flip(disk, path, range(0, len(disk.peek(path)), 1 if newest else 7)):
        found = outcome(lambda: see_bucket(disk))
        if newest:
            # An older one must not take its place in silence: that would be a shorter log.
            kinds = (chronik.CorruptionError, chronik.FutureVersionError)
            assert isinstance(found, kinds), (position, found)
        else:
            assert whole == found, position


def test_a_manifest_object_that_is_gone(bucket):
    """Fewer bytes than one: the newest manifest is absent, which a bucket alone cannot know."""
    disk, whole = bucket
    with open_store(disk.crashed("kept"), read_only=True) as store:
        assert store.partition("t").verify(bucket=True).ok
    later = disk.crashed("kept")
    later.vanish(one_of(later, "/bucket/manifests"))
    with open_store(later, read_only=True) as store:
        assert not store.partition("t").verify(bucket=True).ok
    assert whole == see_bucket(disk)


@pytest.mark.parametrize(
    "places",
    [40, pytest.param(share(250, every=1500), marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
def test_a_bundle_object(bucket, places):
    disk, _ = bucket
    path = one_of(disk, "/bucket/indexes", 0)
    size = len(disk.peek(path))
    for position in each_flip(disk, path, range(0, size, max(1, size // places))):
        with read_bucket(disk) as log:
            found = log.search("needle")
            if found.complete:  # by the records themselves, if not by the index
                assert [(0, b"needle")] == [(hit.offset, hit.record.value) for hit in found]
            else:
                missing = [span for part in found.coverage for span in part.missing]
                assert [(0, 1)] == missing, position
    with read_bucket(disk) as log:
        assert 1 == log.search("needle", require_complete=True).total


@pytest.mark.parametrize("size", [0, 1, 100])
def test_objects_that_were_cut(bucket, size):
    disk, whole = bucket
    for folder in ("segments", "manifests"):
        cut = disk.crashed("kept")
        cut.truncate(one_of(cut, f"/bucket/{folder}"), size)
        found = outcome(lambda cut=cut: see_bucket(cut))
        assert isinstance(found, chronik.ChronikError), folder
    assert whole == see_bucket(disk)


def test_the_buckets_identity(bucket):
    disk, _ = bucket
    path = "/bucket/STORE"
    for position in each_flip(disk, path, range(len(disk.peek(path)))):
        found = outcome(lambda: open_store(disk.crashed("kept")))
        kinds = (
            chronik.CorruptionError, chronik.FutureVersionError, chronik.IdentityMismatchError,
        )  # fmt: skip
        assert isinstance(found, kinds), position
    open_store(disk.crashed("kept")).close()


def test_a_local_segment_has_the_bucket_behind_it():
    disk = SimulatedDisk()
    with open_store(disk, local_segment_bytes=1 << 20, wal_file_bytes=4096) as store:
        store.create_topic("t")
        log = store.partition("t")
        for record in RECORDS:
            log.append(record)
        log.append(b"x" * 5000)
        log.seal()
        for _ in range(3):
            assert not log.run_pipeline_once().errors
        log.append(b"last")
        whole = seen(log)
    paths = disk.paths("/d/segments")
    assert paths, "the test is about local copies"
    for position in each_flip(disk, paths[0], range(0, 2000, 11)):
        with open_store(disk, read_only=True, local_segment_bytes=1 << 20) as store:
            assert whole == seen(store.partition("t")), position


# --- small files of the directory -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["STORE", "TOPICS"])
def test_restoring_the_byte_restores_everything(wal, name):
    """What a wrong byte does is in tests/store/test_log_store.py; that it harms nothing is here."""
    disk, whole = wal
    for position in each_flip(disk, f"/d/{name}", range(0, len(disk.peek(f"/d/{name}")), 5)):
        found = outcome(lambda: open_store(disk.crashed("kept")))
        assert isinstance(found, (chronik.CorruptionError, chronik.FutureVersionError)), position
        assert found.path
    assert whole == read_wal(disk)
