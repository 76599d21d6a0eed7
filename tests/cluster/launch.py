"""`chronik` with a worse clock and a worse disk, for one node of a test.

Place: what a node of the cluster tests runs instead of `python -m chronik_server`. Promise: the
server is the product's own; only what it is given differs, through the seams that it has:

    --clock-offset SECONDS   its wall clock is wrong by so much
    --room-file PATH         while this file is there, it says how many more bytes the disk takes

    python -m tests.cluster.launch --clock-offset 5400 -- -d data serve --node-id 1 ...
"""

import argparse
import errno
import functools
import os
import sys
import threading

from chronik_server import cli, cli_serve
from chronik_store.clock import SystemClock
from chronik_store.environment import Environment
from chronik_store.fs.base import DiskUsage
from chronik_store.fs.posix import PosixFileSystem


class ShiftedClock(SystemClock):
    """A machine whose wall clock was set wrongly."""

    def __init__(self, offset_seconds):
        self._offset_us = round(offset_seconds * 1_000_000)

    def time_us(self):
        return SystemClock.time_us() + self._offset_us


class Room:
    """How many bytes the disk still takes; without the file, what it really has."""

    def __init__(self, path):
        self._path = path
        self._used = 0
        self._lock = threading.Lock()

    def left(self):
        """None: no bound."""
        try:
            with open(self._path, encoding="ascii") as file:
                return max(0, int(file.read()) - self._used)
        except FileNotFoundError:
            self._used = 0
            return None

    def take(self, size, path):
        with self._lock:
            left = self.left()
            if left is not None and size > left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            self._used += size if left is not None else 0


class _File:
    """A file that grows only while there is room."""

    def __init__(self, file, room):
        self._file = file
        self._room = room

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write_at(self, position, buffers):
        growth = position + sum(map(len, buffers)) - self._file.size()
        if growth > 0:
            self._room.take(growth, self._file.path)
        return self._file.write_at(position, buffers)


class SmallDisk(PosixFileSystem):
    """The machine's disk with less room."""

    def __init__(self, room):
        self._room = room

    def create(self, path):
        self._room.take(1, path)
        return _File(super().create(path), self._room)

    def open(self, path, *, write=False):
        file = super().open(path, write=write)
        return _File(file, self._room) if write else file

    def usage(self, path):
        found, left = super().usage(path), self._room.left()
        return found if left is None else DiskUsage(found.total_bytes, min(found.free_bytes, left))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--clock-offset", type=float, default=0.0)
    parser.add_argument("--room-file")
    parser.add_argument("rest", nargs="*")
    options = parser.parse_args()
    env = Environment(
        clock=ShiftedClock(options.clock_offset),
        fs=SmallDisk(Room(options.room_file)) if options.room_file else PosixFileSystem(),
    )
    cli_serve.serve = functools.partial(cli_serve.serve, env=env)
    sys.argv[1:] = options.rest
    cli.main()


if __name__ == "__main__":
    main()
