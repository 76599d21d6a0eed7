"""Which reads are sequential, and how far to fetch ahead of them.

Place: below `cache`. Promise: a read that begins where an earlier one of the same object ended is
part of a stream; a first or random read never is, so it costs no more than what it touches.
Invariant: bounded: a few streams per object, a bounded number of objects; plain bookkeeping under
the cache's lock.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

STREAMS_PER_OBJECT = 8
OBJECTS_MAX = 256
STEPS = 4
"""In so many fetches the distance is covered."""


@dataclass(slots=True)
class _Stream:
    end: int
    """Where its last read ended."""
    ahead: int
    """Up to where has been asked for ahead."""


class SequentialReads:
    """Not thread-safe. `read_ahead_bytes` 0: never ahead."""

    def __init__(self, read_ahead_bytes: int, block_bytes: int) -> None:
        self._read_ahead_bytes = read_ahead_bytes
        self._block_bytes = block_bytes
        self._streams: OrderedDict[str, list[_Stream]] = OrderedDict()

    def advance(self, key: str, start: int, stop: int, size: int) -> tuple[int, int] | None:
        """Note a read of [start, stop) of an object of `size`; what to fetch ahead now, or None.

        Ahead is asked for in steps of a quarter of the distance: a reader of small pieces causes
        few large GETs, several of them are under way together, and the first comes soon.
        """
        if self._read_ahead_bytes <= 0:
            return None
        streams = self._streams.setdefault(key, [])
        self._streams.move_to_end(key)
        if len(self._streams) > OBJECTS_MAX:
            self._streams.popitem(last=False)
        stream = next((each for each in streams if self._is_near(each, start)), None)
        if stream is None:
            streams.append(_Stream(stop, stop))
            del streams[:-STREAMS_PER_OBJECT]
            return None
        if stop <= stream.end:
            return None  # the same again is no progress
        stream.end = stop
        stream.ahead = max(stream.ahead, stream.end)
        target = min(stream.end + self._read_ahead_bytes, size)
        step = min(max(self._read_ahead_bytes // STEPS, self._block_bytes), size - stream.ahead)
        if step <= 0 or target - stream.ahead < step:
            return None
        begin = stream.ahead
        stream.ahead += step
        return begin, stream.ahead

    def _is_near(self, stream: _Stream, start: int) -> bool:
        # A reader of entries may leave out a block's rest, or begin with its last bytes again.
        return stream.end - self._block_bytes <= start <= stream.end + self._block_bytes
