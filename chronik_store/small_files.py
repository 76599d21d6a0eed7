"""The small files of a data directory, each replaced whole.

Place: under `data_directory` and its list of topics. Promise: a crash leaves the old bytes or the
new ones; what `write` and `replace` returned for is durable. Invariant: a name whose sync has
failed is seen by whoever opens the directory next, and may not be there after a power loss. Of the
files that `replace` is used for the next open believes nothing of this kind: while one is being
replaced CHANGING is there, and who finds that writes them once more (`settle`).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from chronik_store.fs.base import FileStat, FileSystem

CHANGING_NAME = "CHANGING"


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
        self._write_aside(name, data)
        self._put_in_place(name)

    def replace(self, name: str, data: bytes) -> None:
        """`write`, of a file that `settle` is for."""
        self.begin(name, data)
        self.finish(name)

    def begin(self, name: str, data: bytes) -> None:
        """The first half of `replace`: an error has changed nothing."""
        self._write_aside(name, data)
        with suppress(FileExistsError):  # an earlier change is in doubt
            self._fs.create(f"{self._path}/{CHANGING_NAME}").close()

    def finish(self, name: str) -> None:
        """The other half: after an error the file may be the old one or the new one."""
        self._put_in_place(name)
        self._forget_change()

    def settle(self, names: Iterable[str]) -> None:
        """At open: what is there of these files is there for good when this returns."""
        if self._fs.exists(f"{self._path}/{CHANGING_NAME}"):
            for name in names:
                if (data := self.read(name)) is not None:
                    self.write(name, data)
            self._forget_change()

    def _forget_change(self) -> None:
        with suppress(OSError):  # else the next open does no more than is needed
            self._fs.remove(f"{self._path}/{CHANGING_NAME}")

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

    def _put_in_place(self, name: str) -> None:
        self._fs.rename(f"{self._path}/{name}.tmp", f"{self._path}/{name}")
        self._fs.sync_directory(self._path)
