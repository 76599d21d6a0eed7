"""The errors of server and client, and every error's code on the wire: one table, both ways.

Place: the lowest room of the server, above `chronik_store.errors`. Promise: each typed error
crosses the wire without loss (class, message, attributes, durability); one that this side does
not know arrives as RemoteError with the retriable flag and durability that the sender gave it; an
untyped error is never sent as it is, and never as success. Invariant: codes are never reused.

    ChronikError                       (chronik_store.errors)
     +-- NotLeaderError                retriable    .node_id .address .group
     +-- UnknownOutcomeError           durability unknown
     +-- UnauthenticatedError
     |    +-- CertificateError         the other side's certificate is not believed here
     +-- ProtocolError
     |    +-- LocalProtocolError       this side misused the connection: a defect here
     +-- ConnectionLostError           (UnavailableError) retriable
     +-- InternalError                 a defect at the server; durability unknown
     +-- RemoteError                   a code that this side does not know   .code
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from chronik_store import errors as store
from chronik_store.errors import (
    ChronikError,
    CorruptionError,
    Durability,
    LogClosedError,
    LogPoisonedError,
    TopicNotFoundError,
    UnavailableError,
)
from chronik_store.format.shape import (
    BOOLEAN,
    INT64,
    UINT64,
    Fixed,
    Integer,
    Optional,
    Shape,
    ShapeError,
    Text,
)


class NotLeaderError(ChronikError):
    """Another node leads this partition: `node_id` at `address`, or nobody yet (None)."""

    retriable = True

    def __init__(
        self, message: str, *, node_id: str | None = None, address: str | None = None
    ) -> None:
        super().__init__(message, durability="not_durable")
        self.node_id = node_id
        self.address = address


def made_anew(topic: str) -> TopicNotFoundError:
    """The topic that was asked for by its id is not there, and one of its name is."""
    return TopicNotFoundError(
        f"topic {topic!r} was deleted, and another one was made under its name since: its offsets "
        "are not those of the old one; begin anew",
        topic=topic,
    )


class UnknownOutcomeError(ChronikError):
    """Whether the records are stored is not known: read the end, or retry as the same producer."""

    def __init__(self, message: str) -> None:
        super().__init__(message, durability="unknown")


class UnauthenticatedError(ChronikError):
    """The peer has not proved who it is: pass the token or the client certificate it asks for."""


class CertificateError(UnauthenticatedError):
    """The other side's certificate is not believed here: nothing was asked, nothing was sent."""


class ProtocolError(ChronikError):
    """Bytes or messages that the protocol does not allow; the connection cannot be used on."""


class LocalProtocolError(ProtocolError):
    """This side used its connection object against the table of states: a defect of the caller."""


class ConnectionLostError(UnavailableError):
    """The connection failed or went silent before the answer came."""


class InternalError(ChronikError):
    """The server met a defect of its own; its log has the traceback."""

    def __init__(self, message: str, *, durability: Durability | None = "unknown") -> None:
        super().__init__(message, durability=durability)


class RemoteError(ChronikError):
    """An error that a newer peer knows and this side does not. `retriable` is what it said."""

    def __init__(
        self,
        message: str,
        *,
        code: int,
        retriable: bool = False,
        durability: Durability | None = None,
    ) -> None:
        super().__init__(message, durability=durability)
        self.code = code
        self.retriable = retriable  # type: ignore[misc]  # of this one, not of the class


_TEXT: Final = Text(4096)
_NAME: Final = Text(255)


class Row(NamedTuple):
    """One error on the wire: its code, its class, and its constructor's keyword arguments."""

    code: int
    kind: type[ChronikError]
    attributes: Mapping[str, Shape[Any]] = {}


TABLE: Final[tuple[Row, ...]] = (
    Row(1, ChronikError),
    Row(
        2,
        store.OffsetOutOfRangeError,
        {"offset": INT64, "first_offset": INT64, "end_offset": INT64},
    ),
    Row(3, store.TopicNotFoundError, {"topic": _NAME}),
    Row(4, store.TopicExistsError, {"topic": _NAME}),
    Row(5, store.OffsetConflictError, {"expected_offset": INT64, "end_offset": INT64}),
    Row(
        6,
        store.ProducerSequenceError,
        {"producer_id": UINT64, "expected_sequence": Optional(INT64), "sequence": INT64},
    ),
    Row(7, store.RecordTooLargeError, {"size_bytes": INT64, "limit_bytes": INT64}),
    Row(8, store.QueryError),
    Row(9, store.ConfigError),
    Row(10, store.BackpressureError),
    Row(11, store.DiskFullError),
    Row(12, store.UnavailableError),
    Row(13, store.AccessDeniedError),
    Row(
        14,
        store.CorruptionError,
        {
            "path": _TEXT,
            "offset_range": Optional(Fixed(INT64, INT64)),
            "advice": Optional(_TEXT),
        },
    ),
    Row(15, store.FutureVersionError, {"path": _TEXT, "found": INT64, "supported": INT64}),
    Row(16, store.IdentityMismatchError),
    Row(17, store.DirectoryLockedError, {"pid": Optional(INT64), "host": Optional(_NAME)}),
    Row(18, store.FencedError),
    Row(19, store.LogPoisonedError),
    Row(20, store.LogClosedError),
    Row(21, store.ReadOnlyError),
    Row(22, store.NotReplicatedError),
    Row(23, store.ForkedError),
    Row(24, store.UnsafeBucketError),
    Row(40, NotLeaderError, {"node_id": Optional(_NAME), "address": Optional(_NAME)}),
    Row(41, UnknownOutcomeError),
    Row(42, UnauthenticatedError),
    Row(43, ProtocolError),
    Row(44, ConnectionLostError),
    Row(45, InternalError),
)
"""Every error that may cross the wire. A subclass that is not here goes as its nearest parent."""

_BY_CODE: Final = {row.code: row for row in TABLE}
_BY_KIND: Final = {row.kind: row for row in TABLE}
_CODE: Final = Integer(1, (1 << 16) - 1)
_DURABILITY: Final = Optional(Text(16, choices=("durable", "not_durable", "unknown")))
_MESSAGE_BYTES_MAX: Final = 4096


def code_of(error: ChronikError) -> int:
    """The wire code of an error: its class's own, or its nearest parent's."""
    if isinstance(error, RemoteError):
        return error.code
    return next(_BY_KIND[kind].code for kind in type(error).__mro__ if kind in _BY_KIND)


def to_wire(error: ChronikError) -> dict[str, Any]:
    """The CBOR map of an error frame: code, message, retriable, and what the class carries."""
    code = code_of(error)
    found: dict[str, Any] = {
        "code": code,
        "message": _clipped(error.finding if isinstance(error, CorruptionError) else str(error)),
        "retriable": bool(error.retriable),
    }
    if error.durability is not None:
        found["durability"] = error.durability
    row = _BY_CODE.get(code)
    for name, shape in (row.attributes if row else {}).items():
        value = getattr(error, name)
        if value is not None:
            found[name] = shape.pack(_clipped(value) if isinstance(value, str) else value)
    return found


def from_wire(item: Any) -> ChronikError:
    """The error that a decoded map describes; CorruptionError when it describes none."""
    try:
        if type(item) is not dict:
            raise ShapeError("not a map")
        code = _CODE.unpack(item.get("code"), "code")
        message = Text(4 * _MESSAGE_BYTES_MAX).unpack(item.get("message"), "message")
        retriable = BOOLEAN.unpack(item.get("retriable"), "retriable")
        durability = _DURABILITY.unpack(item.get("durability"), "durability")
        row = _BY_CODE.get(code)
        if row is None:
            return RemoteError(message, code=code, retriable=retriable, durability=durability)  # type: ignore[arg-type]
        values = {
            name: shape.unpack(item.get(name), name) for name, shape in row.attributes.items()
        }
    except ShapeError as error:
        raise CorruptionError(f"an error frame: {error}") from error
    found = row.kind(message, **values)
    found.durability = durability  # type: ignore[assignment]
    return found


def hide(error: BaseException) -> ChronikError:
    """What may be told of an error: a typed one as it is, anything else as InternalError. A log
    that was closed under a request is this server's own doing: whoever asks again is told why. One
    that has failed ends this server, which can be asked again when it has been started again.
    """
    if isinstance(error, LogPoisonedError):
        said = (
            f"a log of this server has failed ({error.cause}): it ends, and is to be started again"
        )
        if error.durability == "unknown":
            return UnknownOutcomeError(f"{said}; what became of this is known then")
        return UnavailableError(f"{said}; then ask again", durability=error.durability)
    if isinstance(error, LogClosedError):
        return UnavailableError(
            "the partition was closed here meanwhile: it has moved, its topic was deleted, or this "
            "node ends; ask again",
            durability=error.durability,
        )
    if isinstance(error, ChronikError):
        return error
    return InternalError(f"the server failed ({type(error).__name__}); its log has the details")


def _clipped(text: str) -> str:
    raw = text.encode("utf-8", "replace")
    if len(raw) <= _MESSAGE_BYTES_MAX:
        return raw.decode()
    return raw[: _MESSAGE_BYTES_MAX - 3].decode("utf-8", "ignore") + "..."
