"""A turn of the loop: who spoke in it is flushed at its end, once and in order."""

import asyncio
import logging

from chronik_server.turn import Turn
from tests.server.serving import run


class Voice:
    def __init__(self, turn, said, name):
        self.turn, self.said, self.name, self.out = turn, said, name, []

    def say(self, word):
        if not self.out:
            self.turn.speak(self.flush)
        self.out.append(word)

    def flush(self):
        self.said.append((self.name, *self.out))
        self.out.clear()


def test_what_is_said_in_a_turn_leaves_at_its_end():
    async def main():
        turn, said = Turn(asyncio.get_running_loop()), []
        one, two = Voice(turn, said, "one"), Voice(turn, said, "two")

        def work():
            one.say(1)
            two.say(2)
            one.say(3)
            assert not said

        turn.run(work)
        return said

    assert [("one", 1, 3), ("two", 2)] == run(main())


def test_what_is_said_outside_a_turn_leaves_with_the_next_one_of_the_loop():
    async def main():
        turn, said = Turn(asyncio.get_running_loop()), []
        voice = Voice(turn, said, "one")
        voice.say(1)
        voice.say(2)
        assert not said
        await asyncio.sleep(0)
        first = list(said)
        voice.say(3)
        await asyncio.sleep(0)
        return first, said

    first, said = run(main())

    assert [("one", 1, 2)] == first
    assert [("one", 1, 2), ("one", 3)] == said


def test_whoever_waits_for_a_disk_may_flush_first():
    async def main():
        turn, said = Turn(asyncio.get_running_loop()), []
        voice = Voice(turn, said, "one")

        def work():
            voice.say(1)
            turn.flush()
            said.append("the disk")
            voice.say(2)

        turn.soon(work)
        await asyncio.sleep(0)
        return said

    assert [("one", 1), "the disk", ("one", 2)] == run(main())


def test_a_connection_that_fails_takes_no_other_with_it(caplog):
    async def main():
        turn, said = Turn(asyncio.get_running_loop()), []

        def broken():
            raise OSError("gone")

        turn.speak(broken)
        Voice(turn, said, "one").say(1)
        await asyncio.sleep(0)
        return said

    with caplog.at_level(logging.ERROR):
        assert [("one", 1)] == run(main())
    assert "could not be written to" in caplog.text


def test_work_that_fails_has_said_what_it_said():
    async def main():
        turn, said = Turn(asyncio.get_running_loop()), []
        voice = Voice(turn, said, "one")

        def work():
            voice.say(1)
            raise ValueError("half-way")

        try:
            turn.run(work)
        except ValueError:
            said.append("raised")
        return said

    assert [("one", 1), "raised"] == run(main())


def test_work_from_another_thread_runs_on_the_loop_and_is_flushed():
    async def main():
        loop = asyncio.get_running_loop()
        turn, said = Turn(loop), []
        voice, done = Voice(turn, said, "one"), asyncio.Event()

        def work():
            voice.say(1)
            done.set()

        await loop.run_in_executor(None, turn.from_thread, work)
        await done.wait()
        return said

    assert [("one", 1)] == run(main())
