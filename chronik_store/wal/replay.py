"""Replay: frames in physical order, with the semantics that they had when they were written.

Place: in `wal`, under recovery and follow. Promise: after the last frame, `table` holds the live
entries, `hard_state` and `suspect` what was last written, and `copy_from` the first index whose
frames no mark swears to. Truncations apply unconditionally, whatever any other value is folded to
(protocol 1). Invariant: the replayer is told every truncation before what makes it.
"""

from __future__ import annotations

from chronik_store.errors import CorruptionError
from chronik_store.format.checkpoint import Checkpoint
from chronik_store.format.entry import EntryHeader
from chronik_store.format.frame import (
    FrameHeader,
    FrameKind,
    decode_hard_state,
    decode_suspect,
    decode_truncate,
    frame_entry,
    frame_payload,
)
from chronik_store.format.manifest_file import LogBase
from chronik_store.wal.entry_table import EntryTable, LogFile
from chronik_store.wal.settings import Replayer

_ENTRY = int(FrameKind.ENTRY)
_HARD_STATE = int(FrameKind.HARD_STATE)
_TRUNCATE = int(FrameKind.TRUNCATE)
_MARK = int(FrameKind.MARK)
_SUSPECT = int(FrameKind.SUSPECT)


class Replay:
    """The state of a log after the frames seen so far. `sworn`: the highest mark, as (file_seq,
    seq, position): everything up to there was on disk when a later frame was written.
    """

    def __init__(self, replayer: Replayer) -> None:
        self.table = EntryTable()
        self.hard_state = (0, "")
        self.suspect = False
        self.commit_index = 0
        self.last_seq = 0
        self.entries = 0
        self.sworn = (0, 0, 0)
        self.checkpoint: Checkpoint | None = None
        self._replayer = replayer
        self._changes: list[tuple[int, int]] = []

    @property
    def committed(self) -> int:
        """The newest commit index that any frame knew, within what is here. The base always is:
        only what is committed is pruned or stood for by a snapshot.
        """
        return max(self.table.base.index, min(self.commit_index, self.table.last_index))

    @property
    def copy_from(self) -> int:
        """The first index that frames above the mark have changed; last_index + 1 if none."""
        return min((low for _, low in self._changes), default=self.table.last_index + 1)

    def open_file(self, file: LogFile, checkpoint: Checkpoint) -> None:
        """The next file: entries behind its base are dead, those up to it stay if they match it."""
        table = self.table
        if checkpoint.previous_end is not None:
            self.swear(checkpoint.previous_end)
        self._change(file.seq, checkpoint.base.index + 1)
        if self.checkpoint is None:
            table.reset(checkpoint.base)
        elif self._matches(checkpoint.base):
            if checkpoint.base.index < table.last_index:
                self._truncate(checkpoint.base.index + 1)
        else:
            self._replayer.on_truncate(table.first_index)
            table.reset(checkpoint.base)
        file.first_index = table.last_index + 1
        table.files.append(file)
        self.checkpoint = checkpoint
        self.last_seq = file.seq
        self.raise_hard_state(checkpoint.term, checkpoint.vote)
        # As staged when this file began: what cleared it may lie in a part that is not replayed.
        self.suspect = checkpoint.suspect
        self.commit_index = max(self.commit_index, checkpoint.committed_index)
        self._replayer.on_checkpoint(checkpoint)

    def apply(self, frame: FrameHeader, view: memoryview, file: LogFile) -> None:
        """The next frame of the newest file. CorruptionError when it is damaged or does not fit;
        then nothing has changed.
        """
        kind = frame.kind
        if kind == _ENTRY:
            header, payload = frame_entry(view, frame, path=file.path)
            self._entry(frame, header, payload, file)
        elif kind == _HARD_STATE:
            self.hard_state = decode_hard_state(frame_payload(view, frame), path=file.path)
            self._replayer.on_hard_state(*self.hard_state)
        elif kind == _TRUNCATE:
            index = decode_truncate(frame_payload(view, frame), path=file.path)
            if index <= self.table.base.index:
                raise CorruptionError(f"a truncation to {index}, below the base", path=file.path)
            self._change(frame.seq, index)
            self._truncate(index)
        elif kind == _SUSPECT:
            self.suspect = decode_suspect(frame_payload(view, frame), path=file.path)
        elif kind != _MARK:
            raise CorruptionError(f"a frame of kind {kind} amid a file", path=file.path)
        self.last_seq = frame.seq
        if frame.synced_seq > self.sworn[1]:
            self.swear((frame.synced_file, frame.synced_seq, frame.synced_position))
        self.commit_index = max(self.commit_index, frame.committed_index)

    def raise_hard_state(self, term: int, vote: str) -> None:
        """Take a hard state that was found, unless a later term is known."""
        if term >= self.hard_state[0]:
            self.hard_state = (term, vote)
            self._replayer.on_hard_state(term, vote)

    def _entry(
        self, frame: FrameHeader, header: EntryHeader, payload: memoryview, file: LogFile
    ) -> None:
        table = self.table
        index = header.index
        if index != table.last_index + 1 or header.base_offset != table.end_offset:
            raise CorruptionError(
                f"entry {index} at offset {header.base_offset} does not follow entry "
                f"{table.last_index}, which ends at offset {table.end_offset}",
                path=file.path,
            )
        self._changes.append((frame.seq, index))
        table.append(header, frame.position - file.origin, frame.next_position - frame.position)
        self.entries += 1
        self._replayer.on_entry(header, payload)

    def _truncate(self, index: int) -> None:
        if index <= self.table.last_index:
            self._replayer.on_truncate(index)
            self.table.truncate(index)

    def _matches(self, base: LogBase) -> bool:
        table = self.table
        return (
            table.base.index <= base.index <= table.last_index
            and table.term(base.index) == base.term
            and table.position_after(base.index).offset == base.offset
        )

    def _change(self, seq: int, index: int) -> None:
        self._changes.append((seq, index))

    def swear(self, sworn: tuple[int, int, int]) -> None:
        """Everything up to this (file_seq, seq, position) was on disk."""
        self.sworn = sworn
        changes, done = self._changes, 0
        while done < len(changes) and changes[done][0] <= sworn[1]:
            done += 1
        del changes[:done]
