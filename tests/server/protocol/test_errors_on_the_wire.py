"""Typed errors cross the wire and come out as they went in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import chronik_server.errors as wire
from chronik_store import errors as store
from chronik_store.errors import ChronikError, CorruptionError, Durability
from chronik_store.format import cbor

VALUES = {
    "offset": 5, "first_offset": 1, "end_offset": 9, "topic": "events", "expected_offset": 4,
    "producer_id": 1 << 63, "expected_sequence": 3, "sequence": 8, "size_bytes": 10,
    "limit_bytes": 5, "path": "/a/b", "offset_range": (3, 9), "advice": "do it",
    "found": 2, "supported": 1, "pid": 17, "host": "here", "node_id": "2", "address": "h:1",
}  # fmt: skip


def all_errors(base: type[ChronikError]) -> list[type[ChronikError]]:
    found = [base]
    for child in base.__subclasses__():
        if child.__module__ in {"chronik_store.errors", "chronik_server.errors"}:
            found += all_errors(child)
    return found


@pytest.mark.parametrize("row", wire.TABLE, ids=lambda row: row.kind.__name__)
def test_an_error_comes_out_as_it_went_in(row: wire.Row) -> None:
    error = row.kind("what happened", **{name: VALUES[name] for name in row.attributes})
    error.durability = "unknown"

    found = wire.from_wire(cbor.decode(cbor.encode(wire.to_wire(error)), what="error"))

    assert type(error) is type(found)
    assert str(error) == str(found)
    assert vars(error) == vars(found)
    assert error.retriable == found.retriable


def test_advice_crosses_once_and_an_error_without_it_gets_none() -> None:
    error = CorruptionError("flipped", path="/logs of chronik services")
    own = CorruptionError("flipped: put it back", advice=None)

    assert 1 == str(wire.from_wire(wire.to_wire(error))).count("`chronik verify`")
    assert str(own) == str(wire.from_wire(wire.to_wire(own)))


def test_every_error_has_a_code_of_its_own() -> None:
    on_the_wire = {row.kind for row in wire.TABLE}
    local = {wire.LocalProtocolError, wire.RemoteError, wire.CertificateError}

    assert set(all_errors(ChronikError)) - local == on_the_wire
    assert len(wire.TABLE) == len({row.code for row in wire.TABLE}) == len(on_the_wire)


def test_a_subclass_goes_as_its_nearest_parent() -> None:
    class NewUnavailableError(store.UnavailableError):
        pass

    assert 12 == wire.to_wire(NewUnavailableError("x"))["code"]


def test_an_unknown_code_keeps_what_a_caller_acts_on() -> None:
    found = wire.from_wire(
        {"code": 9999, "message": "new", "retriable": True, "durability": "not_durable"}
    )

    assert isinstance(found, wire.RemoteError)
    assert (9999, True, "not_durable") == (found.code, found.retriable, found.durability)
    assert 9999 == wire.to_wire(found)["code"]


def test_an_untyped_error_is_told_as_internal_and_without_its_words() -> None:
    found = wire.hide(RuntimeError("password=hunter2"))

    assert isinstance(found, wire.InternalError)
    assert "hunter2" not in str(found)
    assert "unknown" == found.durability


@pytest.mark.parametrize("durability", ["unknown", "not_durable", None])
def test_a_log_that_was_closed_under_a_request_is_asked_for_again(durability: Durability) -> None:
    """The caller was told to open a log that only the server can open."""
    found = wire.hide(store.LogClosedError("the log is closed", durability=durability))

    assert (store.UnavailableError, True) == (type(found), found.retriable)
    assert durability == found.durability
    assert "ask again" in str(found)

    other = store.OffsetOutOfRangeError("9 is beyond", offset=9, first_offset=0, end_offset=5)
    assert other is wire.hide(other)


def test_a_long_message_is_cut_not_refused() -> None:
    assert len(wire.to_wire(ChronikError("ä" * 9000))["message"].encode()) <= 4096


@given(st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["code", "message", "retriable", "topic"]),
                                      inner, max_size=4)))  # fmt: skip
def test_any_value_is_an_error_or_refused(item: object) -> None:
    try:
        assert isinstance(wire.from_wire(item), ChronikError)
    except CorruptionError:
        pass
