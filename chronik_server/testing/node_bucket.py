"""The bucket as one node of a cluster reaches it: late, not at all, or without the reply.

Place: under `node`; the store below is the bucket itself, which all nodes share and which outlives
them. Promise: a call takes effect at one instant; one that fails may take effect later, also when
its node is dead or deposed by then. Invariant: the witness sees each effect before it happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from chronik_server.testing.blocking import Blocking
from chronik_store.errors import UnavailableError
from chronik_store.objectstore.base import ObjectStore
from chronik_store.testing.called_bucket import CalledBucket

if TYPE_CHECKING:
    from chronik_server.testing.node import Node

T = TypeVar("T")
LATE_SECONDS_MAX = 0.3
CHANGES = ("put_if_absent", "delete")


class NodeBucket(CalledBucket):
    """An `ObjectStore` for the work that `blocking` runs on `node`."""

    def __init__(self, node: Node, blocking: Blocking, store: ObjectStore) -> None:
        super().__init__(store)
        self._node = node
        self._blocking = blocking

    def _call(self, name: str, keys: Sequence[str], effect: Callable[[], T]) -> T:
        world, what, changes = self._node.world, f"{name} {' '.join(keys)}", name in CHANGES
        net, rng = world.network, world.rng
        self._blocking.sleep(rng.choice(net.bucket_delays))
        world.events["bucket calls"] += 1
        if self._node.name in net.bucket_cut or rng.random() < net.bucket_loss:
            world.events["bucket calls lost"] += 1
            if changes and rng.random() < net.late:
                world.events["bucket calls late"] += 1
                late = rng.uniform(0.0, LATE_SECONDS_MAX)
                world.loop.call_later(late, self._perform, name, keys, effect)
            raise UnavailableError(f"{what}: no answer", durability="unknown")
        world.note(self._node.name, f"bucket: {what}")
        result = self._perform(name, keys, effect)
        self._blocking.sleep(rng.choice(net.bucket_delays))
        if changes and rng.random() < net.bucket_loss:
            world.events["bucket replies lost"] += 1
            raise UnavailableError(f"{what}: the reply was lost", durability="unknown")
        return result

    def _perform(self, name: str, keys: Sequence[str], effect: Callable[[], T]) -> T:
        """Under the eyes of the witness."""
        witness = self._node.world.witness
        if name == "put_if_absent":
            witness.before_put(self._node, keys[0])
        elif name == "delete":
            witness.before_delete(keys)
        result = effect()
        if name == "put_if_absent":
            witness.after_put(keys[0])
        return result
