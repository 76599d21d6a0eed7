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
from chronik_store.objectstore.base import Buffer, ObjectInfo, ObjectStore, PutOutcome

if TYPE_CHECKING:
    from chronik_server.testing.node import Node

T = TypeVar("T")
LATE_SECONDS_MAX = 0.3


class NodeBucket:
    """An `ObjectStore` for the work that `blocking` runs on `node`."""

    def __init__(self, node: Node, blocking: Blocking, store: ObjectStore) -> None:
        self._node = node
        self._blocking = blocking
        self._store = store

    @property
    def url(self) -> str:
        return self._store.url

    def put_if_absent(self, key: str, data: Buffer) -> PutOutcome:
        body = bytes(data)

        def put() -> PutOutcome:
            self._node.world.witness.before_put(self._node, key)
            outcome = self._store.put_if_absent(key, body)
            self._node.world.witness.after_put(key)
            return outcome

        return self._call("put", key, put, changes=True)

    def get(self, key: str) -> bytes:
        return self._call("get", key, lambda: self._store.get(key))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._call("get", key, lambda: self._store.get_range(key, start, length))

    def head(self, key: str) -> ObjectInfo | None:
        return self._call("head", key, lambda: self._store.head(key))

    def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> list[ObjectInfo]:
        return self._call(
            "list", prefix, lambda: self._store.list(prefix, start_after=start_after, limit=limit)
        )

    def delete(self, keys: Sequence[str]) -> None:
        wanted = list(keys)

        def delete() -> None:
            self._node.world.witness.before_delete(wanted)
            self._store.delete(wanted)

        self._call("delete", " ".join(wanted), delete, changes=True)

    def close(self) -> None:
        """Nothing of the bucket's is this node's to release."""

    def _call(self, what: str, key: str, effect: Callable[[], T], *, changes: bool = False) -> T:
        world = self._node.world
        net, rng = world.network, world.rng
        self._blocking.sleep(rng.choice(net.bucket_delays))
        world.events["bucket calls"] += 1
        if self._node.name in net.bucket_cut or rng.random() < net.bucket_loss:
            world.events["bucket calls lost"] += 1
            if changes and rng.random() < net.late:
                world.events["bucket calls late"] += 1
                world.loop.call_later(rng.uniform(0.0, LATE_SECONDS_MAX), effect)
            raise UnavailableError(f"{what} {key}: no answer", durability="unknown")
        world.note(self._node.name, f"bucket: {what} {key}")
        result = effect()
        self._blocking.sleep(rng.choice(net.bucket_delays))
        if changes and rng.random() < net.bucket_loss:
            world.events["bucket replies lost"] += 1
            raise UnavailableError(f"{what} {key}: the reply was lost", durability="unknown")
        return result
