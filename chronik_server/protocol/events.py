"""What happens on a connection: what `receive_data` returns and `send` takes.

Place: in `protocol`, below `connection`. Promise: frozen values; payloads are bytes as received.
Those that come with every request are tuples, which cost half of a frozen dataclass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from chronik_server.protocol.verbs import Verb
from chronik_store.errors import ChronikError
from chronik_store.format.checksum import Buffer

NO_REQUEST: Final = 0
"""The request id of what nobody answers, and of an error that concerns the whole connection."""


class Request(NamedTuple):
    """A question. `request_id` is the asker's: unique among those of this connection in flight.
    `header_bytes`: what came as `message`, which takes about as much; of no account when sent.
    """

    request_id: int
    verb: Verb
    message: Any
    payload: Buffer = b""
    header_bytes: int = 0


class Response(NamedTuple):
    """The answer to a request."""

    request_id: int
    message: Any
    payload: Buffer = b""


@dataclass(frozen=True, slots=True)
class Failure:
    """The answer to a request that was not granted; with NO_REQUEST: the last word of a server
    that hangs up.
    """

    request_id: int
    error: ChronikError


class Told(NamedTuple):
    """Said one way, not to be answered. `header_bytes`: as of a request."""

    verb: Verb
    message: Any
    payload: Buffer = b""
    header_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A request in a good frame that this side cannot read: answer with its error, go on."""

    request_id: int
    error: ChronikError


@dataclass(frozen=True, slots=True)
class Closed:
    """The other side has hung up. `cut`: in the middle of a frame."""

    cut: bool


Event = Request | Response | Failure | Told | Unreadable | Closed
