"""The one retry policy for object stores.

Place: wraps any `base.ObjectStore`; below it nothing retries (botocore and s3fs are told not
to, since stacked retries multiply: 25 requests and 37 s for one put were measured). Promise: a
retriable failure is tried again with exponential back-off and jitter until a total deadline, or
that of whoever asks (`patience`), and the last error is raised then; a bucket that has never
answered is known as one that does not within `FIRST_CONTACT_SECONDS`. Invariant: the outcome of a
create is never guessed: once an attempt may have had its effect, a later EXISTS is returned as such
(the caller compares, see `verified`), and an error says "unknown" even if the last attempt alone
was certainly not done.

Not tenacity or stamina: both read the clock themselves, and here time is injected.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

from chronik_store.clock import Clock, Entropy
from chronik_store.errors import UnavailableError
from chronik_store.objectstore.base import Buffer, ObjectInfo, ObjectStore, PutOutcome
from chronik_store.objectstore.patience import first_contact, patient_until

_log = logging.getLogger("chronik_store.objectstore")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long to insist. An attempt that is under way is not cut at the deadline."""

    deadline_seconds: float = 20.0
    """No new attempt starts later than this after the first one started, the second excepted: a
    request that hung until its own time-out, which may be longer than this, is tried once more."""
    first_wait_seconds: float = 0.1
    wait_seconds_max: float = 5.0
    notice_seconds: float = 2.0
    """An outage that lasts longer is logged, once, and its end too."""


class RetryingObjectStore:
    """An object store that insists. Thread-safe if the inner one is."""

    def __init__(
        self,
        inner: ObjectStore,
        *,
        clock: Clock,
        entropy: Entropy,
        policy: RetryPolicy | None = None,
    ) -> None:
        self.inner = inner
        self._clock = clock
        self._entropy = entropy
        self._policy = RetryPolicy() if policy is None else policy
        self._is_away = False
        self._has_answered = False
        self._asked_at: float | None = None
        """When the first request of all began."""

    @property
    def url(self) -> str:
        return self.inner.url

    def put_if_absent(self, key: str, data: Buffer) -> PutOutcome:
        return self._insist("put", key, lambda: self.inner.put_if_absent(key, data))

    def get(self, key: str) -> bytes:
        return self._insist("get", key, lambda: self.inner.get(key))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._insist("get", key, lambda: self.inner.get_range(key, start, length))

    def head(self, key: str) -> ObjectInfo | None:
        return self._insist("head", key, lambda: self.inner.head(key))

    def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> list[ObjectInfo]:
        return self._insist(
            "list", prefix, lambda: self.inner.list(prefix, start_after=start_after, limit=limit)
        )

    def delete(self, keys: Sequence[str]) -> None:
        self._insist("delete", keys[0] if keys else "", lambda: self.inner.delete(keys))

    def close(self) -> None:
        self.inner.close()

    def _insist(self, verb: str, key: str, attempt: Callable[[], _Result]) -> _Result:
        if self._asked_at is None:
            self._asked_at = self._clock.monotonic()
        is_known = self._has_answered
        with nullcontext() if is_known else first_contact(self._clock, self._asked_at):
            return self._try(verb, key, attempt)

    def _try(self, verb: str, key: str, attempt: Callable[[], _Result]) -> _Result:
        policy = self._policy
        started = self._clock.monotonic()
        attempts = 0
        wait_seconds = policy.first_wait_seconds
        may_be_done = False
        while True:
            attempts += 1
            try:
                done = attempt()
            except UnavailableError as error:
                may_be_done = may_be_done or error.durability == "unknown"
                # Half fixed, half random: rivals spread, and no wait is nearly zero.
                pause = self._entropy.uniform(wait_seconds / 2, wait_seconds)
                now = self._clock.monotonic()
                elapsed = now - started
                if error.retriable:
                    self._note_failure(error, elapsed)
                else:
                    self._note_answer()
                is_late = attempts > 1 and elapsed + pause > policy.deadline_seconds
                until = patient_until()
                is_late = is_late or (until is not None and now + pause > until)
                if is_late or not error.retriable:
                    if may_be_done and error.durability == "not_durable":
                        error.durability = "unknown"
                    raise
                _log.debug("%s %r: %s; again in %.2f s", verb, key, error, pause)
            else:
                self._note_answer()
                return done
            self._clock.sleep(pause)
            wait_seconds = min(wait_seconds * 2, policy.wait_seconds_max)

    def _note_failure(self, error: UnavailableError, elapsed_seconds: float) -> None:
        """Say when an outage has begun, once."""
        if not self._is_away and elapsed_seconds >= self._policy.notice_seconds:
            self._is_away = True
            _log.warning("%s; so it has been for %.0f s", error, elapsed_seconds)

    def _note_answer(self) -> None:
        """It is there; say that an outage has ended."""
        self._has_answered = True
        if self._is_away:
            self._is_away = False
            _log.warning("%s answers again", self.url)
