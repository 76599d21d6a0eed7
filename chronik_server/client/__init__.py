"""Clients of a Chronik server or cluster: `AsyncClient`, and `Client` for programs without asyncio.

    from chronik_server.client import Client

    with Client("127.0.0.1:7411") as client:
        client.create_topic("events", exist_ok=True)
        client.append("events", [b"first", b"second"])
        for record in client.read("events", 0):
            print(record.offset, record.value)

Place: beside the server's handlers, over `protocol`. Promise: loading this loads no part of the
storage engine, only the values and the batch format that go over the wire.

    async_client, blocking      the two faces        producer, consumer     what keeps state
    outgoing                    batches on their way, none twice
    overlapping                 appends at the same time, in one batch
    partition_lane, fetching    what a consumer has of one partition; from answers to records
    upkeep                      what an operator asks
    routing                     whom to ask, and when again
    channel                     one connection
    places, patience            of it: whose turn it is to ask, how long an answer may take
"""

from chronik_server.client.async_client import AsyncClient
from chronik_server.client.blocking import Appender, Client, Consumer, Producer
from chronik_server.client.consumer import AsyncConsumer
from chronik_server.client.options import ClientOptions
from chronik_server.client.partition_lane import Consumed, Run
from chronik_server.client.producer import AsyncProducer, Placed
from chronik_server.protocol.cluster import (
    ClusterDescription,
    NodeInfo,
    PartitionRole,
    StatusFound,
)
from chronik_server.protocol.topics import PartitionPlace, TopicDescription
from chronik_server.tls import TlsOptions

__all__ = [
    "Appender",
    "AsyncClient",
    "AsyncConsumer",
    "AsyncProducer",
    "Client",
    "ClientOptions",
    "ClusterDescription",
    "Consumed",
    "Consumer",
    "NodeInfo",
    "PartitionPlace",
    "PartitionRole",
    "Placed",
    "Producer",
    "Run",
    "StatusFound",
    "TlsOptions",
    "TopicDescription",
]
