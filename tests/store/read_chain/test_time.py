"""offset_for_timestamp over all tiers, against brute force."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chronik_store.errors import CorruptionError, UnavailableError
from chronik_store.model import Position


def _brute(partition: Any, timestamp_us: int) -> int | None:
    start, base = partition.manifest.start_offset, partition.log.base_offset
    for offset in range(start, partition.limit.offset):
        if partition.log.timestamps_us[offset - base] >= timestamp_us:
            return offset
    return None


def _look(partition: Any, timestamp_us: int) -> int | None:
    found: int | None = partition.chain.offset_for_timestamp(
        timestamp_us, limit=lambda: partition.limit
    )
    return found


def test_every_time_over_every_tier_equals_brute_force(tiered: Any) -> None:
    for timestamp_us in range(95, 145):
        assert _look(tiered, timestamp_us) == _brute(tiered, timestamp_us)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_time_lookup_equals_brute_force(new_partition: Any, data: st.DataObject) -> None:
    partition = new_partition()
    time = 0
    for _ in range(data.draw(st.integers(1, 5))):
        for _ in range(data.draw(st.integers(1, 6))):
            time += data.draw(st.integers(0, 2))
            if data.draw(st.booleans()):
                partition.log.control()
            partition.log.append([b"v"] * data.draw(st.integers(1, 3)), timestamp_us=time)
        if data.draw(st.booleans()):
            partition.seal(local=data.draw(st.booleans()))
    offsets = partition.log.end_offset
    pruned = data.draw(st.integers(1, partition.manifest.next.index + 1))
    partition.wal.prune(pruned)
    start = data.draw(st.integers(0, offsets))
    partition.manifest = partition.dropped(start)
    limit = data.draw(st.sampled_from(partition.log.entries)).header
    partition.committed = Position(limit.index, max(start, limit.base_offset))
    if partition.manifest.next.offset > partition.committed.offset:
        partition.committed = None
    for timestamp_us in range(time + 2):
        assert _look(partition, timestamp_us) == _brute(partition, timestamp_us)


def test_a_lookup_reads_at_most_one_block_of_one_segment(tiered: Any) -> None:
    tiered.read(0)
    for timestamp_us in range(100, 110):
        tiered.bucket.reads.clear()
        _look(tiered, timestamp_us)
        assert len(tiered.bucket.reads) <= 1
    for timestamp_us in (0, 100, 120, 139, 140, 1 << 60):
        tiered.bucket.reads.clear()
        _look(tiered, timestamp_us)
        assert tiered.bucket.reads == []


def test_time_beyond_what_is_committed_has_no_offset_yet(tiered: Any) -> None:
    assert _look(tiered, tiered.log.timestamps_us[-1]) == 38
    tiered.committed = Position(tiered.wal.index_for_offset(38), 38)
    assert _look(tiered, tiered.log.timestamps_us[-1]) is None


def test_start_inside_an_entry_is_the_answer_for_earlier_times(tiered: Any) -> None:
    for start in (1, 13, 25, 37):
        tiered.manifest = tiered.dropped(start)
        assert _look(tiered, 0) == start
    tiered.manifest = tiered.dropped(40)
    assert _look(tiered, 0) is None


def test_a_damaged_local_copy_does_not_change_the_answer(tiered: Any) -> None:
    info = tiered.manifest.segments[1]
    for position in range(0, info.size_bytes, 11):
        tiered.flip(info, position)
        tiered.chain = tiered.new_chain()
        assert _look(tiered, 115) == _brute(tiered, 115)
        tiered.flip(info, position)


def test_no_healthy_copy_is_an_error_never_a_later_offset(tiered: Any) -> None:
    info = tiered.manifest.segments[0]
    tiered.flip(info, 300, local=False)
    with pytest.raises(CorruptionError):
        _look(tiered, 105)
    tiered.bucket.down = True
    tiered.chain = tiered.new_chain()
    with pytest.raises(UnavailableError):
        _look(tiered, 105)


def test_a_file_pruned_during_the_lookup_hides_nothing(tiered: Any) -> None:
    tiered.seal()
    end = tiered.manifest.next.index + 1

    def prune() -> None:
        tiered.wal.prune(end)

    tiered.wal.before_time_lookup = prune
    assert _look(tiered, 131) == _brute(tiered, 131)


def test_a_manifest_older_than_the_wal_is_read_again(tiered: Any) -> None:
    old = tiered.manifest
    tiered.seal(prune=True)
    tiered.newer_manifest, tiered.manifest = tiered.manifest, old
    assert _look(tiered, 131) == 32
    tiered.manifest = old
    with pytest.raises(UnavailableError):
        _look(tiered, 131)


def test_an_object_collected_during_the_lookup_gives_the_answer_of_the_new_start(
    tiered: Any,
) -> None:
    tiered.newer_manifest = tiered.dropped(10)
    tiered.bucket.objects.clear()
    assert _look(tiered, 105) == 10


def test_an_object_missing_although_listed_is_unavailable(tiered: Any) -> None:
    tiered.bucket.objects.clear()
    with pytest.raises(UnavailableError, match="manifest lists"):
        _look(tiered, 105)


def test_of_a_log_that_begins_behind_what_is_committed_here_nothing_is_readable(
    tiered: Any,
) -> None:
    """A replica that lags, whose manifest came with a snapshot."""
    limit = Position(2, tiered.manifest.start_offset - 1)
    found = tiered.chain.offset_for_timestamp(0, limit=lambda: limit)
    assert found is None
