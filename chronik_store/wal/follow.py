"""Following a WAL that another process writes: what is new since the last look.

Place: in `wal`, over recovery's parts; `ReadableWal.refresh` calls it. Promise: nothing is locked
or written; files that the writer prunes meanwhile may vanish at any moment, files that it makes
are found through their checkpoints. What was replayed before and is contradicted by a new file
(the writer crashed and went on from less) is truncated first. Invariant: frames are replayed under
the log's lock, some at a time; no call to the disk is made under it.
"""

from __future__ import annotations

from chronik_store.environment import Environment
from chronik_store.format.frame import FRAME_HEADER_BYTES
from chronik_store.threads import Lock
from chronik_store.wal.chain import Opening, list_files, read_opening
from chronik_store.wal.entry_table import LogFile
from chronik_store.wal.recovery import Recovered, open_file, replay_file
from chronik_store.wal.settings import WalIdentity

FULL_LOOK_SECONDS = 1.0
"""A look that finds no next frame goes through all that stands behind its place if none has for so
long: every look of who looks seldom, one in twenty of who follows.
"""


def follow(
    env: Environment, directory: str, identity: WalIdentity, found: Recovered, lock: Lock
) -> bool:
    """Replay what has come since; True if anything has. OSError as it comes."""
    before = found.replay.last_seq
    if found.suspect:
        return False  # What stands behind damage is not for a reader to judge.
    seqs, _ = list_files(env.fs, directory)
    current = found.file
    newer = _continuation(env, directory, identity, seqs, current)
    # A file that the writer's next open has made anew is not continued: its content is in that one.
    continued = not newer or (current is not None and newer[0].previous == current.seq)
    good = True
    if current is not None and current.seq in seqs and continued:
        good = _replay(env, current, newer[0] if newer else None, found, lock, found.position)
    for place, opening in enumerate(newer):
        if not good:
            break
        with lock:
            current = found.file = open_file(opening, found.replay)
            found.position = current.origin
        following = newer[place + 1] if place + 1 < len(newer) else None
        good = _replay(env, current, following, found, lock, current.origin)
    with lock:
        _drop_vanished(found, set(seqs))
    return found.replay.last_seq > before


def _replay(
    env: Environment,
    file: LogFile,
    following: Opening | None,
    found: Recovered,
    lock: Lock,
    start: int,
) -> bool:
    """The rest of one file; False when damage ends it. If the writer has pruned it, the next file's
    checkpoint takes the log up from there.
    """
    try:
        handle = env.fs.open(file.path)
    except FileNotFoundError:
        return True
    try:
        size = handle.size()
        with lock:
            file.size = size
        if following is None and not handle.read_at(start, FRAME_HEADER_BYTES).strip(b"\0"):
            # The usual look at a quiet log. What else there is are zeros, megabytes of them, but
            # for the one case that a frame was lost and others were written behind it.
            found.position = start
            now = env.clock.monotonic()
            if now - found.looked_through_at < FULL_LOOK_SECONDS:
                return True
            found.looked_through_at = now
        return replay_file(handle, file, following, found, live=True, start=start, lock=lock)
    finally:
        handle.close()


def _continuation(
    env: Environment,
    directory: str,
    identity: WalIdentity,
    seqs: list[int],
    current: LogFile | None,
) -> list[Opening]:
    """The files that continue `current`, oldest first: the chain from the newest file back to it,
    or as far back as files go when it has been pruned.
    """
    known = 0 if current is None else current.seq
    line: list[Opening] = []
    wanted = seqs[-1] if seqs else 0
    while wanted > known and wanted in seqs:
        try:
            opening = read_opening(env.fs, directory, wanted, identity)
        except FileNotFoundError:
            break
        if opening.fault:
            break
        line.append(opening)
        wanted = opening.previous
    return line[::-1]


def _drop_vanished(found: Recovered, seqs: set[int]) -> None:
    """Forget files that the writer has pruned; the lock is held."""
    files = found.replay.table.files
    gone = 0
    while gone < len(files) - 1 and files[gone].seq not in seqs:
        gone += 1
    if gone:
        found.replay.table.drop_front(gone)
