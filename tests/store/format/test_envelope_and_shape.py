from __future__ import annotations

from dataclasses import dataclass

import pytest

from chronik_store.errors import CorruptionError, FutureVersionError
from chronik_store.format import cbor, envelope
from chronik_store.format.envelope import ENVELOPE_BYTES, Kind
from chronik_store.format.shape import (
    BOOLEAN,
    Embedded,
    Fixed,
    Hex,
    Integer,
    Optional,
    Row,
    ShapeError,
    Table,
    Text,
    TupleOf,
)

KIND = Kind(b"TEST", 3, "test structure")


def test_a_body_comes_back_as_a_view_and_the_end_is_told() -> None:
    data = bytearray(envelope.seal(KIND, b"body") + b"more")
    body, end = envelope.unseal(KIND, data)

    assert (b"body", ENVELOPE_BYTES + 4) == (body, end)
    assert body.obj is data


def test_versions_above_ours_are_future_and_below_ours_unknown() -> None:
    newer = envelope.seal(Kind(b"TEST", 4, ""), b"")

    with pytest.raises(FutureVersionError, match="test structure: written as version 4") as caught:
        envelope.unseal(KIND, newer[:8], path="file")
    assert (4, 3, "file") == (caught.value.found, caught.value.supported, caught.value.path)
    with pytest.raises(CorruptionError, match="version 2 never existed"):
        envelope.unseal(KIND, envelope.seal(Kind(b"TEST", 2, ""), b""))


def test_a_length_beyond_the_bytes_is_refused_before_the_checksum() -> None:
    data = bytearray(envelope.seal(KIND, b"body"))
    data[16:24] = b"\xff" * 8

    with pytest.raises(CorruptionError, match="says 18446744073709551615 bytes of body, 4 are"):
        envelope.unseal(KIND, data)


def test_a_body_over_the_limit_is_not_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "BODY_BYTES_MAX", 3)

    with pytest.raises(ValueError, match="4 bytes, more than 3"):
        envelope.seal(KIND, b"body")


def test_a_value_that_does_not_fit_its_shape_is_refused_with_its_path() -> None:
    data = envelope.seal(KIND, cbor.encode("text"))

    with pytest.raises(CorruptionError, match="test structure is not an integer") as caught:
        envelope.unseal_value(KIND, Integer(0, 9), data, path="file")
    assert "file" == caught.value.path


@dataclass(frozen=True)
class Point:
    x: int
    name: str


FIELDS = {"x": Integer(0, 9), "name": Text(3)}
SHAPES = [
    (Integer(-5, 5), [-5, 0, 5], [-6, 6, True, "1", 1.0, None]),
    (BOOLEAN, [True, False], [0, 1, None]),
    (Text(3), ["", "abc", "ü"], ["abcd", "üü", b"a", None, "\ud800"]),
    (Text(choices=("a", "b")), ["a"], ["c"]),
    (Hex(4), ["00ff"], ["00f", "00FF", "zzzz", "", "00 f", 5, None]),
    (Optional(Text(3)), [None, "a"], [5]),
    (TupleOf(Text(3), 2), [(), ("a",), ("a", "b")], [("a", "b", "c"), ["a"], (5,), None]),
    (Fixed(Integer(0, 9), Text(3)), [(1, "a")], [(1,), [1, "a"], ("a", 1), None]),
    (Row(Point, FIELDS), [Point(1, "a")], [Point(10, "a"), Point(1, "abcd")]),
    (Table(Point, FIELDS), [Point(1, "a")], [Point(10, "a"), Point(1, "abcd")]),
    (
        Table(Point, FIELDS, lambda point: "wrong" if point.x == 5 else ""),
        [Point(4, "a")],
        [Point(5, "a")],
    ),
]
NAMES = [f"{number} {type(shape).__name__}" for number, (shape, _, _) in enumerate(SHAPES)]


@pytest.mark.parametrize(("shape", "good", "bad"), SHAPES, ids=NAMES)
def test_a_shape_packs_what_it_unpacks_and_refuses_the_rest(shape, good: list, bad: list) -> None:
    for value in good:
        assert value == shape.unpack(cbor.decode(cbor.encode(shape.pack(value)), what=""), "it")
    for value in bad:
        with pytest.raises(ShapeError):
            shape.pack(value)


@pytest.mark.parametrize(
    ("shape", "item"),
    [
        (Hex(4), b"\x00"),
        (Hex(4), "00ff"),
        (TupleOf(BOOLEAN, 1), [True, True]),
        (TupleOf(BOOLEAN, 1), {}),
        (Fixed(BOOLEAN), [True, True]),
        (Row(Point, FIELDS), [1]),
        (Row(Point, FIELDS), {"x": 1, "name": "a"}),
        (Table(Point, FIELDS), [1, "a"]),
        (Table(Point, FIELDS), {"x": 1}),
        (Table(Point, FIELDS), {"x": 1, "name": "a", "more": 1}),
        (Table(Point, FIELDS), {"x": 1, 5: "a"}),
        (Embedded(bytes, bytes), "text"),
    ],
)
def test_items_of_another_form_are_refused(shape, item: object) -> None:
    with pytest.raises(ShapeError, match="it"):
        shape.unpack(item, "it")


def test_a_refusal_names_the_field() -> None:
    with pytest.raises(ShapeError, match=r"Point\.name: it has 4 bytes"):
        Table(Point, FIELDS).pack(Point(1, "abcd"))
    with pytest.raises(ShapeError, match=r"it\.x is not an integer"):
        Table(Point, FIELDS).unpack({"x": "1", "name": ""}, "it")


def test_an_embedded_value_that_cannot_be_read_names_the_field() -> None:
    def corrupt(_: object) -> bytes:
        raise CorruptionError("broken inside")

    with pytest.raises(ShapeError, match="it: broken inside"):
        Embedded(bytes, corrupt).unpack(b"", "it")
