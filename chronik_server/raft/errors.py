"""What consensus answers when it cannot do what was asked.

Place: the bottom of the room. Promise: `leader` names the node to ask instead, when it is known;
`durability` says whether the same proposal may be made again blindly. Invariant: an unknown outcome
is never reported as a failure, nor as a success.

    UnavailableError (retriable)
     +-- NotLeaderError        nothing was staged: ask `leader`
     +-- OutcomeUnknownError   it may be committed yet: retry idempotently, or look
"""

from __future__ import annotations

from chronik_store.errors import UnavailableError


class NotLeaderError(UnavailableError):
    """This node does not lead the group (any more). Nothing was staged."""

    def __init__(self, message: str, *, leader: str | None) -> None:
        super().__init__(message, durability="not_durable")
        self.leader = leader


class OutcomeUnknownError(UnavailableError):
    """Leadership ended before a quorum answered: the entries may be committed, or truncated."""

    def __init__(self, message: str, *, leader: str | None = None) -> None:
        super().__init__(message, durability="unknown")
        self.leader = leader
