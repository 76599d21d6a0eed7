"""`chronik leader list|transfer`: which node leads which partition.

Place: a verb group, over `client`. Promise: `list` says what the answering node knows; `transfer`
returns when another node has been given the partition, or says why not.
"""

from __future__ import annotations

import click

from chronik_server.cli_remote import remote_client
from chronik_store.cli import exits
from chronik_store.cli.options import pass_session, subverb
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import say


@click.group("leader")
def command() -> None:
    """See who leads the partitions of a cluster, and hand them over."""


@subverb(
    command, "list",
    "chronik -s 127.0.0.1:7411 leader list", "chronik -s 127.0.0.1:7411 leader list events --json",
)  # fmt: skip
@click.argument("topic", required=False)
@pass_session
def list_(session: Session, topic: str | None) -> int:
    """One line for each partition: its leader, its term, the nodes that have it."""
    rows = []
    with remote_client(session) as client:
        names = [topic] if topic else [info.name for info in client.topics()]
        for name in names:
            for place in client.describe_topic(name).partitions:
                if session.as_json:
                    session.output.json(
                        {"topic": name, "partition": place.partition, "leader": place.leader,
                         "address": place.address, "term": place.term,
                         "replicas": list(place.replicas)}
                    )  # fmt: skip
                leader = place.leader or "none"
                where = ",".join(place.replicas)
                rows.append((name, str(place.partition), leader, str(place.term), where))
    if not session.as_json:
        session.output.table(("TOPIC", "PARTITION", "LEADER", "TERM", "REPLICAS"), rows)
    return exits.DONE if rows else exits.NOTHING


@subverb(
    command, "transfer",
    "chronik -s 127.0.0.1:7411 leader transfer events -p 2 --to 3",
    "chronik -s 127.0.0.1:7411 leader transfer --metadata",
)  # fmt: skip
@click.argument("topic", required=False)
@click.option(
    "-p", "--partition", type=click.IntRange(min=0), default=0, show_default=True, metavar="N"
)
@click.option("--to", metavar="ID", help="The node that takes over; default: whoever is best off.")
@click.option("--metadata", is_flag=True, help="The cluster's metadata instead of a topic.")
@pass_session
def transfer(
    session: Session, topic: str | None, partition: int, to: str | None, metadata: bool
) -> None:
    """Hand a partition over to another node that has it. Nothing is lost, appends wait a moment."""
    if metadata == (topic is not None):
        raise click.UsageError("name a topic, or say --metadata")
    with remote_client(session) as client:
        client.transfer_leader(topic or "", partition=partition, to=to)
    what = "the metadata" if metadata else f"{topic}/{partition}"
    if session.as_json:
        session.output.json({"topic": topic, "partition": partition, "to": to})
    else:
        say(f"{what} was handed over" + (f" to node {to}" if to else ""))
