"""Producer state: duplicates are found over the whole log, and a truncation undoes (protocol 3)."""

from __future__ import annotations

import pytest

from chronik_store.errors import ProducerSequenceError
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.manifest.producers import WINDOW, ProducerTable


def batch(index: int, sequence: int, count: int = 1, *, producer: int = 7, epoch: int = 0):
    return ProducerEntry(
        producer_id=producer,
        epoch=epoch,
        last_sequence=sequence + count - 1,
        last_base_sequence=sequence,
        base_offset=index * 10,
        end_offset=index * 10 + count,
        index=index,
    )


def test_an_unknown_producer_begins_at_zero() -> None:
    table = ProducerTable(10)
    assert table.check(7, 0, 0, 1) is None
    with pytest.raises(ProducerSequenceError, match="begins at 0"):
        table.check(7, 0, 3, 1)


def test_a_duplicate_in_the_uncommitted_tail_is_found() -> None:
    table = ProducerTable(10)
    table.append(batch(1, 0))
    assert table.check(7, 0, 0, 1) == batch(1, 0)


def test_a_truncation_forgets_the_original() -> None:
    table = ProducerTable(10)
    table.append(batch(1, 0))
    table.commit(1)
    table.append(batch(2, 1))
    table.truncate(2)
    assert table.check(7, 0, 1, 1) is None
    assert table.check(7, 0, 0, 1) == batch(1, 0)


def test_a_gap_is_an_error_that_names_the_expected_sequence() -> None:
    table = ProducerTable(10)
    table.append(batch(1, 0, 5))
    with pytest.raises(ProducerSequenceError) as caught:
        table.check(7, 0, 9, 1)
    assert (5, 9) == (caught.value.expected_sequence, caught.value.sequence)


def test_any_of_the_last_batches_may_be_retried() -> None:
    table = ProducerTable(10)
    for index in range(1, 9):
        table.append(batch(index, index - 1))
        if index % 3 == 0:
            table.commit(index)
    for index in range(9 - WINDOW, 9):
        assert table.check(7, 0, index - 1, 1) == batch(index, index - 1)
    with pytest.raises(ProducerSequenceError):
        table.check(7, 0, 8 - WINDOW - 1, 1)


def test_an_older_epoch_is_fenced_and_a_newer_one_begins_at_zero() -> None:
    table = ProducerTable(10)
    table.append(batch(1, 0, epoch=1))
    with pytest.raises(ProducerSequenceError, match="fenced"):
        table.check(7, 0, 1, 1)
    assert table.check(7, 2, 0, 1) is None


def test_a_batch_of_another_size_is_not_the_original() -> None:
    table = ProducerTable(10)
    table.append(batch(1, 0, 3))
    with pytest.raises(ProducerSequenceError):
        table.check(7, 0, 0, 2)


def test_the_least_recently_appended_producer_is_forgotten() -> None:
    table = ProducerTable(2)
    for index, producer in enumerate([1, 2, 1, 3], start=1):
        sequence = 1 if index == 3 else 0
        table.append(batch(index, sequence, producer=producer))
    table.commit(4)
    assert {1, 3} == {entry.producer_id for entry in table.entries()}


def test_a_restored_table_equals_the_folded_one() -> None:
    table = ProducerTable(10)
    for index in range(1, 12):
        table.append(batch(index, (index - 1) // 2, producer=index % 2))
    table.commit(11)
    restored = ProducerTable(10)
    restored.restore(table.entries(), 11)
    assert table.entries() == restored.entries()
    restored.append(batch(5, 0, producer=9))  # at or below what it is folded to: skipped
    assert table.entries() == restored.entries()
