"""How a server process ends: as it was asked to, or at once."""

import asyncio
import os
import signal

import pytest

from chronik_server.running import run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_wish_and_a_second_one_ends_it_at_once(number):
    """With a code of its own, and no traceback."""

    async def graceful(stop):
        os.kill(os.getpid(), number)
        await stop.wait()
        return 7

    async def slow(stop):
        os.kill(os.getpid(), number)
        await stop.wait()
        os.kill(os.getpid(), number)
        await asyncio.sleep(60)
        return 7

    assert 7 == run(graceful)
    assert 130 == run(slow)


def test_who_is_cancelled_by_somebody_else_is_a_defect():
    async def main(_):
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run(main)
