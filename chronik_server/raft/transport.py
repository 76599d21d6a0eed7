"""Who carries messages between nodes, as consensus sees it.

Place: a border of the room; the RPC room implements it, tests simulate it. Promise: messages may be
lost, repeated and reordered; consensus assumes nothing else, and is quick when they are not.
Invariant: the sender that a node is told is authenticated by the transport: no vote rests on what
a message says of itself, nor on an address (protocol 12).
"""

from __future__ import annotations

from typing import Protocol

from chronik_server.raft.messages import Message

NODE_TO_NODE = ""
"""The group id of messages that concern no group: beats."""


class Transport(Protocol):
    """Sends. Called on the event loop."""

    def send(self, peer: str, group_id: str, message: Message) -> None:
        """Hand over one message; never blocks, never raises, may drop. Buffers are bounded."""
        ...
