"""Does this bucket keep the one promise that the log stands on?

Place: above `base`; run before the first upload to a prefix, and by `chronik doctor URL`.
Promise: on throw-away keys it is tried whether a second create is refused, whether of several
rivals exactly one wins, and whether the calls that the log makes are allowed; what was seen is a
report, not an exception. Invariant: only keys below `probe/` are touched, each random, and they
are removed at the end as far as the rights go.

A store that ignores the condition (some S3 look-alikes do: all 20 rivals "win") would let two
owners write one log, so a bucket that fails is refused by name. The race can show that a store is
unsafe; that none was seen is no proof that it is safe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from chronik_store.clock import Clock, Entropy
from chronik_store.errors import ChronikError, UnavailableError, UnsafeBucketError
from chronik_store.objectstore.base import ObjectStore, PutOutcome
from chronik_store.objectstore.layout import PROBE_PREFIX, probe_key
from chronik_store.objectstore.patience import first_contact
from chronik_store.threads import ThreadHandle, Threads

_Result = TypeVar("_Result")
RACERS = 8
RACES_MAX = 3
LARGE_BODY_BYTES = 2 << 20
"""Large enough to be sent in pieces, so that a server or proxy that cannot take it shows here."""
CLOCK_OFFSET_SECONDS_MAX = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """What the probe saw."""

    url: str
    create_only: bool
    """No breach of create-only was seen, and it could be tried."""
    unanswered: bool
    """No breach was seen, but the bucket did not answer all that the verdict rests on."""
    problems: tuple[str, ...]
    """Every finding that speaks against using the bucket, in words."""
    rights: dict[str, str]
    """put, get, range, head, list, delete: "ok" or what the store answered."""
    latency_seconds: dict[str, float]
    """The same calls, as measured once each; "put 2 MiB" besides."""
    clock_offset_seconds: float | None
    """The store's clock minus ours, within a second or so; None where it does not tell."""

    @property
    def safe(self) -> bool:
        """True if the log may use this bucket."""
        return self.create_only

    def raise_if_unsafe(self) -> None:
        """UnsafeBucketError that names the bucket, what was seen, and what to do.

        UnavailableError when nothing was seen, because the bucket did not answer: try again.
        """
        if self.unanswered:
            raise UnavailableError(
                f"{self.url} did not answer while it was tried whether a log is safe there: "
                f"{'; '.join(self.problems)}. It is tried again before the next upload"
            )
        if not self.create_only:
            raise UnsafeBucketError(
                f"{self.url} cannot hold a log safely: {'; '.join(self.problems)}. Use a bucket "
                "that honours create-only puts (If-None-Match: *), such as AWS S3 or Ceph RGW; "
                "allow_unsafe_bucket=True overrules, and then nothing stops two writers"
            )


@dataclass(slots=True)
class _Probe:
    """The state of one run."""

    store: ObjectStore
    clock: Clock
    keys: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rights: dict[str, str] = field(default_factory=dict)
    latency_seconds: dict[str, float] = field(default_factory=dict)
    breached: bool = False
    """Something was seen that must not be."""
    silent: bool = False
    """Some call had no answer."""

    def measure(self, name: str, call: Callable[[], _Result]) -> _Result | None:
        """The call's result, timed; a failure is noted and None returned."""
        begin = self.clock.monotonic()
        try:
            result = call()
        except UnavailableError as error:
            self.rights[name] = str(error)
            self.problems.append(f"{name} failed: {error}")
            self.silent |= error.retriable
            return None
        self.latency_seconds[name] = self.clock.monotonic() - begin
        self.rights[name] = "ok"
        return result

    def expect(self, holds: bool, finding: str) -> bool:
        """`holds`; notes the finding if it does not."""
        if not holds:
            self.problems.append(finding)
        return holds

    def require(self, holds: bool, finding: str) -> bool:
        """The same for what the log stands on."""
        self.breached |= not holds
        return self.expect(holds, finding)


def prove_create_only(
    store: ObjectStore,
    *,
    threads: Threads,
    clock: Clock,
    entropy: Entropy,
    racers: int = RACERS,
) -> ProbeReport:
    """Try the bucket on throw-away keys. Takes about a dozen requests.

    Raises:
        AccessDeniedError, UnavailableError: nothing could be tried at all: the first put failed.
    """
    probe = _Probe(store, clock)
    token = entropy.token_bytes(8).hex()
    first = probe_key(f"{token}-first")
    probe.keys.append(first)
    try:
        # Outside `measure`: if even this fails, there is nothing to report on.
        begin = clock.monotonic()
        try:
            store.put_if_absent(first, b"first")
        except UnavailableError as error:
            if error.durability != "not_durable":
                with first_contact(clock, clock.monotonic()):  # whoever waits has waited already
                    _remove(probe)
            probe.keys.clear()
            raise
        now_us = clock.time_us()
        probe.latency_seconds["put"] = clock.monotonic() - begin
        probe.rights["put"] = "ok"
        create_only = _try_second_put(probe, first)
        _try_large_body(probe, f"{token}-large", entropy)
        create_only &= _try_race(probe, f"{token}-race", threads, racers)
        offset_seconds = _try_reads(probe, first, now_us)
    finally:
        _remove(probe)
    return ProbeReport(
        url=store.url,
        create_only=create_only,
        unanswered=not create_only and probe.silent and not probe.breached,
        problems=tuple(probe.problems),
        rights=probe.rights,
        latency_seconds=probe.latency_seconds,
        clock_offset_seconds=offset_seconds,
    )


def _try_second_put(probe: _Probe, key: str) -> bool:
    store = probe.store
    # The empty body too: one client library sends it by another way, which overwrites.
    outcomes = [
        probe.measure("put", partial(store.put_if_absent, key, body)) for body in (b"second", b"")
    ]
    probe.require(
        PutOutcome.CREATED not in outcomes, "a second put to the same key was not refused"
    )
    # This also proves the first put, whatever it was answered: a lost reply and a repeated
    # request may have made it find its own object.
    stored = probe.measure("get", lambda: store.get(key))
    probe.require(stored in {None, b"first"}, "a second put to the same key changed the object")
    return outcomes == [PutOutcome.EXISTS] * 2 and stored == b"first"


def _try_large_body(probe: _Probe, token: str, entropy: Entropy) -> None:
    key = probe_key(token)
    body = entropy.token_bytes(1024) * (LARGE_BODY_BYTES // 1024)
    probe.keys.append(key)
    probe.measure("put 2 MiB", lambda: probe.store.put_if_absent(key, body))
    tail = probe.measure("range", lambda: probe.store.get_range(key, -100, 100))
    probe.expect(tail in {None, body[-100:]}, "a ranged read gave other bytes than were put")


def _try_race(probe: _Probe, token: str, threads: Threads, racers: int) -> bool:
    """One race that counts. Where a reply was lost, the winner may not know it: race again."""
    reason = "no rival was told that it won"
    for attempt in range(RACES_MAX):
        key = probe_key(f"{token}-{attempt}")
        probe.keys.append(key)
        winners, failures = _race(probe.store, key, threads, racers)
        if len(winners) > 1:
            return probe.require(
                False, f"of {racers} rivals for one key {len(winners)} won, not one"
            )
        if len(winners) == 1 and not failures:
            stored = probe.measure("get", partial(probe.store.get, key))
            expected = b"%d" % winners[0]
            probe.require(
                stored in {None, expected}, "the object of a race is not that of its winner"
            )
            return stored == expected
        reason = str(failures[0]) if failures else reason
        probe.silent |= any(error.retriable for error in failures)
        if not (winners or failures):  # one was, and the answer was lost: what it put is there
            probe.silent |= probe.measure("head", partial(probe.store.head, key)) is not None
    return probe.expect(False, f"a race of {racers} rivals could not be judged: {reason}")


def _race(
    store: ObjectStore, key: str, threads: Threads, racers: int
) -> tuple[list[int], list[ChronikError]]:
    """The numbers of those who were told that they created `key`, and what else was answered."""
    winners: list[int] = []
    failures: list[ChronikError] = []
    start = threads.event()

    def run(number: int) -> None:
        start.wait()
        try:
            if store.put_if_absent(key, b"%d" % number) is PutOutcome.CREATED:
                winners.append(number)
        except ChronikError as error:
            failures.append(error)

    running: list[ThreadHandle] = []
    try:
        for number in range(racers):
            try:
                handle = threads.spawn(partial(run, number), name=f"chronik-probe-{number}")
            except RuntimeError as error:  # no more threads are to be had; two make a race
                if len(running) < 2:
                    failures.append(UnavailableError(f"no threads for a race: {error}"))
                break
            running.append(handle)
    finally:
        start.set()  # whatever happens: those that were started wait for it
        for handle in running:
            handle.join()
    return winners, failures


def _try_reads(probe: _Probe, key: str, put_us: int) -> float | None:
    """Head and list; the store's clock offset, if it tells when the object was made."""
    store = probe.store
    info = probe.measure("head", lambda: store.head(key))
    probe.expect("head" not in probe.latency_seconds or info is not None, "head shows no object")
    listed = probe.measure("list", lambda: store.list(PROBE_PREFIX, start_after=key[:-1]))
    probe.expect(
        listed is None or any(entry.key == key for entry in listed),
        "a listing does not show an object that was just created",
    )
    if info is None or info.modified_us is None:
        return None
    offset_seconds = (info.modified_us - put_us) / 1e6
    probe.expect(
        abs(offset_seconds) < CLOCK_OFFSET_SECONDS_MAX,
        f"the store's clock is {offset_seconds:+.0f} s from this machine's",
    )
    return offset_seconds


def _remove(probe: _Probe) -> None:
    """Take the throw-away objects away; noted, never raised: what was seen still counts."""
    if probe.keys:
        probe.measure("delete", lambda: probe.store.delete(probe.keys))
