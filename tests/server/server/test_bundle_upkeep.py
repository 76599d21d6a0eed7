"""One request about search bundles works at a time on a node, and whoever asked may go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chronik_server import bundle_upkeep
from chronik_server.bundle_upkeep import LOOK_SECONDS, BundleUpkeep
from chronik_store.errors import UnavailableError
from chronik_store.model import BundlesFound, BundlesRebuilt
from tests.server.serving import run

STORE: Any = "the store"
CORE: Any = "the log"


class Held:
    """In place of `Bundles`: each call stands until it is let go."""

    def __init__(self) -> None:
        self.begun: list[tuple[Any, ...]] = []
        self.go = threading.Semaphore(0)
        self.error: Exception | None = None

    def __call__(self, store: Any, core: Any) -> Held:
        assert (STORE, CORE) == (store, core)
        return self

    def find(self, offset: int, *, everything: bool, seconds: float) -> BundlesFound:
        self._stand("find", offset, everything, seconds)
        return BundlesFound(("a",), 7)

    def rebuild(self, keys: Any) -> BundlesRebuilt:
        self._stand("rebuild", *keys)
        return BundlesRebuilt(len(keys))

    def _stand(self, *call: Any) -> None:
        self.begun.append(call)
        assert self.go.acquire(timeout=15)
        if self.error is not None:
            raise self.error


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    made = Held()
    monkeypatch.setattr(bundle_upkeep, "Bundles", made)
    return made


async def until(what: Callable[[], bool]) -> None:
    for _ in range(2000):
        if what():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to that")


async def soon(call: Awaitable[Any]) -> asyncio.Future[Any]:
    """It has begun to wait for its turn."""
    task = asyncio.ensure_future(call)
    await asyncio.sleep(0.01)
    return task


def test_they_take_turns_in_order(held: Held) -> None:
    async def main() -> None:
        upkeep = BundleUpkeep(STORE)
        first = await soon(upkeep.find(CORE, 3, everything=True))
        second = await soon(upkeep.rebuild(CORE, ["b"]))
        third = await soon(upkeep.rebuild(CORE, ["c"]))
        await until(lambda: bool(held.begun))
        await asyncio.sleep(0.05)
        assert [("find", 3, True, LOOK_SECONDS)] == held.begun
        held.go.release(3)
        assert [BundlesFound(("a",), 7), BundlesRebuilt(1), BundlesRebuilt(1)] == [
            await each for each in (first, second, third)
        ]
        assert [("rebuild", "b"), ("rebuild", "c")] == held.begun[1:]

    run(main())


@pytest.mark.parametrize("error", [None, UnavailableError("no bucket")])
def test_who_is_gone_gives_up_the_wait_and_the_turn_ends_with_the_work(
    held: Held, error: Exception | None
) -> None:
    async def main() -> None:
        upkeep = BundleUpkeep(STORE)
        gone = await soon(upkeep.rebuild(CORE, ["a"]))
        never = await soon(upkeep.rebuild(CORE, ["never begun"]))
        last = await soon(upkeep.rebuild(CORE, ["b"]))
        await until(lambda: bool(held.begun))
        for each in (gone, never):
            each.cancel()
        await asyncio.sleep(0.05)
        assert [("rebuild", "a")] == held.begun
        held.error = error
        held.go.release()
        await until(lambda: len(held.begun) == 2)
        assert ("rebuild", "b") == held.begun[1]
        held.error = None
        held.go.release()
        assert BundlesRebuilt(1) == await last

    run(main())


def test_what_fails_is_told_to_who_asked(held: Held) -> None:
    async def main() -> None:
        upkeep = BundleUpkeep(STORE)
        held.error = UnavailableError("no bucket")
        held.go.release()
        with pytest.raises(UnavailableError, match="no bucket"):
            await upkeep.rebuild(CORE, ["a"])

    run(main())
