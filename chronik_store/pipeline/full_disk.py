"""A segment built in memory, for the moment when the disk has no room for its file.

Place: beside `upload`. Promise: a disk that filled up while the bucket was away empties itself
once the bucket is back: the records leave it without needing room on it first. Invariant: the same
bytes, hence the same key, as the file would have had; at most one such body in memory, within the
store's byte budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from chronik_store.format.manifest_file import SealedRange, SegmentInfo
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.fs.base import Buffer
from chronik_store.objectstore.layout import segment_key
from chronik_store.objectstore.verified import put_verified
from chronik_store.pipeline.turn import Turn
from chronik_store.segment.sealer import SegmentIdentity, write_segment


def upload_from_memory(
    turn: Turn, sealed: SealedRange, producers: tuple[ProducerEntry, ...]
) -> tuple[SegmentInfo, Literal["created", "adopted"]]:
    """Build the range's segment in memory, announce it and put it. Errors: as an upload's."""
    who = turn.partition.identity
    with turn.tiering.budget.take(turn.tiering.config.segment_bytes):
        memory = _MemoryDirectory()
        info = write_segment(
            memory,
            "memory",
            SegmentIdentity(who.topic, who.partition, who.topic_id),
            sealed,
            turn.entries(sealed.first_index, sealed.last_index),
            producers,
            key_of=partial(segment_key, who.topic, who.partition),
        )
        turn.intend(info.key, sealed.first_index)
        turn.check()
        turn.lane.put.add(info.key)
        return info, put_verified(turn.tiering.store, info.key, memory.content)


class _MemoryDirectory:
    """One file that grows at its end, as far as `write_segment` asks for one. Not thread-safe."""

    def __init__(self) -> None:
        self.content = bytearray()

    def create(self, _path: str) -> _MemoryDirectory:
        """The file is the directory: there is only one."""
        return self

    def write_at(self, position: int, buffers: Sequence[Buffer]) -> int:
        assert position == len(self.content)
        for buffer in buffers:
            self.content += buffer
        return len(self.content) - position

    def remove(self, path: str) -> None:
        raise FileNotFoundError(path)

    def rename(self, _source: str, _target: str) -> None:
        """Whatever its name, it has the bytes."""

    def sync_data(self) -> None:
        """Nothing here is meant to last."""

    def sync_all(self) -> None:
        """Nothing here is meant to last."""

    def sync_directory(self, _path: str) -> None:
        """Nothing here is meant to last."""

    def close(self) -> None:
        """Freed with its last reference."""
