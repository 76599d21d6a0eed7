"""Search bundles with names that nobody draws, and scratch that each process has for itself.

Place: under `watched_world`, in the place of two functions of the product while it runs. Promise:
equal seeds make equal bundles, byte for byte, and no two builds of one world do. (Tantivy names
its files by chance; the names are in the bundle, and the bundle's hash is in its key.) Invariant:
what is in the files stays as it was.

Tantivy runs real threads on real files, within calls that the schedule does not see: to a
simulation each of them is one uninterrupted step.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from chronik_store.fs.base import FileSystem
from chronik_store.search import archive

_NAMED = re.compile(r"(?P<id>[0-9a-f]{32})(?P<rest>\..+)\Z")


def scratch_in_memory() -> TemporaryDirectory[str]:
    """For all that is searched: in memory where there is room, since Tantivy syncs its files."""
    shared = Path("/dev/shm")  # noqa: S108 (the directory in it has a name of its own)
    return TemporaryDirectory(
        ignore_cleanup_errors=True, dir=str(shared) if shared.is_dir() else None
    )


@contextlib.contextmanager
def tame_bundles(root: str) -> Iterator[None]:
    """Within this, bundles are named by their number, and each store has scratch of its own."""
    made = itertools.count()
    built = itertools.count()

    def make(**_: object) -> str:
        path = Path(root, str(next(made)))
        path.mkdir()
        return str(path)

    def describe(
        fs: FileSystem, directory: str, names: Iterable[str]
    ) -> tuple[archive.Member, ...]:
        del names
        return archive.describe(fs, directory, _renamed(Path(directory), next(built)))

    with (
        mock.patch("chronik_store.search.bundle.describe", describe),
        mock.patch("chronik_store.search_scratch.tempfile.mkdtemp", make),
    ):
        yield


def _renamed(directory: Path, build: int) -> list[str]:
    """Name the files of a finished index by their order in it; all names, sorted."""
    meta = directory / "meta.json"
    text = meta.read_text()
    numbers = {}
    for number, segment in enumerate(json.loads(text)["segments"]):
        dashed = segment["segment_id"]
        numbers[dashed.replace("-", "")] = name = f"{build:016x}{number:016x}"
        parts = (name[:8], name[8:12], name[12:16], name[16:20], name[20:])
        text = text.replace(dashed, "-".join(parts))
    meta.write_text(text)
    names = ["meta.json"]
    for path in directory.iterdir():
        found = _NAMED.match(path.name)
        if found is not None:
            names.append(numbers[found["id"]] + found["rest"])
            path.rename(directory / names[-1])
    managed = directory / ".managed.json"
    managed.write_text(json.dumps(sorted(names)))
    return sorted([".managed.json", *names])
