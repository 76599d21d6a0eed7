"""Damage in front of the one checkpoint that knows what was pruned.

A file's checkpoint is folded as far as `committed` was when it began, which may be less than where
the file begins. Files before it are pruned on the strength of a later checkpoint; when that one
stands behind damage, what is left cannot be folded: its segments would be those of long ago.
"""

from __future__ import annotations

import dataclasses

import pytest

import chronik_store.repair as repair_module
from chronik_store.environment import Environment
from chronik_store.errors import CorruptionError
from chronik_store.format.control import AddSegment, Seal
from chronik_store.format.manifest_file import LogBase
from chronik_store.log_core import LogCore
from chronik_store.manifest.state import FoldedState
from chronik_store.repair import plan_repair
from chronik_store.replica import Replica
from chronik_store.testing.cluster_log import (
    LOG_ID,
    TOPIC_ID,
    SteppedCommitter,
    control_entry,
    record_entry,
    segment_of,
    stepped,
)
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.wal.chain import Opening, select_chain
from chronik_store.wal.services import WalServices
from chronik_store.wal.settings import WalIdentity, WalSettings
from chronik_store.wal.wal import Wal
from tests.store.test_repair import CONFIG, damage, env_of, filled
from tests.store.wal.conftest import EMPTY

WAL = "/data/wal"
FILE_BYTES = 1 << 16
GOOD, DAMAGED = b"good", b"damaged"


class Node:
    """A replica on its way through a segment, up to a log that was pruned behind it."""

    def __init__(self, disk: SimulatedDisk) -> None:
        opened: tuple[LogCore, Replica, SteppedCommitter] = stepped(disk, file_bytes=FILE_BYTES)
        self.core, self.replica, self.committer = opened

    def add(self, command: Seal | AddSegment) -> None:
        replica = self.replica
        entry = control_entry(1, replica.last_index + 1, self.core.wal.end_offset, command)
        replica.append_entries(replica.last_index, replica.last_term, [entry])
        self.committer.flush()

    def records(self, *values: bytes) -> None:
        replica = self.replica
        entry = record_entry(1, replica.last_index + 1, self.core.wal.end_offset, *values)
        replica.append_entries(replica.last_index, replica.last_term, [entry])
        self.committer.flush()

    def commit(self) -> None:
        self.replica.advance_commit(self.replica.last_index)


def pruned(disk: SimulatedDisk) -> Node:
    """The oldest file was begun before the first ADD_SEGMENT was committed; a later one knows of
    both segments, which hold all that was before the oldest file.
    """
    node = Node(disk)
    node.replica.save_hard_state(3, "n2")
    for _ in range(3):
        node.records(b"v" * 300)
    node.add(Seal(1, "size", 0))
    node.commit()
    node.add(AddSegment(segment_of(node.core.manifest.sealed[0])))
    node.records(b"v" * 300)
    node.add(Seal(5, "size", 0))  # which begins a file, and nothing of this is committed
    node.records(GOOD)
    node.records(DAMAGED)
    node.commit()
    node.add(AddSegment(segment_of(node.core.manifest.sealed[0])))
    node.commit()
    node.core.wal.rotate()
    _, gone, oldest, _ = node.core.wal.files()
    first, second = node.core.manifest.segments
    assert oldest.folded_to < first.added_index < second.last_index == gone.last_index
    node.core.wal.remove_files(gone.seq)
    assert oldest.seq == node.core.wal.files()[0].seq
    return node


def flip(disk: SimulatedDisk) -> SimulatedDisk:
    oldest = min(path for path in disk.paths(WAL) if path.endswith(".log"))
    disk.flip_bit(oldest, disk.peek(oldest).index(DAMAGED))
    return disk


def test_a_node_takes_nothing_of_a_log_whose_segments_it_does_not_know_any_more() -> None:
    """It caught up from the others, led, published the segments of long ago, and deleted from the
    bucket what it did not list.
    """
    whole = pruned(SimulatedDisk(seed=1))
    disk = pruned(other := SimulatedDisk(seed=2)) and flip(other.kill())

    node = Node(disk)

    assert ("suspect", True) == (node.core.recovery.verdict, node.replica.suspect)
    assert (0, 0) == (node.replica.last_index, node.core.manifest.next.index)
    assert (3, "n2") == node.replica.hard_state
    said = node.core.recovery.findings
    assert any("is lost with the damage" in each for each in said)
    assert (0, 1) == (node.core.state.folded_to, node.core.committed.index)
    assert any("are left, which `chronik inspect` shows" in each for each in said)
    node.replica.install_snapshot(whole.replica.snapshot())
    node.committer.flush()
    assert whole.core.manifest.segments == node.core.manifest.segments


def test_without_damage_the_later_checkpoint_says_what_the_first_one_does_not() -> None:
    pruned(disk := SimulatedDisk(seed=1))

    node = Node(disk.kill())

    assert "clean" == node.core.recovery.verdict
    assert 2 == len(node.core.manifest.segments)


def test_damage_behind_the_checkpoint_that_knows_takes_no_more_than_it_must() -> None:
    node = pruned(disk := SimulatedDisk(seed=1))
    last = node.replica.last_index
    node.records(b"behind it")
    newest = node.core.wal.files()[-1].path
    disk = disk.kill()
    disk.flip_bit(newest, disk.peek(newest).index(b"behind it"))

    again = Node(disk)

    assert ("suspect", last) == (again.core.recovery.verdict, again.replica.last_index)
    assert 2 == len(again.core.manifest.segments)
    assert again.core.committed.index == last + 1


def test_all_that_was_replayed_is_forgotten_but_term_and_vote() -> None:
    def fresh() -> FoldedState:
        return FoldedState(
            topic="events", partition=0, topic_id=TOPIC_ID, log_id=LOG_ID, producers_max=100
        )

    def fields(state: FoldedState) -> dict[str, object]:
        parts = {"producers", "members", "_tally"}
        return {
            name: vars(value) if name in parts else value for name, value in vars(state).items()
        }

    node = pruned(SimulatedDisk(seed=1))
    state, made = node.core.state, fresh()
    state.on_nothing()

    assert (3, "n2") == (state.term, state.vote)
    made.on_hard_state(3, "n2")
    assert fields(made) == fields(state)


def embedded(disk: SimulatedDisk, **options: bool) -> Wal:
    """The same files, as if they were an embedded log's."""
    env = Environment(threads=MortalThreads(), fs=disk)
    state = FoldedState(
        topic="events", partition=0, topic_id=TOPIC_ID, log_id=LOG_ID, producers_max=100
    )
    return Wal.recover(
        env,
        WAL,
        WalIdentity("events", 0, TOPIC_ID),
        WalSettings(file_bytes=FILE_BYTES),
        state,
        services=WalServices.create(env, tail_bytes=1 << 20),
        **options,
    )


def test_a_log_of_its_own_is_shown_and_not_gone_on_with() -> None:
    pruned(disk := SimulatedDisk(seed=1))
    disk = flip(disk.kill())
    before = {path: disk.peek(path) for path in disk.paths("/")}

    with pytest.raises(CorruptionError, match="would forget segments that are in the bucket"):
        embedded(disk, accept_suspect=True)

    assert before == {path: disk.peek(path) for path in disk.paths("/")}
    shown = embedded(disk, read_only=True)
    entries = shown.read(shown.first_index, shown.last_index, 1 << 20)
    assert any(GOOD in bytes(entry.payload) for entry in entries)


def test_repair_sends_to_the_bucket_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = filled()
    damage(disk, 20)
    [plan] = plan_repair("/data", config=CONFIG, env=env_of(disk))
    assert "go_on" == plan.action

    def cut_off(*args: object, **options: bool) -> object:
        found = recover(*args, **options)
        found.lacks = "segments"
        return found

    recover = repair_module.recover
    monkeypatch.setattr(repair_module, "recover", cut_off)

    [plan] = plan_repair("/data", config=CONFIG, env=env_of(disk))
    assert "restore" == plan.action


def test_a_node_whose_log_begins_behind_damage_begins_anew() -> None:
    """It took itself for one that had pruned what it had lost: whoever led with that log could
    neither upload nor send it.
    """
    node = Node(disk := SimulatedDisk(seed=1))
    for _ in range(4):
        node.records(b"before")
        node.commit()
    again = Node(disk := disk.kill())
    first, second = again.core.wal.files()
    assert second.folded_to >= second.first_index - 1 > 0  # which the first file alone has
    disk = disk.kill()
    disk.flip_bit(first.path, 400)

    node = Node(disk)

    assert ("suspect", 0) == (node.core.recovery.verdict, node.replica.last_index)
    node.records(b"again")
    node.replica.set_suspect(False)
    node.committer.flush()
    after = Node(disk.crash("lost"))
    assert (1, False) == (after.replica.last_index, after.replica.suspect)


def test_the_newest_of_several_continuations_of_what_is_lost_counts() -> None:
    """What was acknowledged after the damage was given up at the next open."""
    openings = [
        Opening(1, "wal_1", 10, "damaged"),
        *(_opening(seq, previous) for seq, previous in ((9, 1), (13, 1), (15, 1), (29, 15))),
    ]

    chain = select_chain(openings)

    assert [15, 29] == [opening.seq for opening in chain.files]
    assert [1, 9, 13] == [opening.seq for opening in chain.aside]
    assert chain.findings


def test_a_gap_in_a_line_whose_front_was_left_out_is_damage_all_the_same() -> None:
    openings = [_opening(5, 3), _opening(29, 15, offset=8), _opening(40, 29, offset=9)]

    chain = select_chain(openings, is_cut=True)

    assert [5] == [opening.seq for opening in chain.files]
    [finding] = chain.findings
    assert "the file before it is missing" in finding
    assert not select_chain([_opening(5, 3, offset=8)], is_cut=True).findings
    assert select_chain([_opening(5, 3, offset=8)]).findings


@pytest.mark.parametrize(("folded_to", "used"), [(31, [38, 48]), (30, [2, 12])])
def test_a_line_begins_behind_what_was_pruned_also_when_its_newest_file_is_damaged(
    folded_to: int, used: list[int]
) -> None:
    """Two pruned files are there again after a power cut, a third one behind them is not: to go on
    from the two gave up all that was whole. Where the third was not superseded, it is damage.
    """
    openings = [
        *(_opening(seq, previous) for seq, previous in ((2, 0), (12, 2))),
        _opening(38, 32, index=31),
        _opening(48, 38, index=39, folded_to=folded_to),
        Opening(61, "wal_61", 10, "damaged"),
    ]

    chain = select_chain(openings)

    assert used == [opening.seq for opening in chain.files]
    assert ("wal_61: damaged",) == chain.findings


def _opening(
    seq: int, previous: int, *, offset: int = 0, index: int = 0, folded_to: int = 0
) -> Opening:
    checkpoint = dataclasses.replace(
        EMPTY,
        previous_end=(previous, previous + 1, 100),
        base=LogBase(index, 0, offset, 0),
        manifest_folded_to=folded_to,
        producers_folded_to=folded_to,
    )
    return Opening(seq, f"wal_{seq}", 10, "", None, checkpoint, None)
