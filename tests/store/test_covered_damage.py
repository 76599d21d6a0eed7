"""Damage in files that a node's segments cover: its log begins behind it, and nothing is lost.

A node with such a file was suspect at each start until the file was pruned. With a second one,
damaged in its own way, nobody led, though no node lacked anything (`simulate --cluster`, seed
590008996).
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable

import pytest

from chronik_store.environment import Environment
from chronik_store.errors import CorruptionError
from chronik_store.format.checkpoint import Checkpoint
from chronik_store.format.control import AddSegment, Seal
from chronik_store.format.entry import EntryHeader
from chronik_store.fs.base import Buffer
from chronik_store.log_status import status_of
from chronik_store.manifest.state import FoldedState
from chronik_store.testing.cluster_log import LOG_ID, TOPIC_ID, segment_of
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.wal.recovery import recover
from chronik_store.wal.settings import WalIdentity
from tests.store.test_cut_off import WAL, Node, embedded

TIERED, BEHIND, NEWEST = b"in a segment", b"behind the segment", b"in the newest file"
Damage = Callable[[SimulatedDisk], None]


def tiered(*, folded: bool = True) -> SimulatedDisk:
    """Files with entries of a segment, one with entries behind it, and a newest one.

    folded: the newest file was begun when the segment was committed, so its checkpoint knows of it.
    """
    node = Node(disk := SimulatedDisk(seed=1))
    node.replica.save_hard_state(3, "n2")
    for number in range(3):
        node.records(TIERED + b" %d" % number, b"v" * 300)
        node.core.wal.rotate()
    node.add(Seal(1, "size", 0))  # which begins a file
    node.records(BEHIND)
    node.commit()
    node.add(AddSegment(segment_of(node.core.manifest.sealed[0])))
    if folded:
        node.commit()
    node.core.wal.rotate()
    node.records(NEWEST)
    node.commit()
    disk = disk.kill()
    assert 6 == len(wal_paths(disk))
    return disk


def wal_paths(disk: SimulatedDisk) -> list[str]:
    return [path for path in disk.paths(WAL) if path.endswith(".log")]


def damage(value: bytes) -> Damage:
    """One bit of the first record that says this."""

    def flip(disk: SimulatedDisk) -> None:
        for path in wal_paths(disk):
            if (position := disk.peek(path).find(value)) >= 0:
                return disk.flip_bit(path, position)
        raise AssertionError(value)

    return flip


def damage_opening(number: int) -> Damage:
    """One bit of the checkpoint of a file."""

    def flip(disk: SimulatedDisk) -> None:
        disk.flip_bit(wal_paths(disk)[number], 400)

    return flip


def held(node: Node) -> list[bytes]:
    replica, payloads = node.replica, []
    while (index := replica.first_index + len(payloads)) <= replica.last_index:
        payloads += [bytes(entry.payload) for entry in replica.entries(index, 1 << 20)]
    return payloads


FRONT = {
    "a record of the first file": damage(TIERED + b" 0"),
    "a record of a file amid them": damage(TIERED + b" 1"),
    "the last record of the segment": damage(TIERED + b" 2"),
    "the first checkpoint": damage_opening(0),
    "a checkpoint amid them": damage_opening(1),
    "the last checkpoint in front": damage_opening(3),
}


@pytest.mark.parametrize("where", FRONT)
def test_a_node_goes_on_behind_what_its_segments_cover(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = Node(tiered())
    last, manifest = whole.replica.last_index, whole.core.manifest
    FRONT[where](disk := tiered())
    paths = wal_paths(disk)

    with caplog.at_level(logging.WARNING, "chronik_store.wal"):
        node = Node(disk)

    assert ("clean", False) == (node.core.recovery.verdict, node.replica.suspect)
    assert last == node.replica.last_index
    assert manifest == node.core.manifest
    assert whole.core.committed == node.core.committed
    assert (3, "n2") == node.replica.hard_state
    assert 1 < node.replica.first_index <= manifest.next.index + 1
    kept = held(node)
    assert any(BEHIND in each for each in kept)
    assert any(NEWEST in each for each in kept)
    said = "; ".join(node.core.recovery.findings)
    assert any(path in said for path in paths[:4])
    assert f"segments hold all that stood before entry {node.replica.first_index}" in said
    assert said in caplog.text
    [note] = [each for each in status_of(node.core).notes if "damaged WAL files" in each]
    assert ": 1;" in note


@pytest.mark.parametrize("where", FRONT)
def test_it_does_so_at_each_start_until_pruning_takes_the_file_away(where: str) -> None:
    FRONT[where](disk := tiered())
    for number in range(3):
        node = Node(disk)
        assert ("clean", False) == (node.core.recovery.verdict, node.replica.suspect)
        node.records(b"start %d" % number)
        node.commit()
        disk = disk.kill()
    node = Node(disk)
    files = node.core.wal.files()
    damaged = [each.path for each in files if each.damaged]
    front = [each for each in files if each.last_index <= node.core.manifest.next.index]

    node.core.wal.remove_files(front[-1].seq)

    names = [path.rpartition("/")[2] for path in damaged]
    assert names == [path.rpartition("/")[2] for path in disk.paths("/data/quarantine")]
    assert names
    assert "clean" == Node(disk.kill()).core.recovery.verdict


@pytest.mark.parametrize("places", list(itertools.combinations(FRONT, 2)), ids=" and ".join)
def test_several_of_them_cost_no_more_than_one(places: tuple[str, str]) -> None:
    disk = tiered()
    for where in places:
        FRONT[where](disk)

    node = Node(disk)

    assert ("clean", False) == (node.core.recovery.verdict, node.replica.suspect)
    assert Node(tiered()).replica.last_index == node.replica.last_index


def test_files_in_front_that_are_whole_are_no_evidence() -> None:
    FRONT["a record of a file amid them"](disk := tiered())

    files = Node(disk).core.wal.files()

    assert [False, True] == [each.damaged for each in files[:2]]


@pytest.mark.parametrize("value", [BEHIND, NEWEST])
def test_what_no_segment_holds_is_missed(value: bytes) -> None:
    damage(value)(disk := tiered())

    node = Node(disk)

    assert ("suspect", True) == (node.core.recovery.verdict, node.replica.suspect)
    assert not any(value in each for each in held(node))


@pytest.mark.parametrize("where", FRONT)
def test_damage_in_front_takes_no_more_than_the_damage_behind_it(where: str) -> None:
    damage(NEWEST)(alone := tiered())
    damage(NEWEST)(disk := tiered())
    FRONT[where](disk)

    expected, node = Node(alone), Node(disk)

    assert ("suspect", True) == (node.core.recovery.verdict, node.replica.suspect)
    assert expected.replica.last_index == node.replica.last_index
    assert expected.core.manifest == node.core.manifest


def test_damage_where_the_segment_is_added_leaves_what_is_in_front_of_the_other_damage() -> None:
    """From behind the first damage on nothing says that there are segments: what was tried on the
    way leaves no trace.
    """
    added = tiered()
    [path] = [each for each in wal_paths(added) if b"segments/events/0/" in added.peek(each)][:1]
    added.flip_bit(path, added.peek(path).index(b"segments/events/0/"))
    FRONT["a record of a file amid them"](added)

    node = Node(added)

    assert ("suspect", True) == (node.core.recovery.verdict, node.replica.suspect)
    assert (1, 0) == (node.replica.last_index, node.core.manifest.next.index)
    [kept] = held(node)
    assert TIERED + b" 0" in kept
    assert not node.core.manifest.segments


def test_a_segment_that_nothing_shows_to_be_committed_covers_nothing() -> None:
    FRONT["a record of a file amid them"](disk := tiered(folded=False))

    node = Node(disk)

    assert ("suspect", True) == (node.core.recovery.verdict, node.replica.suspect)
    assert 1 == node.replica.last_index


def test_frames_behind_the_newest_checkpoint_may_show_it() -> None:
    """Of a follower whose leader has uploaded just now, no checkpoint knows of it yet."""
    node = Node(disk := tiered(folded=False))
    node.commit()
    node.records(b"which says that all before is committed")
    last = node.replica.last_index
    FRONT["a record of a file amid them"](disk := disk.kill())

    node = Node(disk)

    assert ("clean", False) == (node.core.recovery.verdict, node.replica.suspect)
    assert (last, 1) == (node.replica.last_index, len(node.core.manifest.segments))


def test_a_suspicion_that_was_not_cleared_stays() -> None:
    node = Node(disk := tiered())
    node.replica.set_suspect(True)
    node.committer.flush()
    FRONT["a record of the first file"](disk := disk.kill())

    node = Node(disk)

    assert ("clean", True) == (node.core.recovery.verdict, node.replica.suspect)


def test_one_that_was_cleared_is_not_met_again() -> None:
    node = Node(disk := tiered())
    node.replica.set_suspect(True)
    node.committer.flush()
    node.core.wal.rotate()
    node.replica.set_suspect(False)
    node.committer.flush()
    FRONT["a record of the first file"](disk := disk.kill())

    node = Node(disk)

    assert ("clean", False) == (node.core.recovery.verdict, node.replica.suspect)


def test_a_log_of_its_own_asks_repair_which_looks_at_the_objects() -> None:
    FRONT["a record of the first file"](disk := tiered())

    with pytest.raises(CorruptionError, match="chronik repair"):
        embedded(disk)


class Told(FoldedState):
    """What it is told, by name, one list for each time that it begins with nothing."""

    def __init__(self) -> None:
        super().__init__(
            topic="events", partition=0, topic_id=TOPIC_ID, log_id=LOG_ID, producers_max=100
        )
        self.told: list[list[str]] = [[]]

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        self.told[-1].append(f"checkpoint at {checkpoint.base.index}")
        super().on_checkpoint(checkpoint)

    def on_entry(self, header: EntryHeader, payload: Buffer) -> None:
        self.told[-1].append(f"entry {header.index}")
        super().on_entry(header, payload)

    def on_nothing(self) -> None:
        self.told.append([])
        super().on_nothing()


def test_each_try_begins_with_nothing_and_none_is_in_vain() -> None:
    """Of a file with damage no later beginning is tried that has the same damage in it."""
    disk = tiered()
    FRONT["a record of the first file"](disk)
    FRONT["the last record of the segment"](disk)
    replayer = Told()

    recover(
        Environment(threads=MortalThreads(), fs=disk),
        WAL,
        WalIdentity("events", 0, TOPIC_ID, "test/n1", LOG_ID),
        replayer,
        live=False,
    )

    first, second, third, used = replayer.told
    assert ["checkpoint at 0"] == first
    assert ["checkpoint at 1", "entry 2", "checkpoint at 2"] == second
    assert "checkpoint at 3" == third[0]
    assert third == used
