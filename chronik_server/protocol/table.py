"""Which messages belong to which verb: request, response, what is told one way.

Place: in `protocol`, above the messages and below `connection`. Invariant: each message class
belongs to one codec, so the class of what is sent says how it is sent.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from chronik_server.protocol import cluster, data, greeting, raft_message, topics
from chronik_server.protocol.message import Codec
from chronik_server.protocol.verbs import Verb


class Exchange(NamedTuple):
    """A verb's request and response; response None: it is only ever told one way."""

    request: Codec[Any]
    response: Codec[Any] | None


EXCHANGES: Final[dict[int, Exchange]] = {
    Verb.HELLO: Exchange(greeting.HELLO, greeting.WELCOME),
    Verb.PING: Exchange(greeting.PING, greeting.PONG),
    Verb.CREATE_TOPIC: Exchange(topics.CREATE_TOPIC, topics.TOPIC_DESCRIPTION),
    Verb.DELETE_TOPIC: Exchange(topics.DELETE_TOPIC, topics.DONE),
    Verb.LIST_TOPICS: Exchange(topics.LIST_TOPICS, topics.TOPICS),
    Verb.DESCRIBE_TOPIC: Exchange(topics.DESCRIBE_TOPIC, topics.TOPIC_DESCRIPTION),
    Verb.PRODUCE: Exchange(data.PRODUCE, data.PRODUCED),
    Verb.FETCH: Exchange(data.FETCH, data.FETCHED),
    Verb.OFFSETS: Exchange(data.OFFSETS, data.OFFSETS_FOUND),
    Verb.SEARCH: Exchange(data.SEARCH, data.SEARCHED),
    Verb.GET_CURSOR: Exchange(data.GET_CURSOR, data.CURSOR_PLACE),
    Verb.COMMIT_CURSOR: Exchange(data.COMMIT_CURSOR, topics.DONE),
    Verb.DELETE_CURSOR: Exchange(data.DELETE_CURSOR, data.CURSOR_DELETED),
    Verb.STATUS: Exchange(cluster.STATUS, cluster.STATUS_FOUND),
    Verb.SEAL: Exchange(cluster.SEAL, cluster.SEALED),
    Verb.DROP_BEFORE: Exchange(cluster.DROP_BEFORE, topics.DONE),
    Verb.RUN_PIPELINE: Exchange(cluster.RUN_PIPELINE, cluster.PIPELINE_RUN),
    Verb.FIND_BUNDLES: Exchange(cluster.FIND_BUNDLES, cluster.BUNDLES_FOUND),
    Verb.REBUILD_BUNDLES: Exchange(cluster.REBUILD_BUNDLES, cluster.BUNDLES_REBUILT),
    Verb.DESCRIBE_CLUSTER: Exchange(cluster.DESCRIBE_CLUSTER, cluster.CLUSTER_DESCRIPTION),
    Verb.ADD_NODE: Exchange(cluster.ADD_NODE, topics.DONE),
    Verb.REMOVE_NODE: Exchange(cluster.REMOVE_NODE, topics.DONE),
    Verb.TRANSFER_LEADER: Exchange(cluster.TRANSFER_LEADER, topics.DONE),
    Verb.RAFT: Exchange(raft_message.RAFT_MESSAGE, None),
    Verb.REPORT: Exchange(cluster.NODE_REPORT, None),
}

ONE_WAY: Final = frozenset((int(Verb.PRODUCE), int(Verb.RAFT), int(Verb.REPORT)))
"""What may be told without an answer."""

VERB_OF: Final[dict[type, Verb]] = {
    exchange.request.message: Verb(verb) for verb, exchange in EXCHANGES.items()
}
"""The verb of a request's class."""
