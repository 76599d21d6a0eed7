"""The wall clock of a machine that is set wrongly, for processes that a test starts.

Promise: a process that was started with `environ` sees every wall clock off by what `set` said
last, a second or so after it was said, whoever reads it: Python, or the client that signs requests.
Monotonic clocks are left alone, as on a machine whose date is set. It is done by libfaketime,
which stands between the process and the C library.
"""

from pathlib import Path

import pytest

HOUR = 3600


class MachineClock:
    """One clock; `folder` holds what it is set to."""

    def __init__(self, folder):
        found = [str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")]
        if not found:
            pytest.fail("no libfaketime here: apt-get install libfaketime")
        self._path = folder / "clock"
        self.set(0)
        self.environ = {
            "LD_PRELOAD": found[0],
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, ahead_seconds):
        """From now on it is so far ahead of the true time; behind, if that is negative."""
        beside = self._path.with_name("clock.new")
        beside.write_text(f"{ahead_seconds:+d}\n")
        beside.replace(self._path)
