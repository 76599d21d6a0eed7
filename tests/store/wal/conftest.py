"""A WAL with an owner that does as little as possible: entries of bytes, a replayed copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from chronik_store.clock import SystemClock, SystemEntropy
from chronik_store.environment import Environment
from chronik_store.format.checkpoint import Checkpoint
from chronik_store.format.entry import (
    EntryHeader,
    EntryKind,
    decode_entry_header,
    encode_entry_header,
)
from chronik_store.format.manifest_file import LogBase, Manifest
from chronik_store.format.record_batch import RecordBatch
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.simulated_disk import CrashError, SimulatedDisk
from chronik_store.wal.services import WalServices
from chronik_store.wal.settings import WalIdentity, WalSettings
from chronik_store.wal.wal import Wal

DIRECTORY = "/data/wal"
TOPIC_ID, LOG_ID = "11" * 16, "22" * 16
IDENTITY = WalIdentity("events", 0, TOPIC_ID)
EMPTY = Checkpoint(
    log_id=LOG_ID,
    term=0,
    vote="",
    base=LogBase(0, 0, 0, 0),
    committed_index=0,
    manifest=Manifest("events", 0, TOPIC_ID, LOG_ID),
    manifest_folded_to=0,
)


@dataclass
class Copy:
    """A replayer that keeps everything: index -> (term, offset, payload)."""

    entries: dict[int, tuple[int, int, bytes]] = field(default_factory=dict)
    hard_state: tuple[int, str] = (0, "")
    checkpoints: list[Checkpoint] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        self.checkpoints.append(checkpoint)
        self.events.append(f"checkpoint {checkpoint.base.index}")

    def on_entry(self, header: EntryHeader, payload: memoryview) -> None:
        assert header.index not in self.entries
        self.entries[header.index] = (header.term, header.base_offset, bytes(payload))
        self.events.append(f"entry {header.index}")

    def on_truncate(self, index: int) -> None:
        for gone in [known for known in self.entries if known >= index]:
            del self.entries[gone]
        self.events.append(f"truncate {index}")

    def on_hard_state(self, term: int, vote: str) -> None:
        self.hard_state = (term, vote)

    def lacks(self, base_index: int, committed_index: int) -> Literal[""]:
        return ""

    def on_nothing(self) -> None:
        self.entries.clear()
        self.events.append("nothing")


class Owner:
    """Opens a WAL on a disk and appends to it. Everything synced counts as committed unless
    `commits` is False."""

    def __init__(
        self,
        disk: Any,
        *,
        commits: bool = True,
        settings: dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        self.env = Environment(
            clock=SystemClock(), entropy=SystemEntropy(), threads=MortalThreads(), fs=disk
        )
        self.services = WalServices.create(self.env, tail_bytes=kwargs.pop("tail_bytes", 1 << 20))
        self.copy = Copy()
        self.commits = commits
        options = {"fill_bytes_max": 0} | (settings or {})
        self.wal = Wal.recover(
            self.env,
            DIRECTORY,
            IDENTITY,
            WalSettings(**options),
            self.copy,
            services=self.services,
            **kwargs,
        )
        self.term = max(1, self.wal.last_term)
        self.folded = EMPTY
        self.wal.checkpoint_source = self.checkpoint
        self.wal.on_durable = self.on_durable

    def start(self) -> Owner:
        self.wal.start(self.checkpoint())
        self.on_durable()
        return self

    def on_durable(self) -> None:
        if self.commits:
            self.wal.commit_mark = self.wal.durable.index - 1

    def checkpoint(self) -> Checkpoint:
        return self.folded

    def stage(self, payload: bytes | None = None, *, values: list[bytes] | None = None) -> int:
        with self.wal.lock:
            return self.stage_locked(payload, values=values)

    def stage_locked(
        self, payload: bytes | None = None, *, values: list[bytes] | None = None
    ) -> int:
        """A control entry with this payload, or records of these values."""
        wal = self.wal
        kind, count, body = EntryKind.NOOP, 0, payload or b""
        if values is not None:
            kind, count, body = EntryKind.RECORDS, len(values), RecordBatch.build(values).buffer
        encoded = encode_entry_header(
            kind,
            self.term,
            wal.last_index + 1,
            wal.end_offset,
            count,
            wal.last_timestamp_us + 1,
            body,
        )
        return wal.stage_entry(encoded, decode_entry_header(encoded), body)

    def append(self, payload: bytes | None = None, *, values: list[bytes] | None = None) -> int:
        """Stage and lead; returns the index."""
        with self.wal.lock:
            seq = self.stage_locked(payload, values=values)
            index = self.wal.last_index
        self.wal.lead(seq)
        return index

    def truncate(self, index: int) -> int:
        with self.wal.lock:
            return self.wal.stage_truncate(index)

    def vote(self, term: int, vote: str) -> None:
        with self.wal.lock:
            seq = self.wal.stage_hard_state(term, vote)
        self.wal.lead(seq)
        self.term = term

    def live(self) -> dict[int, bytes]:
        """All live entries' payloads, read through the WAL."""
        found: dict[int, bytes] = {}
        index = self.wal.first_index
        while index <= self.wal.last_index:
            for entry in self.wal.read(index, self.wal.last_index, 1 << 20):
                found[entry.header.index] = bytes(entry.payload)
                index = entry.header.index + 1
        return found

    def close(self) -> None:
        self.wal.close()
        self.services.close()


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk(seed=1)


@pytest.fixture
def open_wal(disk: SimulatedDisk) -> Iterator[Callable[..., Owner]]:
    """Opens (and starts) WALs on `disk` and closes what a test left open."""
    opened: list[Owner] = []

    def open_one(where: SimulatedDisk | None = None, *, start: bool = True, **kwargs: Any) -> Owner:
        owner = Owner(disk if where is None else where, **kwargs)
        opened.append(owner)
        return owner.start() if start else owner

    yield open_one
    for owner in opened:
        with suppress(CrashError):
            owner.services.close()
