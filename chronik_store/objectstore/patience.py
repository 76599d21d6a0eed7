"""How long whoever asks has time: a moment past which a thread's requests are not tried again.

Place: below `retry` and `cache`; entered by whoever has a deadline of its own, such as a search.
Promise: only the calling thread is meant, and one that it lends its context (`copy_context`), for
as long as the context lasts; an attempt that is under way is not cut. Invariant: an inner context
never gives more time than the outer one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_UNTIL: ContextVar[float | None] = ContextVar("patient_until", default=None)


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


def patient_until() -> float | None:
    """The moment that bounds the calling thread's requests, if one does."""
    return _UNTIL.get()
