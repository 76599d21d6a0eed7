"""What logs let go: each drop of records is judged when a node folds it.

Place: under `story` and `judge`, over `told`. Promise: retention takes whole segments that are
listed, each of them because what is kept from it on is too much, or because it is too old, by a
clock that some node may have had; and in the end it has taken all of those. Invariant: it looks
only, and knows the settings; nothing of how the product decides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from chronik_server.testing.servers.told import Told
from chronik_server.testing.servers.world import ServersWorld
from chronik_store.format.control import DropPrefix
from chronik_store.format.manifest_file import Manifest, SegmentInfo
from chronik_store.manifest import fold, state
from chronik_store.manifest.state import FoldedState

ASKED = "admin"
"""Reason of a drop that somebody has asked for: `told` knows of it."""


class LettingGo:
    """See the module."""

    def __init__(self, world: ServersWorld, told: Told) -> None:
        self._world, self._told = world, told

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Within this, each fold of a drop is judged; but for those by which the recovery of a
        damaged log finds out what is missing.
        """
        good: Callable[..., Any] = fold.apply_command
        lacks: Callable[..., Any] = FoldedState.lacks
        attempts: list[FoldedState] = []

        def apply_command(manifest: Manifest, header: Any, command: Any) -> Any:
            applied = good(manifest, header, command)
            is_drop = isinstance(command, DropPrefix) and applied.refused is None
            if is_drop and not attempts:
                self._judge(manifest, applied.manifest, command)
            return applied

        def attempt(folded: FoldedState, *places: int) -> Any:
            attempts.append(folded)
            try:
                return lacks(folded, *places)
            finally:
                attempts.pop()

        with (
            mock.patch.object(state, "apply_command", apply_command),
            mock.patch.object(FoldedState, "lacks", attempt),
        ):
            yield

    def _judge(self, before: Manifest, after: Manifest, drop: DropPrefix) -> None:
        if drop.reason == ASKED:
            return
        self._world.events["drops by retention"] += 1
        where = f"{before.topic}/{before.partition} ({before.topic_id[:4]})"
        gone = [each for each in before.segments if each.end_offset <= drop.offset]
        if not gone or gone[-1].end_offset != after.start_offset:
            self._world.violate(f"{where}: {drop} takes what is in no segment: {before.segments}")
        if drop.clock_us > self._latest_us():
            self._world.violate(f"{where}: {drop} is of no clock")
        kept_bytes = sum(each.size_bytes for each in before.segments)
        for segment in gone:
            if not self._is_past(segment, kept_bytes, drop.clock_us):
                self._world.violate(f"{where}: {drop} takes {segment}, and {kept_bytes} are kept")
            kept_bytes -= segment.size_bytes
        self._told.let_go(before.topic_id, before.partition, drop.offset)

    def _latest_us(self) -> int:
        """What the clock of any node may say."""
        return self._world.simulation.clock.time_us() + int(self._world.ahead_seconds * 1e6)

    def _is_past(self, segment: SegmentInfo, kept_bytes: int, now_us: int) -> bool:
        """It may go. kept_bytes: of it and of all behind it."""
        most, oldest = self._world.log.retention_bytes, self._world.log.retention_seconds
        is_much = most is not None and kept_bytes > most
        return is_much or (oldest is not None and now_us - segment.sealed_us >= oldest * 1e6)

    def lacks(self, manifest: Manifest, now_us: int) -> str:
        """What is still to go, by a node's clock."""
        kept_bytes = sum(each.size_bytes for each in manifest.segments)
        if manifest.segments and self._is_past(manifest.segments[0], kept_bytes, now_us):
            return f"{manifest.segments[0]} is past retention, {kept_bytes} are kept"
        return ""
