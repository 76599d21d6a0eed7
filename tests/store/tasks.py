"""Calls in threads of their own, and Ctrl-C behind a lock, for tests of what waits for what."""

from __future__ import annotations

import sys
import threading
from itertools import count

SOON = 0.2
"""Seconds in which a call that does not wait has returned. One that waits never fails by it."""
AT_LAST = 30
"""Seconds after which a test fails instead of hanging."""


class Task(threading.Thread):
    """A call in a thread of its own, and what came of it."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self.call, self.result, self.error = call, None, None
        self.start()

    def run(self):
        try:
            self.result = self.call()
        except BaseException as error:
            self.error = error

    def waits(self):
        """It has not returned."""
        self.join(SOON)
        return self.is_alive()

    def outcome(self):
        """What it returned, or raises what it raised."""
        self.join(AT_LAST)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


class Interrupted:
    """A condition behind whose next release Ctrl-C comes: the interpreter looks for signals when
    the call is over.
    """

    def __init__(self, condition):
        self.inner, self.armed = condition, True

    def __enter__(self):
        return self.inner.__enter__()

    def __exit__(self, *error):
        self.inner.__exit__(*error)
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt

    def __getattr__(self, name):
        return getattr(self.inner, name)


class CtrlC:
    """Within this, Ctrl-C comes at the `step`-th place of a module at which the interpreter looks
    for signals: as a function begins that is of it, or called by it, or a built-in returns. It
    comes once more at the `again`-th place behind that one, if there are so many.
    """

    def __init__(self, module, step, but_for, again=0):
        self.file, self.but_for = module.__file__, but_for
        self.left, self.again, self.came = step, again, 0

    def __enter__(self):
        if self.again:
            sys.settrace(self._look_again)
        sys.setprofile(self._look)

    def __exit__(self, kind, *_):
        sys.setprofile(None)
        sys.settrace(None)
        return kind is KeyboardInterrupt

    def _look(self, frame, event, _argument):
        is_ours = frame.f_code.co_filename == self.file
        if event == "call":
            caller = frame.f_back
            is_ours = is_ours or (caller is not None and caller.f_code.co_filename == self.file)
            is_ours = is_ours and frame.f_code.co_name not in self.but_for
        if not is_ours or event not in {"call", "c_return"}:
            return
        self.left -= 1
        if self.left == 0:
            self.came += 1
            raise KeyboardInterrupt  # with which the interpreter takes this function away

    def _look_again(self, frame, event, _argument):
        frame.f_trace_lines = False
        if event == "exception" and self.came == 1 and self.left == 0:
            self.left = self.again
            sys.setprofile(self._look)
        return self._look_again


def at_each_step(module, but_for=()):
    """A `CtrlC` for each step in turn, until there is none any more. but_for: functions in front of
    which it never comes.
    """
    for step in count(1):
        yield (ctrl_c := CtrlC(module, step, but_for))
        if not ctrl_c.came:
            assert step > 1
            return


def at_each_two_steps(module, but_for=()):
    """The same for each step and each one behind it: Ctrl-C comes twice."""
    for step in count(1):
        for again in count(1):
            yield (ctrl_c := CtrlC(module, step, but_for, again))
            if ctrl_c.came < 2:
                break
        if not ctrl_c.came:
            assert step > 1
            return


def start(*calls):
    """Each in a thread of its own."""
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    return threads


def join(threads):
    """All of them end."""
    for thread in threads:
        thread.join(AT_LAST)
        assert not thread.is_alive(), "a wakeup was lost"
