"""A directory's sync that fails once, an open that reads the names all the same, and power that
fails later: what the second open has acknowledged is there, whether the first had time to close.
"""

from __future__ import annotations

import contextlib
import errno

import pytest

from chronik_store.errors import ChronikError
from tests.crash.harness import Act, Life, close_quietly, reachable_buckets
from tests.crash.test_every_crash_point import ACTS


def failing_once(prepare: Act, act: Act, at: int, *, closes: bool) -> tuple[Life, str]:
    """A life in which the sync of a directory of this number failed; which one it was."""
    life = Life(at)
    prepare(life)
    life.plug.calls, life.plug.at, life.plug.code = 0, at, errno.EIO

    def hook(number: int, operation: str, path: str) -> None:
        if operation == "sync_directory":
            life.plug.at_the_disk(number, operation, path)

    life.disk.hook, life.door.hook = hook, None
    with contextlib.suppress(ChronikError):
        act(life)
    life.disk.hook = None
    if closes:
        close_quietly(life)
    return life, life.plug.failed


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "killed"])
@pytest.mark.parametrize("name", ACTS)
def test_the_next_open_believes_no_name_whose_sync_has_failed(name: str, closes: bool) -> None:
    with reachable_buckets():
        for at in range(1, 1000):
            life, failed = failing_once(*ACTS[name], at, closes=closes)
            if not failed:
                close_quietly(life)
                return
            second = life.fails("kill")
            life.threads.end()
            second.ledger = life.ledger
            with contextlib.suppress(ChronikError):  # a log may say that it is damaged
                second.open()
                second.append(2)
                second.append(3)
            close_quietly(second)
            third = second.fails("lost")
            try:
                third.is_sound()
            except BaseException as error:
                error.add_note(f"directory sync {at}, {failed}")
                raise
            finally:
                close_quietly(third)
    raise AssertionError("the act does not end")
