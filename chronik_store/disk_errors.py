"""What a failed call on a data directory means to its user.

Place: a low room, used by whatever is in a data directory. Promise: each error of the disk becomes
one of the types of `errors`, with what was being done and what helps. Invariant: nothing is decided
here; what may be gone on with is the caller's to know.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from chronik_store.errors import (
    ChronikError,
    ConfigError,
    CorruptionError,
    DiskFullError,
    LogPoisonedError,
    ReadOnlyError,
    UnavailableError,
)


def disk_error(path: str, doing: str, error: OSError) -> ChronikError:
    """The typed error for a failed call on the data directory."""
    message = f"cannot {doing} {path}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"{message}; free space, then try again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ReadOnlyError(
            f"{message}; give the process the right to write (and to read), or open read-only"
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return ConfigError(f"{message}; choose a path that is a directory or does not exist")
    return UnavailableError(f"{message}; check the disk")


@contextmanager
def disk_errors(path: str, doing: str) -> Iterator[None]:
    """Within this, a failed call on the data directory is raised as its typed error."""
    try:
        yield
    except OSError as error:
        raise disk_error(path, doing, error) from error


@contextmanager
def errors_of_new_logs(path: str, doing: str) -> Iterator[None]:
    """`disk_errors`, while logs are made: what nobody has yet cannot be closed and opened again,
    so what the disk said is said instead of LogPoisonedError.
    """
    with disk_errors(path, doing):
        try:
            yield
        except LogPoisonedError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            raise error.__cause__ from error


@contextmanager
def mended_by_hand() -> Iterator[None]:
    """Within this, a damaged file is one that `repair` can do nothing about: what can is said."""
    try:
        yield
    except CorruptionError as error:
        raise CorruptionError(
            str(error.args[0]),
            path=error.path,
            advice="put the file back from a copy of the directory, or make a new one of the "
            "bucket (`chronik restore`)",
        ) from error
