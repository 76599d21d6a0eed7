import os
import threading

import pytest

from chronik_store.clock import SystemClock
from chronik_store.errors import UnavailableError
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.objectstore.base import ObjectNotFoundError
from chronik_store.objectstore.cache import BlockCache
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.objectstore.patience import patience
from chronik_store.testing.faulty_object_store import Fault, FaultyObjectStore
from chronik_store.testing.object_store_kit import together
from chronik_store.threads import SystemThreads

KIB = 1024
BLOCK = 64 * KIB
BODY = os.urandom(40 * BLOCK + 12_345)


@pytest.fixture
def store():
    faulty = FaultyObjectStore(MemoryObjectStore(), clock=SystemClock())
    faulty.inner.put_if_absent("k", BODY)
    return faulty


@pytest.fixture
def make_cache(tmp_path):
    made = []

    def make(*, memory_blocks=1000, disk_blocks=0, read_ahead_blocks=0):
        cache = BlockCache(
            threads=SystemThreads(),
            fs=PosixFileSystem(),
            directory=f"{tmp_path}/cache" if disk_blocks else None,
            memory_bytes=memory_blocks * BLOCK,
            disk_bytes=disk_blocks * BLOCK,
            read_ahead_bytes=read_ahead_blocks * BLOCK,
        )
        made.append(cache)
        return cache

    yield make
    for cache in made:
        cache.close()


def opened(cache, store):
    return cache.open_object(store, "k", len(BODY))


def ranges(store):
    return [call.size_bytes for call in store.calls if call.operation == "range"]


def wait_for(condition):
    deadline = SystemClock.monotonic() + 10
    while not condition():
        assert SystemClock.monotonic() < deadline, "did not come true"
        SystemClock.sleep(0.005)


# ------------------------------------------------------------------------------- what it costs


def test_a_cold_record_is_one_get_of_one_block(make_cache, store):
    source = opened(make_cache(read_ahead_blocks=64), store)
    assert source.read_range(10 * BLOCK + 100, 1000) == BODY[10 * BLOCK + 100 :][:1000]
    assert ranges(store) == [BLOCK]


def test_a_record_over_a_block_border_is_one_get_of_two_blocks(make_cache, store):
    source = opened(make_cache(), store)
    assert source.read_range(11 * BLOCK - 500, 1000) == BODY[11 * BLOCK - 500 :][:1000]
    assert ranges(store) == [2 * BLOCK]


def test_a_large_range_is_one_get(make_cache, store):
    source = opened(make_cache(), store)
    assert source.read_range(100, 20 * BLOCK) == BODY[100 : 100 + 20 * BLOCK]
    assert ranges(store) == [21 * BLOCK]


def test_random_reads_never_fetch_ahead(make_cache, store):
    cache = make_cache(read_ahead_blocks=64)
    source = opened(cache, store)
    for block in (30, 10, 20, 5, 35, 10, 30):
        source.read_range(block * BLOCK + 7, 1000)
    assert ranges(store) == [BLOCK] * 5
    assert cache.stats().read_aheads == 0


def test_reading_the_same_again_costs_nothing(make_cache, store):
    cache = make_cache(read_ahead_blocks=64)
    source = opened(cache, store)
    for _ in range(5):
        source.read_range(3 * BLOCK, 1000)
    assert ranges(store) == [BLOCK]
    assert cache.stats().memory_hits == 4


def test_only_the_gap_is_fetched(make_cache, store):
    source = opened(make_cache(), store)
    source.read_range(2 * BLOCK, BLOCK)
    assert source.read_range(0, 5 * BLOCK) == BODY[: 5 * BLOCK]
    assert ranges(store) == [BLOCK, 2 * BLOCK, 2 * BLOCK]


def test_the_footer_is_one_exact_get_and_stays(make_cache, store):
    cache = make_cache(memory_blocks=2)
    source = opened(cache, store)
    assert source.read_tail(5000) == BODY[-5000:]
    for block in range(10):
        source.read_range(block * BLOCK, 10)
    assert opened(cache, store).read_tail(5000) == BODY[-5000:]
    assert ranges(store).count(5000) == 1
    assert source.read_tail(10**9) == BODY


def test_ranges_are_cut_at_the_end(make_cache, store):
    source = opened(make_cache(), store)
    assert source.read_range(len(BODY) - 10, 100) == BODY[-10:]
    assert source.read_range(len(BODY), 100) == b""
    assert source.read_range(len(BODY) + BLOCK, 100) == b""
    assert source.read_range(5, 0) == b""
    assert source.read_tail(0) == b""


# ------------------------------------------------------------------------------------- bounds


def test_memory_stays_within_its_bound(make_cache, store):
    cache = make_cache(memory_blocks=8)
    source = opened(cache, store)
    for block in range(40):
        source.read_range(block * BLOCK, 10)
        assert cache.stats().memory_bytes <= 8 * BLOCK


def test_a_read_larger_than_the_cache_is_served_and_not_kept(make_cache, store):
    cache = make_cache(memory_blocks=4)
    source = opened(cache, store)
    source.read_range(0, 10)
    assert source.read_range(BLOCK, 30 * BLOCK) == BODY[BLOCK : 31 * BLOCK]
    source.read_range(0, 10)
    assert ranges(store) == [BLOCK, 30 * BLOCK]


@pytest.mark.parametrize("memory_blocks", [0, 2])
def test_eight_readers_progress_with_a_cache_of_two_blocks_or_none(
    make_cache, store, memory_blocks
):
    source = opened(make_cache(memory_blocks=memory_blocks, read_ahead_blocks=4), store)

    def read_all(number):
        parts = [source.read_range(at, 50_000) for at in range(0, len(BODY), 50_000)]
        return b"".join(parts)

    assert together(8, read_all) == [BODY] * 8


# -------------------------------------------------------------------------------------- disk


def test_what_memory_let_go_comes_from_disk(make_cache, store):
    cache = make_cache(memory_blocks=1, disk_blocks=100)
    source = opened(cache, store)
    source.read_range(0, 10 * BLOCK)
    source.read_range(20 * BLOCK, 10)
    assert source.read_range(3 * BLOCK + 5, 3 * BLOCK) == BODY[3 * BLOCK + 5 : 6 * BLOCK + 5]
    assert ranges(store) == [10 * BLOCK, BLOCK]
    assert cache.stats().disk_hits == 4
    assert cache.stats().disk_bytes == 11 * BLOCK


def test_a_damaged_block_on_disk_is_fetched_again(make_cache, store, tmp_path):
    cache = make_cache(memory_blocks=1, disk_blocks=100)
    source = opened(cache, store)
    source.read_range(0, BLOCK)
    source.read_range(9 * BLOCK, BLOCK)
    (path,) = (path for path in (tmp_path / "cache").iterdir() if path.stem == "0")
    damaged = bytearray(path.read_bytes())
    damaged[77] ^= 1
    path.write_bytes(damaged)
    assert source.read_range(0, 1000) == BODY[:1000]
    assert cache.stats().corrupt_blocks == 1
    assert len(ranges(store)) == 3


def test_forgotten_objects_take_no_space(make_cache, store, tmp_path):
    cache = make_cache(disk_blocks=100)
    source = opened(cache, store)
    source.read_range(0, 5 * BLOCK)
    source.read_tail(1000)
    cache.forget("k")
    assert (cache.stats().memory_bytes, cache.stats().disk_bytes) == (0, 0)
    assert list((tmp_path / "cache").iterdir()) == []


# --------------------------------------------------------------------------------- one flight


class Gate:
    """Holds ranged reads in the store until it is opened."""

    def __init__(self, store):
        self.arrived = threading.Semaphore(0)
        self.opened = threading.Event()
        store.hook = self

    def __call__(self, call, phase):
        if call.operation == "range" and phase == "before":
            self.arrived.release()
            assert self.opened.wait(10)


def start(count, call):
    results = []

    def run():
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, results


def test_readers_of_one_block_share_one_get(make_cache, store):
    cache = make_cache()
    source, gate = opened(cache, store), Gate(store)
    threads, results = start(8, lambda: source.read_range(100, 1000))
    wait_for(lambda: cache.stats().waits == 7)
    gate.opened.set()
    for thread in threads:
        thread.join(10)
    assert results == [BODY[100:1100]] * 8
    assert ranges(store) == [BLOCK]


def test_a_failed_get_wakes_all_who_wait_with_the_error(make_cache, store):
    cache = make_cache()
    source, gate = opened(cache, store), Gate(store)
    store.add(Fault("unavailable", "range"))
    threads, results = start(5, lambda: source.read_range(100, 1000))
    wait_for(lambda: cache.stats().waits == 4)
    gate.opened.set()
    for thread in threads:
        thread.join(10)
    assert [type(result) for result in results] == [UnavailableError] * 5
    assert len({id(result) for result in results}) == 5
    assert source.read_range(100, 1000) == BODY[100:1100]


def test_who_waits_for_somebody_in_a_hurry_asks_again(make_cache, store):
    cache = make_cache()
    source, gate = opened(cache, store), Gate(store)
    store.add(Fault("unavailable", "range"))

    def hurried():
        with patience(0.0):
            return source.read_range(100, 1000)

    first, failed = start(1, hurried)
    assert gate.arrived.acquire(timeout=10)
    others, results = start(2, lambda: source.read_range(100, 1000))
    wait_for(lambda: cache.stats().waits == 2)
    gate.opened.set()
    for thread in (*first, *others):
        thread.join(10)
    assert [type(result) for result in failed] == [UnavailableError]
    assert results == [BODY[100:1100]] * 2


def test_of_several_gaps_a_failed_one_leaves_nobody_waiting(make_cache, store):
    source = opened(make_cache(), store)
    source.read_range(2 * BLOCK, 10)
    store.add(Fault("unavailable", "range"))
    with pytest.raises(UnavailableError):
        source.read_range(0, 5 * BLOCK)
    assert source.read_range(3 * BLOCK, BLOCK) == BODY[3 * BLOCK : 4 * BLOCK]
    assert source.read_range(0, 5 * BLOCK) == BODY[: 5 * BLOCK]


def test_an_absent_object_is_told_as_absent(make_cache, store):
    source = make_cache().open_object(store, "gone", 1000)
    with pytest.raises(ObjectNotFoundError):
        source.read_range(0, 10)


def test_a_short_answer_is_never_cached(make_cache, store):
    source = opened(make_cache(disk_blocks=10), store)
    store.add(Fault("truncate", "range", times=2))
    with pytest.raises(UnavailableError, match="should have"):
        source.read_range(0, 10)
    with pytest.raises(UnavailableError, match="should have"):
        source.read_tail(10)
    assert source.read_range(0, 10) == BODY[:10]


# --------------------------------------------------------------------------------- read-ahead


def test_a_sequential_reader_is_read_ahead_of(make_cache, store):
    cache = make_cache(read_ahead_blocks=16)
    source = opened(cache, store)
    for at in range(0, 5000, 1000):
        source.read_range(at, 1000)
    wait_for(lambda: cache.stats().memory_bytes == 17 * BLOCK)
    assert sorted(ranges(store)) == [BLOCK] + 4 * [4 * BLOCK]
    before = len(store.calls)
    for at in range(5000, 4 * BLOCK, 10_000):
        assert source.read_range(at, 10_000) == BODY[at : at + 10_000]
    assert len(store.calls) == before


def test_a_scan_takes_few_large_gets(make_cache, store):
    cache = make_cache(read_ahead_blocks=16)
    source = opened(cache, store)
    for at in range(0, len(BODY), 4000):
        assert source.read_range(at, 4000) == BODY[at : at + 4000]
    assert len(ranges(store)) <= 11
    assert sum(ranges(store)) <= len(BODY) + BLOCK


def test_fetches_ahead_of_one_reader_are_under_way_together(make_cache, store):
    """What a far bucket costs is latency: a reader must not wait for one after the other."""
    cache = make_cache(read_ahead_blocks=16)
    source = opened(cache, store)
    source.read_range(0, 1000)
    gate = Gate(store)
    for at in range(1000, 5000, 1000):
        source.read_range(at, 1000)
    for _ in range(4):
        assert gate.arrived.acquire(timeout=10)
    gate.opened.set()
    wait_for(lambda: cache.stats().memory_bytes == 17 * BLOCK)


def test_read_ahead_stops_at_the_end(make_cache, store):
    cache = make_cache(read_ahead_blocks=16)
    source = opened(cache, store)
    for at in range(len(BODY) - 3 * BLOCK, len(BODY), 4000):
        source.read_range(at, 4000)
    wait_for(lambda: not cache._ahead and not cache._flights)
    assert max(start for start in ranges(store)) <= 4 * BLOCK


def test_a_failed_read_ahead_is_nobodys_error(make_cache, store):
    cache = make_cache(read_ahead_blocks=16)
    source = opened(cache, store)
    store.add(Fault("unavailable", "range", skip=1))
    source.read_range(0, 1000)
    source.read_range(1000, 1000)
    wait_for(lambda: len(store.calls) == 2)
    assert source.read_range(2 * BLOCK, 1000) == BODY[2 * BLOCK :][:1000]


def test_who_waits_for_a_read_ahead_that_fails_reads_for_himself(make_cache, store):
    cache = make_cache(read_ahead_blocks=16)
    source = opened(cache, store)
    gate = Gate(store)
    store.add(Fault("unavailable", "range"))
    source.prefetch(0, 4 * BLOCK)
    assert gate.arrived.acquire(timeout=10)
    threads, results = start(3, lambda: source.read_range(BLOCK, 100))
    wait_for(lambda: cache.stats().waits == 3)
    gate.opened.set()
    for thread in threads:
        thread.join(10)
    assert results == [BODY[BLOCK : BLOCK + 100]] * 3


def test_prefetch_brings_what_will_be_read(make_cache, store):
    cache = make_cache()
    source = opened(cache, store)
    source.prefetch(0, 3 * BLOCK)
    wait_for(lambda: cache.stats().memory_bytes == 3 * BLOCK)
    source.read_range(0, 3 * BLOCK)
    assert ranges(store) == [3 * BLOCK]
    source.prefetch(10**9, 10)
    source.prefetch(0, 3 * BLOCK)


def test_prefetch_takes_no_more_than_half_of_the_cache(make_cache, store):
    cache = make_cache(memory_blocks=10)
    opened(cache, store).prefetch(0, len(BODY))
    wait_for(lambda: cache.stats().fetches == 1)
    assert ranges(store) == [5 * BLOCK]
    opened(make_cache(memory_blocks=0), store).prefetch(0, len(BODY))
    assert ranges(store) == [5 * BLOCK]


def test_footers_and_blocks_together_keep_to_the_bound(make_cache, store):
    cache = make_cache(memory_blocks=8)
    source = opened(cache, store)
    source.read_range(0, 4 * BLOCK)
    for block in range(4, 8):
        source.read_range(block * BLOCK, BLOCK)
    assert cache.stats().memory_bytes == 8 * BLOCK
    source.read_tail(1000)
    assert 7 * BLOCK < cache.stats().memory_bytes <= 8 * BLOCK
    for block in range(8):
        source.read_range(block * BLOCK, BLOCK)
    assert 7 * BLOCK < cache.stats().memory_bytes <= 8 * BLOCK


def test_no_thread_starts_before_somebody_reads_in_sequence(make_cache, store):
    def read_ahead_threads():
        return [t for t in threading.enumerate() if t.name.startswith("chronik-read-ahead")]

    others = len(read_ahead_threads())
    cache = make_cache(read_ahead_blocks=16)
    source = opened(cache, store)
    source.read_range(0, 10)
    source.read_range(20 * BLOCK, 10)
    assert len(read_ahead_threads()) == others
    source.read_range(20 * BLOCK + 10, 10)
    assert others < len(read_ahead_threads()) <= others + 4
    cache.close()
    assert len(read_ahead_threads()) == others


def test_close_is_idempotent_and_reads_still_work(make_cache, store):
    cache = make_cache(read_ahead_blocks=16)
    source = opened(cache, store)
    cache.close()
    cache.close()
    assert source.read_range(0, 1000) == BODY[:1000]
    source.prefetch(0, 1000)
