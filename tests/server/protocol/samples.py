"""One frame of each kind, with values that show every field: the golden frames."""

from __future__ import annotations

from typing import NamedTuple

from chronik_server.errors import NotLeaderError
from chronik_server.protocol import cluster, data, greeting, topics
from chronik_server.protocol.connection import Connection
from chronik_server.protocol.events import Failure, Request, Response, Told
from chronik_server.protocol.raft_message import RaftMessage
from chronik_server.protocol.states import Side, State
from chronik_server.protocol.verbs import Verb
from chronik_store.errors import OffsetOutOfRangeError
from chronik_store.format.entry import encode_entry_header
from chronik_store.format.record_batch import RecordBatch
from chronik_store.model import BundlesFound, BundlesRebuilt, Coverage, TopicInfo, Watermarks
from chronik_store.objectstore.layout import bundle_key

TOPIC_ID = "00112233445566778899aabbccddeeff"
BOOT_ID = "f0e0d0c0b0a090807060504030201000"
BATCH = RecordBatch.build([b"hello", b"world"], producer_id=7, producer_epoch=1, base_sequence=40)
ENTRY = encode_entry_header(1, 3, 12, 40, 2, 1_700_000_000_000_000, BATCH.buffer) + BATCH.buffer
PEER = greeting.PeerIdentity("c1", "2", TOPIC_ID, BOOT_ID)


class Sample(NamedTuple):
    name: str
    side: Side
    event: Request | Response | Failure | Told


def as_sent(event: object) -> object:
    """What came, as its sender made it: who sends does not say how long the header is."""
    if isinstance(event, (Request, Told)):
        return event._replace(header_bytes=0)
    return event


def _asked(name: str, number: int, verb: Verb, message: object, payload: bytes = b"") -> Sample:
    return Sample(name, Side.CLIENT, Request(number, verb, message, payload))


def _answered(name: str, number: int, message: object, payload: bytes = b"") -> Sample:
    return Sample(name, Side.SERVER, Response(number, message, payload))


PLACES = (
    topics.PartitionPlace(0, "1", "10.0.0.1:7411", 3, ("1", "2", "3")),
    topics.PartitionPlace(1),
)
BUNDLE = bundle_key("events", 1, 40, 60, 3, "0123456789abcdef")
LINE = Watermarks(0, 10, 20, 20, 42, 42, 43)
SAMPLES: tuple[Sample, ...] = (
    _asked("hello", 1, Verb.HELLO, greeting.Hello((1,), "demo", "secret", PEER)),
    _answered("welcome", 1, greeting.Welcome(1, "chronik", "c1", "1", BOOT_ID, 1 << 20, 64, PEER)),
    _asked("ping", 2, Verb.PING, greeting.Ping()),
    _answered("pong", 2, greeting.Pong(1_700_000_000_000_000)),
    _asked("create_topic", 3, Verb.CREATE_TOPIC, topics.CreateTopic("events", 2, True, 3)),
    _answered("topic_description", 3, topics.TopicDescription("events", TOPIC_ID, PLACES)),
    _asked("delete_topic", 4, Verb.DELETE_TOPIC, topics.DeleteTopic("events")),
    _answered("done", 4, topics.Done()),
    _asked("list_topics", 5, Verb.LIST_TOPICS, topics.ListTopics()),
    _answered("topics", 5, topics.Topics((TopicInfo("events", TOPIC_ID, 2),))),
    _asked("produce", 6, Verb.PRODUCE, data.Produce("events", 1), BATCH.buffer),
    _answered("produced", 6, data.Produced(40, 42)),
    _asked("fetch", 7, Verb.FETCH, data.Fetch("events", 1, 40, 65536, 1, 500)),
    _asked("fetch_of_one_topic", 7, Verb.FETCH, data.Fetch("events", 1, 40, topic_id=TOPIC_ID)),
    _answered("fetched", 7, data.Fetched(42, 0, 42, "wal_tail", 85, 12), ENTRY),
    _asked("offsets", 8, Verb.OFFSETS, data.Offsets("events", 1, 1_700_000_000_000_000)),
    _answered("offsets_found", 8, data.OffsetsFound(LINE, 40)),
    _answered("offsets_found_of_one_topic", 8, data.OffsetsFound(LINE, 40, None, TOPIC_ID)),
    _answered("offsets_found_by_a_follower", 8, data.OffsetsFound(LINE, None, 12)),
    _asked("get_cursor", 12, Verb.GET_CURSOR, data.GetCursor("events", 1, "billing")),
    _answered("cursor_place", 12, data.CursorPlace(42, 0, 12)),
    _asked("commit_cursor", 9, Verb.COMMIT_CURSOR, data.CommitCursor("events", 1, "billing", 42)),
    _asked("search", 10, Verb.SEARCH, data.Search("events", "disk AND full", limit=2)),
    _answered(
        "searched",
        10,
        data.Searched(
            1, True, 900, (data.Hit(1, 40, 0.5),), (Coverage(((0, 42),), (), 1),), ("json.x",)
        ),
        RecordBatch.build([b"disk is full"], timestamps_us=[1_700_000_000_000_000]).buffer,
    ),
    _asked("find_bundles", 13, Verb.FIND_BUNDLES, cluster.FindBundles("events", 1, 40, True)),
    _answered("bundles_found", 13, BundlesFound((BUNDLE,), 60)),
    _asked(
        "rebuild_bundles", 14, Verb.REBUILD_BUNDLES, cluster.RebuildBundles("events", 1, (BUNDLE,))
    ),
    _answered("bundles_rebuilt", 14, BundlesRebuilt(0, (BUNDLE,), ("the bucket is away",))),
    _asked("transfer_leader", 11, Verb.TRANSFER_LEADER, cluster.TransferLeader("events", 1, "2")),
    Sample(
        "not_leader",
        Side.SERVER,
        Failure(11, NotLeaderError("ask node 2", node_id="2", address="10.0.0.2:7411")),
    ),
    Sample(
        "farewell",
        Side.SERVER,
        Failure(0, OffsetOutOfRangeError("out", offset=50, first_offset=0, end_offset=42)),
    ),
    Sample(
        "raft",
        Side.CLIENT,
        Told(Verb.RAFT, RaftMessage("events/1", b"\xa1dkindfbeat"), b"entries"),
    ),
    Sample(
        "report",
        Side.CLIENT,
        Told(Verb.REPORT, cluster.NodeReport((cluster.Settled(TOPIC_ID, 1, 40),), (TOPIC_ID,))),
    ),
)


def encode(sample: Sample) -> bytes:
    """The frame's bytes, sent by a connection that is far enough to say it."""
    connection = opened(sample.side, greeted=sample.name not in {"hello", "welcome"})
    event = sample.event
    if sample.name == "welcome":
        connection.state = State.GREETED
    if isinstance(event, (Response, Failure)) and event.request_id:
        asked = {s.event.request_id: s.event.verb for s in SAMPLES if isinstance(s.event, Request)}
        connection.in_flight[event.request_id] = asked[event.request_id]
    return b"".join(bytes(part) for part in connection.send(event))


def opened(side: Side, *, greeted: bool = True) -> Connection:
    """A connection after its greeting (or, for the greeting itself, just before)."""
    connection = Connection(side)
    connection.state = State.OPEN if greeted else State.NEW
    if greeted:
        connection._decoder.frame_bytes_max = connection.limits.frame_bytes_max
    return connection
