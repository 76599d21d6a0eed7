"""What the system's threads, locks and waits promise beyond `threading`."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable
from types import FrameType

import pytest

from chronik_store.threads import SystemThreads
from tests.store.tasks import at_each_step

CONDITION, EVENT = SystemThreads.condition(), SystemThreads.event()


def enter() -> None:
    with CONDITION:
        pass


def notify() -> None:
    with CONDITION:
        CONDITION.notify_all()


USES: dict[str, tuple[Callable[[], None], Callable[[], object]]] = {
    "a section": (enter, enter),
    "a notification": (notify, enter),
    "an event that is set": (EVENT.set, EVENT.clear),
    "an event that is cleared": (EVENT.clear, EVENT.set),
}
"""What is interrupted, and what needs the same lock."""


def interrupted(use: Callable[[], None], number: int) -> bool:
    """Whether Ctrl-C came where the so many-th function begins: there, and behind calls and jumps,
    the interpreter looks for signals.
    """
    begun = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal begun
        begun += event == "call"
        if begun == number:
            raise KeyboardInterrupt

    sys.settrace(trace)
    try:
        use()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


def gets_through(look: Callable[[], object]) -> bool:
    """Whether another thread gets the lock."""
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(5)
    return not thread.is_alive()


@pytest.mark.parametrize("name", USES)
def test_ctrl_c_leaves_nothing_locked(name: str) -> None:
    """`threading.Condition` is left locked for good by an interrupt in its own `__exit__`: a store
    that was interrupted amid appends could hang in `close`.
    """
    use, look = USES[name]
    for number in itertools.count(1):
        was_interrupted = interrupted(use, number)
        assert gets_through(look), f"locked by an interrupt at call {number}"
        if not was_interrupted:
            assert number > 1
            return


@pytest.mark.parametrize("name", ["condition", "event"])
def test_ctrl_c_at_any_step_of_a_wait_is_ctrl_c(name: str) -> None:
    """Behind the step that gives the lock back it became "cannot release un-acquired lock", which
    handlers of errors took for one.
    """
    condition, event = SystemThreads.condition(), SystemThreads.event()

    def wait() -> None:
        if name == "event":
            event.wait(0.001)
        else:
            with condition:
                condition.wait(0.001)

    def look() -> None:
        event.set()
        event.clear()
        with condition:
            condition.notify_all()

    for ctrl_c in at_each_step(threading):
        with ctrl_c:  # lets nothing pass but KeyboardInterrupt
            wait()
        assert gets_through(look)
