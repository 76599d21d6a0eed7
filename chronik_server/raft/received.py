"""A message and who sent it, in the shape that raftos's handlers read.

Place: between the term gate and the roles. Promise: our handlers use `.message`, raftos's read the
same fields by key. Invariant: `sender` is what the transport authenticated.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from chronik_server.raft.messages import Message

M_co = TypeVar("M_co", bound=Message, covariant=True)


class Received(Generic[M_co]):
    """One message on its way to a role."""

    __slots__ = ("message", "sender")

    def __init__(self, sender: str, message: M_co) -> None:
        self.sender = sender
        self.message = message

    def __getitem__(self, name: str) -> Any:
        if name == "type":
            return self.message.KIND
        if name == "sender":
            return self.sender
        return getattr(self.message, name)

    def get(self, name: str, default: Any = None) -> Any:
        """As of a dict."""
        return getattr(self.message, name, default)
