"""docs/file-format.md says what the code does: its dumps, tables and magics are compared."""

from __future__ import annotations

import importlib
import re
import struct

import pytest

from chronik_store.format import (
    batch_layout,
    control,
    entry,
    envelope,
    frame,
    producer_state,
    segment_file,
)
from chronik_store.format.entry import EntryKind
from chronik_store.format.frame import FrameKind
from tests.format import annotate
from tests.format.annotate import BLOCK, PAGE
from tests.format.make_golden import GOLDEN
from tests.format.samples import SAMPLES

TEXT = PAGE.read_text()
TYPES = {"4s": "bytes", "B": "uint8", "H": "uint16", "I": "uint32", "Q": "uint64", "q": "int64"}
PACKED = {
    "ENVELOPE": envelope._HEAD.format + envelope._LENGTH.format[1:],
    "BATCH": batch_layout._HEADER.format,
    "ENTRY": entry._HEADER.format,
    "FRAME": frame._HEADER.format,
    "PRODUCER": producer_state._ENTRY.format,
    "TRAILER": segment_file._TRAILER.format,
}


def rows_behind(mark: str) -> list[list[str]]:
    """The cells of the table behind a mark, without its two head lines."""
    assert 1 == TEXT.count(mark), mark
    lines = TEXT.partition(mark)[2].lstrip("\n").partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


DUMPS = BLOCK.findall(TEXT)


@pytest.mark.parametrize(("name", "text"), DUMPS, ids=[name for name, _ in DUMPS])
def test_a_hex_dump_is_the_golden_file(name: str, text: str) -> None:
    assert annotate.annotate(name) == text


@pytest.mark.parametrize("name", [name for name, _ in DUMPS])
def test_a_dump_shows_every_byte_but_repeated_zeros(name: str) -> None:
    data = (GOLDEN / f"{name}.bin").read_bytes()
    shown = bytearray()
    for line in annotate.annotate(name).splitlines():
        if line == "*":
            continue
        place = int(line[:4], 16)
        shown += bytes(place - len(shown))
        shown += bytes.fromhex(line[6 : annotate.TEXT_COLUMN])

    assert data == bytes(shown) + bytes(len(data) - len(shown))


@pytest.mark.parametrize("name", PACKED)
def test_a_table_of_fixed_fields_is_the_layout_that_is_packed(name: str) -> None:
    fields = [part.split(":") for part in getattr(annotate, name).split()]
    expected, offset = [], 0
    for field, code in fields:
        size = struct.calcsize(f"<{code}")
        expected.append([str(offset), str(size), TYPES[code], field])
        offset += size

    assert expected == [cells[:4] for cells in rows_behind(f"<!-- fields: {name} -->\n")]
    codes = "".join(code for _, code in fields)
    packed = re.sub(r"(\d+)([A-Z])", lambda m: m[2] * int(m[1]), PACKED[name].strip("<"))
    assert codes == packed


@pytest.mark.parametrize("place", re.findall(r"<!-- table: ([\w.]+) -->", TEXT))
def test_a_table_of_cbor_fields_is_the_shape_that_is_packed(place: str) -> None:
    module, _, name = place.partition(".")
    shape = getattr(importlib.import_module(f"chronik_store.format.{module}"), name)

    assert list(shape.fields) == [cells[0] for cells in rows_behind(f"<!-- table: {place} -->\n")]


def test_the_table_of_commands_is_complete() -> None:
    documented: dict[str, list[str]] = {}
    for kind, field, *_ in rows_behind("<!-- commands -->\n"):
        if kind:
            current = documented.setdefault(kind, [])
        if field:
            current.append(field)

    assert {
        EntryKind(kind).name: list(shape.fields) for kind, shape in control._SHAPES.items()
    } == documented


@pytest.mark.parametrize("kind", [*EntryKind, *FrameKind], ids=lambda kind: kind.name)
def test_every_kind_is_named_with_its_number(kind: EntryKind | FrameKind) -> None:
    assert f"{kind.value} {kind.name}" in TEXT


def test_every_magic_is_listed() -> None:
    for sample in SAMPLES:
        magic = (GOLDEN / f"{sample.name}.bin").read_bytes()[:4]
        assert f"f5 '{magic[1:].decode()}'" in TEXT
