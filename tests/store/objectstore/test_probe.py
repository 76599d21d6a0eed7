import pytest

from chronik_store.clock import SystemClock, SystemEntropy
from chronik_store.errors import AccessDeniedError, UnavailableError, UnsafeBucketError
from chronik_store.objectstore.base import PutOutcome
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.objectstore.probe import prove_create_only
from chronik_store.testing.faulty_object_store import Fault, FaultyObjectStore
from chronik_store.threads import SystemThreads


def probe(store, **options):
    options = {"threads": SystemThreads(), **options}
    return prove_create_only(store, clock=SystemClock(), entropy=SystemEntropy(), **options)


def faulty(*faults):
    store = FaultyObjectStore(MemoryObjectStore(), clock=SystemClock())
    store.add(*faults)
    return store


class Ignoring(MemoryObjectStore):
    """A server that knows no If-None-Match: every put wins."""

    def put_if_absent(self, key, data):
        self.delete([key])
        return super().put_if_absent(key, data)


class OverwritingWhenEmpty(MemoryObjectStore):
    """What a client library does that sends empty bodies another way."""

    def put_if_absent(self, key, data):
        if not data:
            self.delete([key])
        return super().put_if_absent(key, data)


class RacyStore(MemoryObjectStore):
    """Check, then set: right one after the other, wrong together."""

    def put_if_absent(self, key, data):
        known = self.head(key) is not None
        SystemClock.sleep(0.02)
        if known:
            return PutOutcome.EXISTS
        super().put_if_absent(key, data)
        return PutOutcome.CREATED


def test_a_store_that_keeps_the_contract_passes_and_nothing_is_left():
    store = MemoryObjectStore()
    report = probe(store)
    assert report.safe
    assert report.problems == ()
    assert set(report.rights.values()) == {"ok"}
    assert {"put", "get", "range", "head", "list", "delete"} <= set(report.latency_seconds)
    assert abs(report.clock_offset_seconds) < 5
    report.raise_if_unsafe()
    assert store.list("") == []


@pytest.mark.parametrize("kind", [Ignoring, OverwritingWhenEmpty, RacyStore])
def test_a_store_that_lets_two_writers_in_is_refused_by_name(kind):
    store = kind()
    report = probe(store)
    assert not report.safe
    with pytest.raises(UnsafeBucketError, match="memory://private") as caught:
        report.raise_if_unsafe()
    assert "allow_unsafe_bucket" in str(caught.value)
    assert store.list("") == []


def test_the_race_names_how_many_won():
    assert any("8 won" in problem for problem in probe(RacyStore()).problems)


@pytest.mark.parametrize("put", range(12))
def test_a_lost_reply_does_not_condemn_a_good_store(put):
    """A repeated request may find its own object; only the bytes tell."""

    class Repeating(MemoryObjectStore):
        count = -1

        def put_if_absent(self, key, data):
            outcome = super().put_if_absent(key, data)
            self.count += 1
            return PutOutcome.EXISTS if self.count == put else outcome

    report = probe(Repeating())
    assert report.safe, report.problems


def test_one_rival_that_fails_is_raced_again():
    assert probe(faulty(Fault("timeout_after", "put", match="-race-0"))).safe


def test_a_race_that_cannot_be_judged_is_not_a_pass():
    report = probe(faulty(Fault("timeout_after", "put", match="-race", times=None)))
    assert not report.safe
    assert any("could not be judged" in problem for problem in report.problems)


def test_a_winner_whose_reply_is_lost_each_time_makes_no_bucket_unsafe():
    """The request is repeated below, and finds its own object: nobody was told that it won."""

    class Repeating(MemoryObjectStore):
        def put_if_absent(self, key, data):
            outcome = super().put_if_absent(key, data)
            return PutOutcome.EXISTS if "-race" in key else outcome

    report = probe(Repeating())
    assert (report.safe, report.unanswered) == (False, True)
    with pytest.raises(UnavailableError, match="no rival was told that it won"):
        report.raise_if_unsafe()


def test_a_bucket_that_refuses_every_rival_is_not_used():
    class Refusing(MemoryObjectStore):
        def put_if_absent(self, key, data):
            return PutOutcome.EXISTS if "-race" in key else super().put_if_absent(key, data)

    with pytest.raises(UnsafeBucketError, match="no rival was told that it won"):
        probe(Refusing()).raise_if_unsafe()


@pytest.mark.parametrize(
    ("fault", "verbs"), [("denied", ["put"]), ("timeout_before", ["put", "delete"])]
)
def test_what_was_certainly_not_put_is_not_removed(fault, verbs):
    """Each call on a bucket that is away takes as long as its retries do."""
    called = []

    class Watched(FaultyObjectStore):
        def put_if_absent(self, key, data):
            called.append("put")
            return super().put_if_absent(key, data)

        def delete(self, keys):
            called.append("delete")
            super().delete(keys)

    store = Watched(MemoryObjectStore(), clock=SystemClock())
    store.add(Fault(fault, times=None))
    with pytest.raises(UnavailableError):
        probe(store)
    assert called == verbs


@pytest.mark.parametrize("call", range(1, 14))
def test_a_bucket_that_goes_away_in_the_middle_is_not_called_unsafe(call):
    """Unknown is not unsafe: the advice to use another bucket would be wrong."""
    report = probe(faulty(Fault("unavailable", skip=call, times=None)))
    assert not report.safe or "head" in report.rights
    if not report.safe:
        assert report.unanswered
        assert not any("not refused" in problem for problem in report.problems)
        with pytest.raises(UnavailableError, match="did not answer"):
            report.raise_if_unsafe()


def test_a_breach_that_was_seen_counts_whatever_else_had_no_answer():
    store = FaultyObjectStore(Ignoring(), clock=SystemClock())
    store.add(Fault("unavailable", skip=3, times=None))
    with pytest.raises(UnsafeBucketError):
        probe(store).raise_if_unsafe()


def test_a_missing_right_is_reported_and_named():
    report = probe(faulty(Fault("denied", "delete", times=None)))
    assert report.safe
    assert "denied" in report.rights["delete"]
    report = probe(faulty(Fault("denied", "list", times=None)))
    assert "denied" in report.rights["list"]


def test_a_bucket_that_cannot_be_written_is_no_report():
    with pytest.raises(AccessDeniedError):
        probe(faulty(Fault("denied", "put", times=None)))
    with pytest.raises(UnavailableError):
        probe(faulty(Fault("unavailable", times=None)))


def test_a_clock_that_is_far_off_is_told():
    class Late(SystemClock):
        @staticmethod
        def time_us():
            return SystemClock.time_us() + 3_600_000_000

    report = prove_create_only(
        MemoryObjectStore(), threads=SystemThreads(), clock=Late(), entropy=SystemEntropy()
    )
    assert report.safe
    assert report.clock_offset_seconds == pytest.approx(-3600, abs=5)
    assert any("clock" in problem for problem in report.problems)


class FewThreads(SystemThreads):
    """A machine that has `count` threads left, and forgets none that it started."""

    def __init__(self, count):
        self.left = count
        self.started = []

    def spawn(self, target, *, name):
        if not self.left:
            raise RuntimeError("can't start new thread")
        self.left -= 1
        self.started.append(super().spawn(target, name=name))
        return self.started[-1]


@pytest.mark.parametrize(("count", "is_race"), [(0, False), (1, False), (2, True), (7, True)])
def test_a_race_is_run_by_the_threads_that_there_are_and_none_is_left_behind(count, is_race):
    """Those that were started before waited for the start for ever, more of them with each try."""
    threads = FewThreads(count)
    report = probe(MemoryObjectStore(), threads=threads)
    for thread in threads.started:
        thread.join(20)
        assert not thread.is_alive()
    assert is_race == report.create_only
    if not is_race:
        with pytest.raises(UnavailableError, match="no threads"):
            report.raise_if_unsafe()
