"""Zeros ahead: never over bytes of a group, never needed for an acknowledgement."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from chronik_store.testing.disk_faults import Gate
from chronik_store.testing.simulated_disk import SimulatedDisk

Opens = Callable[..., Any]
FILLED = {"fill_bytes_min": 4096, "fill_bytes_max": 16384}


def settle(owner: Any) -> None:
    owner.wal._active.stop()


def test_a_file_is_filled_ahead_after_the_first_group(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = open_wal(disk, settings=FILLED)
    path = owner.wal.files()[-1].path
    before = len(disk.peek(path))
    owner.append(b"x")
    owner.services.filler.close()

    content = disk.peek_durable(path)
    assert content is not None
    assert len(content) >= before + 4096
    assert not content[before:].strip(b"\0")


def test_an_idle_log_is_not_filled(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = open_wal(disk, settings=FILLED)

    assert len(disk.peek(owner.wal.files()[-1].path)) == 4096


def test_appends_outrun_a_slow_filler_and_wait_only_where_they_meet(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk, settings=FILLED)
    path = owner.wal.files()[-1].path
    filling = threading.Event()
    go_on = threading.Event()

    def hold_the_filler(_number: int, operation: str, called: str) -> None:
        if operation == "write_at" and called == path:  # The committer's handle has the old name.
            filling.set()
            assert go_on.wait(20)

    disk.hook = hold_the_filler
    owner.append(b"first")
    assert filling.wait(5)
    owner.append(b"fits before the region that is being filled")
    meets = threading.Thread(target=lambda: owner.append(b"z" * 8000), daemon=True)
    meets.start()
    meets.join(0.1)
    assert meets.is_alive()
    go_on.set()
    meets.join(10)

    assert not meets.is_alive()
    owner.services.filler.close()
    assert open_wal(disk.crash("lost")).copy.entries.keys() == {1, 2, 3}


def test_close_waits_for_the_chunk_under_way(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = open_wal(disk, settings=FILLED)
    gate = Gate("open")
    disk.hook = gate
    owner.append(b"x")
    assert gate.arrived.wait(5)
    closing = threading.Thread(target=owner.wal.close, daemon=True)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    gate.open()
    closing.join(10)

    assert not closing.is_alive()
