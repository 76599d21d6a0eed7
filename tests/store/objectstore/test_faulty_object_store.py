import pytest

from chronik_store.errors import AccessDeniedError, UnavailableError
from chronik_store.objectstore.base import PutOutcome
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.testing.faulty_object_store import Call, Fault, FaultyObjectStore
from chronik_store.testing.object_store_kit import ObjectStoreTests


class FakeClock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def time_us(self):
        return int(self.now * 1e6)

    def sleep(self, seconds):
        self.now += seconds


class Dice:
    """Entropy with a given sequence."""

    def __init__(self, *rolls):
        self.rolls = list(rolls)

    def uniform(self, low, high):
        return low + (high - low) * self.rolls.pop(0)


class TestFaultlessFaultyStore(ObjectStoreTests):
    @pytest.fixture
    def store(self):
        return FaultyObjectStore(MemoryObjectStore(), clock=FakeClock(), latency_seconds=0.01)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(clock):
    return FaultyObjectStore(MemoryObjectStore(), clock=clock)


@pytest.mark.parametrize(
    ("kind", "applied"),
    [("unavailable", False), ("timeout_before", False), ("timeout_after", True)],
)
def test_a_put_that_fails_is_unknown_whether_it_took_effect_or_not(store, kind, applied):
    store.add(Fault(kind, "put", seconds=3))
    with pytest.raises(UnavailableError) as caught:
        store.put_if_absent("k", b"v")
    assert caught.value.durability == "unknown"
    assert (store.inner.head("k") is not None) == applied


def test_faults_choose_by_operation_key_and_count(store):
    store.add(Fault("denied", "get", match="b", skip=1, times=2))
    for key in ("a", "b"):
        store.put_if_absent(key, b"v")
    store.get("a")
    store.get("b")
    for _ in range(2):
        with pytest.raises(AccessDeniedError):
            store.get("b")
    assert store.get("b") == b"v"


def test_an_outage_lasts_until_it_is_switched_off(store):
    store.outage = True
    for call in (lambda: store.get("k"), lambda: store.list(""), lambda: store.delete(["k"])):
        with pytest.raises(UnavailableError):
            call()
    store.outage = False
    assert store.put_if_absent("k", b"v") is PutOutcome.CREATED


def test_a_late_put_arrives_after_its_writer_gave_up_and_overwrites_nothing(store, clock):
    store.add(Fault("late", "put", seconds=10, times=2))
    for key in ("free", "taken"):
        with pytest.raises(UnavailableError):
            store.put_if_absent(key, b"late")
    assert store.head("free") is None
    store.put_if_absent("taken", b"in time")
    clock.sleep(11)
    assert store.get("free") == b"late"
    assert store.get("taken") == b"in time"


def test_answers_can_be_wrong(store):
    store.put_if_absent("k", bytes(100))
    store.add(Fault("flip", "get"), Fault("truncate", "range"))
    assert sum(byte != 0 for byte in store.get("k")) == 1
    assert len(store.get_range("k", 0, 50)) == 25
    assert store.get("k") == bytes(100)


def test_a_stale_listing_hides_what_is_young(store, clock):
    store.put_if_absent("old", b"")
    clock.sleep(10)
    store.put_if_absent("young", b"")
    store.add(Fault("stale", seconds=5))
    assert [info.key for info in store.list("")] == ["old"]
    assert [info.key for info in store.list("")] == ["old", "young"]


def test_a_partial_delete_deletes_the_first_half(store):
    for key in "abcde":
        store.put_if_absent(key, b"")
    store.add(Fault("partial"))
    with pytest.raises(UnavailableError):
        store.delete(list("abcde"))
    assert [info.key for info in store.list("")] == ["d", "e"]


def test_time_passes_only_by_the_clock(store, clock):
    store.add(Fault("slow", seconds=7))
    store.head("k")
    assert clock.now == 7


def test_rates_roll_the_given_dice(clock):
    store = FaultyObjectStore(MemoryObjectStore(), clock=clock, entropy=Dice(0.5, 0.05, 0.25))
    store.rates["unavailable"] = 0.1
    store.head("k")
    with pytest.raises(UnavailableError):
        store.head("k")
    assert clock.now == 0.5


def test_calls_are_kept_and_the_hook_stands_around_each_effect(store):
    seen = []
    store.hook = lambda call, phase: seen.append((call.operation, phase))
    store.put_if_absent("k", b"abc")
    store.get_range("k", 0, 2)
    assert store.calls == [Call("put", "k", 3), Call("range", "k", 2)]
    assert seen == [("put", "before"), ("put", "after"), ("range", "before"), ("range", "after")]


def test_clear_disarms(store):
    store.add(Fault("denied", times=None))
    store.outage = True
    store.rates["unavailable"] = 1.0
    store.clear()
    assert store.head("k") is None
