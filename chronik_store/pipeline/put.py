"""Send a local file to the bucket: verified before, bounded while, verified after.

Place: shared by `upload` and `index`. Promise: the bytes that leave are the bytes that were
hashed when the file was written (a disk that flips bits is caught here, not in the bucket); the
body is in memory once, within the store's byte budget. Invariant: the term is checked after the
wait for the budget, right before the put.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from chronik_store.errors import CorruptionError, UnavailableError
from chronik_store.format.checksum import Hasher
from chronik_store.fs.base import File, FileSystem
from chronik_store.objectstore.verified import put_verified
from chronik_store.pipeline.turn import Turn

READ_BYTES = 4 << 20


class UnreadableFileError(UnavailableError):
    """The disk does not give back what was written into a file: it is to be made anew."""


def put_file(
    turn: Turn,
    fs: FileSystem,
    path: str,
    key: str,
    content_hash: str,
    *,
    check: Callable[[], object] | None = None,
) -> Literal["created", "adopted"]:
    """Create `key` with the file's bytes, or adopt the equal object that is there.

    check: raises when it may not be put any more; by default, when this log does not lead.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptionError: the file is not what was written; it was removed, to be made anew.
        UnreadableFileError: it stands there, to be replaced.
        UnavailableError, ObjectConflictError: of disk and bucket; trying again is always right.
    """
    try:
        file = fs.open(path)
        try:
            # Hashed through reads first: a page that cannot be read is an error there, and a
            # signal that kills the process once the file is mapped.
            if _hash(file) != content_hash:
                fs.remove(path)
                raise CorruptionError(f"{path}: its bytes changed since it was written", path=path)
            with turn.tiering.budget.take(file.size()), file.map() as body:
                (check or turn.check)()
                turn.lane.put.add(key)
                return put_verified(turn.tiering.store, key, body)
        finally:
            file.close()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnreadableFileError(f"{path}: the disk cannot read it: {error}") from error


def _hash(file: File) -> str:
    hasher = Hasher()
    position = 0
    while data := file.read_at(position, READ_BYTES):
        hasher.update(data)
        position += len(data)
    return hasher.digest_hex()
