from __future__ import annotations

import dataclasses
import pickle

import pytest

from chronik_store.errors import CorruptionError
from chronik_store.format import control
from chronik_store.format.control import decode_command
from chronik_store.format.entry import EntryKind
from tests.format.samples import COMMANDS, SEGMENT

each_command = pytest.mark.parametrize(
    "command", COMMANDS, ids=lambda command: command.KIND.name.lower()
)


def test_there_is_a_command_for_every_kind_but_records() -> None:
    assert set(EntryKind) - {EntryKind.RECORDS} == {command.KIND for command in COMMANDS}


@each_command
def test_a_command_comes_back(command) -> None:
    assert command == decode_command(command.KIND, memoryview(command.encode()))
    assert command == pickle.loads(pickle.dumps(command))


@each_command
def test_a_command_is_frozen(command) -> None:
    for field in dataclasses.fields(command):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(command, field.name, None)


@each_command
def test_a_command_under_another_kind_is_refused(command) -> None:
    for kind in EntryKind:
        if kind is not command.KIND:
            with pytest.raises(CorruptionError):
                decode_command(kind, command.encode())


def test_optional_parts() -> None:
    deleted = control.CursorSet("name", None, reset=False)
    bare = control.AddSegment(dataclasses.replace(SEGMENT, bundle=None))

    assert deleted == decode_command(EntryKind.CURSOR, deleted.encode())
    assert bare == decode_command(EntryKind.ADD_SEGMENT, bare.encode())


@pytest.mark.parametrize("kind", [EntryKind.RECORDS, 0, 13, -1])
def test_kinds_without_a_command_are_refused(kind: int) -> None:
    with pytest.raises(CorruptionError, match="no control command"):
        decode_command(kind, control.Noop().encode(), path="file")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (control.Seal(0, "size", 0), "Seal.first_index"),
        (control.Seal(1, "boredom", 0), "Seal.reason"),
        (control.Intent(["list"], 0), "Intent.keys"),
        (control.Published(1, 1, "short", 0), "Published.hash"),
        (control.DropPrefix(-1, "", 0), "DropPrefix.offset"),
        (control.CursorSet("x" * 256, 0, reset=False), "CursorSet.name"),
        (control.Fenced("no id", 0, ""), "Fenced.successor_log_id"),
        (
            control.AddSegment(dataclasses.replace(SEGMENT, last_index=0)),
            "AddSegment.segment: SegmentInfo",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_could_not_be_read_back_is_not_written(command, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        command.encode()
