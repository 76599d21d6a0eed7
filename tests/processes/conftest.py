"""Real child processes over real files."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CHILDREN = Path(__file__).with_name("children.py")
ROOT = CHILDREN.parents[2]


class Child:
    """A process, and the lines that it has said so far."""

    def __init__(self, verb: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CHILDREN), verb, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.lines: list[list[str]] = []
        self._arrived: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            # A line that a kill cut off was not said.
            if line.endswith("\n"):
                self._arrived.put(line.split())

    def _collect(self) -> None:
        while not self._arrived.empty():
            self.lines.append(self._arrived.get())

    def said(self, word: str) -> list[int]:
        """The numbers said after `word`."""
        self._collect()
        # Ctrl-C may fall between two words of a line.
        said = [line for line in self.lines if line[0] == word and len(line) == 2]
        return [int(line[1]) for line in said if line[1].isdigit()]

    def wait_for(self, word: str, count: int = 1, seconds: float = 30.0) -> None:
        """Until `word` was said so often."""
        deadline = time.monotonic() + seconds
        while sum(line[0] == word for line in self.lines) < count:
            if self.process.poll() is not None and not self._reader.is_alive():
                self._collect()
                if sum(line[0] == word for line in self.lines) >= count:
                    return
                raise AssertionError(f"it ended: {self.process.stderr.read()}")  # type: ignore[union-attr]
            assert time.monotonic() < deadline, f"no {count} {word!r} in {seconds} s"
            self._collect()
            time.sleep(0.005)

    def end(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        self.finish()

    def finish(self, seconds: float = 30.0) -> int:
        """Wait for its end; its exit code."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        code = self.process.wait(seconds)
        self._reader.join(seconds)
        self._collect()
        return code


@pytest.fixture
def tmp_path(disk_path: Path) -> Path:
    return disk_path


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    """`start(verb, ...)`: a child, killed at the end of the test at the latest."""
    children: list[Child] = []

    def started(verb: str, *arguments: object) -> Child:
        children.append(Child(verb, *arguments))
        return children[-1]

    yield started
    for child in children:
        if child.process.poll() is None:
            child.process.kill()
        child.finish()
        for pipe in (child.process.stdout, child.process.stderr):
            if pipe is not None:
                pipe.close()
