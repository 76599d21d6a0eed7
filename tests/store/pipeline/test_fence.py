"""Which manifests in our folder may be taken for our own, and what is done about the others."""

from __future__ import annotations

import dataclasses
import errno
from typing import Any

import pytest

from chronik_store import LogStore
from chronik_store.format.manifest_file import (
    LogBase,
    ManifestObject,
    SegmentInfo,
    decode_manifest_object,
)
from chronik_store.manifest.state import empty_manifest
from chronik_store.pipeline import fence
from chronik_store.pipeline.fence import judge
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.simulated_disk import SimulatedDisk
from tests.store.on_simulated_disk import copy_directory, open_store


def segment(number: int, variant: str = "0") -> SegmentInfo:
    base, end = 10 * number, 10 * number + 10
    return SegmentInfo(
        key=f"segments/t/0/{base:020}-{end:020}-1-{variant * 16}.seg",
        first_index=base + 1,
        last_index=end,
        base_offset=base,
        end_offset=end,
        term=1,
        size_bytes=1,
        hash=variant * 16,
        record_count=10,
        first_timestamp_us=0,
        last_timestamp_us=0,
        min_timestamp_us=0,
        max_timestamp_us=0,
        footer_bytes=1,
        sealed_us=0,
        added_index=100 + number,
    )


OURS = dataclasses.replace(
    empty_manifest("t", 0, "a" * 32, "b" * 32),
    segments=(segment(1), segment(2)),
    start_offset=10,
    next=LogBase(30, 1, 30, 0),
    generation=102,
    published_hash="5" * 16,
)


def published(folded_to: int = 101, **changes: Any) -> ManifestObject:
    theirs: dict[str, Any] = {"segments": (segment(0), segment(1)), "start_offset": 0}
    manifest = dataclasses.replace(OURS, **(theirs | changes))
    return ManifestObject(manifest, 1, folded_to, "5" * 16)


def test_a_former_state_of_ours_is_adopted() -> None:
    assert judge(OURS, published()) == "adopt"
    assert judge(OURS, published(102, segments=OURS.segments, start_offset=10)) == "adopt"


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(published(log_id="c" * 32), id="another log"),
        pytest.param(published(topic_id="c" * 32), id="another topic of this name"),
        pytest.param(
            dataclasses.replace(published(), successor="c" * 32), id="it names a successor"
        ),
        pytest.param(
            dataclasses.replace(published(), predecessor_hash="6" * 16), id="after another one"
        ),
        pytest.param(
            published(103, segments=OURS.segments, start_offset=10), id="folded further than we are"
        ),
        pytest.param(published(start_offset=11), id="its start is ahead of ours"),
        pytest.param(published(segments=(segment(1, "1"),)), id="it lists what we never had"),
        pytest.param(published(segments=(segment(0),)), id="it lacks what we had by then"),
        pytest.param(published(segments=(segment(1), segment(2, "1"))), id="other bytes"),
    ],
)
def test_whatever_is_not_is_foreign(found: ManifestObject) -> None:
    assert judge(OURS, found) == "foreign"


def test_a_newest_manifest_that_is_not_the_one_that_was_put_stops_tiering() -> None:
    disk = SimulatedDisk()
    with open_store(disk) as store:
        publish(store, b"one")
        number = store.partition("t").status().published_number
    (path,) = [each for each in disk.paths("/bucket/manifests") if each.endswith(".cbor")]
    found = decode_manifest_object(disk.peek(path), path=path)
    disk.overwrite(path, 0, dataclasses.replace(found, term=found.term + 1).encode())

    with open_store(disk) as store:
        log = store.partition("t")
        log.append(b"two")
        log.seal()
        (said,) = log.run_pipeline_once().errors
        assert "the newest manifest is not the one that this log published" in said
        assert log.status().fenced
        assert [b"one", b"two"] == [each.value for each in log.scan()]
    assert path == disk.paths("/bucket/manifests")[-1], f"nothing is published behind {number}"


def test_a_copy_that_goes_on_from_our_first_manifest_before_we_look_stops_tiering(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has the same history up to there, and had looked into the folder before we put anything:
    it takes that for its own.
    """
    disk = SimulatedDisk()
    with open_store(disk) as store:
        store.create_topic("t")
        store.partition("t").append(b"one")
        store.partition("t").seal()
    copy_directory(disk, "/old", "/copy")
    look = fence.beside

    with open_store(disk) as store, open_store(disk, "/copy") as copy:
        disk.hook = fail_next("link", errno.EIO, path_end=".cbor")
        copy.run_pipeline_once()
        disk.hook = None
        assert 0 == copy.partition("t").status().published_number

        def look_late(*who: Any) -> Any:
            monkeypatch.setattr(fence, "beside", look)
            publish(copy, b"of the copy")
            return look(*who)

        monkeypatch.setattr(fence, "beside", look_late)
        (said,) = store.run_pipeline_once().errors
        assert "another writer goes on from this log's first manifest" in said
        assert store.partition("t").status().fenced
        assert not copy.partition("t").status().fenced
        assert [b"one"] == [each.value for each in store.partition("t").scan()]
        assert [b"one", b"of the copy"] == [each.value for each in copy.partition("t").scan()]


def publish(store: LogStore, value: bytes) -> None:
    if not store.topics():
        store.create_topic("t")
    store.partition("t").append(value)
    store.partition("t").seal()
    while not store.run_pipeline_once().idle:
        pass
