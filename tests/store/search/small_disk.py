"""A real disk that says it is small."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from chronik_store.fs.base import DiskUsage
from chronik_store.fs.posix import PosixFile, PosixFileSystem


class SmallDisk(PosixFileSystem):
    """Files below `root` share `size_bytes`. on_create: called with each path, before. free_bytes:
    says so, whatever is there (Tantivy's own threads make and remove files at any time).
    """

    def __init__(self, root: Path, size_bytes: int) -> None:
        super().__init__()
        self.root = root
        self.size_bytes = size_bytes
        self.free_bytes: int | None = None
        self.on_create: Callable[[str], None] = lambda _path: None

    @property
    def used_bytes(self) -> int:
        total = 0
        for at, _, names in os.walk(self.root):
            for name in names:
                with suppress(FileNotFoundError):  # gone since it was listed
                    total += (Path(at) / name).stat().st_size
        return total

    def usage(self, path: str) -> DiskUsage:
        Path(path).stat()
        left = self.size_bytes - self.used_bytes if self.free_bytes is None else self.free_bytes
        return DiskUsage(self.size_bytes, max(0, left))

    def create(self, path: str) -> PosixFile:
        self.on_create(path)
        return super().create(path)
