"""Which manifest under our next number may be taken for our own."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from chronik_store.format.manifest_file import LogBase, ManifestObject, SegmentInfo
from chronik_store.manifest.state import empty_manifest
from chronik_store.pipeline.fence import judge


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
