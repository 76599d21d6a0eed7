"""Ctrl-C anywhere: an exception that Python raises between any two lines of the library.

The main thread's calls are interrupted at each line in turn, as a signal handler would do it. What
was acknowledged stays, what is not written is not acknowledged later, nobody waits for ever.
"""

from __future__ import annotations

import contextlib
import functools
import linecache
import random
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from chronik_store.errors import ChronikError
from tests.crash.harness import Life, close_quietly, reachable_buckets
from tests.depth import places


class Interrupt:
    """Raises KeyboardInterrupt at line number `at` that the library runs in this thread."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.lines = 0
        self.where = ""

    def trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        name = frame.f_code.co_filename
        if "chronik_store" not in name or "/testing/" in name:
            return None
        if event == "line" and not _is_never_interrupted(name, frame.f_lineno):
            self.lines += 1
            if self.lines == self.at:
                self.where = f"{name.rpartition('/')[2]}:{frame.f_lineno}"
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.trace

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        sys.settrace(self.trace)
        try:
            yield
        finally:
            sys.settrace(None)


@functools.cache
def _is_never_interrupted(name: str, line: int) -> bool:
    """Python looks for signals when it calls, enters and jumps back, and at no other place. The end
    of a `with` is shown as its first line, before the lock is released; a `try:` does nothing, and
    inside a `with` an exception there, which only a tracer can raise, would keep its lock.
    """
    return linecache.getline(name, line).lstrip().startswith(("with ", "try:"))


def append(life: Life) -> None:
    batch = life.ledger.offer(2)
    life.ledger.acked(life.log.append(batch).base_offset, batch)


def append_nowait(life: Life) -> None:
    batch = life.ledger.offer(2)
    future = life.log.append_nowait(batch)
    future.add_done_callback(
        lambda done: (
            life.ledger.acked(done.result().base_offset, batch)
            if done.exception() is None
            else None
        )
    )
    future.result(10)


def seal(life: Life) -> None:
    life.log.seal()


def drop(life: Life) -> None:
    life.ledger.wish_start(3)
    life.log.drop_before(3)
    life.ledger.dropped(3)


def close(life: Life) -> None:
    life.store.close()


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """The outcome of `call`, which must not hang."""
    outcomes: list[Any] = []

    def run() -> None:
        try:
            outcomes.append(call())
        except ChronikError as error:
            outcomes.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"
    assert outcomes, "it failed"
    return outcomes[0]


def prepared(*, first: bool) -> Life:
    life = Life(1)
    life.open()
    if not first:
        for _ in range(3):
            life.append(2)
    return life


def interrupt_at(act: Callable[[Life], None], at: int, *, first: bool) -> bool:
    """False: the act has fewer lines than that."""
    life = prepared(first=first)
    interrupt = Interrupt(at)
    try:
        with contextlib.suppress(KeyboardInterrupt), interrupt.armed():
            act(life)
        if not interrupt.where:
            return False
        outcome = within(10, lambda: life.log.append(b"after"))
        if isinstance(outcome, ChronikError):
            assert outcome.durability in {"not_durable", "unknown"}, repr(outcome)
        else:
            life.ledger.offer(0)
            life.ledger._offered.add(b"after")
            life.ledger.acked(outcome.base_offset, [b"after"])
        within(10, lambda: close_quietly(life))
        life.plug.dead = True
        life.fails("kill").is_sound()
    except BaseException as error:
        error.add_note(f"interrupted at line {at}, {interrupt.where}")
        raise
    return True


ACTS = {"append": append, "nowait": append_nowait, "seal": seal, "drop": drop, "close": close}


@pytest.mark.parametrize("first", [False, True], ids=["later", "first"])
@pytest.mark.parametrize("name", ACTS)
def test_ctrl_c_at_some_line_of(name: str, first: bool, seed: int) -> None:
    rng = random.Random(f"{seed}/{name}/{first}")
    if first and name == "drop":
        return
    with reachable_buckets():
        for at in range(rng.randint(1, 17), 2000, 17):
            if not interrupt_at(ACTS[name], at, first=first):
                return


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", [False, True], ids=["later", "first"])
@pytest.mark.parametrize("name", ACTS)
def test_ctrl_c_at_any_line_of(name: str, first: bool) -> None:
    if first and name == "drop":
        return
    with reachable_buckets():
        for at in places(int(first), 5000, some=3, every=1):
            if not interrupt_at(ACTS[name], at, first=first):
                return
