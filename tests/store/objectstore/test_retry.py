import pytest

from chronik_store.errors import AccessDeniedError, UnavailableError
from chronik_store.objectstore.base import ObjectNotFoundError, PutOutcome
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.objectstore.patience import FIRST_CONTACT_SECONDS, patience, patient_until
from chronik_store.objectstore.retry import RetryingObjectStore, RetryPolicy
from chronik_store.objectstore.verified import put_verified
from chronik_store.testing.faulty_object_store import Fault, FaultyObjectStore
from chronik_store.testing.object_store_kit import ObjectStoreTests


class FakeClock:
    def __init__(self):
        self.now = 0.0
        self.sleeps = []

    def monotonic(self):
        return self.now

    def time_us(self):
        return int(self.now * 1e6)

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.now += seconds


class LongestWait:
    def uniform(self, low, high):
        return high

    def token_bytes(self, count):
        return b"\0" * count


class TestRetryingObjectStore(ObjectStoreTests):
    @pytest.fixture
    def store(self):
        return RetryingObjectStore(MemoryObjectStore(), clock=FakeClock(), entropy=LongestWait())


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def faulty(clock):
    return FaultyObjectStore(MemoryObjectStore(), clock=clock)


@pytest.fixture
def store(faulty, clock):
    policy = RetryPolicy(deadline_seconds=10, first_wait_seconds=1, wait_seconds_max=4)
    return RetryingObjectStore(faulty, clock=clock, entropy=LongestWait(), policy=policy)


def test_waits_double_up_to_their_bound(store, faulty, clock):
    faulty.add(Fault("unavailable", times=3))
    assert store.put_if_absent("k", b"v") is PutOutcome.CREATED
    assert clock.sleeps == [1, 2, 4]


def test_no_attempt_starts_after_the_deadline(store, faulty, clock):
    faulty.add(Fault("unavailable", times=None))
    with pytest.raises(UnavailableError) as caught:
        store.get("k")
    assert clock.sleeps == [1, 2, 4]  # another 4 would end at 11
    assert len(faulty.calls) == 4
    assert caught.value.retriable


def test_who_has_less_time_is_told_sooner(store, faulty, clock):
    faulty.add(Fault("unavailable", times=None))
    with patience(4.0), pytest.raises(UnavailableError):
        store.get("k")
    assert clock.sleeps == [1, 2]  # another 4 would end at 7

    with patience(clock.now), pytest.raises(UnavailableError):
        store.get("k")
    assert clock.sleeps == [1, 2]
    assert len(faulty.calls) == 4


def test_an_inner_deadline_gives_no_more_time_and_ends_with_its_context():
    with patience(4.0):
        with patience(9.0):
            assert patient_until() == 4.0
        with patience(2.0):
            assert patient_until() == 2.0
        with patience(None):
            assert patient_until() == 4.0
        assert patient_until() == 4.0
    assert patient_until() is None


def test_slow_attempts_count_towards_the_deadline(store, faulty):
    faulty.add(Fault("timeout_before", times=None, seconds=4))
    with pytest.raises(UnavailableError):
        store.get("k")
    assert len(faulty.calls) == 2  # 4 s, pause 1 s, 4 s: at 9 s, a pause of 2 s is too long


@pytest.mark.parametrize(
    ("fault", "expected"), [("denied", AccessDeniedError), (None, ObjectNotFoundError)]
)
def test_what_would_not_help_is_not_retried(store, faulty, clock, fault, expected):
    if fault is not None:
        faulty.add(Fault(fault, times=None))
    with pytest.raises(expected):
        store.get("absent")
    assert clock.sleeps == []


def test_every_call_is_retried(store, faulty):
    store.put_if_absent("k", b"value")
    calls = [
        (lambda: store.get("k"), b"value"),
        (lambda: store.get_range("k", 1, 2), b"al"),
        (lambda: store.head("k").size_bytes, 5),
        (lambda: [info.key for info in store.list("")], ["k"]),
        (lambda: store.delete(["k"]), None),
    ]
    for call, expected in calls:
        faulty.add(Fault("unavailable"))
        assert call() == expected


def test_a_lost_reply_shows_as_exists_and_is_adopted(store, faulty):
    faulty.add(Fault("timeout_after", "put"))
    assert store.put_if_absent("a", b"mine") is PutOutcome.EXISTS
    faulty.add(Fault("timeout_after", "put"))
    assert put_verified(store, "b", b"mine") == "adopted"


def test_an_outcome_once_unknown_stays_unknown(store, faulty):
    faulty.add(Fault("timeout_after", "put"), Fault("denied", "put"))
    with pytest.raises(AccessDeniedError) as caught:
        store.put_if_absent("k", b"v")
    assert caught.value.durability == "unknown"


def test_a_refusal_alone_is_certainly_not_done(store, faulty):
    faulty.add(Fault("denied", "put"))
    with pytest.raises(AccessDeniedError) as caught:
        store.put_if_absent("k", b"v")
    assert caught.value.durability == "not_durable"


def test_a_partial_delete_is_finished(store, faulty):
    for number in range(5):
        store.put_if_absent(f"{number}", b"")
    faulty.add(Fault("partial"))
    store.delete([f"{number}" for number in range(5)])
    assert store.list("") == []


def test_one_request_that_hangs_beyond_the_deadline_is_tried_once_more(store, faulty):
    """A connection that died in silence must not cost a read that any other would answer."""
    store.put_if_absent("k", b"v")
    faulty.add(Fault("timeout_before", times=1, seconds=30))
    assert b"v" == store.get("k")

    faulty.add(Fault("timeout_before", times=None, seconds=30))
    before = len(faulty.calls)
    with pytest.raises(UnavailableError):
        store.get("k")
    assert 2 == len(faulty.calls) - before


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(store, faulty, clock, caplog):
    """Whoever waits learns why; not in every request, and not for a hiccup."""
    faulty.add(Fault("unavailable", times=1))
    store.put_if_absent("k", b"v")
    assert [] == caplog.messages

    faulty.add(Fault("unavailable", times=8))
    for _ in range(2):
        with pytest.raises(UnavailableError):
            store.get("k")
    assert b"v" == store.get("k")

    begun, ended = caplog.messages
    assert "unavailable; so it has been for 3 s" in begun
    assert ended == f"{store.url} answers again"


def test_an_answer_that_is_an_error_ends_an_outage(store, faulty, caplog):
    faulty.add(Fault("unavailable", times=4))
    with pytest.raises(UnavailableError):
        store.get("missing")
    with pytest.raises(ObjectNotFoundError):
        store.get("missing")
    assert caplog.messages[1:] == [f"{store.url} answers again"]


@pytest.mark.parametrize("has_answered", [True, False])
def test_a_bucket_that_has_never_answered_is_given_up_soon(faulty, clock, has_answered):
    policy = RetryPolicy(deadline_seconds=60, first_wait_seconds=1, wait_seconds_max=4)
    store = RetryingObjectStore(faulty, clock=clock, entropy=LongestWait(), policy=policy)
    if has_answered:
        assert store.head("k") is None
    faulty.outage = True
    for limit in (60 if has_answered else FIRST_CONTACT_SECONDS, 60, 60):
        began = clock.now
        with pytest.raises(UnavailableError):
            store.get("k")
        took = clock.now - began
        assert limit - policy.wait_seconds_max < took <= limit
        clock.now = max(clock.now, FIRST_CONTACT_SECONDS)
