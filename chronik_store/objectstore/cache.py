"""Ranged reads of immutable objects, bounded, shared and read ahead.

Place: between an `ObjectStore` and whoever reads segments (`CachedObject` is their ByteSource).
Promise: a cold read of one record costs exactly one ranged GET of the blocks that it touches
(64 KiB each), whoever asks for the same blocks meanwhile waits for that GET instead of sending
another, and only reading in sequence makes background threads fetch ahead. Memory and disk stay
within their bounds; objects never change and keys never repeat, so nothing here can be stale.
Invariant: what a fetch brought is handed to those who wait for it directly, not through the cache,
so that any number of readers progress with a cache of two blocks, or of none. No lock is held over
a read; a fetch that fails wakes all who wait for it with the error.

    read_range -> memory -> a fetch under way -> disk -> one ranged GET per gap
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from chronik_store.errors import ChronikError, UnavailableError
from chronik_store.fs.base import FileSystem
from chronik_store.objectstore.base import ObjectStore
from chronik_store.objectstore.disk_blocks import DiskBlocks
from chronik_store.objectstore.flights import Flight, runs
from chronik_store.objectstore.lru import ByteBoundedLru
from chronik_store.objectstore.patience import patient_until
from chronik_store.objectstore.streams import SequentialReads
from chronik_store.threads import ThreadHandle, Threads

BLOCK_BYTES = 64 * 1024
TAILS_BYTES_MAX = 16 * 1024 * 1024
READ_AHEAD_QUEUE_MAX = 16
READ_AHEAD_THREADS = 4
"""As many as a reader has fetches ahead of itself: their latencies pass together."""
_CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counters since the cache was made, and sizes now."""

    memory_bytes: int
    disk_bytes: int
    memory_hits: int
    """Blocks found in memory."""
    disk_hits: int
    waits: int
    """Blocks for which another reader's fetch was awaited."""
    fetches: int
    """Ranged GETs sent."""
    fetched_bytes: int
    read_aheads: int
    """Fetches among them that nobody waited for when they began."""
    corrupt_blocks: int
    """Blocks on disk that did not match their checksum and were fetched again."""


@dataclass(slots=True)
class _Counters:
    memory_hits: int = 0
    disk_hits: int = 0
    waits: int = 0
    fetches: int = 0
    fetched_bytes: int = 0
    read_aheads: int = 0


class CachedObject:
    """One object, read through the cache: a ByteSource. Thread-safe; cheap to make, no close."""

    __slots__ = ("_cache", "_store", "key", "size_bytes")

    def __init__(self, cache: BlockCache, store: ObjectStore, key: str, size_bytes: int) -> None:
        self._cache = cache
        self._store = store
        self.key = key
        self.size_bytes = size_bytes

    def read_range(self, start: int, length: int) -> bytes:
        """`length` bytes from `start`; shorter only where the object ends.

        Raises:
            ObjectNotFoundError, UnavailableError: as the store; nothing was cached.
        """
        return self._cache._read(self, start, length)  # noqa: SLF001 - two halves of one thing

    def read_tail(self, length: int) -> bytes:
        """The last `length` bytes by one exact GET, kept apart from the blocks: the footer."""
        return self._cache._read_tail(self, min(length, self.size_bytes))  # noqa: SLF001

    def prefetch(self, start: int, length: int) -> None:
        """Ask a background thread for a range that will be read soon. Never blocks or fails."""
        self._cache._schedule(self, start, start + length)  # noqa: SLF001

    def fetch_blocks(self, first: int, stop: int, block_bytes: int) -> bytes:
        """Blocks [first, stop) from the store, by one GET. For the cache."""
        start = first * block_bytes
        length = min(stop * block_bytes, self.size_bytes) - start
        return self._fetch(start, length)

    def fetch_tail(self, length: int) -> bytes:
        """The last bytes from the store, by one GET. For the cache."""
        return self._fetch(self.size_bytes - length, length)

    def _fetch(self, start: int, length: int) -> bytes:
        data = self._store.get_range(self.key, start, length)
        if len(data) != length:
            raise UnavailableError(
                f"{self._store.url}: {self.key!r} gave {len(data)} of {length} bytes from {start}; "
                f"it should have {self.size_bytes}. If this stays so, the object is damaged"
            )
        return data


class BlockCache:
    """The cache of one object store. Thread-safe.

    Args:
        threads, fs: the seams.
        directory: for blocks on disk, emptied here; None: memory only.
        memory_bytes, disk_bytes: bounds; 0 switches a layer off.
        read_ahead_bytes: how far ahead of a sequential reader to fetch; 0: never.
        disk_reserve_bytes: the disk layer takes nothing more while less than this is free.
        block_bytes: the unit of fetching and keeping.
    """

    def __init__(
        self,
        *,
        threads: Threads,
        fs: FileSystem,
        directory: str | None,
        memory_bytes: int,
        disk_bytes: int,
        read_ahead_bytes: int,
        disk_reserve_bytes: int = 0,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._threads = threads
        self._block_bytes = block_bytes
        self._changed = threads.condition()
        self._memory_bytes = memory_bytes
        self._memory: ByteBoundedLru[tuple[str, int], bytes] = ByteBoundedLru(memory_bytes)
        self._tails: ByteBoundedLru[tuple[str, int], bytes] = ByteBoundedLru(
            min(TAILS_BYTES_MAX, memory_bytes // 4)
        )
        self._disk: DiskBlocks | None = None
        if directory is not None and disk_bytes > 0:
            self._disk = DiskBlocks(
                threads,
                fs,
                directory,
                limit_bytes=disk_bytes,
                reserve_bytes=disk_reserve_bytes,
                block_bytes=block_bytes,
            )
        kept_bytes = max(memory_bytes, 0 if self._disk is None else disk_bytes)
        # More than half of the cache ahead of one reader would push out what it reads now.
        self._ahead_bytes_max = kept_bytes // 2
        self._streams = SequentialReads(min(read_ahead_bytes, self._ahead_bytes_max), block_bytes)
        self._flights: dict[tuple[str, int], Flight] = {}
        self._ahead: deque[tuple[CachedObject, Flight]] = deque()
        self._workers: list[ThreadHandle] = []
        self._workers_wanted = 0
        self._workers_idle = 0
        self._closed = False
        self._counters = _Counters()

    def open_object(self, store: ObjectStore, key: str, size_bytes: int) -> CachedObject:
        """A view of an object whose size is known (from the manifest). Sends nothing."""
        return CachedObject(self, store, key, size_bytes)

    def stats(self) -> CacheStats:
        """A snapshot of the counters."""
        with self._changed:
            counters, disk = self._counters, self._disk
            return CacheStats(
                memory_bytes=self._memory.size_bytes + self._tails.size_bytes,
                disk_bytes=0 if disk is None else disk.size_bytes,
                memory_hits=counters.memory_hits,
                disk_hits=counters.disk_hits,
                waits=counters.waits,
                fetches=counters.fetches,
                fetched_bytes=counters.fetched_bytes,
                read_aheads=counters.read_aheads,
                corrupt_blocks=0 if disk is None else disk.corrupt_blocks,
            )

    def forget(self, key: str) -> None:
        """Drop an object's blocks: it was collected."""
        with self._changed:
            for kept in (self._memory, self._tails):
                for entry in kept:
                    if entry[0] == key:
                        kept.pop(entry)
        if self._disk is not None:
            self._disk.forget(key)

    def clear(self) -> None:
        """Drop everything from memory and disk."""
        with self._changed:
            self._memory.shrink(0)
            self._tails.shrink(0)
        if self._disk is not None:
            self._disk.clear()

    def close(self) -> None:
        """End the read-ahead threads and drop everything. Idempotent; reads still work after it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            workers = list(self._workers)
        self._drop_ahead("the read cache was closed")
        for worker in workers:
            worker.join(_CLOSE_SECONDS)
        self.clear()

    # ------------------------------------------------------------------------------- reading

    def _read(self, source: CachedObject, start: int, length: int) -> bytes:
        stop = min(start + length, source.size_bytes)
        if stop <= start:
            return b""
        size = self._block_bytes
        first, last = start // size, (stop - 1) // size
        pieces: dict[int, bytes] = {}
        wanted = range(first, last + 1)
        while len(pieces) < len(wanted):
            own: list[Flight] = []
            try:
                awaited = self._plan(source.key, wanted, pieces, own)
                for flight in own:
                    self._fly(source, flight)
            except BaseException as error:
                self._give_up(source.key, own, error)
                raise
            for flight in own:
                pieces.update(flight.blocks_in(wanted))
            for flight in awaited:
                pieces.update(flight.wait(wanted))
        self._continue_stream(source, start, stop)
        if first == last:
            return pieces[first][start - first * size : stop - first * size]
        # Cut before joining: one copy of what may be many megabytes.
        pieces[first] = pieces[first][start - first * size :]
        pieces[last] = pieces[last][: stop - last * size]
        return b"".join([pieces[block] for block in wanted])

    def _plan(
        self, key: str, wanted: Iterable[int], pieces: dict[int, bytes], own: list[Flight]
    ) -> list[Flight]:
        """Take what is in memory; claim the gaps as `own` flights; return the flights to wait for.

        A flight is in `own` before anybody can wait for it: an interrupt may come at any point.
        """
        awaited: list[Flight] = []
        missing: list[int] = []
        with self._changed:
            for block in wanted:
                if block in pieces:
                    continue
                data = self._memory.get((key, block))
                flight = self._flights.get((key, block))
                if data is not None:
                    pieces[block] = data
                    self._counters.memory_hits += 1
                elif flight is None:
                    missing.append(block)
                elif not flight.started:  # ahead of need until now: taken over
                    own.append(flight)
                    flight.started, flight.background = True, False
                elif flight not in own:
                    self._counters.waits += 1
                    if flight not in awaited:
                        awaited.append(flight)
            for run in runs(missing):
                own.append(self._flight(run, background=False))
                self._claim_locked(key, own[-1])
        return awaited

    def _flight(self, run: range, *, background: bool) -> Flight:
        return Flight(run.start, run.stop, background, not background, self._threads.event())

    def _claim_locked(self, key: str, flight: Flight) -> None:
        for block in flight.run:
            self._flights[key, block] = flight

    def _give_up(self, key: str, own: list[Flight], error: BaseException) -> None:
        """Claims that have not been fetched will not be: nobody may wait for them for ever."""
        for flight in own:
            if not flight.done.is_set():
                flight.error = error
                # Whoever else waits for it may have more time than this thread: they ask again.
                flight.background |= patient_until() is not None
                self._land(key, flight)

    def _fly(self, source: CachedObject, flight: Flight) -> None:
        """Bring a claimed run from disk or bucket, and wake those who wait."""
        fetched = self._bring(source, flight)
        self._land(source.key, flight)
        if self._disk is not None:
            for first, data in fetched:
                self._disk.put(source.key, first, data)

    def _land(self, key: str, flight: Flight) -> None:
        with self._changed:
            for block in flight.run:
                if self._flights.get((key, block)) is flight:
                    del self._flights[key, block]
            # A run of more than half the memory would only push itself out.
            size_bytes = sum(map(len, flight.blocks.values()))
            if flight.error is None and (
                size_bytes * 2 <= self._memory.limit_bytes or len(flight.blocks) == 1
            ):
                for block, data in flight.blocks.items():
                    self._memory.put((key, block), data, len(data))
        flight.done.set()

    def _bring(self, source: CachedObject, flight: Flight) -> list[tuple[int, bytes]]:
        """Fill the flight's blocks; what came from the bucket is returned as (block, bytes)."""
        if self._disk is not None:
            for block in flight.run:
                data = self._disk.get(source.key, block)
                if data is not None:
                    flight.blocks[block] = data
        disk_hits = len(flight.blocks)
        fetched = []
        size = self._block_bytes
        for gap in list(runs(block for block in flight.run if block not in flight.blocks)):
            data = source.fetch_blocks(gap.start, gap.stop, size)
            fetched.append((gap.start, data))
            for position, block in enumerate(gap):
                flight.blocks[block] = data[position * size : (position + 1) * size]
        with self._changed:
            self._counters.disk_hits += disk_hits
            self._counters.fetches += len(fetched)
            self._counters.fetched_bytes += sum(len(data) for _, data in fetched)
            self._counters.read_aheads += len(fetched) if flight.background else 0
        return fetched

    def _read_tail(self, source: CachedObject, length: int) -> bytes:
        if length <= 0:
            return b""
        name = (source.key, length)
        with self._changed:
            data = self._tails.get(name)
        if data is None:
            # Not single-flight: a footer is small, and whoever reads it keeps it decoded.
            data = source.fetch_tail(length)
            with self._changed:
                self._tails.put(name, data, length)
                # Both together keep to the bound.
                self._memory.limit_bytes = self._memory_bytes - self._tails.size_bytes
                self._memory.shrink(self._memory.limit_bytes)
                self._counters.fetches += 1
                self._counters.fetched_bytes += length
        return data

    # ---------------------------------------------------------------------------- read-ahead

    def _continue_stream(self, source: CachedObject, start: int, stop: int) -> None:
        with self._changed:
            ahead = self._streams.advance(source.key, start, stop, source.size_bytes)
        if ahead is not None:
            self._schedule(source, *ahead)

    def _schedule(self, source: CachedObject, start: int, stop: int) -> None:
        size = self._block_bytes
        stop = min(stop, start + self._ahead_bytes_max, source.size_bytes)
        first, past = max(0, start) // size, -(-stop // size)
        key = source.key
        with self._changed:
            if self._closed or len(self._ahead) >= READ_AHEAD_QUEUE_MAX:
                return
            missing = [
                block
                for block in range(first, past)
                if (key, block) not in self._flights and self._memory.get((key, block)) is None
            ]
            for run in runs(missing):
                flight = self._flight(run, background=True)
                self._claim_locked(key, flight)
                self._ahead.append((source, flight))
            self._changed.notify_all()
            number = self._workers_wanted
            spawning = len(self._ahead) > self._workers_idle and number < READ_AHEAD_THREADS
            self._workers_wanted += spawning
        if spawning:
            self._start_worker(number)

    def _start_worker(self, number: int) -> None:
        try:
            worker = self._threads.spawn(self._fetch_ahead, name=f"chronik-read-ahead-{number}")
        except RuntimeError:  # no thread is to be had: whoever reads goes on without
            with self._changed:
                self._workers_wanted -= 1
                is_alone = not self._workers_wanted
            if is_alone:
                self._drop_ahead("there is no thread to read ahead")
            return
        with self._changed:
            self._workers.append(worker)

    def _drop_ahead(self, reason: str) -> None:
        """Nobody will fetch what waits to be fetched ahead of need; its readers do."""
        with self._changed:
            left = [(source.key, flight) for source, flight in self._ahead if not flight.started]
            self._ahead.clear()
            for _, flight in left:
                flight.started = True
                flight.error = UnavailableError(reason)
        for key, flight in left:
            self._land(key, flight)

    def _fetch_ahead(self) -> None:
        while True:
            with self._changed:
                self._workers_idle += 1
                while not self._ahead and not self._closed:
                    self._changed.wait()
                self._workers_idle -= 1
                if self._closed:
                    return
                source, flight = self._ahead.popleft()
                taken_over, flight.started = flight.started, True
            if taken_over:
                continue
            try:
                self._fly(source, flight)
            except BaseException as error:
                self._give_up(source.key, [flight], error)
                if not isinstance(error, ChronikError):
                    raise
                # Whoever needs these blocks asks for them again and gets the error.
