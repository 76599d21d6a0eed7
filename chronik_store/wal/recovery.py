"""Recovery: all files of a log, verified and replayed in physical order, and a verdict.

Place: in `wal`, above `chain`, `replay` and `verdict`; `Wal.recover` calls it. Promise: every
frame, entry and batch that is replayed has matched its checksums; nothing is written; memory is
bounded by the entry table. Invariant: nothing behind damage is replayed: the good part of a log is
a prefix, what stands behind it is set aside and reported, never cut off or copied over. Where
segments hold all of a node's log that the damage took, it is used from behind that on, as if those
files had been pruned.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field

from chronik_store.environment import Environment
from chronik_store.errors import CorruptionError
from chronik_store.format.frame import FrameKind, decode_frame, frame_entry
from chronik_store.fs.base import File, FileSystem
from chronik_store.log_identity import LOCAL_OWNER
from chronik_store.model import RecoveryReport, Verdict
from chronik_store.threads import Lock
from chronik_store.wal.aside import (
    dead_part_is_damaged,
    set_front_aside,
    set_others_aside,
    set_rest_aside,
)
from chronik_store.wal.chain import (
    Chain,
    Opening,
    look_through,
    possible_starts,
    select_chain,
)
from chronik_store.wal.entry_table import LogFile
from chronik_store.wal.replay import Replay
from chronik_store.wal.settings import Lack, Replayer, WalIdentity
from chronik_store.wal.verdict import (
    Judgement,
    Remains,
    judge,
    remains_of,
)

_FRAMES_AT_A_TIME = 1024


@dataclass(slots=True)
class Recovered:
    """What the files say.

    file, position: the last file that was replayed, and where its next frame would stand, for a
    follower to go on from; looked_through_at: when it last went through all that stands behind
    (monotonic seconds); remains: what stands whole behind damage; last_seq: above any seq in use;
    temporaries: unfinished files; lacks: what damage took of what stood before the first entry;
    covered: there is damage, in front of what is used, and segments hold all that stood there.
    """

    replay: Replay
    verdict: Verdict = "clean"
    findings: list[str] = field(default_factory=list)
    remains: Remains = field(default_factory=Remains)
    file: LogFile | None = None
    position: int = 0
    looked_through_at: float = -math.inf
    last_seq: int = 0
    files: int = 0
    bytes_scanned: int = 0
    cut_bytes: int = 0
    elapsed_seconds: float = 0.0
    temporaries: list[str] = field(default_factory=list)
    lacks: Lack = ""
    covered: bool = False

    @property
    def suspect(self) -> bool:
        """Acknowledged entries may be missing."""
        return self.verdict == "suspect"

    @property
    def unproved(self) -> LogFile | None:
        """The last file, if no frame swears to it: its name may not be durable. All that it holds
        is among what is copied, and the next file takes its place.
        """
        file = self.file
        proved = file is None or self.verdict == "suspect" or self.replay.sworn[1] >= file.seq
        return None if proved else file

    def report(self, copied_bytes: int = 0) -> RecoveryReport:
        """The public account of it."""
        table = self.replay.table
        return RecoveryReport(
            verdict=self.verdict,
            files=self.files,
            bytes_scanned=self.bytes_scanned,
            entries=self.replay.entries,
            first_index=table.first_index,
            last_index=table.last_index,
            end_offset=table.end_offset,
            committed_offset=table.position_after(self.replay.committed).offset,
            cut_bytes=self.cut_bytes,
            copied_bytes=copied_bytes,
            elapsed_seconds=self.elapsed_seconds,
            findings=tuple(self.findings),
        )


def recover(
    env: Environment,
    directory: str,
    identity: WalIdentity,
    replayer: Replayer,
    *,
    live: bool,
    first_seq: int = 0,
) -> Recovered:
    """Scan and replay. `live`: another process may be writing, so the end of the last file is
    where nothing more is readable *yet*; damage is judged only when it stays. `first_seq`: files
    below it are left out, as if they had been pruned.

    IdentityMismatchError, FutureVersionError; OSError as it comes.
    """
    started = env.clock.monotonic()
    seqs, temporaries, openings = look_through(env.fs, directory, identity, first_seq, live=live)
    chain, line, found = _replay_all(env.fs, openings, replayer, live=live)
    of_a_node = identity.owner != LOCAL_OWNER
    if found.suspect and of_a_node:
        chain, line, found = _without_the_covered(env.fs, openings, found, replayer, live=live)
    table = found.replay.table
    if not (of_a_node or live) and replayer.lacks(table.base.index, found.replay.committed):
        # Also of a file that held no records, which nothing behind it names: its entries are part
        # of the next segment, which could never be made. (A node gets them from the others.)
        found.verdict = "suspect"
    if found.suspect:
        found.lacks = replayer.lacks(table.base.index, found.replay.committed)
        if found.lacks:
            what = "which segments there were" if found.lacks == "segments" else "what was"
            found.findings.append(
                f"{what} before entry {table.first_index} is lost with the damage"
            )
            if of_a_node:
                line = _take_nothing(found, replayer)
    remains = set_rest_aside(env.fs, chain.files[line:], found.replay, live=live)
    found.remains = found.remains.joined(remains)
    _say_what_remains(found)
    set_others_aside(env.fs, chain, found.replay, live=live)
    found.files, found.temporaries = len(seqs), temporaries
    found.last_seq = max(found.last_seq, found.replay.last_seq, max(seqs, default=0))
    found.elapsed_seconds = env.clock.monotonic() - started
    return found


def _replay_all(
    fs: FileSystem, openings: list[Opening], replayer: Replayer, *, live: bool, is_cut: bool = False
) -> tuple[Chain, int, Recovered]:
    """The chain of these files, how many of it are used, and what they say."""
    chain = select_chain(openings, is_cut=is_cut)
    found = Recovered(Replay(replayer))
    if chain.findings:
        found.verdict = "suspect"
        found.findings += chain.findings
    return chain, _replay_chain(fs, chain, found, live=live), found


def _without_the_covered(
    fs: FileSystem, openings: list[Opening], first: Recovered, replayer: Replayer, *, live: bool
) -> tuple[Chain, int, Recovered]:
    """Replay from behind the damage, if segments hold all that stood in front of there: such a log
    is what pruning would have left of it; without further damage its node is as good a voter as
    before, with more of it as much is used as can be. If they do not, it is replayed as it was
    `first`.

    A log of its own is not helped like this: whether the objects are still there is for `repair`
    to look at first, since nobody else has a copy.
    """
    reached, damaged = first.replay.table.last_index, _damaged_seq(first)
    begin = 0
    for start in possible_starts(openings):
        if start.seq <= damaged:
            continue
        replayer.on_nothing()
        place = openings.index(start)
        _, _, found = _replay_all(fs, openings[place:], replayer, live=live, is_cut=True)
        damaged, table = max(damaged, _damaged_seq(found)), found.replay.table
        is_covered = not replayer.lacks(table.base.index, found.replay.committed)
        if is_covered and (table.last_index > reached or not found.suspect):
            begin, reached = place, table.last_index
        if not found.suspect:
            break  # To the end, and if segments do not reach here, they reach to no later file.
    replayer.on_nothing()
    chain, line, found = _replay_all(fs, openings[begin:], replayer, live=live, is_cut=begin > 0)
    if begin:
        table, found.covered = found.replay.table, True
        said = f"segments hold all that stood before entry {table.first_index}"
        used = f"{said}: the log is used from there on"
        found.findings = list(dict.fromkeys([*first.findings, used, *found.findings]))
        whole = frozenset(file.seq for file in first.replay.table.files if not file.damaged)
        set_front_aside(openings[:begin], whole, found.replay)
    return chain, line, found


def _damaged_seq(found: Recovered) -> int:
    """The file whose frames ended the replay; 0: none."""
    return found.file.seq if found.file is not None and found.file.damaged else 0


def _replay_chain(fs: FileSystem, chain: Chain, found: Recovered, *, live: bool) -> int:
    """Replay the files up to the first damage; returns how many."""
    for place, opening in enumerate(chain.files):
        following = chain.files[place + 1] if place + 1 < len(chain.files) else None
        try:
            handle = fs.open(opening.path)
        except FileNotFoundError:
            if not live:
                raise
            continue  # Pruned since; the checkpoint of the next file takes the log up from there.
        try:
            file = found.file = open_file(opening, found.replay)
            good = replay_file(handle, file, following, found, live=live)
        finally:
            handle.close()
        if not good:
            return place + 1
    return len(chain.files)


def _take_nothing(found: Recovered, replayer: Replayer) -> int:
    """Take back a damaged line whose beginning is lost: files are pruned on the strength of later
    ones, which may stand behind the damage. A node has the others to get all of it from, and would
    else be a replica whose state is not that of its log.
    """
    found.findings.append("nothing of this log is used: the other nodes have it")
    found.last_seq = max(found.last_seq, found.replay.last_seq)
    found.file, found.position = None, 0
    replayer.on_nothing()
    found.replay = Replay(replayer)
    return 0


def open_file(opening: Opening, replay: Replay) -> LogFile:
    """Replay a file's checkpoint; the file is then the newest of the table."""
    assert opening.header is not None
    assert opening.checkpoint is not None
    file = LogFile(opening.seq, opening.path, opening.checkpoint.base.index)
    file.file_id = opening.header.file_id
    file.origin = opening.origin
    file.size = opening.size
    checkpoint = opening.checkpoint
    file.folded_to = min(checkpoint.manifest_folded_to, checkpoint.producers_folded_to)
    replay.open_file(file, checkpoint)
    return file


def replay_file(
    handle: File,
    file: LogFile,
    following: Opening | None,
    found: Recovered,
    *,
    live: bool,
    start: int | None = None,
    lock: Lock | None = None,
) -> bool:
    """Replay the frames of one file up to where it ends for the file `following` it, or to the
    last good frame. False: damage ends the log here (noted in `found`).

    A log that is being read while it is replayed gives its lock, which is held for a bounded
    number of frames at a time.
    """
    end = None
    if following is not None:
        assert following.checkpoint is not None
        end = following.checkpoint.previous_end
    if live and end is not None and start is not None and start > end[2]:
        # A reader beside the writer has been further already: frames that the next file does not
        # build on, such as the mark of the last close. What they hold is truncated when it opens.
        return True
    with handle.map() as view:
        position = found.position = file.origin if start is None else start
        fault: str | None = None
        while fault is None:
            with lock or nullcontext():
                position, fault = _replay_frames(view, file, position, end, found)
        found.bytes_scanned += position - found.position
        found.position = position
        if end is not None:
            return _reached(view, file, position, end, fault, found)
        return _last_file(view, file, position, fault, found, live=live)


def _replay_frames(
    view: memoryview,
    file: LogFile,
    position: int,
    end: tuple[int, int, int] | None,
    found: Recovered,
) -> tuple[int, str | None]:
    """Apply some frames from `position` on; returns where they end, and what is wrong there ("":
    nothing, the end is reached; None: there may be more).
    """
    replay = found.replay
    limit = len(view) if end is None else min(end[2], len(view))
    for _ in range(_FRAMES_AT_A_TIME):
        if position >= limit:
            return position, ""
        frame = decode_frame(view, position, file_id=file.file_id)
        if frame is None:
            return position, "not a frame"
        if frame.seq != replay.last_seq + 1:
            return position, f"its seq is {frame.seq}, not {replay.last_seq + 1}"
        try:
            replay.apply(frame, view, file)
        except CorruptionError as error:
            return position, error.finding
        position = frame.next_position
    return position, None


def _reached(
    view: memoryview,
    file: LogFile,
    position: int,
    end: tuple[int, int, int],
    fault: str,
    found: Recovered,
) -> bool:
    """Whether an older file holds all that the file after it builds on."""
    replay = found.replay
    if position == end[2] and replay.last_seq == end[1]:
        file.damaged = dead_part_is_damaged(view, file.file_id, position, replay.last_seq)
        return True
    judgement = judge(
        view, position, file_id=file.file_id, expected_seq=replay.last_seq + 1, sworn_seq=end[1]
    )
    _note_damage(view, file, position, judgement, fault, found, sworn_seq=end[1])
    return False


def _last_file(
    view: memoryview, file: LogFile, position: int, fault: str, found: Recovered, *, live: bool
) -> bool:
    replay = found.replay
    judgement = judge(
        view,
        position,
        file_id=file.file_id,
        expected_seq=replay.last_seq + 1,
        sworn_seq=replay.sworn[1],
    )
    if live and not (judgement.below_mark and _still_damaged(view, file, position)):
        return True  # Being written, or not sworn to yet: the next look will tell.
    if judgement.verdict == "suspect":
        sworn_seq = replay.sworn[1]
        _note_damage(view, file, position, judgement, fault, found, sworn_seq=sworn_seq)
        return False
    if judgement.verdict == "torn":
        found.verdict = "torn" if found.verdict == "clean" else found.verdict
        found.cut_bytes = judgement.end - position
        found.last_seq = max(found.last_seq, judgement.last_seq)
        found.findings.append(
            f"{file.path}: a group was cut off at byte {position}; it was never acknowledged"
        )
    return True


def _still_damaged(view: memoryview, file: LogFile, position: int) -> bool:
    """Whether a frame that was seen damaged, beside a live writer, is so at a second look."""
    frame = decode_frame(view, position, file_id=file.file_id)
    try:
        if frame is not None and frame.kind == FrameKind.ENTRY:
            frame_entry(view, frame)
    except CorruptionError:
        return True
    return frame is None


def _note_damage(
    view: memoryview,
    file: LogFile,
    position: int,
    judgement: Judgement,
    fault: str,
    found: Recovered,
    *,
    sworn_seq: int,
) -> None:
    replay = found.replay
    file.damaged = True
    found.verdict = "suspect"
    found.remains = found.remains.joined(remains_of(view, position, file.file_id))
    found.cut_bytes = max(0, judgement.end - position)
    found.last_seq = max(found.last_seq, judgement.last_seq)
    replay.raise_hard_state(*max(judgement.hard_state, replay.hard_state))
    reason = judgement.reason or fault or "the file ends too early"
    found.findings.append(
        f"{file.path}: {reason}; entries up to {replay.table.last_index} (offset "
        f"{replay.table.end_offset}) are good, bytes {position} to {judgement.end} are not used"
    )
    if sworn_seq > replay.last_seq:
        replay.swear((file.seq, replay.last_seq, position))


def _say_what_remains(found: Recovered) -> None:
    """Which offsets are at stake: whoever reads this may have no other copy."""
    table, remains = found.replay.table, found.remains
    if remains.last_index > table.last_index:
        found.findings.append(
            f"behind the damage whole entries up to {remains.last_index} (offset "
            f"{remains.end_offset}) are left, which `chronik inspect` shows"
        )
    if remains.committed_index > table.last_index:
        found.findings.append(f"entries up to {remains.committed_index} had been committed")
