from __future__ import annotations

import cbor2
import pytest

from chronik_store.errors import CorruptionError
from chronik_store.format import cbor


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1, (1 << 64) - 1, -(1 << 64), 1.5, "ü", b"\x00", [], {}, [1, [2]], {"a": 1}],
)
def test_plain_values_come_back(value: object) -> None:
    assert value == cbor.decode(memoryview(cbor.encode(value)), what="test")


def test_equal_maps_have_equal_bytes() -> None:
    assert cbor.encode({"a": 1, "bb": 2, "c": 3}) == cbor.encode({"c": 3, "bb": 2, "a": 1})


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("", "ends early"),
        ("19ff", "ends early"),
        ("8201", "does not fit"),
        ("a101", "does not fit"),
        ("42ff", "ends early"),
        ("5bffffffffffffffff", "ends early"),
        ("9bffffffffffffffff", "does not fit"),
        ("bb7fffffffffffffff", "does not fit"),
        ("0101", "1 bytes follow"),
        ("a2010102", "does not fit"),
        ("a2616101616102", "Duplicate"),
        ("a26161017801 6102".replace(" ", ""), "Duplicate"),
        ("9fff", "indefinite"),
        ("7f6161ff", "indefinite"),
        ("ff", "indefinite"),
        ("1c", "indefinite"),
        ("c101", "tag"),
        ("c24101", "tag"),
        ("82c10100", "tag"),
        ("f7", "simple value"),
        ("f820", "simple value"),
        ("e0", "simple value"),
        ("61ff", "cannot be decoded"),
        ("81" * 17 + "01", "nested deeper than 16"),
        ("81" * 100_000, "nested deeper than 16"),
    ],
)
def test_what_is_not_ours_is_refused(raw: str, message: str) -> None:
    with pytest.raises(CorruptionError, match=f"the thing: .*{message}") as caught:
        cbor.decode(bytes.fromhex(raw), what="the thing", path="file")
    assert "file" == caught.value.path


def test_sixteen_levels_are_allowed() -> None:
    assert cbor.decode(b"\x81" * 16 + b"\x01", what="test")


def test_a_decoder_bomb_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cbor2, "loads", lambda *_, **__: pytest.fail("cbor2 was reached"))

    with pytest.raises(CorruptionError):
        cbor.decode(b"\x9a\xff\xff\xff\xff" * 10, what="test")


@pytest.mark.parametrize("count", [0, 1, 23, 24, 255, 256, 65_535, 65_536])
def test_the_head_of_an_array_is_the_canonical_one(count: int) -> None:
    assert cbor.encode([None] * count) == cbor.array_head(count) + b"\xf6" * count
