"""What is to be written next: frames and new files, in `seq` order.

Place: in `wal`, between the callers who stage (under the WAL's lock, without I/O) and the leader
who takes a group and writes it. Promise: every frame has its seq, its file and its place in that
file when it is staged, so nothing about it depends on how groups fall. Invariant: seq grows by one
per frame, checkpoints included; the state that a new file's checkpoint repeats (base, hard state,
suspicion) is what the frames before it make of it, no earlier and no later. Not thread-safe.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from chronik_store.format.checkpoint import Checkpoint
from chronik_store.format.frame import FrameKind
from chronik_store.format.manifest_file import LogBase
from chronik_store.fs.base import Buffer
from chronik_store.wal.entry_table import LogFile

Frame = tuple[int, int, bytes, Buffer, int, int]
"""(seq, kind, entry header or b"", payload, position relative to the file's origin, bytes).

A plain tuple: one is made per append.
"""

_MARK = int(FrameKind.MARK)


@dataclass(frozen=True, slots=True)
class NewFile:
    """The next frames open a new file, whose checkpoint says this of the log as it is then.

    folds None: the owner is asked when the file is made.
    """

    seq: int
    file: LogFile
    base: LogBase
    term: int
    vote: str
    suspect: bool
    folds: Checkpoint | None


@dataclass(slots=True)
class Group:
    """What one write takes: perhaps a new file, then frames of that file."""

    new_file: NewFile | None = None
    frames: list[Frame] = field(default_factory=list)
    size_bytes: int = 0

    @property
    def last_seq(self) -> int:
        """The seq that is synced when this group is."""
        if self.frames:
            return self.frames[-1][0]
        assert self.new_file is not None
        return self.new_file.seq


class Staging:
    """Frames on their way to the disk. bound_seq: frames up to here go into one group, whatever its
    size (the copies that a starting log makes count with its new file or not at all).
    """

    __slots__ = ("_frames", "_new_files", "bound_seq", "end", "file", "file_base_index",
                 "hard_state", "last_content_seq", "last_seq", "pending_bytes",
                 "suspect")  # fmt: skip

    def __init__(self, last_seq: int, hard_state: tuple[int, str], *, suspect: bool) -> None:
        self.last_seq = last_seq
        self.last_content_seq = last_seq
        self.hard_state = hard_state
        self.suspect = suspect
        self.pending_bytes = 0
        self.file: LogFile | None = None
        self.file_base_index = 0
        self.end = 0
        self.bound_seq = 0
        self._frames: list[Frame] = []
        self._new_files: list[NewFile] = []

    @property
    def pending(self) -> bool:
        """Something waits to be written."""
        return bool(self._frames or self._new_files)

    def add(self, kind: int, head: bytes, payload: Buffer, size: int) -> int:
        """Stage a frame of `size` bytes at `end` of the current file; returns its seq."""
        self.last_seq = seq = self.last_seq + 1
        if kind != _MARK:
            self.last_content_seq = seq
        position = self.end
        self._frames.append((seq, kind, head, payload, position, size))
        self.end = position + size
        self.pending_bytes += size
        return seq

    def add_file(self, file: LogFile, base: LogBase, folds: Checkpoint | None) -> int:
        """Stage a new file, behind all that is staged; its seq is that of its checkpoint."""
        self.last_seq = self.last_content_seq = file.seq
        term, vote = self.hard_state
        self._new_files.append(NewFile(file.seq, file, base, term, vote, self.suspect, folds))
        self.file = file
        self.file_base_index = base.index
        self.end = 0
        return file.seq

    @property
    def lacks_folds(self) -> bool:
        """A staged file still waits to ask its owner for the folded values."""
        return any(opening.folds is None for opening in self._new_files)

    def give_folds(self, folds: Checkpoint) -> None:
        """Give staged files what is folded now, before it becomes something else."""
        self._new_files = [
            opening if opening.folds is not None else replace(opening, folds=folds)
            for opening in self._new_files
        ]

    def take(self, limit_bytes: int) -> Group | None:
        """The next group: everything pending up to `limit_bytes` (at least one frame) that goes
        into one file. None when nothing is pending.
        """
        frames, files = self._frames, self._new_files
        if not files and frames and self.pending_bytes <= limit_bytes:
            group = Group(None, frames, self.pending_bytes)
            self._frames = []
            self.pending_bytes = 0
            return group
        group = Group()
        if files and (not frames or frames[0][0] > files[0].seq):
            group.new_file = files.pop(0)
        border = files[0].seq if files else self.last_seq + 1
        for frame in frames:
            seq, size = frame[0], frame[5]
            over = group.size_bytes + size > limit_bytes
            if seq >= border or (over and group.frames and seq > self.bound_seq):
                break
            group.frames.append(frame)
            group.size_bytes += size
        del frames[: len(group.frames)]
        self.pending_bytes -= group.size_bytes
        return group if group.frames or group.new_file else None
