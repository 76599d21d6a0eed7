"""Damage in a file that can be folded only by a checkpoint behind the damage (protocol 1, 9).

A follower begins a new WAL file, mostly behind a SEAL, before it knows that all in front of it is
committed, so that file's checkpoint does not know what was decided last. The file before it goes on
the strength of a later checkpoint, which does. Promise: if the first file is damaged then, the node
takes nothing of it and gets all from the others: what it would fold is a state that never was.
"""

from __future__ import annotations

import pytest

from chronik_store.format.control import CursorSet, Noop
from chronik_store.testing.cluster_log import PATHS, control_entry, run_of, stepped
from chronik_store.testing.simulated_disk import SimulatedDisk

DECIDED = [control_entry(1, 1, 0, Noop()), control_entry(1, 2, 0, CursorSet("reader", 0, True))]


def wal_files(disk: SimulatedDisk) -> list[str]:
    return sorted(path for path in disk.paths(PATHS.wal) if path.endswith(".log"))


@pytest.fixture
def pruned() -> SimulatedDisk:
    """Two files: entries 3 to 6, whose checkpoint does not know the cursor, and entry 7."""
    disk = SimulatedDisk(seed=1)
    core, replica, committer = stepped(disk)
    replica.append_entries(0, 0, DECIDED)
    committer.flush()
    core.wal.rotate()
    replica.append_entries(2, 1, run_of([1] * 4, first=3))
    replica.save_hard_state(4, "n2")
    committer.flush()
    replica.advance_commit(6)
    core.wal.rotate()
    replica.append_entries(6, 1, run_of([1], first=7, offset=4))
    committer.flush()
    _, older, newest = core.wal.files()
    assert older.folded_to < older.first_index - 1 == 2 < newest.folded_to == 6
    core.wal.remove_files(older.seq - 1)
    assert core.manifest.cursors == (("reader", 0),)
    return disk


def damage(disk: SimulatedDisk, path: str, text: bytes) -> SimulatedDisk:
    at = disk.peek(path).index(text)
    disk.overwrite(path, at, bytes([text[0] ^ 0x10]))
    return disk.kill()


def test_without_damage_the_later_checkpoint_tells_the_rest(pruned: SimulatedDisk) -> None:
    core, replica, _ = stepped(pruned.kill())

    assert core.recovery.verdict == "clean"
    assert replica.last_index == 7
    assert core.manifest.cursors == (("reader", 0),)


def test_what_is_left_in_front_of_the_damage_is_not_folded_without_it(
    pruned: SimulatedDisk,
) -> None:
    first, _ = wal_files(pruned)

    core, replica, committer = stepped(damage(pruned, first, b"t1 i5"))

    assert core.recovery.verdict == "suspect"
    assert replica.last_index == 0
    assert (core.state.folded_to, core.committed.index, core.committed.offset) == (0, 1, 0)
    assert core.manifest.cursors == ()
    assert replica.hard_state == core.wal.hard_state == (4, "n2")
    said = "; ".join(core.recovery.findings)
    assert f"what was decided before {first} is known only behind the damage" in said
    assert "whole entries up to 7 (offset 5) are left" in said

    replica.append_entries(0, 0, DECIDED)
    committer.flush()
    replica.advance_commit(2)
    assert core.manifest.cursors == (("reader", 0),)


def test_damage_behind_the_checkpoint_that_knows_takes_no_more_than_it_must(
    pruned: SimulatedDisk,
) -> None:
    _, newest = wal_files(pruned)

    core, replica, _ = stepped(damage(pruned, newest, b"t1 i7"))

    assert core.recovery.verdict == "suspect"
    assert replica.last_index == 6
    assert core.manifest.cursors == (("reader", 0),)
    assert core.committed.offset == 4
