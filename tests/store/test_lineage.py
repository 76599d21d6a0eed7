"""Which log of a partition is in force, where the bucket changes between a listing and a read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chronik_store.errors import FROM_A_COPY, CorruptionError
from chronik_store.format.control import Members
from chronik_store.format.manifest_file import ManifestObject
from chronik_store.lineage import READ_AGAIN, Head, beside, lineage_of, read_manifest, survey
from chronik_store.manifest.state import empty_manifest
from chronik_store.objectstore.layout import manifest_key, manifest_prefix, tombstone_key
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.testing.called_bucket import CalledBucket

TOPIC_ID, OURS, OTHERS = "ab" * 16, "01" * 16, "02" * 16


class Changing(CalledBucket):
    """A bucket that is changed between two calls: before the call of this number, by its list."""

    def __init__(self, changes: dict[int, Callable[[MemoryObjectStore], object]]) -> None:
        self.memory = MemoryObjectStore()
        super().__init__(self.memory)
        self.calls: list[str] = []
        self._changes = changes

    def _call(self, name: str, keys: Any, effect: Callable[[], Any]) -> Any:
        change = self._changes.get(len(self.calls))
        if change is not None:
            change(self.memory)
        self.calls.append(name)
        return effect()


def publish(
    store: MemoryObjectStore,
    log_id: str,
    number: int,
    successor: str | None = None,
    members: Members | None = None,
    folded_to: int = 7,
) -> None:
    manifest = empty_manifest("t", 0, TOPIC_ID, log_id)
    body = ManifestObject(
        manifest, 1, folded_to, "0" * 16, successor=successor, members=members
    ).encode()
    store.put_if_absent(manifest_key("t", 0, log_id, number), body)


def collect(log_id: str, number: int) -> Callable[[MemoryObjectStore], object]:
    """The log publishes its next number, and this one is deleted."""

    def change(store: MemoryObjectStore) -> None:
        publish(store, log_id, number + 1)
        store.delete([manifest_key("t", 0, log_id, number)])

    return change


def head_of(found: Head | None) -> tuple[str, int]:
    assert found is not None
    return found.log_id, found.number


def test_a_manifest_that_is_collected_between_its_listing_and_its_read_is_looked_for_again() -> (
    None
):
    bucket = Changing({1: collect(OURS, 1)})
    publish(bucket.memory, OURS, 1)

    assert (OURS, 2) == head_of(lineage_of(bucket, "t", 0).head)
    assert ["list", "get", "list", "get"] == bucket.calls


def test_one_that_is_gone_at_every_look_is_damage_and_not_an_empty_log() -> None:
    changes = {2 * look + 1: collect(OURS, look + 1) for look in range(READ_AGAIN)}
    bucket = Changing(changes)
    publish(bucket.memory, OURS, 1)

    with pytest.raises(CorruptionError, match="is listed but not there") as caught:
        lineage_of(bucket, "t", 0)

    assert manifest_prefix("t", 0) == caught.value.path


def test_a_claim_that_comes_between_two_reads_makes_no_two_logs() -> None:
    """Listed together, ours read before the claim of its successor, theirs behind it."""
    bucket = Changing({1: lambda store: publish(store, OURS, 2, successor=OTHERS)})
    publish(bucket.memory, OURS, 1)
    publish(bucket.memory, OTHERS, 1)

    own, others = beside(bucket, "t", 0, OTHERS)

    assert (OTHERS, 1) == head_of(own)
    assert [] == others
    assert 2 == bucket.calls.count("list")


def test_another_log_that_stays_in_force_is_named() -> None:
    bucket = Changing({})
    publish(bucket.memory, OURS, 3)
    publish(bucket.memory, OTHERS, 1)

    own, others = beside(bucket, "t", 0, OURS)

    assert (OURS, 3) == head_of(own)
    assert [(OTHERS, 1)] == [head_of(each) for each in others]
    assert READ_AGAIN == bucket.calls.count("list")


def test_a_first_manifest_beside_a_log_that_has_published_more_counts_for_nothing() -> None:
    """Its owner looks for others right after it, and takes it back; it may have died before."""
    bucket = MemoryObjectStore()
    publish(bucket, OURS, 3)
    publish(bucket, OTHERS, 1)
    assert (OURS, 3) == head_of(lineage_of(bucket, "t", 0).head)


def test_a_first_manifest_that_a_claim_names_counts() -> None:
    """It is a restore's, which looks for nobody."""
    bucket, old = MemoryObjectStore(), "03" * 16
    publish(bucket, old, 5, successor=OURS)
    publish(bucket, OURS, 1)
    publish(bucket, OTHERS, 1)
    assert (OURS, 1) == head_of(lineage_of(bucket, "t", 0).head)
    publish(bucket, OTHERS, 2)
    with pytest.raises(CorruptionError, match="none names another"):
        lineage_of(bucket, "t", 0)


def test_a_first_manifest_of_a_log_without_entries_counts() -> None:
    """A restore's, of a partition that had published nothing: no log publishes that by itself."""
    bucket = MemoryObjectStore()
    publish(bucket, OURS, 1, folded_to=0)
    publish(bucket, OTHERS, 1)
    assert (OURS, 1) == head_of(lineage_of(bucket, "t", 0).head)


@pytest.mark.parametrize("members", [None, Members(("a",), ())])
def test_who_of_two_is_in_force_is_not_guessed(members: Members | None) -> None:
    """Both are at their first manifest, or one is a cluster's, which looks for nobody either."""
    bucket = MemoryObjectStore()
    publish(bucket, OURS, 1 if members is None else 3)
    publish(bucket, OTHERS, 1, members=members)
    with pytest.raises(CorruptionError, match="none names another"):
        lineage_of(bucket, "t", 0)


def test_a_damaged_manifest_is_named_with_where_another_copy_may_be() -> None:
    store = MemoryObjectStore()
    key = manifest_key("t", 0, OURS, 1)
    store.put_if_absent(key, b"no manifest")

    with pytest.raises(CorruptionError) as caught:
        read_manifest(store, "t", 0, OURS, 1)

    assert (key, FROM_A_COPY) == (caught.value.path, caught.value.advice)


def test_a_survey_tells_the_partitions_and_the_deleted_topics() -> None:
    store = MemoryObjectStore()
    publish(store, OURS, 1)
    publish(store, OTHERS, 1)
    store.put_if_absent(manifest_key("u", 3, OURS, 1), b"")
    store.put_if_absent(tombstone_key("u", TOPIC_ID), b"")

    assert ((("t", 0), ("u", 3)), frozenset({TOPIC_ID})) == tuple(survey(store))
    assert ((("t", 0),), frozenset()) == tuple(survey(store, "t"))
