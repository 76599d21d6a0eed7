"""How long whoever asks has time: a moment past which a thread's requests are not tried again.

Place: below `retry` and `cache`; entered by whoever has a deadline of its own, such as a search,
and by `retry` itself. Promise: only the calling thread is meant, and one that it lends its context
(`copy_context`), for as long as the context lasts; an attempt that is under way is cut in a
`first_contact` only, and where the store can. Invariant: an inner context never gives more time
than the outer one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from chronik_store.clock import Clock

FIRST_CONTACT_SECONDS = 10.0
"""Long enough for names, credentials and a connection; a person who starts something waits it."""

_UNTIL: ContextVar[float | None] = ContextVar("patient_until", default=None)
_GIVEN_UP_AT: ContextVar[float | None] = ContextVar("given_up_at", default=None)


@contextmanager
def patience(until: float | None) -> Iterator[None]:
    """Within, no request is tried again later than `until`, on `clock.monotonic`; None: no limit
    but those that there are.
    """
    outer = _UNTIL.get()
    given = outer if until is None else until
    token = _UNTIL.set(given if outer is None or given is None else min(outer, given))
    try:
        yield
    finally:
        _UNTIL.reset(token)


@contextmanager
def first_contact(clock: Clock, asked_at: float) -> Iterator[None]:
    """Within, a request to a bucket that has not answered yet, and was first asked then, has what
    is left of FIRST_CONTACT_SECONDS, all its attempts together. A request that hangs has a time-out
    of its own, which is longer than anybody looks at a program that says nothing. Once they are
    over this limits nothing: a bucket that is slow from afar is waited for by whoever goes on.
    """
    until = asked_at + FIRST_CONTACT_SECONDS
    if clock.monotonic() >= until:
        yield
        return
    token = _GIVEN_UP_AT.set(until)
    try:
        with patience(until):
            yield
    finally:
        _GIVEN_UP_AT.reset(token)


def patient_until() -> float | None:
    """The moment that bounds the calling thread's requests, if one does."""
    return _UNTIL.get()


def cut(limit_seconds: float | None, clock: Clock) -> float | None:
    """How long the calling thread's next attempt may take: its own limit (None: it has none), or
    what is left of a `first_contact`.
    """
    until = _GIVEN_UP_AT.get()
    if until is None:
        return limit_seconds
    left = max(0.0, until - clock.monotonic())
    return left if limit_seconds is None else min(left, limit_seconds)
