"""The small files of a data directory, each replaced whole.

Place: under `data_directory`, its list of topics, and what a node or a restore notes there.
Promise: a crash leaves the old bytes or the new ones; what `write` returned for is durable, and
after `settle` so is what is read. Invariant: a name whose sync has failed is seen by whoever opens
the directory next, and may not be there after a power loss. So while a file is being replaced an
empty one stands beside it, `NAME.changing`, and an open that finds that writes NAME once more.
"""

from __future__ import annotations

from contextlib import suppress

from chronik_store.fs.base import FileStat, FileSystem

CHANGING = ".changing"


class SmallFiles:
    """Files right in one directory, by name. Not thread-safe. OSError as the disk raises it."""

    def __init__(self, fs: FileSystem, path: str) -> None:
        self._fs = fs
        self._path = path

    def read(self, name: str) -> bytes | None:
        """A file whole; None if it is not there."""
        try:
            file = self._fs.open(f"{self._path}/{name}")
        except FileNotFoundError:
            return None
        try:
            return file.read_at(0, file.size())
        finally:
            file.close()

    def stat(self, name: str) -> FileStat:
        """FileNotFoundError if it is not there."""
        return self._fs.stat(f"{self._path}/{name}")

    def write(self, name: str, data: bytes) -> None:
        """Replace a file in one durable step."""
        self.begin(name, data)
        self.finish(name)

    def begin(self, name: str, data: bytes) -> None:
        """The first half of `write`: an error has changed nothing."""
        self._write_aside(name, data)
        with suppress(FileExistsError):  # an earlier change is in doubt
            self._fs.create(f"{self._path}/{name}{CHANGING}").close()

    def finish(self, name: str) -> None:
        """The other half: after an error the file may be the old one or the new one."""
        self._fs.rename(f"{self._path}/{name}.tmp", f"{self._path}/{name}")
        self._fs.sync_directory(self._path)
        self._forget_change(name)

    def settle(self) -> None:
        """At open: what is there is there for good when this returns."""
        for each in self._fs.list(self._path):
            name = each.removesuffix(CHANGING)
            if name == each:
                continue
            data = self.read(name)
            if data is None:
                self._forget_change(name)
            else:
                self.write(name, data)

    def _forget_change(self, name: str) -> None:
        with suppress(OSError):  # else the next open does no more than is needed
            self._fs.remove(f"{self._path}/{name}{CHANGING}")

    def _write_aside(self, name: str, data: bytes) -> None:
        """The new bytes, durable, under another name."""
        fs, temporary = self._fs, f"{self._path}/{name}.tmp"
        if fs.exists(temporary):
            fs.remove(temporary)
        file = fs.create(temporary)
        try:
            file.write_at(0, [data])
            file.sync_all()
        finally:
            file.close()
