"""The file being written: one write and one sync per group, zeros ahead, new files made whole.

Place: in `wal`, under the group commit; the only module that writes WAL files. Promise: `write`
and `create` return when the group is durable; a file has its final name only when its header,
its checkpoint and the frames that came with them are on disk, so a file that is there is whole up
to its checkpoint, and an interrupted rotation leaves nothing but a `.tmp`. Invariant: the
committer never writes into a region that the filler is filling, nor the filler into one that was
or is being written; both are claimed under the WAL's lock. Where both sync one file at a time, the
error of either may be told to the other: a group counts once the filler's sync has succeeded, too.

Zeros ahead of a slow log are written into its file, a chunk at a time. A fast one gets its next
file whole (see `spare_file`), and goes on there as soon as its present zeros are used up. If its
groups are large, the blocks of that file are only reserved; once they are small again, the rest of
it is filled like any other.
"""

from __future__ import annotations

import errno
import logging
from functools import partial
from typing import Protocol

from chronik_store.commit.filler import give_back_zeros, write_zeros
from chronik_store.environment import Environment
from chronik_store.format.checkpoint import Checkpoint
from chronik_store.format.frame import FrameKind, Marks, encode_frame
from chronik_store.format.wal_file import WalFileHeader
from chronik_store.threads import Event, Lock
from chronik_store.wal.entry_table import LogFile
from chronik_store.wal.group import encode_group
from chronik_store.wal.hands import Hands
from chronik_store.wal.services import WalServices
from chronik_store.wal.settings import WalIdentity, WalSettings
from chronik_store.wal.spare_file import SpareFile
from chronik_store.wal.staging import Group

logger = logging.getLogger("chronik_store.wal")

_CHECKPOINT = int(FrameKind.CHECKPOINT)
_PAGE_BYTES = 4096
_GIVE_BACK_BYTES = 64 << 10
"""Fewer zeros than this stay behind the end of a file; also a multiple of any file system's block,
so that no block with a frame in it is touched.
"""
_FAST_FILL_SECONDS = 1.0
_LARGE_GROUP_BYTES = 256 << 10
"""From here on a sync that also commits the use of reserved blocks is cheaper than zeros, which are
the same bytes once more; for groups of 100 KiB it is not (decision 0027).
"""
_MEAN_OF_GROUPS = 8
_SPARE_SHARE = 4
"""A log that uses up the largest chunk's fourth part fast is one for spare files."""
_ELSEWHERE = (1 << 62, 0)
"""What the filler fills while it is at a spare file: nothing that a group could meet."""
TEMPORARY = ".tmp"


def file_path(directory: str, seq: int) -> str:
    """Where the WAL file whose first frame is `seq` stands."""
    return f"{directory}/wal_{seq:020}.log"


class FillOwner(Protocol):
    """The WAL, as the filler sees it: what it is told where a chunk of zeros has failed."""

    def spoil_locked(self, cause: BaseException) -> None:
        """From here on nothing is acknowledged."""
        ...

    def give_up(self, cause: BaseException) -> None:
        """Whoever waits may be told. Without the lock."""
        ...


class ActiveFile:
    """Where groups are written. Methods named `_locked` are called under the WAL's lock, the others
    without it; `write` and `create` by the one leader only.
    """

    def __init__(
        self,
        env: Environment,
        directory: str,
        identity: WalIdentity,
        settings: WalSettings,
        services: WalServices,
        lock: Lock,
        hands: Hands,
        owner: FillOwner,
    ) -> None:
        self.file: LogFile | None = None
        self.end = 0
        self._env = env
        self._directory = directory
        self._identity = identity
        self._settings = settings
        self._services = services
        self._lock = lock
        self._hands = hands
        self._owner = owner
        self._writing_end = 0
        self._filled = 0
        self._filling: tuple[int, int] | None = None
        self._fill_syncs = False
        self._fill_done: Event | None = None
        self._spare: SpareFile | None = None
        self._reserved = False
        self._mean_group_bytes = 0.0
        self._fill_allowed = False
        self._chunk = 0
        self._filled_at = 0.0
        self._left: list[tuple[LogFile, int]] = []

    # --- groups ----------------------------------------------------------------------------------

    def claim_locked(self, size_bytes: int) -> Event | None:
        """Announce a write of so many bytes; an event to wait for first if it meets the filler."""
        self._writing_end = self.end + size_bytes
        if self._filling is None or self._filling[0] >= self._writing_end:
            return None
        return self._fill_done_locked()

    def _fill_done_locked(self) -> Event:
        """Set when the chunk of zeros under way is done."""
        if self._fill_done is None:
            self._fill_done = self._env.threads.event()
        return self._fill_done

    def write(self, group: Group, marks: Marks) -> None:
        """Write and sync a group behind what is there. OSError: its outcome is unknown. (So it is
        where the filler has ended this WAL, beside it.)
        """
        file = self.file
        assert file is not None
        assert file.origin + group.frames[0][4] == self.end
        buffers = encode_group(group.frames, file.origin, marks, file.file_id)
        descriptors = self._services.descriptors
        lent = descriptors.lend(file.path, write=True)
        try:
            lent.file.write_at(self.end, buffers)
            lent.file.sync_data()
        finally:
            descriptors.give_back(lent)
        if self._fill_syncs:
            self._hear_the_filler()

    def _hear_the_filler(self) -> None:
        """Return when its sync of this file has; it began before ours was over."""
        with self._lock:
            if not self._fill_syncs:
                return
            done = self._fill_done_locked()
        done.wait()

    def settle_locked(self) -> bool:
        """The claimed write is durable. True: the filler should be notified."""
        end = self._writing_end
        size, mean = end - self.end, self._mean_group_bytes
        self._mean_group_bytes = mean + (size - mean) / _MEAN_OF_GROUPS if mean else float(size)
        self.end = end
        self._filled = max(self._filled, end)
        if self._reserved and self._mean_group_bytes < _LARGE_GROUP_BYTES // 2:
            self._reserved = False
            self._filled = end
        return self._filling is None and self._fill_due_locked()

    # --- new files -------------------------------------------------------------------------------

    def create(self, group: Group, checkpoint: Checkpoint, marks: Marks) -> int:
        """Make the group's new file, with its frames in it; returns where they end.

        The file counts when this returns: bytes, then name, then directory are synced.
        """
        opening = group.new_file
        assert opening is not None
        file = opening.file
        file.file_id = int.from_bytes(self._env.entropy.token_bytes(8), "little")
        head = self._header(file, checkpoint.log_id).encode()
        payload = checkpoint.encode()
        first = encode_frame(_CHECKPOINT, 0, file.seq, len(head), marks, file.file_id, payload)
        file.header_bytes = len(head)
        file.origin = len(head) + len(first)
        buffers = [head, first, *encode_group(group.frames, file.origin, marks, file.file_id)]
        end = file.origin + group.size_bytes
        spare = self._take_spare(end)
        self._reserved = spare is not None and spare.reserved
        fs, temporary = self._env.fs, file.path + TEMPORARY
        with_room = self._services.descriptors.with_room
        if spare is not None:
            temporary, file.size = spare.path, spare.size
            handle = with_room(partial(fs.open, temporary, write=True))
        else:
            file.size = end + -end % _PAGE_BYTES
            buffers.append(bytes(file.size - end))
            handle = with_room(partial(fs.create, temporary))
        try:
            handle.write_at(0, buffers)
            handle.sync_all()
            fs.rename(temporary, file.path)
            if spare is not None:
                self._used_up(spare)
            with_room(partial(fs.sync_directory, self._directory))
        except BaseException:
            handle.close()
            raise
        self._services.descriptors.adopt(file.path, handle)
        self.rest()
        # Not before: until here a crash may take the file, and pruning relies on its checkpoint.
        file.folded_to = min(checkpoint.manifest_folded_to, checkpoint.producers_folded_to)
        return end

    def rest(self) -> None:
        """Nothing more is to be written for now: hold no descriptor meanwhile."""
        if self.file is not None:
            self._services.descriptors.forget(self.file.path)

    def _header(self, file: LogFile, log_id: str) -> WalFileHeader:
        who = self._identity
        return WalFileHeader(
            file.file_id, file.seq, who.topic, who.partition, who.topic_id, log_id, who.owner
        )

    def adopt_locked(self, file: LogFile, end: int) -> bool:
        """Go on in this new file, whose frames end at `end`. True: notify the filler."""
        self._leave_locked()
        self.file = file
        self.end = self._writing_end = end
        self._filled = file.size
        if file.size - end >= _PAGE_BYTES:
            # It came with its zeros: the next one is to be there in time.
            self._chunk = max(self._chunk, (file.size - end) // 2)
        self._fill_allowed = self._settings.fill_bytes_max > 0
        return bool(self._left)

    # --- zeros ahead -----------------------------------------------------------------------------

    def fill(self) -> bool:
        """Write one chunk of zeros ahead (the filler's step). True: another is due at once."""
        more, failure = self._hands.during(self._fill)
        if failure is not None:  # whoever is told may close this log, which waits for the above
            self._owner.give_up(failure)
            if not isinstance(failure, OSError):
                raise failure
        return more

    def _fill(self, token: object) -> tuple[bool, BaseException | None]:
        """What `fill` returns, and what has ended the WAL."""
        with self._lock:
            if self._hands.ended:
                return False, None
            self._hands.at_work.add(token)
        self._give_back()
        with self._lock:
            file = self.file
            region = self._next_region_locked()
            if file is None or region is None:
                return False, None
            self._filling = region
        failure: BaseException | None = None
        try:
            self._write_zeros(file.path, region)
        except BaseException as error:  # noqa: BLE001 (whoever waits for the region must go on)
            failure = error
        with self._lock:
            waiting, self._fill_done = self._fill_done, None
            current = self.file is file or region is _ELSEWHERE
            if failure is not None:
                self._fill_allowed = False
                if self._is_harmless(failure, current=current):
                    failure = None
                else:  # before a group beside it goes on
                    self._owner.spoil_locked(failure)
            elif current and region is not _ELSEWHERE:
                self._filled = region[1]
            self._filling, self._fill_syncs = None, False
            more = self._fill_due_locked()
        if waiting is not None:
            waiting.set()
        return more, failure

    def _is_harmless(self, failure: BaseException, *, current: bool) -> bool:
        """Nothing rests on zeros that are not there, and a full disk only ends the filling. Any
        other failure in a file in use may have cost bytes of a group, and so may any of a sync,
        for one error may be reported only once.
        """
        if not isinstance(failure, OSError):
            return False
        full = failure.errno in {errno.ENOSPC, errno.EDQUOT} and not self._fill_syncs
        if full:
            logger.warning("no space to fill ahead in %s: %s", self._directory, failure)
        return full or not current

    def _write_zeros(self, path: str, region: tuple[int, int]) -> None:
        settings, fs = self._settings, self._env.fs
        keep_free_bytes = settings.fill_keep_free_bytes
        if region is not _ELSEWHERE:
            write_zeros(
                fs, path, *region, keep_free_bytes=keep_free_bytes, before_sync=self._before_sync
            )
        elif self._spare is not None:
            self._spare.grow(fs, settings.fill_bytes_max, keep_free_bytes=keep_free_bytes)

    def _before_sync(self) -> None:
        self._fill_syncs = True

    def _fill_due_locked(self) -> bool:
        if not self._fill_allowed or self._spare is not None:
            return self._fill_allowed and self._spare is not None and not self._spare.ready
        return self._filled - self.end < (self._chunk or self._settings.fill_bytes_min)

    def _next_region_locked(self) -> tuple[int, int] | None:
        """The next chunk to fill: it doubles while chunks are used up fast, and shrinks again.
        Where it would be large, a spare file takes its place.
        """
        if not self._fill_allowed or self._filling is not None:
            return None
        if self._spare is not None:
            return None if self._spare.ready else _ELSEWHERE
        now = self._env.clock.monotonic()
        fast = self._chunk > 0 and now - self._filled_at < _FAST_FILL_SECONDS
        low, high = self._settings.fill_bytes_min, self._settings.fill_bytes_max
        chunk = min(high, max(low, self._chunk * 2 if fast else self._chunk // 4))
        if fast and chunk >= high // _SPARE_SHARE:
            size = min(self._settings.file_bytes, 2 * max(self._filled, chunk))
            size += -size % _PAGE_BYTES
            large = self._mean_group_bytes >= _LARGE_GROUP_BYTES
            self._spare = SpareFile(f"{self._directory}/spare{TEMPORARY}", size, reserved=large)
            self._chunk, self._filled_at = chunk, now
            return _ELSEWHERE
        start = max(self._filled, self._writing_end)
        end = min(start + chunk, max(self._settings.file_bytes, start))
        end -= end % _PAGE_BYTES
        if end <= start:
            self._chunk //= 4  # There is no room: do not ask again so soon.
            return None
        self._chunk, self._filled_at = chunk, now
        return start, end

    def room_locked(self, file: LogFile | None) -> int:
        """How many bytes of frames `file` is to hold: as many as it has zeros for, if the next one
        is there with new ones.
        """
        if self._spare is None or not self._spare.ready or file is not self.file or file is None:
            return self._settings.file_bytes
        return self._filled - file.origin

    def _take_spare(self, size_bytes: int) -> SpareFile | None:
        """The spare file, if it holds so much; one that is too small waits for the next file.

        It stays the spare file until it has its new name: the filler would begin another one under
        a name that is still in use.
        """
        with self._lock:
            spare = self._spare
            if spare is None or not spare.ready or spare.size < size_bytes:
                return None
            return spare

    def _used_up(self, spare: SpareFile) -> None:
        """It has another name now."""
        with self._lock:
            if self._spare is spare:
                self._spare = None

    def _leave_locked(self) -> None:
        """Nothing more comes into the present file: its zeros are for nobody any more."""
        file = self.file
        if file is None:
            return
        filling = self._filling[1] if self._filling else 0
        file.size = max(self.end, self._filled, filling, file.size)
        start = self.end + -self.end % _GIVE_BACK_BYTES
        # Behind a group whose outcome is unknown there may be more than zeros.
        if file.size - start >= _GIVE_BACK_BYTES and self._writing_end == self.end:
            self._left.append((file, start))
            self._filled = start

    def _give_back(self) -> None:
        """Free the zeros behind the ends of files that were left: a hole reads as zeros, which is
        what a frame is judged by. (Cutting the file would kill who has it mapped.)
        """
        while self._left:
            with self._lock:
                if not self._left:
                    return
                file, start = self._left.pop()
            try:
                give_back_zeros(self._env.fs, file.path, start, file.size)
            except OSError as error:
                # Pruned meanwhile, or the disk refuses: nothing rests on it.
                logger.info("the zeros behind %s stay: %s", file.path, error)
            else:
                file.size = start

    def size_locked(self) -> int:
        """Bytes of the active file on disk now."""
        return max(self.end, self._filled, self.file.size if self.file is not None else 0)

    def stop(self) -> None:
        """No more filling, and no chunk is under way; what is of no more use goes."""
        with self._lock:
            self._fill_allowed = False
            self._leave_locked()
        self._give_back()
        if self._spare is not None:
            self._spare.remove(self._env.fs)
            self._spare = None
