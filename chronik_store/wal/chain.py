"""Which files make up the log: the chain from the newest checkpoint back to the oldest file.

Place: in `wal`, under recovery. Promise: each file is judged by its header and its checkpoint,
never by its name alone; what does not belong to the chain is set aside by name, nothing is
deleted. Invariant: a checkpoint says where the files before it end (`previous_end`), so the files
of a log form one line; a gap in it, or a checkpoint that cannot be read, is damage, since a file
has its name only once its checkpoint is on disk.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from chronik_store.errors import CorruptionError, IdentityMismatchError
from chronik_store.format.checkpoint import Checkpoint, decode_checkpoint
from chronik_store.format.frame import (
    FRAME_HEADER_BYTES,
    FrameHeader,
    FrameKind,
    decode_frame,
    frame_payload,
    peek_frame,
)
from chronik_store.format.manifest_file import LogBase
from chronik_store.format.wal_file import (
    WAL_HEADER_BYTES_MAX,
    WalFileHeader,
    decode_wal_file_header,
)
from chronik_store.fs.base import File, FileSystem
from chronik_store.wal.active_file import TEMPORARY, file_path
from chronik_store.wal.settings import WalIdentity

_NAME = re.compile(r"wal_(\d{20})\.log")
_CHECKPOINT = int(FrameKind.CHECKPOINT)
_FIRST_READ_BYTES = 1 << 16
_LISTINGS_MAX = 8
"""So often a reader lists the files again that its writer replaces meanwhile."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How a WAL file begins: header and checkpoint frame; `fault` says why they are not readable.

    origin: where the frames behind the checkpoint start.
    """

    seq: int
    path: str
    size: int
    fault: str = ""
    header: WalFileHeader | None = None
    checkpoint: Checkpoint | None = None
    frame: FrameHeader | None = None

    @property
    def origin(self) -> int:
        """Where the first frame behind the checkpoint stands."""
        return 0 if self.frame is None else self.frame.next_position

    @property
    def previous_end(self) -> tuple[int, int, int] | None:
        """Where the files before this one end, by its checkpoint."""
        return None if self.checkpoint is None else self.checkpoint.previous_end

    @property
    def previous(self) -> int:
        """The file_seq of the file before this one; 0 for the first."""
        return 0 if self.previous_end is None else self.previous_end[0]


@dataclass(frozen=True, slots=True)
class Chain:
    """files: the log, oldest first. aside: files that are no part of it. findings: what is wrong
    with the line; not empty means suspect.
    """

    files: tuple[Opening, ...]
    aside: tuple[Opening, ...]
    findings: tuple[str, ...]


def list_files(fs: FileSystem, directory: str) -> tuple[list[int], list[str]]:
    """(seqs of the WAL files in rising order, paths of unfinished ones). Empty when absent."""
    try:
        names = fs.list(directory)
    except FileNotFoundError:
        return [], []
    seqs = [int(found[1]) for name in names if (found := _NAME.fullmatch(name))]
    return sorted(seqs), [f"{directory}/{name}" for name in names if name.endswith(TEMPORARY)]


def log_id_in(fs: FileSystem, directory: str) -> str | None:
    """Whose files these are, also when no checkpoint of them is readable; None: no header is."""
    for seq in reversed(list_files(fs, directory)[0]):
        path = file_path(directory, seq)
        file = fs.open(path)
        try:
            return decode_wal_file_header(file.read_at(0, WAL_HEADER_BYTES_MAX), path=path).log_id
        except CorruptionError:
            continue  # recovery judges it; an older file is of the same log
        finally:
            file.close()
    return None


def look_through(
    fs: FileSystem, directory: str, identity: WalIdentity, first_seq: int, *, live: bool
) -> tuple[list[int], list[str], list[Opening]]:
    """The seqs of the WAL files from `first_seq` on, the paths of unfinished ones, and how the
    former begin. `live`: a writer beside may prune some, and make others, meanwhile.

    IdentityMismatchError; else as `read_opening`.
    """
    listings = 0
    while True:
        found, temporaries = list_files(fs, directory)
        seqs = [seq for seq in found if seq >= first_seq]
        openings = _read_openings(fs, directory, seqs, identity, live=live)
        listings += 1
        # What is pruned is missed by the files that were there before; not by the new one, on the
        # strength of whose checkpoint it was: look at those of one moment.
        if not live or listings == _LISTINGS_MAX or list_files(fs, directory)[0] == found:
            return seqs, temporaries, openings


def _read_openings(
    fs: FileSystem, directory: str, seqs: list[int], identity: WalIdentity, *, live: bool
) -> list[Opening]:
    openings: list[Opening] = []
    for seq in seqs:
        try:
            openings.append(read_opening(fs, directory, seq, identity))
        except FileNotFoundError:
            if not live:
                raise
            # Pruned by the writer since the listing, front to back, so those before have gone, too;
            # or one that a new writer has made anew, and those before are there.
            openings = [each for each in openings if fs.exists(each.path)]
    log_ids = {opening.header.log_id for opening in openings if opening.header is not None}
    if len(log_ids) > 1:
        raise IdentityMismatchError(
            f"{directory} holds files of several logs: {sorted(log_ids)}; put each log's "
            "files back where they belong"
        )
    return openings


def read_opening(fs: FileSystem, directory: str, seq: int, identity: WalIdentity) -> Opening:
    """Header and checkpoint of a file.

    IdentityMismatchError when it is another log's; FutureVersionError; OSError as it comes.
    """
    path = file_path(directory, seq)
    file = fs.open(path)
    try:
        size = file.size()
        try:
            header, frame, checkpoint = _decode(file, path)
        except CorruptionError as error:
            return Opening(seq, path, size, str(error.args[0]))
    finally:
        file.close()
    _check_identity(header, checkpoint, identity, path)
    if header.file_seq != seq or frame.seq != seq:
        return Opening(seq, path, size, f"its header says it is file {header.file_seq}")
    return Opening(seq, path, size, "", header, checkpoint, frame)


def _decode(file: File, path: str) -> tuple[WalFileHeader, FrameHeader, Checkpoint]:
    data = file.read_at(0, _FIRST_READ_BYTES)
    try:
        header = decode_wal_file_header(data, path=path)
    except CorruptionError:
        data = file.read_at(0, WAL_HEADER_BYTES_MAX)
        header = decode_wal_file_header(data, path=path)
    position = header.header_bytes
    if len(data) < position + FRAME_HEADER_BYTES:
        data = file.read_at(0, position + FRAME_HEADER_BYTES)
    claimed = peek_frame(memoryview(data), position)
    if claimed is not None and claimed.payload_end > len(data):
        data = file.read_at(0, min(claimed.payload_end, file.size()))
    view = memoryview(data)
    frame = decode_frame(view, position, file_id=header.file_id)
    if frame is None or frame.kind != _CHECKPOINT:
        raise CorruptionError("its checkpoint is not readable", path=path)
    return header, frame, decode_checkpoint(frame_payload(view, frame), path=path)


def _check_identity(
    header: WalFileHeader, checkpoint: Checkpoint, identity: WalIdentity, path: str
) -> None:
    found = (header.topic, header.partition, header.topic_id)
    wanted = (identity.topic, identity.partition, identity.topic_id)
    log_ids = {header.log_id, checkpoint.log_id, identity.log_id or header.log_id}
    if found != wanted or len(log_ids) != 1:
        raise IdentityMismatchError(
            f"{path} belongs to {found} with log id {header.log_id}, not to {wanted} with log id "
            f"{identity.log_id or checkpoint.log_id}: the directory holds another log's files; put "
            "them back where they belong"
        )


def select_chain(openings: list[Opening], *, is_cut: bool = False) -> Chain:
    """The chain among all files of the directory, given in rising order of seq. `is_cut`: those
    before the first were left out on purpose, and whether they are needed is not asked here.
    """
    if not openings:
        return Chain((), (), ())
    findings = tuple(f"{opening.path}: {opening.fault}" for opening in openings if opening.fault)
    line = [openings[-1]]
    by_seq = {opening.seq: opening for opening in openings}
    while not line[-1].fault and line[-1].previous in by_seq:
        line.append(by_seq[line[-1].previous])
    oldest = line[-1]
    if not oldest.fault:
        begins = is_cut and oldest is openings[0]
        missing = "" if begins else _missing(openings, oldest, line[0])
        if not missing:
            # Faulty files beside an intact line were set aside by an earlier open.
            return _chain(openings, line[::-1], ())
        findings += (missing,)
    return _chain(openings, _good_prefix(openings), findings)


def possible_starts(openings: Sequence[Opening]) -> list[Opening]:
    """The files, oldest first, with which a log could begin if segments hold all that stood before:
    the newest file's checkpoint knows what else that said.
    """
    newest = openings[-1].checkpoint if openings else None
    if newest is None:
        return []
    return [
        opening
        for opening in openings[1:]
        if opening.checkpoint is not None and is_superseded(opening.checkpoint.base, newest)
    ]


def is_superseded(base: LogBase, newest: Checkpoint) -> bool:
    """Whether this checkpoint is folded over all that stood up to `base`."""
    return base.index <= min(newest.manifest_folded_to, newest.producers_folded_to)


def _missing(openings: list[Opening], oldest: Opening, newest: Opening) -> str:
    """What shows that files before `oldest` are lost, not pruned; "" if nothing does."""
    assert oldest.checkpoint is not None
    assert newest.checkpoint is not None
    base, checkpoint = oldest.checkpoint.base, newest.checkpoint
    covered = max(checkpoint.manifest.next.offset, checkpoint.manifest.start_offset)
    if base.offset > covered:
        return (
            f"{oldest.path} starts at offset {base.offset}, and no segment holds offsets "
            f"{covered} to {base.offset}: the file before it is missing"
        )
    # Where a checkpoint stands for all that is missing, it was pruned; a file before it that is
    # there was pruned, too, and its removal did not reach the disk.
    superseded = min(checkpoint.manifest_folded_to, checkpoint.producers_folded_to)
    if base.index > superseded and any(opening.seq < oldest.previous for opening in openings):
        return f"file {oldest.previous}, which {oldest.path} continues, is missing"
    return ""


def _good_prefix(openings: list[Opening]) -> list[Opening]:
    """The longest run of readable files from the oldest on, along the newest continuation, also of
    what is not there any more: an open that ended early has a file beside that of the next one.

    The oldest is the one behind the last that was pruned. One before it that is there was pruned,
    too, and its removal did not reach the disk.
    """
    readable = [opening for opening in openings if not opening.fault]
    line: list[Opening] = []
    previous = _first(openings, readable).previous if readable else 0
    while following := [opening for opening in readable if opening.previous == previous]:
        line.append(following[-1])
        previous = following[-1].seq
    return line


def _first(openings: list[Opening], readable: list[Opening]) -> Opening:
    there = {opening.seq for opening in openings}
    behind_pruned = [
        opening
        for opening in readable[1:]
        if opening.previous not in there and not _missing(openings, opening, readable[-1])
    ]
    return behind_pruned[-1] if behind_pruned else readable[0]


def _chain(openings: list[Opening], line: list[Opening], findings: tuple[str, ...]) -> Chain:
    chosen = {opening.seq for opening in line}
    aside = tuple(opening for opening in openings if opening.seq not in chosen)
    return Chain(tuple(line), aside, findings)
