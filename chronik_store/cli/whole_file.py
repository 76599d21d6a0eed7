"""A file that appears under its name only when it is whole; and what a killed run left of one.

Place: under the verbs that write files. Promise: nothing stands under the target's name before all
of it is on disk, and the name is on disk when the context ends. What an earlier run left unfinished
is removed once that run is surely dead: it was of this host, and the lock that it held to its end
is free. Of any other it is said that it is there. Invariant: a process id proves nothing (it is
given out again, and other machines and containers have it too): only the kernel's lock does.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from chronik_store.cli.terminal import say
from chronik_store.errors import DiskFullError, UnavailableError

_SUFFIX = ".unfinished"
_CHANCES = 5  # to be taken for a dead one's, between its creation and its lock


@contextmanager
def whole_file(target: str) -> Iterator[IO[bytes]]:
    """A file to write, which becomes `target` when the context ends well and goes otherwise.

    DiskFullError, UnavailableError for what the disk refuses.
    """
    try:
        _sweep(target)
        path, file = _begin(target)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(path, target)
                _sync_name(target)
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise
    except OSError as error:
        full = DiskFullError if error.errno == errno.ENOSPC else UnavailableError
        raise full(f"cannot write {target}: {error.strerror}") from error


def _sync_name(target: str) -> None:
    """Whoever deletes what was exported relies on the file being there after a power cut."""
    try:
        folder = os.open(os.path.dirname(target) or ".", os.O_RDONLY)
    except PermissionError:
        return  # a folder that may be written and not read cannot be synced either
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _begin(target: str) -> tuple[str, IO[bytes]]:
    """(path, file) of a new unfinished file, locked as long as it is open."""
    path = f"{target}.{os.uname().nodename}.{os.getpid()}{_SUFFIX}"
    for _ in range(_CHANCES):
        file = open(path, "xb")  # noqa: SIM115 (the caller closes it)
        if _is_ours(file, path):
            return path, file
        file.close()
    raise UnavailableError(f"cannot write {target}: other runs take {path} away")


def _is_ours(file: IO[bytes], path: str) -> bool:
    """Lock it; False if another run, which took it for a dead one's, was faster. Where the file
    system has no locks nobody gets one, and nobody removes anything.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return _stands(file, path)


def _sweep(target: str) -> None:
    """Remove what dead runs left of `target`; say what may be of a live one."""
    folder, name = os.path.split(target)
    here = os.uname().nodename
    try:
        names = sorted(os.listdir(folder or "."))
    except PermissionError:
        return  # a folder that may be written and not listed
    for each in names:
        if not (each.startswith(f"{name}.") and each.endswith(_SUFFIX)):
            continue
        host, _, pid = each[len(name) + 1 : -len(_SUFFIX)].rpartition(".")
        if not pid.isdecimal():
            continue  # not the name of one of ours
        path = os.path.join(folder, each)
        gone = _take_away(path) if host == here else False
        if gone:
            say(f"removed {path}: the run that wrote it did not end")
        elif gone is not None:
            of = f"on {host}" if host else "somewhere"
            say(f"{path} is of a run {of} that may still write it; if none does, remove it")


def _take_away(path: str) -> bool | None:
    """True: it was a dead run's, and is gone; None: a live one has it, or it is gone by itself;
    False: there is no telling.
    """
    try:
        with open(path, "rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _stands(file, path):
                return None
            os.unlink(path)
    except (BlockingIOError, FileNotFoundError):
        return None
    except OSError:
        return False
    return True


def _stands(file: IO[bytes], path: str) -> bool:
    """This open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
