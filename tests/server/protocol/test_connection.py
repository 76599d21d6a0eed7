"""The connection without its socket: what may happen when, and what bytes can do to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronik_server.errors import LocalProtocolError, ProtocolError
from chronik_server.protocol import cluster, data, greeting
from chronik_server.protocol.connection import GREETING_BYTES_MAX, Connection, Limits
from chronik_server.protocol.events import Closed, Failure, Request, Response, Told, Unreadable
from chronik_server.protocol.frames import READ_BYTES, FrameKind, encode_frame
from chronik_server.protocol.message import ITEMS_MAX
from chronik_server.protocol.states import TRANSITIONS, Move, Side, State, moves_of
from chronik_server.protocol.table import EXCHANGES, ONE_WAY
from chronik_server.protocol.topics import NODES_MAX
from chronik_server.protocol.verbs import Verb
from chronik_store.errors import (
    BackpressureError,
    ChronikError,
    FutureVersionError,
    UnavailableError,
)
from chronik_store.model import BUNDLE_KEYS_MAX, BundlesRebuilt
from tests.server.protocol.samples import BOOT_ID, SAMPLES, as_sent, encode, opened

WELCOME = greeting.Welcome(1, "s", "c", "1", BOOT_ID, 1 << 20, 64)

LIMITS = Limits()


def raw(connection: Connection, event: Request | Response | Failure | Told) -> bytes:
    return b"".join(bytes(part) for part in connection.send(event))


def greeted(limits: Limits = LIMITS) -> tuple[Connection, Connection]:
    client, server = Connection(Side.CLIENT, limits), Connection(Side.SERVER, limits)
    server.receive_data(raw(client, Request(1, Verb.HELLO, greeting.Hello((1,)))))
    client.receive_data(raw(server, Response(1, WELCOME)))
    return client, server


def test_requests_are_answered_in_any_order() -> None:
    client, server = greeted()
    first = Request(2, Verb.PING, greeting.Ping())
    second = Request(3, Verb.PRODUCE, data.Produce("t"), b"batch")

    asked = server.receive_data(raw(client, first) + raw(client, second))
    assert [first._replace(header_bytes=1), second._replace(header_bytes=9)] == asked

    answers = [Response(3, data.Produced(0, 1)), Response(2, greeting.Pong(5))]
    sent = b"".join(raw(server, answer) for answer in answers)
    assert answers == [event for byte in sent for event in client.receive_data(bytes((byte,)))]
    assert {} == client.in_flight == server.in_flight


def test_nothing_comes_before_the_greeting() -> None:
    client, _ = greeted()
    server = Connection(Side.SERVER)

    with pytest.raises(ProtocolError, match="request came while new"):
        server.receive_data(raw(client, Request(5, Verb.PING, greeting.Ping())))
    assert State.FAILED is server.state
    assert [] == server.receive_data(b"anything")


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("move", Move)
def test_a_pair_outside_the_table_is_refused(side: Side, state: State, move: Move) -> None:
    connection = Connection(side)
    connection.state = state
    if (state, move) in moves_of(side):
        connection._depart(move)
        assert TRANSITIONS[state, move] is connection.state
    else:
        with pytest.raises(LocalProtocolError):
            connection._depart(move)
        assert state is connection.state


def test_an_answer_that_nobody_asked_for_ends_the_connection() -> None:
    client, server = greeted()
    server.in_flight[9] = Verb.PING

    with pytest.raises(ProtocolError, match="nobody asked"):
        client.receive_data(raw(server, Response(9, greeting.Pong(1))))


def test_a_request_id_may_be_used_again_only_when_answered() -> None:
    client, server = greeted()
    sent = raw(client, Request(2, Verb.PING, greeting.Ping()))
    server.receive_data(sent)

    with pytest.raises(LocalProtocolError):
        client.send(Request(2, Verb.PING, greeting.Ping()))
    with pytest.raises(ProtocolError, match="in use"):
        server.receive_data(sent)


def test_a_request_more_than_allowed_is_refused_and_the_others_go_on() -> None:
    client, server = greeted(Limits(in_flight_max=2))
    sent = [raw(client, Request(n, Verb.PING, greeting.Ping())) for n in (2, 3, 4)]
    server.receive_data(sent[0] + sent[1])

    (surplus,) = server.receive_data(sent[2])
    assert isinstance(surplus, Unreadable)
    assert (4, BackpressureError) == (surplus.request_id, type(surplus.error))
    client.receive_data(raw(server, Failure(4, surplus.error)))
    client.receive_data(raw(server, Response(2, greeting.Pong(1))))
    (event,) = server.receive_data(raw(client, Request(5, Verb.PING, greeting.Ping())))
    assert isinstance(event, Request)


def test_an_unknown_verb_or_field_costs_one_request_only() -> None:
    """A newer client finds out what an older server can do, and goes on."""
    _, server = greeted()
    unknown = encode_frame(FrameKind.REQUEST, 999, 7, b"\xa0")
    broken = encode_frame(FrameKind.REQUEST, Verb.FETCH, 8, b"\xa1\x65topic\x01")
    newer = encode_frame(FrameKind.REQUEST, Verb.PING, 9, b"\xa1\x63new\x01")

    found = server.receive_data(unknown + broken + newer)

    assert [7, 8] == [e.request_id for e in found[:2] if isinstance(e, Unreadable)]
    assert isinstance(found[0], Unreadable)
    assert "verb 999 is not known here: who asks is newer" in str(found[0].error)
    assert Request(9, Verb.PING, greeting.Ping(), header_bytes=6) == found[2]
    assert b"" != raw(server, Failure(7, ProtocolError("unknown")))


def test_a_frame_before_the_greeting_is_small() -> None:
    """Who has proved nothing gets no memory; the length alone is enough to refuse."""
    head = encode_frame(FrameKind.REQUEST, Verb.HELLO, 1, b"\xa0", GREETING_BYTES_MAX)

    with pytest.raises(ProtocolError, match="at most"):
        Connection(Side.SERVER).receive_data(head[:20])


def test_a_frame_over_the_limit_is_refused_by_its_head() -> None:
    _, server = greeted(Limits(frame_bytes_max=1 << 16))
    head = encode_frame(FrameKind.REQUEST, Verb.PRODUCE, 2, b"\xa0", 1 << 16)

    with pytest.raises(ProtocolError, match="at most"):
        server.receive_data(head[:20])
    assert server.pending_bytes <= 20


def test_other_protocols_and_newer_versions_are_told_apart() -> None:
    with pytest.raises(ProtocolError, match="not Chronik"):
        Connection(Side.SERVER).receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    frame = bytearray(encode_frame(FrameKind.REQUEST, Verb.HELLO, 1, b"\xa0"))
    frame[4] = 2
    with pytest.raises(FutureVersionError):
        Connection(Side.SERVER).receive_data(bytes(frame))


def test_hanging_up_in_a_frame_is_seen() -> None:
    client, server = greeted()
    sent = raw(client, Request(2, Verb.PING, greeting.Ping()))

    assert [] == server.receive_data(sent[:-1])
    assert [Closed(cut=True)] == server.receive_data(b"")
    assert [Closed(cut=False)] == client.receive_data(b"")


def test_a_token_is_never_shown() -> None:
    assert "secret" not in repr(greeting.Hello((1,), "x", token="secret"))


def test_a_value_that_does_not_fit_changes_nothing() -> None:
    client, _ = greeted()
    client.set_peer_limit(100)

    with pytest.raises(ValueError, match="takes 100"):
        client.send(Request(2, Verb.PRODUCE, data.Produce("t"), b"x" * 100))
    with pytest.raises(ValueError, match="partition"):
        client.send(Request(2, Verb.FETCH, data.Fetch("t", -1)))
    assert {} == client.in_flight


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_any_bytes_are_events_or_a_typed_error(chunks: list[bytes]) -> None:
    for greeted_first in (False, True):
        server = opened(Side.SERVER, greeted=greeted_first)
        try:
            for chunk in chunks:
                server.receive_data(chunk)
        except ChronikError:
            assert State.FAILED is server.state
        assert server.pending_bytes <= 1600


def poured(connection: Connection, data: bytes, most: int) -> list[object]:
    """Bytes as they reach who reads into buffers, `most` at a time."""
    events: list[object] = []
    at = 0
    while at < len(data):
        buffer = connection.get_buffer()
        count = min(len(buffer), len(data) - at, most)
        buffer[:count] = data[at : at + count]
        events += connection.buffer_updated(count)
        at += count
    return events


@pytest.mark.parametrize("most", [1 << 30, 200_001, 65536, 997])
def test_long_and_short_answers_come_by_either_way(most: int) -> None:
    client, server = greeted()
    sizes = [10, 300_000, 0, 65_500, 1_200_000, 65_536, 70_000, 5]
    answers = []
    for number, size in enumerate(sizes, 2):
        server.receive_data(raw(client, Request(number, Verb.FETCH, data.Fetch("t"))))
        payload = bytes([number]) * size
        answers.append(Response(number, data.Fetched(1, 0, 1, "wal", 7), payload))
    sent = b"".join(raw(server, answer) for answer in answers)

    assert answers == poured(client, sent, most)
    assert {} == client.in_flight
    assert 0 == client.pending_bytes


def long_answer(client: Connection, server: Connection, number: int, size: int) -> bytes:
    server.receive_data(raw(client, Request(number, Verb.FETCH, data.Fetch("t"))))
    payload = bytes([number % 256]) * size
    return raw(server, Response(number, data.Fetched(1, 0, 1, "wal", 7), payload))


def test_what_somebody_looks_at_is_never_read_over() -> None:
    client, server = greeted()
    held = []
    for number in range(2, 40):
        size = 100_000 + 7000 * (number % 5)
        (event,) = poured(client, long_answer(client, server, number, size), 1 << 30)
        assert isinstance(event, Response)
        held.append((number, size, memoryview(event.payload)[1000:]))
        if number % 3 == 0:
            del held[0], event
    for number, size, view in held:
        assert bytes([number]) * (size - 1000) == view


def test_a_buffer_that_nobody_looks_at_is_used_again() -> None:
    client, server = greeted()
    buffers: set[int] = set()
    kept = []
    for number in range(2, 40):
        (event,) = poured(client, long_answer(client, server, number, 300_000), 1 << 30)
        assert isinstance(event, Response)
        assert isinstance(event.payload, memoryview)
        kept.append(event.payload.obj)  # so that no id is given twice
        buffers.add(id(event.payload.obj))
    assert len(buffers) <= 3, "of each answer one at most is still held when the next one comes"


def test_a_long_frame_that_is_only_announced_takes_no_memory() -> None:
    client, server = greeted()
    server.receive_data(raw(client, Request(2, Verb.FETCH, data.Fetch("t"))))
    sent = raw(server, Response(2, data.Fetched(1, 0, 1, "wal", 7), bytes(40 << 20)))

    for count in (100, 70_000, 300_000):
        client, _ = greeted()
        client.send(Request(2, Verb.FETCH, data.Fetch("t")))
        assert [] == poured(client, sent[:count], 1 << 30)
        assert count == client.pending_bytes
        assert len(client.get_buffer()) <= 4 * max(count, 65536)
        assert [Closed(cut=True)] == client.receive_data(b"")


def test_bytes_in_buffers_are_refused_as_others_are() -> None:
    client, server = greeted(Limits(frame_bytes_max=100_000))
    server.receive_data(raw(client, Request(2, Verb.FETCH, data.Fetch("t"))))
    sent = raw(server, Response(2, data.Fetched(1, 0, 1, "wal", 7), bytes(100_000)))

    with pytest.raises(ProtocolError, match="at most 100000"):
        poured(client, sent, 1 << 30)
    assert State.FAILED is client.state
    assert [] == client.buffer_updated(10)

    client, server = greeted()
    server.receive_data(raw(client, Request(2, Verb.FETCH, data.Fetch("t"))))
    damaged = bytearray(raw(server, Response(2, data.Fetched(1, 0, 1, "wal", 7), bytes(100_000))))
    damaged[25] ^= 1
    with pytest.raises(ProtocolError, match="checksum"):
        poured(client, bytes(damaged), 1 << 30)


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_any_bytes_in_buffers_are_events_or_a_typed_error(chunks: list[bytes]) -> None:
    for greeted_first in (False, True):
        one = opened(Side.SERVER, greeted=greeted_first)
        other = opened(Side.SERVER, greeted=greeted_first)
        for chunk in filter(None, chunks):
            try:
                expected: object = one.receive_data(chunk)
            except ChronikError as error:
                expected = str(error)
            try:
                found: object = poured(other, chunk, 1 << 30)
            except ChronikError as error:
                found = str(error)
            assert expected == found
            assert one.state is other.state


@given(st.data())
def test_a_damaged_frame_never_gives_another_message(data: st.DataObject) -> None:
    """Flips, cuts and repeats of good frames: an error, or what was sent, never something else."""
    sample = data.draw(st.sampled_from([s for s in SAMPLES if s.side is Side.CLIENT]))
    frame = bytearray(encode(sample))
    place = data.draw(st.integers(0, len(frame) - 1))
    frame[place] ^= data.draw(st.integers(1, 255))
    server = opened(Side.SERVER, greeted=sample.name != "hello")
    try:
        found = server.receive_data(bytes(frame))
    except ChronikError:
        return
    header_end = 20 + int.from_bytes(frame[12:16], "little")
    for event in found:
        assert isinstance(event, (Request, Told))
        assert place >= header_end, "only a payload's flip may pass: it has its own checksum"
        assert sample.event.message == event.message  # type: ignore[union-attr]


@given(st.binary(max_size=64))
def test_any_header_is_read_or_refused_for_every_verb(header: bytes) -> None:
    for verb in Verb:
        server = opened(Side.SERVER)
        frame = encode_frame(FrameKind.REQUEST, verb, 5, header)
        try:
            (event,) = server.receive_data(frame)
        except ProtocolError:
            assert verb is Verb.HELLO
            continue
        assert isinstance(event, (Request, Unreadable))


MANY = b"\xa1\x65other\x99" + ITEMS_MAX.to_bytes(2, "big") + b"\xa0" * ITEMS_MAX
"""A field that nobody knows: empty maps, one byte each."""


def test_a_header_of_very_many_items_costs_one_request_and_little_time() -> None:
    """Sixteen million empty maps took 1.1 GiB and held up the event loop for half a minute."""
    _, server = greeted()
    asked = sorted(EXCHANGES.keys() - {Verb.HELLO, *ONE_WAY})
    for number, verb in enumerate(asked, start=2):
        (found,) = server.receive_data(encode_frame(FrameKind.REQUEST, verb, number, MANY))
        assert isinstance(found, Unreadable)
        assert f"more than {ITEMS_MAX} items" in str(found.error)
    for verb in ONE_WAY:
        with pytest.raises(ProtocolError, match="items"):
            greeted()[1].receive_data(encode_frame(FrameKind.ONE_WAY, verb, 0, MANY))
    client, _ = greeted()
    raw(client, Request(2, Verb.PING, greeting.Ping()))
    with pytest.raises(ProtocolError, match="items"):
        client.receive_data(encode_frame(FrameKind.ERROR, Verb.PING, 2, MANY))


def test_the_longest_lists_that_a_message_may_have_are_read() -> None:
    settled = tuple(cluster.Settled(BOOT_ID, n, n) for n in range(cluster.REPORTED_MAX))
    ids = (BOOT_ID,) * cluster.REPORTED_MAX
    report = cluster.NodeReport(settled, ids, ids, 1)
    assert report == cluster.NODE_REPORT.decode(cluster.NODE_REPORT.encode(report))
    nodes = tuple(cluster.NodeInfo(str(n), "a:1", BOOT_ID, "leaving") for n in range(NODES_MAX))
    described = cluster.ClusterDescription("c", "1", nodes, "1")
    whole = cluster.CLUSTER_DESCRIPTION.encode(described)
    assert described == cluster.CLUSTER_DESCRIPTION.decode(whole)
    lines = ("",) * 10_000
    rebuilt = BundlesRebuilt(1, ("key",) * BUNDLE_KEYS_MAX, lines)
    assert rebuilt == cluster.BUNDLES_REBUILT.decode(cluster.BUNDLES_REBUILT.encode(rebuilt))
    hits = data.Searched(1, True, 1, (data.Hit(1, 2, 3.0),) * data.HITS_MAX)
    assert hits == data.SEARCHED.decode(data.SEARCHED.encode(hits))


def test_the_error_of_a_whole_connection_reaches_the_client() -> None:
    client, _ = greeted()
    farewell = Connection(Side.SERVER)

    (event,) = client.receive_data(raw(farewell, Failure(0, UnavailableError("full"))))

    assert isinstance(event, Failure)
    assert State.CLOSED is client.state


def test_connections_that_share_a_read_buffer_take_nothing_of_each_other() -> None:
    shared = memoryview(bytearray(READ_BYTES))
    sent, wanted, servers = [], [], []
    for who in (b"a", b"b", b"c"):
        client, server = Connection(Side.CLIENT), Connection(Side.SERVER, LIMITS, shared)
        poured(server, raw(client, Request(1, Verb.HELLO, greeting.Hello((1,)))), 1 << 30)
        client.receive_data(raw(server, Response(1, WELCOME)))
        requests = [
            Request(number, Verb.PRODUCE, data.Produce("t"), who * size)
            for number, size in enumerate((10, 200_000, 500, 70_000, 1), start=2)
        ]
        sent.append(b"".join(raw(client, request) for request in requests))
        wanted.append(requests)
        servers.append(server)

    came: list[list[object]] = [[], [], []]
    for at in range(0, max(map(len, sent)), 5_003):
        for place, server in enumerate(servers):
            came[place] += map(as_sent, poured(server, sent[place][at : at + 5_003], 3_001))

    assert wanted == came
