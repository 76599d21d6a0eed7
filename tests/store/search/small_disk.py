"""A real disk that says it is small."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from chronik_store.fs.base import DiskUsage
from chronik_store.fs.posix import PosixFile, PosixFileSystem


class SmallDisk(PosixFileSystem):
    """Files below `root` share `size_bytes`. on_create: called with each path, before."""

    def __init__(self, root: Path, size_bytes: int) -> None:
        super().__init__()
        self.root = root
        self.size_bytes = size_bytes
        self.on_create: Callable[[str], None] = lambda _path: None

    @property
    def used_bytes(self) -> int:
        files = (Path(at) / name for at, _, names in os.walk(self.root) for name in names)
        return sum(path.stat().st_size for path in files)

    def usage(self, path: str) -> DiskUsage:
        Path(path).stat()
        return DiskUsage(self.size_bytes, max(0, self.size_bytes - self.used_bytes))

    def create(self, path: str) -> PosixFile:
        self.on_create(path)
        return super().create(path)
