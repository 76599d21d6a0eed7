"""Every error that Chronik raises, in one tree.

Place: the lowest room; it imports nothing of the project. Promise: no third-party exception
leaves the library; the message says what happened and what to do; `retriable` says whether the
same call may be made again unchanged; errors of an append carry `durability`. Invariant: every
error pickles and copies without loss (keyword attributes included).

    ChronikError
     +-- OffsetOutOfRangeError (LookupError)   .offset .first_offset .end_offset
     +-- TopicNotFoundError (LookupError)      .topic
     +-- TopicExistsError                      .topic
     +-- OffsetConflictError                   .expected_offset .end_offset
     +-- ProducerSequenceError                 .producer_id .expected_sequence .sequence
     +-- RecordTooLargeError (ValueError)      .size_bytes .limit_bytes
     +-- QueryError (ValueError)
     +-- ConfigError (ValueError)
     +-- BackpressureError                     retriable
     +-- DiskFullError                         retriable
     +-- UnavailableError                      retriable
     |    +-- AccessDeniedError                not retriable until the rights change
     +-- CorruptionError                       .path .offset_range .advice
     +-- FutureVersionError                    .path .found .supported
     +-- IdentityMismatchError
     +-- DirectoryLockedError                  .pid .host
     +-- FencedError
     +-- LogPoisonedError                      .cause
     +-- LogClosedError
     +-- ReadOnlyError
     +-- NotReplicatedError
     +-- ForkedError
     +-- UnsafeBucketError
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal

Durability = Literal["durable", "not_durable", "unknown"]
"""What is known of an append that failed: on disk, certainly not, or not known."""


def _rebuild(cls: type[ChronikError], message: str, state: dict[str, Any]) -> ChronikError:
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class ChronikError(Exception):
    """Base of all errors of this project. `durability` is None except on errors of an append."""

    retriable: ClassVar[bool] = False

    def __init__(self, message: str, *, durability: Durability | None = None) -> None:
        super().__init__(message)
        self.durability: Durability | None = durability

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self.args[0]), dict(self.__dict__))


class OffsetOutOfRangeError(ChronikError, LookupError):
    """The offset is below the log's start or past its committed end.

    Read on from `first_offset`, or from `end_offset` to wait for new records.
    """

    def __init__(self, message: str, *, offset: int, first_offset: int, end_offset: int) -> None:
        super().__init__(message)
        self.offset = offset
        self.first_offset = first_offset
        self.end_offset = end_offset


class TopicNotFoundError(ChronikError, LookupError):
    """No such topic or partition here; create it first."""

    def __init__(self, message: str, *, topic: str) -> None:
        super().__init__(message)
        self.topic = topic


class TopicExistsError(ChronikError):
    """The topic exists already; pass `exist_ok=True` to accept that."""

    def __init__(self, message: str, *, topic: str) -> None:
        super().__init__(message)
        self.topic = topic


class OffsetConflictError(ChronikError):
    """`expected_offset` is not the log's end: somebody else has appended. Nothing was written."""

    def __init__(self, message: str, *, expected_offset: int, end_offset: int) -> None:
        super().__init__(message, durability="not_durable")
        self.expected_offset = expected_offset
        self.end_offset = end_offset


class ProducerSequenceError(ChronikError):
    """An idempotent producer sent a sequence that does not follow its last one."""

    def __init__(
        self, message: str, *, producer_id: int, expected_sequence: int | None, sequence: int
    ) -> None:
        super().__init__(message, durability="not_durable")
        self.producer_id = producer_id
        self.expected_sequence = expected_sequence
        self.sequence = sequence


class RecordTooLargeError(ChronikError, ValueError):
    """The record or batch is over its limit. Nothing was queued; split it or raise the limit."""

    def __init__(self, message: str, *, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(message, durability="not_durable")
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class QueryError(ChronikError, ValueError):
    """The query cannot be answered as written; the message shows how to write it."""


class ConfigError(ChronikError, ValueError):
    """A setting, name or URL is not usable; the message names it and the allowed values."""


class BackpressureError(ChronikError):
    """The queue of unsynced bytes is full. Nothing was queued; try again after a moment."""

    retriable = True

    def __init__(self, message: str) -> None:
        super().__init__(message, durability="not_durable")


class DiskFullError(ChronikError):
    """The disk is (nearly) full: appends are refused, reads go on. Free space, then retry."""

    retriable = True


class UnavailableError(ChronikError):
    """The disk or bucket did not answer, or not in time. The data is not known to be absent."""

    retriable = True


class AccessDeniedError(UnavailableError):
    """The bucket refused the credentials or the right to do this."""

    retriable = False


FROM_A_COPY: Final = "bring it back from a copy of the bucket"
"""What to do about an object whose bytes are not those that were put: there is no other."""


class CorruptionError(ChronikError):
    """Bytes are not what was written. The range is unavailable, never absent: restore or repair.

    advice: what to do about it, which the text ends with; None: the message says it.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str = "",
        offset_range: tuple[int, int] | None = None,
        advice: str | None = "`chronik verify` and `chronik repair` tell what can be done",
    ) -> None:
        super().__init__(message)
        self.path = path
        self.offset_range = offset_range
        self.advice = advice

    @property
    def finding(self) -> str:
        """What is wrong and where, without the advice: to be part of another error's message."""
        return _placed(self.path, str(self.args[0]))

    def __str__(self) -> str:
        """The finding, and what to do."""
        return f"{self.finding}; {self.advice}" if self.advice else self.finding


class FutureVersionError(ChronikError):
    """Written by a newer Chronik. Upgrade; nothing was changed."""

    def __init__(self, message: str, *, path: str = "", found: int = 0, supported: int = 0) -> None:
        super().__init__(message)
        self.path = path
        self.found = found
        self.supported = supported

    def __str__(self) -> str:
        """With the file or object, of which there are many."""
        return _placed(self.path, str(self.args[0]))


def _placed(path: str, text: str) -> str:
    return f"{path}: {text}" if path and path not in text else text


class IdentityMismatchError(ChronikError):
    """Directory and bucket belong to different stores; `chronik restore` is the way over."""


class DirectoryLockedError(ChronikError):
    """Another writer has the directory open. Close it, or open with `read_only=True`."""

    retriable = True

    def __init__(self, message: str, *, pid: int | None = None, host: str | None = None) -> None:
        super().__init__(message)
        self.pid = pid
        self.host = host


class FencedError(ChronikError):
    """A successor has taken over this log's bucket folder; tiering has stopped here for good."""


class LogPoisonedError(ChronikError):
    """A write or sync failed; nothing more is accepted until the log is reopened."""

    def __init__(
        self,
        message: str,
        *,
        cause: BaseException | None = None,
        durability: Durability | None = "unknown",
    ) -> None:
        super().__init__(message, durability=durability)
        self.cause = None if cause is None else repr(cause)


class LogClosedError(ChronikError):
    """The log is closed. Open it again."""


class ReadOnlyError(ChronikError):
    """The log was opened read-only, or its directory belongs to a cluster."""

    def __init__(self, message: str) -> None:
        super().__init__(message, durability="not_durable")


class NotReplicatedError(ChronikError):
    """The replica face was used on an embedded log, or `append` on a log that a cluster owns."""


class ForkedError(ChronikError):
    """The log was opened before `fork`; open it anew in the child."""


class UnsafeBucketError(ChronikError):
    """The bucket does not honour create-only puts, so two writers could not be told apart."""
