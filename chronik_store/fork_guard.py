"""A log is dead in a forked child.

Place: a low room. Promise: after `os.fork` every log opened before answers ForkedError in the
child and touches nothing of the parent's: no descriptor, no lock, no thread. And nobody waits for
threads that the interpreter's end has stopped. Invariant: the generation changes in the child only.
"""

from __future__ import annotations

import os
import sys

from chronik_store.errors import ForkedError

_generation = 0


def _forked() -> None:
    global _generation  # noqa: PLW0603 (one process-wide fact, changed by the kernel's fork only)
    _generation += 1


os.register_at_fork(after_in_child=_forked)


def generation() -> int:
    """How many forks lie between this process and the first one."""
    return _generation


def is_lost(opened_in: int) -> bool:
    """`close` has nothing to do here. In a forked child it is all the parent's. Where the
    interpreter ends (`__del__` of what a module still holds), other threads stand still for good,
    with whatever they have in hand: who waited for one would never end.
    """
    return opened_in != _generation or sys.is_finalizing()


def check(opened_in: int) -> None:
    """ForkedError when the caller's log was opened in a parent process."""
    if opened_in != _generation:
        raise ForkedError(
            "this log was opened before fork(); open it anew in the child, with read_only=True "
            "while the parent writes"
        )
