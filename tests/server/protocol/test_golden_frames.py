"""Every frame's bytes, held to files that were written once, and to the page that explains them."""

from __future__ import annotations

import pytest

from chronik_server.errors import TABLE
from chronik_server.protocol.events import Failure, Request, Response
from chronik_server.protocol.states import Side, State
from chronik_server.protocol.table import EXCHANGES
from chronik_server.protocol.verbs import Verb
from tests.server.protocol.annotate import BLOCK, GOLDEN, PAGE, page_with_dumps
from tests.server.protocol.samples import SAMPLES, Sample, as_sent, encode, opened

NAMES = [sample.name for sample in SAMPLES]


@pytest.mark.parametrize("sample", SAMPLES, ids=NAMES)
def test_a_message_is_written_as_its_golden_bytes(sample: Sample) -> None:
    assert (GOLDEN / f"{sample.name}.bin").read_bytes() == encode(sample)


@pytest.mark.parametrize("sample", SAMPLES, ids=NAMES)
def test_golden_bytes_are_read_as_the_message(sample: Sample) -> None:
    receiver = Side.SERVER if sample.side is Side.CLIENT else Side.CLIENT
    connection = opened(receiver, greeted=sample.name not in {"hello", "welcome"})
    event = sample.event
    if isinstance(event, (Response, Failure)) and event.request_id:
        asked = {s.event.request_id: s.event.verb for s in SAMPLES if isinstance(s.event, Request)}
        connection.in_flight[event.request_id] = asked[event.request_id]
        if sample.name == "welcome":
            connection.state = State.GREETED

    (found,) = connection.receive_data((GOLDEN / f"{sample.name}.bin").read_bytes())

    if isinstance(event, Failure):
        assert isinstance(found, Failure)
        assert type(event.error) is type(found.error)
        assert vars(event.error) == vars(found.error)
        assert str(event.error) == str(found.error)
    else:
        assert event == as_sent(found)


def test_the_page_shows_the_golden_bytes() -> None:
    """docs/rpc.md: another language can be written from it."""
    text = PAGE.read_text()

    assert page_with_dumps(text) == text
    assert {"hello", "welcome", "produce", "produced", "fetch", "fetched", "not_leader"} <= {
        match[1] for match in BLOCK.finditer(text)
    }


def test_the_page_names_every_verb_field_and_error() -> None:
    text = PAGE.read_text()
    for verb, exchange in EXCHANGES.items():
        assert f"| {int(verb)} | `{Verb(verb).name}` |" in text
        for codec in filter(None, exchange):
            missing = [name for name in codec.shape.fields if f"`{name}`" not in text]
            assert missing == [], f"{codec.name}: {missing}"
    for row in TABLE:
        assert f"| {row.code} | `{row.kind.__name__}` |" in text
