"""Open bundles of a store, as many of them kept as the bounds allow.

Place: above `bundle` and `keeping`, which chooses; one per store, shared by its partitions.
Promise: a bundle is fetched and unpacked once, however many threads ask, by a thread of its own:
who asks waits as long as it has time, and what it did not wait for is there for the next one. At
most `count_max` bundles and `bytes_max` of unpacked files are kept beside those in use, and fewer
where the disk is short of what is kept for the log; one that is in use is never closed under its
user; nothing is fetched behind `close`. A bundle that this engine cannot read, or whose bytes were
wrong twice, is remembered and not fetched again. Invariant: `_lock` is never held over the bucket,
the disk or Tantivy; the directory is emptied before its first use.
"""

from __future__ import annotations

import contextvars
import copy
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from chronik_store.errors import (
    ChronikError,
    CorruptionError,
    LogClosedError,
    UnavailableError,
)
from chronik_store.format.segment_info import BundleInfo
from chronik_store.fs.base import FileSystem
from chronik_store.search.bundle import ReadRange, open_bundle
from chronik_store.search.engine import IndexSearch, UnreadableIndexError
from chronik_store.search.keeping import Keeping
from chronik_store.search.scratch import Room, disk, empty_directory, remove_tree, used_bytes
from chronik_store.threads import Threads

_log = logging.getLogger("chronik_store.search")
_REFUSED_MAX: Final = 1024
_CHANCES: Final = 2  # bytes may also have gone wrong on their way


@dataclass(frozen=True, slots=True)
class BundleRef:
    """A bundle of offsets [base_offset, end_offset) and how to read its object."""

    base_offset: int
    end_offset: int
    info: BundleInfo
    read_range: ReadRange


@dataclass(eq=False, slots=True)
class _Open:
    """A bundle being opened (search None), open, or failed (error). directory: "" until it has one.
    users: at first whoever asked and the thread that fetches. has_thread: only that one ends the
    fetch. bytes: what its files take, or will.
    """

    directory: str = ""
    users: int = 2
    has_thread: bool = False
    search: IndexSearch | None = None
    error: BaseException | None = None
    bytes: int = 0


class BundleCache:
    """Opens bundles for searching. Thread-safe. directory: where scratch of this object alone is;
    asked at the first bundle, since most readers never search. reserve_bytes: as of `scratch.Room`.
    count_max is for what the kernel keeps of each, a dozen mappings.
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: Callable[[], str],
        threads: Threads,
        *,
        count_max: int = 512,
        bytes_max: int = 1 << 30,
        reserve_bytes: int = 0,
    ) -> None:
        self._fs = fs
        self._room = Room(fs, reserve_bytes)
        self._find_directory = directory
        self._directory = ""
        self._bytes_max = bytes_max
        self._threads = threads
        self._lock = threads.condition()
        self._open: dict[str, _Open] = {}
        self._keeping = Keeping(count_max)
        self._failed: OrderedDict[str, tuple[ChronikError, int]] = OrderedDict()
        self._numbered = 0
        self._fetching: set[_Open] = set()
        self._directory_is: Literal["unknown", "being emptied", "ours"] = "unknown"
        self._closed = False

    @contextmanager
    def lease(
        self, ref: BundleRef, seconds_left: Callable[[], float] | None = None
    ) -> Iterator[IndexSearch]:
        """The open bundle, for as long as the context lasts.

        seconds_left: how long its fetch may still be waited for; None: as long as it takes. Raises
        what `open_bundle` raises (the same again at once if the bytes were wrong), UnavailableError
        after that time, and LogClosedError.
        """
        opened = self._claim(ref, seconds_left)
        try:
            assert opened.search is not None
            yield opened.search
        finally:
            self._give_back(opened)

    def refused(self, key: str) -> ChronikError | None:
        """Why this bundle cannot be searched until the process ends, if that is known."""
        with self._lock:
            return self._refused(key)

    @property
    def open_bytes(self) -> int:
        """Unpacked bytes of the bundles that are open."""
        with self._lock:
            return sum(opened.bytes for opened in self._open.values())

    def close(self) -> None:
        """Forget all bundles; those in use go with their last user. Waits for the request of a
        fetch that is under way, which ends then. Idempotent.
        """
        with self._lock:
            self._closed = True
            gone = [each for each in self._open.values() if not each.users]
            for key in self._open:
                self._keeping.leave(key)
            self._open.clear()
            self._lock.notify_all()
            while self._fetching:
                self._lock.wait(1.0)
        for each in gone:
            remove_tree(self._fs, each.directory)
        if self._directory_is == "ours":
            remove_tree(self._fs, self._directory)
            self._directory_is = "unknown"  # another store's, perhaps, when it is closed once more

    def _claim(self, ref: BundleRef, seconds_left: Callable[[], float] | None) -> _Open:
        """The open bundle, with one more user; fetched if nobody does."""
        begun: _Open | None = None
        try:
            while True:
                with self._lock:
                    opened = self._wait_locked(ref.info.key, begun, seconds_left)
                    if opened is None:
                        begun = self._open[ref.info.key] = _Open()
                        self._keeping.use(ref.info.key)
                        self._fetching.add(begun)
                if opened is not None:
                    return opened
                assert begun is not None
                self._begin(begun, ref)
        except BaseException:
            if begun is not None:
                self._leave(begun, ref.info.key)
            raise

    def _wait_locked(
        self, key: str, begun: _Open | None, seconds_left: Callable[[], float] | None
    ) -> _Open | None:
        """The open bundle, with one more user (`begun` has the caller already); None: it is neither
        there nor being fetched.
        """
        while True:
            if begun is not None and begun.error is not None:
                raise begun.error
            if self._closed:
                raise LogClosedError("the log is closed")
            if begun is not None and begun.search is not None:
                return begun
            refused = self._refused(key)
            if refused is not None:
                raise refused
            opened = self._open.get(key)
            if opened is None:
                return None
            if opened.search is not None:
                opened.users += 1
                self._keeping.use(key)
                return opened
            left = 1.0 if seconds_left is None else seconds_left()
            if left <= 0:
                raise UnavailableError(f"deadline: {key} is still being fetched")
            self._lock.wait(min(left, 1.0))

    def _begin(self, opened: _Open, ref: BundleRef) -> None:
        """Fetch on a thread of its own, in its caller's context: as patient with the bucket."""
        context = contextvars.copy_context()
        try:
            self._threads.spawn(
                lambda: context.run(self._fetch, opened, ref), name="chronik-bundle"
            )
        except RuntimeError as error:  # the system has no more threads
            key = ref.info.key
            raise UnavailableError(
                f"search bundle {key}: no thread to fetch it: {error}"
            ) from error
        opened.has_thread = True

    def _leave(self, begun: _Open, key: str) -> None:
        """Whoever began a fetch does not wait for it any more: it goes on if it has a thread.

        Ctrl-C may come out of `spawn` before the thread or behind its start. One that begins after
        this finds its fetch ended.
        """
        with self._lock:
            if not begun.has_thread:
                if self._open.get(key) is begun:
                    del self._open[key]
                    self._keeping.leave(key)
                self._fetching.discard(begun)
                self._lock.notify_all()
        self._give_back(begun)

    def _fetch(self, opened: _Open, ref: BundleRef) -> None:
        """Fetch, unpack and open a bundle; whatever comes of it, whoever waits is told."""
        with self._lock:
            if opened not in self._fetching:
                return
            opened.has_thread = True
        error: BaseException | None = None
        try:
            self._fill(opened, ref)
        except BaseException as caught:  # noqa: BLE001 (whoever began it raises it)
            error = caught
        self._end(opened, ref.info.key, error)

    def _fill(self, opened: _Open, ref: BundleRef) -> None:
        def read_range(start: int, length: int) -> bytes:
            if self._closed:
                raise LogClosedError("the log is closed")
            return ref.read_range(start, length)

        opened.directory = self._prepare()
        search = open_bundle(
            read_range,
            ref.info,
            fs=self._fs,
            directory=opened.directory,
            base_offset=ref.base_offset,
            end_offset=ref.end_offset,
            admit=lambda size_bytes: self._admit(opened, size_bytes, ref.info.key),
        )
        size = used_bytes(self._fs, opened.directory)
        with self._lock:
            opened.search, opened.bytes = search, size

    def _end(self, opened: _Open, key: str, error: BaseException | None) -> None:
        """A fetch has ended: hand over to who waits; if nobody does, keep it or say why not."""
        with self._lock:
            opened.error = error
            is_forsaken = opened.users == 1
            if error is not None:
                if self._open.get(key) is opened:
                    del self._open[key]
                    self._keeping.leave(key)
                self._note_failure(key, error)
            if not is_forsaken:
                opened.users -= 1
            self._lock.notify_all()
        if is_forsaken:
            self._give_back(opened)
        if is_forsaken and error is not None and not isinstance(error, LogClosedError):
            _log.warning("search bundle %s, which nobody waits for any more: %s", key, error)
        with self._lock:
            self._fetching.discard(opened)
            self._lock.notify_all()

    def _admit(self, opened: _Open, size_bytes: int, key: str) -> None:
        """Room for one more on the disk, if need be that of bundles that nobody uses."""
        with self._lock:
            opened.bytes = size_bytes
        while True:
            with self._lock:
                total = sum(each.bytes for each in self._open.values())
                # Others that are being unpacked have not taken yet what they were promised.
                promised = sum(each.bytes for each in self._open.values() if each.search is None)
            short = promised - self._room.left(opened.directory)
            if short <= 0:
                return
            with self._lock:
                gone = self._surplus_locked(max(0, total - short))
            if not gone:
                break
            for each in gone:
                remove_tree(self._fs, each.directory)
        self._room.need(opened.directory, promised, f"search bundle {key}")

    def _note_failure(self, key: str, error: BaseException) -> None:
        """Remember an error that asking again does not mend. The lock is held."""
        if isinstance(error, CorruptionError | UnreadableIndexError):
            _, before = self._failed.pop(key, (error, 0))
            self._failed[key] = error, before + 1
            while len(self._failed) > _REFUSED_MAX:
                self._failed.popitem(last=False)

    def _refused(self, key: str) -> ChronikError | None:
        error, times = self._failed.get(key, (None, 0))
        if error is None or (times < _CHANCES and isinstance(error, CorruptionError)):
            return None
        return copy.copy(error)  # each raiser its own: raising changes an exception

    def _prepare(self) -> str:
        """A new bundle's directory. All of scratch is emptied before its first use; the others wait
        for the first.
        """
        with self._lock:
            while self._directory_is == "being emptied":
                self._lock.wait(1.0)
            if self._directory_is == "ours":
                return self._next_locked()
            self._directory_is = "being emptied"
        try:
            directory = self._find_directory()
            with disk(directory):
                empty_directory(self._fs, directory)
        except BaseException:
            self._directory_now("unknown")
            raise
        self._directory = directory
        self._directory_now("ours")
        with self._lock:
            return self._next_locked()

    def _next_locked(self) -> str:
        self._numbered += 1
        return f"{self._directory}/bundle_{self._numbered:06}"

    def _directory_now(self, state: Literal["unknown", "ours"]) -> None:
        with self._lock:
            self._directory_is = state
            self._lock.notify_all()

    def _give_back(self, opened: _Open) -> None:
        with self._lock:
            opened.users -= 1
            gone = self._surplus_locked(self._bytes_max)
            if opened.directory and opened not in self._open.values() and not opened.users:
                gone.append(opened)
        for each in gone:
            remove_tree(self._fs, each.directory)

    def _surplus_locked(self, bytes_max: int) -> list[_Open]:
        """Take out those that go, until the rest is within bounds."""
        sizes = {key: each.bytes for key, each in self._open.items()}
        busy = {key for key, each in self._open.items() if each.users}
        return [self._open.pop(key) for key in self._keeping.surplus(sizes, busy, bytes_max)]
