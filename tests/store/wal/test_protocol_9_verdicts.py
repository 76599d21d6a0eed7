"""Protocol 9: clean, torn, suspect; and what is done about each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chronik_store.errors import CorruptionError
from chronik_store.format.wal_file import decode_wal_file_header
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.wal.verdict import judge

Opens = Callable[..., Any]
SMALL = {"file_bytes": 4096}


def last_file(disk: SimulatedDisk) -> str:
    return max(path for path in disk.paths("/data/wal") if path.endswith(".log"))


def flip(disk: SimulatedDisk, path: str, position: int) -> None:
    disk.overwrite(path, position, bytes([disk.peek(path)[position] ^ 0x10]))


def test_s1_a_flip_in_the_last_synced_group_is_not_cut_as_torn(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk)
    owner.append(b"acknowledged, and nothing was written after it")
    path = last_file(disk)
    flip(disk, path, disk.peek(path).index(b"acknowledged"))

    with pytest.raises(CorruptionError) as caught:
        open_wal(disk.kill())

    assert path in str(caught.value)
    assert "chronik repair" in str(caught.value)


def test_s1_nor_is_one_in_records_that_are_full_of_zeros(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk)
    owner.append(bytes(5000) + b"end" + bytes(5000))
    path = last_file(disk)
    flip(disk, path, disk.peek(path).index(b"end"))

    with pytest.raises(CorruptionError):
        open_wal(disk.kill())


@pytest.mark.parametrize("shorter", [False, True])
def test_s1_zeros_where_a_later_file_swears_to_frames_are_damage(
    disk: SimulatedDisk, open_wal: Opens, shorter: bool
) -> None:
    """A disk that has lost a write that it said was kept; a file that somebody has cut."""
    owner = open_wal(disk)
    owner.append(b"kept")
    path = last_file(disk)
    start = len(disk.peek(path).rstrip(b"\0"))
    start += -start % 8
    owner.append(b"lost")
    owner.close()  # with a mark, so that the next file has no copy of it
    disk = disk.another_process()
    owner = open_wal(disk)
    owner.append(b"in the next file")
    owner.close()
    assert path != last_file(disk)
    disk = disk.another_process()
    if shorter:
        disk.truncate(path, start)
    else:
        disk.overwrite(path, start, bytes(len(disk.peek(path)) - start))

    with pytest.raises(
        CorruptionError, match=f"frames up to seq .* were on disk, zeros .* {start}"
    ):
        open_wal(disk)

    again = open_wal(disk, accept_suspect=True)
    assert again.copy.entries.keys() == {1}


@pytest.mark.parametrize("gone", [2, 3])
def test_an_entry_that_does_not_follow_is_damage_whole_as_it_is(
    disk: SimulatedDisk, open_wal: Opens, gone: int
) -> None:
    """Truncations are frames of their own: an entry takes no other's place."""
    owner = open_wal(disk)
    for value in (b"1", b"2", b"3"):
        owner.append(values=[value])
    with owner.wal.lock:
        owner.wal._table.truncate(gone)
        owner.wal._tail.truncate(gone)
    owner.append(values=[b"again"])

    with pytest.raises(CorruptionError, match="damaged, not cut off; entries up to 3 "):
        open_wal(disk.kill())


def test_a_group_that_lacks_a_sector_is_torn_and_was_never_acknowledged(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk)
    owner.append(b"kept")
    owner.append(b"cut off" * 300)
    path = last_file(disk)
    place = disk.peek(path).index(b"cut off" * 100)
    sector = place - place % 512 + 512
    disk.overwrite(path, sector, bytes(512))

    again = open_wal(disk.kill())

    assert again.wal.recovery.verdict == "torn"
    assert again.wal.recovery.cut_bytes > 0
    assert again.copy.entries.keys() == {1}


@pytest.mark.parametrize("more", range(8))
def test_a_write_that_broke_off_at_any_byte_of_its_only_frame_is_torn(
    disk: SimulatedDisk, open_wal: Opens, more: int
) -> None:
    """The zeros with which a frame ends were looked for at the end of its headers, too."""
    owner = open_wal(disk)
    owner.append(values=[b"kept"])
    path = last_file(disk)
    start = len(disk.peek(path).rstrip(b"\0"))
    start += -start % 8
    owner.append(values=[b"cut off" * 30 + bytes(more)])
    whole = disk.peek(path)
    file_id = decode_wal_file_header(whole).file_id
    for written in range(start + 1, len(whole.rstrip(b"\0"))):
        broken = memoryview(whole[:written] + bytes(len(whole) - written))
        found = judge(broken, start, file_id=file_id, expected_seq=3, sworn_seq=2)
        assert found.verdict == "torn", (written - start, found)


def test_a_term_that_stands_behind_the_damage_in_its_file_stays_promised(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk)
    owner.append(b"damaged")
    owner.vote(7, "me")
    path = last_file(disk)
    flip(disk, path, disk.peek(path).index(b"damaged"))

    again = open_wal(disk.kill(), accept_suspect=True)

    assert again.copy.entries == {}
    assert again.wal.hard_state == again.copy.hard_state == (7, "me")


def test_a_term_in_a_file_behind_one_whose_checkpoint_is_damaged_stays_promised(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk, settings=SMALL)
    for number in range(8):
        owner.append(b"%d" % number * 1500)
    owner.vote(7, "me")
    _, second, *_, last = [path for path in disk.paths("/data/wal") if path.endswith(".log")]
    assert b"me" in disk.peek(last)
    flip(disk, second, 600)

    again = open_wal(disk.kill(), accept_suspect=True, settings=SMALL)

    assert again.copy.entries.keys() == {1, 2}
    assert again.wal.hard_state == again.copy.hard_state == (7, "me")


def test_the_same_below_a_mark_is_suspect(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = open_wal(disk)
    owner.append(b"cut off" * 300)
    path = last_file(disk)
    place = disk.peek(path).index(b"cut off" * 100)
    owner.append(b"a later group swears to it")
    disk.overwrite(path, place - place % 512 + 512, bytes(512))

    with pytest.raises(CorruptionError, match="synced"):
        open_wal(disk.kill())


def test_a_missing_file_an_unreadable_checkpoint_and_an_older_file_are_suspect(
    open_wal: Opens,
) -> None:
    def damaged(damage: Callable[[SimulatedDisk, list[str]], None]) -> SimulatedDisk:
        disk = SimulatedDisk(seed=2)
        owner = open_wal(disk, settings=SMALL)
        for number in range(8):
            owner.append(b"%d" % number * 1500)
        owner.close()
        damage(disk, [path for path in disk.paths("/data/wal") if path.endswith(".log")])
        return disk.kill()

    cases: list[Callable[[SimulatedDisk, list[str]], None]] = [
        lambda disk, paths: disk.vanish(paths[1]),
        lambda disk, paths: flip(disk, paths[-1], 600),
        lambda disk, paths: flip(disk, paths[0], 10),
        lambda disk, paths: flip(disk, paths[1], 2000),
        lambda disk, paths: disk.truncate(paths[1], 1500),
    ]
    for case in cases:
        with pytest.raises(CorruptionError):
            open_wal(damaged(case))


def test_the_loss_of_pruned_looking_files_shows_in_what_no_segment_covers(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk, settings=SMALL)
    for number in range(6):
        owner.append(values=[b"%d" % number * 1400])
    owner.close()
    first = min(path for path in disk.paths("/data/wal") if path.endswith(".log"))
    disk.vanish(first)

    with pytest.raises(CorruptionError, match="no segment holds"):
        open_wal(disk.kill())


def test_an_interrupted_rotation_is_nothing(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = open_wal(disk)
    owner.append(b"x")
    disk.create("/data/wal/wal_00000000000000000003.log.tmp").write_at(0, [b"half a header"])

    again = open_wal(disk.kill())

    assert again.wal.recovery.verdict in {"clean", "torn"}
    assert again.copy.entries.keys() == {1}


class TestAccepted:
    """A suspect log that the operator opens all the same."""

    @pytest.fixture
    def damaged(self, disk: SimulatedDisk, open_wal: Opens) -> SimulatedDisk:
        owner = open_wal(disk, settings=SMALL)
        for number in range(8):
            owner.append(b"%d" % number * 1500)
        owner.vote(7, "me")
        owner.close()
        paths = [path for path in disk.paths("/data/wal") if path.endswith(".log")]
        flip(disk, paths[1], disk.peek(paths[1]).index(b"33333"))
        return disk.kill()

    def test_it_goes_on_from_the_good_part(self, damaged: SimulatedDisk, open_wal: Opens) -> None:
        owner = open_wal(damaged, accept_suspect=True, settings=SMALL)

        assert owner.wal.recovery.verdict == "suspect"
        assert owner.copy.entries.keys() == {1, 2, 3}
        assert owner.wal.suspect
        assert owner.append(b"new") == 4

    def test_what_stands_whole_behind_the_damage_is_named(
        self, damaged: SimulatedDisk, open_wal: Opens
    ) -> None:
        """In the damaged file and in those after it: these records may be nowhere else."""
        owner = open_wal(damaged, start=False, read_only=True)

        said = "; ".join(owner.wal.recovery.findings)
        assert "entries up to 3 (offset 0) are good" in said
        assert "behind the damage whole entries up to 8 (offset 0) are left" in said
        assert "entries up to 8 had been committed" in said

    def test_s3_suspicion_outlives_the_next_open(
        self, damaged: SimulatedDisk, open_wal: Opens
    ) -> None:
        owner = open_wal(damaged, accept_suspect=True, settings=SMALL)
        owner.append(b"new")
        again = open_wal(damaged.kill(), settings=SMALL)

        assert again.wal.recovery.verdict == "clean"
        assert again.wal.suspect
        assert again.copy.checkpoints[-1].suspect
        with again.wal.lock:
            seq = again.wal.stage_suspect(False)
        again.wal.lead(seq)
        again.close()
        cleared = open_wal(again.env.fs.kill(), settings=SMALL)
        assert not cleared.wal.suspect
        assert cleared.live()[4] == b"new"

    def test_a_promised_term_stays_promised(self, damaged: SimulatedDisk, open_wal: Opens) -> None:
        owner = open_wal(damaged, accept_suspect=True, settings=SMALL)

        assert owner.wal.hard_state == (7, "me")

    def test_nothing_is_cut_and_the_damaged_files_go_to_quarantine_when_pruned(
        self, damaged: SimulatedDisk, open_wal: Opens
    ) -> None:
        before = {path: damaged.peek(path) for path in damaged.paths("/data/wal")}
        owner = open_wal(damaged, accept_suspect=True, settings=SMALL)
        for number in range(4):
            owner.append(b"%d" % number * 1500)
        after = {path: damaged.peek(path) for path in before}
        assert after == before

        owner.wal.remove_files(owner.wal.files()[-1].seq - 1)

        kept = damaged.paths("/data/wal/quarantine")
        assert len(kept) == len([path for path in before if path.endswith(".log")]) - 1
        assert not any(path.endswith("01.log") for path in kept)

    def test_reading_it_needs_no_permission(self, damaged: SimulatedDisk, open_wal: Opens) -> None:
        owner = open_wal(damaged, start=False, read_only=True)

        assert owner.wal.recovery.verdict == "suspect"
        assert owner.live().keys() == {1, 2, 3}

    def test_a_crash_at_any_time_leaves_it_as_it_was_or_accepted(
        self, damaged: SimulatedDisk, open_wal: Opens
    ) -> None:
        owner = open_wal(damaged, accept_suspect=True, settings=SMALL)
        owner.append(b"new")

        again = open_wal(damaged.crash("any"), settings=SMALL)

        assert again.live()[4] == b"new"
        assert again.wal.suspect


def test_a_file_under_the_number_of_another_is_not_read_as_that(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    """A copy that was put back by hand under a name that it never had."""
    owner = open_wal(disk)
    owner.append(b"acknowledged")
    disk = disk.kill()
    path = last_file(disk)
    number = int(path[-24:-4])
    name = f"{path[:-24]}{number + 5:020}.log"
    copy = disk.create(name)
    copy.write_at(0, [disk.peek(path)])
    copy.close()

    with pytest.raises(CorruptionError, match=f"its header says it is file {number}"):
        open_wal(disk)

    disk.remove(name)
    assert [b"acknowledged"] == [*open_wal(disk).live().values()]
