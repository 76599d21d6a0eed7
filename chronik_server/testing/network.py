"""What becomes of a message between two nodes, and of a call to the bucket.

Place: under `world`, which draws from it. Promise: plain values, which a test may change at any
time. Invariant: delays are in seconds of the virtual loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from chronik_server.raft.messages import Message


@dataclass
class Network:
    """loss, repeat, late: the chance of each, for one message. delays: one of these, always.

    disk_delays: what a group of frames takes to its disk. cut: (from, to), a partition.
    bucket_delays: a call's way to the bucket, or back; bucket_loss: the chance that it is lost, or
    the reply to a change; of changes that are lost, `late` take effect all the same, later.
    bucket_cut: nodes that do not reach it.
    drop(from, to, message): whether a test takes this one away.
    """

    loss: float = 0.0
    repeat: float = 0.0
    late: float = 0.0
    delays: tuple[float, ...] = (0.001,)
    disk_delays: tuple[float, ...] = (0.001,)
    cut: set[tuple[str, str]] = field(default_factory=set)
    bucket_delays: tuple[float, ...] = (0.001,)
    bucket_loss: float = 0.0
    bucket_cut: set[str] = field(default_factory=set)
    drop: Callable[[str, str, Message], bool] | None = None
