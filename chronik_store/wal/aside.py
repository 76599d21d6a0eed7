"""What is set aside: files behind damage, beside the line, and in front of where the log is used.

Place: in `wal`, under `recovery`. Promise: each file of the directory is in the table, the unused
ones without entries, so that pruning finds them; what is evidence of damage is marked, and goes to
quarantine, never away. Invariant: a term that an unused file promised stays promised.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from chronik_store.format.frame import decode_frame
from chronik_store.fs.base import FileSystem
from chronik_store.wal.chain import Chain, Opening
from chronik_store.wal.entry_table import LogFile
from chronik_store.wal.replay import Replay
from chronik_store.wal.verdict import Remains, judge, remains_of, strongest_hard_state


def set_rest_aside(
    fs: FileSystem, rest: Sequence[Opening], replay: Replay, *, live: bool
) -> Remains:
    """The files of the line behind the damage; returns what else they say. `live`: a writer beside
    may have taken some of them away by now.
    """
    remains = Remains()
    for late in rest:
        with _unless_gone(live=live):
            remains = remains.joined(_keep_hard_state(fs, late, replay))
            replay.table.files.append(_unused(late, replay))
    return remains


def set_others_aside(fs: FileSystem, chain: Chain, replay: Replay, *, live: bool) -> None:
    """Files that are no part of the chain: evidence of damage, or a file that was made and then
    made anew by the next open. `live`: that one may have taken it away by now.
    """
    parents = {opening.previous_end for opening in chain.files}
    files = replay.table.files
    known = {file.seq for file in files}
    for opening in chain.aside:
        if opening.seq in known:
            continue
        with _unless_gone(live=live):
            _keep_hard_state(fs, opening, replay)
            file = _unused(opening, replay)
            if not opening.fault and opening.previous_end in parents:
                file.damaged = _other_is_damaged(fs, opening)
            files.append(file)
    _bring_into_order(replay)


def set_front_aside(front: Iterable[Opening], whole: frozenset[int], replay: Replay) -> None:
    """Files in front of those that are used; the `whole` ones (seqs) are no evidence. What terms
    they promised is in the checkpoint that follows them.
    """
    for opening in front:
        file = _unused(opening, replay)
        file.damaged = opening.seq not in whole
        replay.table.files.append(file)
    _bring_into_order(replay)


def dead_part_is_damaged(view: memoryview, file_id: int, position: int, last_seq: int) -> bool:
    """Whether what stands behind the end of an older file (its frame `last_seq`) is more than
    frames that were copied on and a torn write: then the file is evidence, not to be deleted.
    """
    seq = last_seq + 1
    while (frame := decode_frame(view, position, file_id=file_id)) and frame.seq == seq:
        position, seq = frame.next_position, seq + 1
    judgement = judge(view, position, file_id=file_id, expected_seq=seq, sworn_seq=last_seq)
    return judgement.verdict == "suspect"


@contextmanager
def _unless_gone(*, live: bool) -> Iterator[None]:
    """What is done here to a file is left out if a writer beside has removed it."""
    try:
        yield
    except FileNotFoundError:
        if not live:
            raise


def _unused(opening: Opening, replay: Replay) -> LogFile:
    file = LogFile(opening.seq, opening.path, replay.table.last_index)
    file.size = opening.size
    file.damaged = True
    return file


def _bring_into_order(replay: Replay) -> None:
    files = replay.table.files
    files.sort(key=lambda file: file.seq)
    # A file without live entries starts where the next one does, so that look-ups pass it by.
    border = replay.table.last_index + 1
    for file in reversed(files):
        border = file.first_index = file.first_index if file.count else border


def _other_is_damaged(fs: FileSystem, opening: Opening) -> bool:
    assert opening.header is not None
    handle = fs.open(opening.path)
    try:
        with handle.map() as view:
            return dead_part_is_damaged(view, opening.header.file_id, opening.origin, opening.seq)
    finally:
        handle.close()


def _keep_hard_state(fs: FileSystem, opening: Opening, replay: Replay) -> Remains:
    """A term that was promised stays promised, even if the log it stood in is damaged. Returns
    what else the file says.
    """
    if opening.checkpoint is None or opening.header is None:
        return Remains()
    term, vote = opening.checkpoint.term, opening.checkpoint.vote
    handle = fs.open(opening.path)
    try:
        with handle.map() as view:
            found = strongest_hard_state(view, opening.origin, opening.header.file_id)
            remains = remains_of(view, opening.origin, opening.header.file_id)
    finally:
        handle.close()
    strongest = max(found, (term, vote))
    if strongest[0] > replay.hard_state[0]:
        replay.raise_hard_state(*strongest)
    return remains
