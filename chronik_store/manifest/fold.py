"""The one door through which a `Manifest` changes.

Place: called by `state.FoldedState` for each committed control entry, in index order, during
recovery and live alike. Promise: pure; the same (manifest, header, command) gives the same result
everywhere. A command whose precondition does not hold is a no-op with a reason (protocol 8), never
an error: the log holds it, every replica skips it, and the pipeline plans again.

Invariant: segments are contiguous in index and offset; `next` is the end of the last one (or of
the last sealed range that retention skipped); `sealed` follows `next` without a gap;
`open_first_index` follows the last sealed range.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from chronik_store.format.control import (
    AddIndex,
    AddSegment,
    Collected,
    Command,
    CursorSet,
    DropPrefix,
    Fenced,
    Intent,
    Members,
    Noop,
    Published,
    Seal,
)
from chronik_store.format.entry import EntryHeader
from chronik_store.format.manifest_file import (
    GarbageItem,
    IntentItem,
    LogBase,
    Manifest,
    SealedRange,
    SegmentInfo,
)

GENERATION_COMMANDS = (AddSegment, AddIndex, DropPrefix, Intent, Fenced)
"""Commands that make the bucket's newest manifest stale (PUBLISHED, CURSOR, COLLECTED do not)."""


class Applied(NamedTuple):
    """The manifest after a command, and why the command was refused (None: it was applied)."""

    manifest: Manifest
    refused: str | None


def apply_command(manifest: Manifest, header: EntryHeader, command: Command) -> Applied:
    """Fold one committed control entry. Pure; never raises for a command that decoded."""
    handler = _HANDLERS[type(command)]
    outcome = handler(manifest, header, command)
    if isinstance(outcome, str):
        return Applied(manifest, outcome)
    changed: dict[str, Any] = outcome
    if changed and isinstance(command, GENERATION_COMMANDS):
        changed["generation"] = header.index
    return Applied(dataclasses.replace(manifest, **changed) if changed else manifest, None)


def sealed_end(manifest: Manifest) -> tuple[int, int]:
    """(index, offset), exclusive, up to which the log is sealed."""
    if manifest.sealed:
        last = manifest.sealed[-1]
        return last.last_index + 1, last.end_offset
    return manifest.next.index + 1, manifest.next.offset


def _seal(manifest: Manifest, header: EntryHeader, command: Seal) -> dict[str, Any] | str:
    if command.first_index != manifest.open_first_index:
        return f"open segment starts at {manifest.open_first_index}, not {command.first_index}"
    _, base_offset = sealed_end(manifest)
    if header.base_offset <= base_offset:
        return "no records to seal"
    sealed = SealedRange(
        first_index=command.first_index,
        last_index=header.index,
        base_offset=base_offset,
        end_offset=header.base_offset,
        term=header.term,
        sealed_us=command.clock_us,
        timestamp_us=header.timestamp_us,
    )
    changed: dict[str, Any] = {
        "sealed": (*manifest.sealed, sealed),
        "open_first_index": header.index + 1,
    }
    return _skip_dropped(manifest, changed, manifest.start_offset)


def _skip_dropped(manifest: Manifest, changed: dict[str, Any], start_offset: int) -> dict[str, Any]:
    """Sealed ranges wholly below start need no segment: `next` moves over them (protocol 7)."""
    sealed: tuple[SealedRange, ...] = changed.get("sealed", manifest.sealed)
    while sealed and sealed[0].end_offset <= start_offset:
        head = sealed[0]
        changed["next"] = LogBase(head.last_index, head.term, head.end_offset, head.timestamp_us)
        sealed = sealed[1:]
    changed["sealed"] = sealed
    return changed


def _add_segment(
    manifest: Manifest, header: EntryHeader, command: AddSegment
) -> dict[str, Any] | str:
    segment = command.segment
    if not manifest.sealed:
        return "no sealed range is waiting"
    expected = manifest.sealed[0]
    wanted = (expected.first_index, expected.last_index, expected.base_offset, expected.end_offset)
    found = (segment.first_index, segment.last_index, segment.base_offset, segment.end_offset)
    if wanted != found or segment.term != expected.term:
        return f"next sealed range is {wanted} of term {expected.term}, not {found}"
    added = dataclasses.replace(segment, added_index=header.index, bundle=None)
    return {
        "segments": (*manifest.segments, added),
        "sealed": manifest.sealed[1:],
        "next": LogBase(
            expected.last_index, expected.term, expected.end_offset, expected.timestamp_us
        ),
        "intents": _without_intents(manifest.intents, {segment.key}),
    }


def _add_index(manifest: Manifest, header: EntryHeader, command: AddIndex) -> dict[str, Any] | str:
    key = command.bundle.key
    intents = _without_intents(manifest.intents, {key})
    for position, segment in enumerate(manifest.segments):
        if segment.key != command.segment_key:
            continue
        current = None if segment.bundle is None else segment.bundle.key
        if current == key:
            return "this bundle is listed already"
        if current != command.replaces:
            break
        updated = dataclasses.replace(segment, bundle=command.bundle)
        segments = (*manifest.segments[:position], updated, *manifest.segments[position + 1 :])
        garbage = manifest.garbage
        if current is not None:
            garbage = _add_garbage(garbage, [current], header.index, command.clock_us)
        return {"segments": segments, "intents": intents, "garbage": garbage}
    # Lost against another bundle, or the segment is gone: the object is named, so collect it.
    return {
        "intents": intents,
        "garbage": _add_garbage(manifest.garbage, [key], header.index, command.clock_us),
    }


def _intent(manifest: Manifest, header: EntryHeader, command: Intent) -> dict[str, Any] | str:
    keys = set(command.keys)
    item = IntentItem(
        keys=command.keys,
        first_index=command.first_index,
        term=header.term,
        index=header.index,
        clock_us=command.clock_us,
    )
    garbage = tuple(each for each in manifest.garbage if each.key not in keys)
    return {
        "intents": (*_without_intents(manifest.intents, keys), item),
        "garbage": garbage,
    }


def _noop(manifest: Manifest, header: EntryHeader, _command: Noop) -> dict[str, Any] | str:
    """A new term: what earlier leaders announced and did not finish becomes garbage.

    Not where the sealed range still waits: the successor derives the same key and adopts it.
    """
    waiting = {each.first_index for each in manifest.sealed}
    kept: list[IntentItem] = []
    dead: list[str] = []
    newest_us = 0
    for item in manifest.intents:
        if item.term >= header.term or item.first_index in waiting:
            kept.append(item)
        else:
            dead.extend(item.keys)
            newest_us = max(newest_us, item.clock_us)
    if not dead:
        return {}
    garbage = _add_garbage(manifest.garbage, dead, header.index, newest_us)
    return {"intents": tuple(kept), "garbage": garbage, "generation": header.index}


def _published(manifest: Manifest, header: EntryHeader, command: Published) -> dict[str, Any] | str:
    if command.number != manifest.published_number + 1:
        return f"manifest {manifest.published_number} is the newest, not {command.number - 1}"
    return {
        "published_number": command.number,
        "published_folded_to": command.folded_to,
        "published_hash": command.hash,
        "published_generation": header.index,
    }


def _drop_prefix(
    manifest: Manifest, header: EntryHeader, command: DropPrefix
) -> dict[str, Any] | str:
    if command.offset <= manifest.start_offset:
        return f"start is {manifest.start_offset} already"
    if command.offset > header.base_offset:
        return f"offset {command.offset} is past the end {header.base_offset}"
    dropped = [each for each in manifest.segments if each.end_offset <= command.offset]
    keys = [each.key for each in dropped]
    keys += [each.bundle.key for each in dropped if each.bundle is not None]
    changed: dict[str, Any] = {
        "start_offset": command.offset,
        "segments": manifest.segments[len(dropped) :],
        "garbage": _add_garbage(manifest.garbage, keys, header.index, command.clock_us),
    }
    return _skip_dropped(manifest, changed, command.offset)


def _collected(
    manifest: Manifest, _header: EntryHeader, command: Collected
) -> dict[str, Any] | str:
    keys = set(command.keys)
    kept = tuple(each for each in manifest.garbage if each.key not in keys)
    return {"garbage": kept} if len(kept) != len(manifest.garbage) else "nothing of it is garbage"


def _cursor(manifest: Manifest, _header: EntryHeader, command: CursorSet) -> dict[str, Any] | str:
    cursors = dict(manifest.cursors)
    current = cursors.get(command.name)
    if command.offset is None:
        if current is None:
            return "no such cursor"
        del cursors[command.name]
    else:
        if current is not None and command.offset < current and not command.reset:
            return f"the cursor stands at {current}"
        cursors[command.name] = command.offset
    return {"cursors": tuple(sorted(cursors.items()))}


def _members(_manifest: Manifest, _header: EntryHeader, _command: Members) -> dict[str, Any] | str:
    return {}  # members follow the log, committed or not: `members.MemberHistory` (protocol 12)


def _fenced(manifest: Manifest, _header: EntryHeader, command: Fenced) -> dict[str, Any] | str:
    if manifest.fenced is not None:
        return "fenced already"
    return {"fenced": command}


_HANDLERS: dict[type, Callable[..., dict[str, Any] | str]] = {
    Noop: _noop,
    Seal: _seal,
    Intent: _intent,
    AddSegment: _add_segment,
    AddIndex: _add_index,
    Published: _published,
    DropPrefix: _drop_prefix,
    Collected: _collected,
    CursorSet: _cursor,
    Members: _members,
    Fenced: _fenced,
}


def _without_intents(intents: Iterable[IntentItem], keys: set[str]) -> tuple[IntentItem, ...]:
    kept = []
    for item in intents:
        rest = tuple(key for key in item.keys if key not in keys)
        if rest:
            kept.append(item._replace(keys=rest))
    return tuple(kept)


def _add_garbage(
    garbage: tuple[GarbageItem, ...], keys: Iterable[str], generation: int, clock_us: int
) -> tuple[GarbageItem, ...]:
    known = {each.key for each in garbage}
    fresh = [key for key in dict.fromkeys(keys) if key not in known]
    return (*garbage, *(GarbageItem(key, clock_us, generation) for key in fresh))


def check_manifest(manifest: Manifest) -> None:
    """Assert the invariant of the module docstring; used by tests, verify and after recovery."""
    segments: tuple[SegmentInfo, ...] = manifest.segments
    for left, right in itertools.pairwise(segments):
        assert left.end_offset == right.base_offset, (left, right)
        assert left.last_index + 1 == right.first_index, (left, right)
    if segments:
        assert segments[-1].end_offset <= manifest.next.offset, manifest.next
    index, offset = manifest.next.index + 1, manifest.next.offset
    for sealed in manifest.sealed:
        assert (index, offset) == (sealed.first_index, sealed.base_offset), sealed
        index, offset = sealed.last_index + 1, sealed.end_offset
    assert manifest.open_first_index == index, (manifest.open_first_index, index)
