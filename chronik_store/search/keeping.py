"""Which bundles go when not all can stay.

Place: beside `bundle_cache`, which calls it with its lock held; no I/O. Promise: a pass over all
of a log, N times what may be kept, finds about one in N of its bundles there when it is made again,
also when another is close behind it; a set that fits and is asked for again and again is there from
the third time on, whatever was before it. Invariant: no more than `_REMEMBERED_MAX` bundles that
are gone are remembered.

Why not simply the least recently used: a pass over more than fits would lose each bundle shortly
before it asks for it again, and so would find none, ever. Here a bundle that comes is an arrival
first. Where there is no room, it takes the place of the least recently used of those that are
`kept` only if it has come back sooner: if its last use, in a stay before this one, was later than
the last use of that one. When a pass is repeated no bundle has come back sooner than another, so
those that are kept stay, and are found. When a set has come into use each of its bundles has, so
the set moves in. That is the order of LIRS (Jiang and Zhang, 2002). Uses during one stay count
once, since two passes, one behind the other, use each bundle twice.

    arrivals    an eighth of the bounds: the last that came
    kept        the rest: those that found room, or came back sooner than one of them
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Mapping
from typing import Final

_ARRIVALS_SHARE: Final = 8
_REMEMBERED_MAX: Final = 2048


class Keeping:
    """The uses of bundles, by key, and what follows from them. Not thread-safe."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._uses = 0
        self._last: OrderedDict[str, int] = OrderedDict()
        """The number of the last use of each that is there or remembered, in this order."""
        self._arrivals: dict[str, int] = {}
        """As they came; the number of the last use in the stay before, 0: none is known."""
        self._kept: OrderedDict[str, None] = OrderedDict()
        """By their last use, or since when they are kept."""

    def use(self, key: str) -> None:
        """A bundle is asked for; if it is not there, it will be."""
        if key in self._kept:
            self._kept.move_to_end(key)
        else:
            self._arrivals.setdefault(key, self._last.get(key, 0))
        self._uses += 1
        self._last[key] = self._uses
        self._last.move_to_end(key)
        while len(self._last) > _REMEMBERED_MAX + self._count_max:
            self._last.popitem(last=False)

    def leave(self, key: str) -> None:
        """A bundle is not there any more, or will not be."""
        self._arrivals.pop(key, None)
        self._kept.pop(key, None)

    def surplus(self, sizes: Mapping[str, int], busy: Container[str], bytes_max: int) -> list[str]:
        """Those that go, so that the rest is within bounds, or `busy`. sizes: the bytes of all."""
        gone: list[str] = []
        count, size_bytes = len(sizes), sum(sizes.values())
        while count > self._count_max or size_bytes > bytes_max:
            key = self._next(sizes, busy, bytes_max)
            if key is None:
                break
            self.leave(key)
            gone.append(key)
            count, size_bytes = count - 1, size_bytes - sizes[key]
        return gone

    def _next(self, sizes: Mapping[str, int], busy: Container[str], bytes_max: int) -> str | None:
        """The one that goes next. Arrivals beyond their share are kept, if they may."""
        share_count, share_bytes = self._count_max // _ARRIVALS_SHARE, bytes_max // _ARRIVALS_SHARE
        arrived_bytes = sum(sizes[key] for key in self._arrivals)
        kept_bytes = sum(sizes[key] for key in self._kept)
        idle = [key for key in self._arrivals if key not in busy]
        oldest = next((key for key in self._kept if key not in busy), None)
        for key in idle:
            if len(self._arrivals) <= share_count and arrived_bytes <= share_bytes:
                break
            finds_room = (
                len(self._kept) < self._count_max - share_count
                and kept_bytes + sizes[key] <= bytes_max - share_bytes
            )
            came_back_sooner = oldest is not None and self._arrivals[key] > self._last.get(
                oldest, 0
            )
            if not finds_room and not came_back_sooner:
                return key
            del self._arrivals[key]
            self._kept[key] = None
            if not finds_room:
                return oldest
            oldest = oldest or key
            arrived_bytes, kept_bytes = arrived_bytes - sizes[key], kept_bytes + sizes[key]
        return oldest or next(iter(idle), None)
