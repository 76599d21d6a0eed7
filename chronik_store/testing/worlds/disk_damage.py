"""What a disk does to files while nobody uses it: a bit turned over, a WAL file gone.

Place: under `damaged_world`. Promise: each damage is durable, is done behind everybody's back, and
can be turned back as long as nobody has moved the file; what stands in front of it is known.
Invariant: it knows formats, and nothing of recovery or repair.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from chronik_store.errors import ChronikError
from chronik_store.format.checkpoint import decode_checkpoint
from chronik_store.format.entry import EntryKind
from chronik_store.format.frame import FrameKind, decode_frame, frame_entry, frame_payload
from chronik_store.format.wal_file import decode_wal_file_header
from chronik_store.testing.simulated_disk import SimulatedDisk

LOST = "/lost"
"""Where files are that are gone: no part of any data directory."""
OPENING_BYTES = 1200
"""Header and checkpoint of a WAL file, about: a small part of it, and what all else hangs on."""


@dataclass(frozen=True)
class Damage:
    """One bit of a file, or (`kept`: where it is now) all of it.

    good_end: the records in front of it end here. is_newest: nothing that is left need name it.
    """

    path: str
    position: int = 0
    bit: int = 0
    kept: str = ""
    good_end: int | None = None
    is_newest: bool = False

    @property
    def may_be_refused(self) -> bool:
        """Other files are copies of what is elsewhere, or nobody's."""
        is_log = self.path.startswith("/data/wal/") and self.path.endswith(".log")
        return is_log or self.path in {"/data/STORE", "/data/TOPICS"}

    def turn_back(self, disk: SimulatedDisk) -> None:
        """As if it had never been."""
        if self.kept:
            disk.rename(self.kept, self.path)
            disk.sync_directory(self.path.rpartition("/")[0])
            disk.sync_directory(LOST)
        else:
            disk.flip_bit(self.path, self.position, self.bit)


def strike(disk: SimulatedDisk, chance: random.Random) -> list[Damage]:
    """Damage one place or two; of two, one at most is in the newest WAL file: several damages in
    the last group may pass for a torn write (docs/durability.md, assumption 8).
    """
    done: list[Damage] = []
    for _ in range(chance.choice((1, 1, 1, 2))):
        logs = wal_files(disk)
        kind = chance.random()
        if kind < 0.15 and logs and not done:
            return [_vanish(disk, chance.choice((logs[0], logs[-1], chance.choice(logs))))]
        path = _a_file(disk, chance, kind, logs)
        if path and not (path == logs[-1] and any(each.is_newest for each in done)):
            done.append(_flip(disk, path, chance, is_newest=path == logs[-1]))
    return done


def wal_files(disk: SimulatedDisk) -> list[str]:
    """The WAL files, oldest first."""
    return [path for path in disk.paths("/data/wal") if path.endswith(".log")]


def _a_file(disk: SimulatedDisk, chance: random.Random, kind: float, logs: list[str]) -> str:
    belongs: Callable[[str], bool]
    if kind < 0.7:
        return chance.choice((logs[-1], logs[0], chance.choice(logs)))
    if kind < 0.8:
        belongs = lambda path: path in {"/data/STORE", "/data/TOPICS"}  # noqa: E731
    elif kind < 0.9:
        belongs = lambda path: path.startswith(("/data/segments/", "/data/cache/"))  # noqa: E731
    else:
        belongs = lambda path: path not in logs  # noqa: E731
    found = [path for path in disk.paths("/data") if belongs(path) and disk.peek(path)]
    return chance.choice(found) if found else ""


def _flip(disk: SimulatedDisk, path: str, chance: random.Random, *, is_newest: bool) -> Damage:
    data = disk.peek(path)
    used = len(data.rstrip(b"\0")) or len(data)
    limit = chance.choice((min(OPENING_BYTES, used), used, used, used, used, len(data)))
    position, bit = chance.randrange(limit), chance.randrange(8)
    good_end = end_in_front(data, position) if path.endswith(".log") else None
    disk.flip_bit(path, position, bit)
    return Damage(path, position, bit, good_end=good_end, is_newest=is_newest)


def _vanish(disk: SimulatedDisk, path: str) -> Damage:
    logs = wal_files(disk)
    good_end = end_in_front(disk.peek(path), 0)
    disk.make_directories(LOST)
    kept = f"{LOST}/{len(disk.paths(LOST))}"
    disk.rename(path, kept)
    disk.sync_directory(path.rpartition("/")[0])
    disk.sync_directory(LOST)
    return Damage(path, kept=kept, good_end=good_end, is_newest=path == logs[-1])


def sworn_bytes(disk: SimulatedDisk, path: str) -> int:
    """The first bytes of a WAL file that later frames swear to, or all that an older one has: what
    is damaged there is never taken for a write that broke off, whatever befalls the rest.
    """
    newest = max(each for each in disk.paths(path.rpartition("/")[0]) if each.endswith(".log"))
    if path != newest:
        return len(disk.peek(path).rstrip(b"\0"))
    view, sworn = memoryview(disk.peek_durable(path) or b""), 0
    try:
        header = decode_wal_file_header(view)
    except ChronikError:
        return 0
    at = header.header_bytes
    while (frame := decode_frame(view, at, file_id=header.file_id)) is not None:
        if frame.synced_file == header.file_seq:
            sworn = frame.synced_position
        at = frame.next_position
    return sworn


def end_in_front(data: bytes, position: int) -> int:
    """Where the records end that stand whole in front of a byte of a WAL file, or in older files;
    0 if the file does not say.
    """
    end, view = 0, memoryview(data)
    try:
        header = decode_wal_file_header(view)
        at = header.header_bytes
        while (frame := decode_frame(view, at, file_id=header.file_id)) is not None:
            if frame.kind == FrameKind.CHECKPOINT:
                end = decode_checkpoint(frame_payload(view, frame)).base.offset
            elif frame.next_position > position:
                break
            elif frame.kind == FrameKind.ENTRY:
                entry, _ = frame_entry(view, frame)
                end = entry.end_offset if entry.kind == EntryKind.RECORDS else end
            at = frame.next_position
    except ChronikError:
        return end  # an older damage that nobody has met
    return end
