"""The states of a connection, as one table.

Rule 1: everything that affects the state stands here. Rule 2: nothing here knows a role; who may
do what is the second table.

    NEW --greeting--> GREETED --welcome--> OPEN --request, response, told--> OPEN
                         |                                     any --hang_up--> CLOSED
                         +--refusal--> CLOSED                  any --fault----> FAILED

Place: in `protocol`, below `connection`. Invariant: a pair that is not in the table is a
ProtocolError: of the peer if it came in, of this side if it was to go out.
"""

from __future__ import annotations

from enum import IntEnum, auto
from typing import Final


class Side(IntEnum):
    """Which end of the connection this is: the one that connected, or the one that listened."""

    CLIENT = auto()
    SERVER = auto()


class State(IntEnum):
    """Where a connection is in its life."""

    NEW = auto()
    GREETED = auto()
    OPEN = auto()
    CLOSED = auto()
    FAILED = auto()


class Move(IntEnum):
    """What can happen to it."""

    GREETING = auto()
    WELCOME = auto()
    REFUSAL = auto()
    REQUEST = auto()
    RESPONSE = auto()
    TOLD = auto()
    HANG_UP = auto()
    FAULT = auto()


TRANSITIONS: Final[dict[tuple[State, Move], State]] = {
    (State.NEW, Move.GREETING): State.GREETED,
    (State.GREETED, Move.WELCOME): State.OPEN,
    (State.GREETED, Move.REFUSAL): State.CLOSED,
    (State.OPEN, Move.REQUEST): State.OPEN,
    (State.OPEN, Move.RESPONSE): State.OPEN,
    (State.OPEN, Move.TOLD): State.OPEN,
    **{(state, Move.HANG_UP): State.CLOSED for state in State if state is not State.FAILED},
    **{(state, Move.FAULT): State.FAILED for state in State},
    (State.FAILED, Move.HANG_UP): State.FAILED,
    # The last word of a server that hangs up on somebody who was never welcome.
    (State.NEW, Move.REFUSAL): State.CLOSED,
    (State.OPEN, Move.REFUSAL): State.CLOSED,
}

ALLOWED: Final[dict[Side, frozenset[Move]]] = {
    Side.CLIENT: frozenset((Move.GREETING, Move.REQUEST, Move.TOLD)),
    Side.SERVER: frozenset((Move.WELCOME, Move.REFUSAL, Move.RESPONSE, Move.TOLD)),
}
"""What each side may send."""


def moves_of(side: Side) -> dict[tuple[State, Move], State]:
    """The transitions that something sent by `side` may cause: one look for each frame."""
    return {pair: state for pair, state in TRANSITIONS.items() if pair[1] in ALLOWED[side]}
