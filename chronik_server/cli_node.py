"""`chronik node list|add|remove|convert|doubt`: the nodes of a cluster.

Place: a verb group; over `client`, but for `convert` and `doubt`, which work on a directory.
Promise: `add` and `remove` return when the cluster has it in writing; `remove` then waits until the
node has left, unless told not to. Exit 0 done, 2 for what cannot be meant, 3 when it was not done
in time.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace

import click

from chronik_server.cli_remote import remote_client
from chronik_server.client import AsyncClient, Client, ClientOptions
from chronik_server.metadata import METADATA_TOPIC
from chronik_server.protocol.cluster import NodeInfo
from chronik_store.cli import exits
from chronik_store.cli.options import FiniteRange, pass_session, subverb
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import is_terminal, say
from chronik_store.environment import Environment
from chronik_store.errors import ChronikError, UnavailableError

LOOK_SECONDS = 0.5
ANSWER_SECONDS = 2.0
"""A node that has not greeted by then counts as one that does not answer."""
LEAVE_SECONDS = 600.0


@click.group("node")
def command() -> None:
    """List, add and remove nodes of a cluster."""


@subverb(
    command,
    "list",
    "chronik -s 127.0.0.1:7411 node list",
    "chronik -s 127.0.0.1:7411 node list --json",
)  # fmt: skip
@pass_session
def list_(session: Session) -> None:
    """The nodes, where they are, whether they stay, and whether they answer from here."""
    with remote_client(session) as client:
        found = client.cluster()
    rows = []
    for node, fault in zip(found.nodes, asyncio.run(_faults(found.nodes)), strict=True):
        leads = node.node_id == found.leader
        is_gone = node.state == "removed"
        if session.as_json:
            answers = None if is_gone else fault is None
            session.output.json(
                {"node_id": node.node_id, "address": node.address, "state": node.state,
                 "uuid": node.node_uuid, "leads_metadata": leads, "answers": answers}
            )  # fmt: skip
        answer = "" if is_gone else "yes" if fault is None else "no"
        rows.append((node.node_id, node.address, node.state, answer, "yes" if leads else ""))
        if fault is not None:
            say(f"chronik: node {node.node_id} does not answer here: {fault}")
    if not session.as_json:
        session.output.table(("NODE", "ADDRESS", "STATE", "ANSWERS", "LEADS METADATA"), rows)


async def _faults(nodes: Sequence[NodeInfo]) -> list[ChronikError | None]:
    """Why each node does not answer; None of one that does, or has left."""
    return await asyncio.gather(*map(_fault, nodes))


async def _fault(node: NodeInfo) -> ChronikError | None:
    if node.state == "removed":
        return None  # at its address there may be anybody by now
    options = replace(ClientOptions.from_env(), retry_seconds=0.0, connect_seconds=ANSWER_SECONDS)
    try:
        async with AsyncClient(node.address, options=options) as client:
            welcome = (await client.router.any_channel()).welcome
    except ChronikError as error:
        return error
    if welcome is None or welcome.node_id != node.node_id:
        return UnavailableError(f"somebody else is at {node.address}")
    return None


@subverb(
    command, "add",
    "chronik -s 10.0.0.1:7411 node add 4 10.0.0.4:7411",
    "chronik -d n4 --object-store s3://bucket/p serve --node-id 4 --listen 10.0.0.4:7411 "
    "--join 10.0.0.1:7411",
)  # fmt: skip
@click.argument("node_id", metavar="ID")
@click.argument("address", metavar="HOST:PORT")
@pass_session
def add(session: Session, node_id: str, address: str) -> None:
    """Let a node join under ID, or say where the node of this ID is now.

    `chronik serve --join` does this by itself.
    """
    with remote_client(session) as client:
        client.add_node(node_id, address)
        node = _node(client, node_id)
    if session.as_json:
        session.output.json({"node_id": node_id, "address": address, "state": _state(node)})
    else:
        say(f"node {node_id} at {address} is {_state(node)}")


@subverb(
    command, "remove",
    "chronik -s 10.0.0.1:7411 node remove 2 --yes",
    "chronik -s 10.0.0.1:7411 node remove 2 --yes --no-wait",
)  # fmt: skip
@click.argument("node_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--wait/--no-wait", default=True, help="Until it has left.  [default: wait]")
@click.option(
    "--timeout", type=FiniteRange(min=0), default=LEAVE_SECONDS, show_default=True,
    metavar="SECONDS", help="Wait no longer.",
)  # fmt: skip
@pass_session
def remove(session: Session, node_id: str, yes: bool, wait: bool, timeout: float) -> int:
    """Let the node ID leave: its partitions move to others first. Its id is used up then."""
    if not yes:
        if not is_terminal(sys.stdin):
            raise click.UsageError("nobody to ask: say --yes")
        click.confirm(f"Remove node {node_id} for good?", abort=True, err=True)
    with remote_client(session) as client:
        client.remove_node(node_id)
        others = [
            node.address
            for node in client.cluster().nodes
            # At the address of one that left before there may be anybody by now.
            if node.node_id != node_id and node.state != "removed"
        ]
    # The node that leaves ends; it may be the one that was asked.
    with remote_client(session, *others) as client:
        deadline = session.clock.monotonic() + timeout
        node = _node(client, node_id)
        while wait and _state(node) != "removed" and session.clock.monotonic() < deadline:
            session.clock.sleep(LOOK_SECONDS)
            node = _node(client, node_id)
    if session.as_json:
        session.output.json({"node_id": node_id, "state": _state(node)})
    else:
        say(f"node {node_id} is {_state(node)}")
    return exits.UNAVAILABLE if wait and _state(node) != "removed" else exits.DONE


def _node(client: Client, node_id: str) -> NodeInfo | None:
    return next((n for n in client.cluster().nodes if n.node_id == node_id), None)


def _state(node: NodeInfo | None) -> str:
    return "not known yet" if node is None else node.state


@subverb(
    command, "convert",
    "chronik -d /var/lib/chronik node convert --node-id 1",
    "chronik -d /var/lib/chronik serve --node-id 1 --listen 10.0.0.1:7411",
)  # fmt: skip
@click.option("--node-id", metavar="ID", default="1", show_default=True, help="The node's name.")
@pass_session
def convert(session: Session, node_id: str) -> None:
    """Make DIR, a log of its own, the first node of a cluster, with all that it has.

    Its bucket must be one that other nodes can reach. There is no way back.
    """
    from chronik_server.config import check_node_id
    from chronik_store.conversion import convert as convert_directory

    check_node_id(node_id)
    directory = session.own_directory()
    session.must_be_there(directory)
    cluster_id = convert_directory(
        directory,
        node_id,
        own_topic=METADATA_TOPIC,
        config=session.config(),
        env=Environment(),
    )
    if session.as_json:
        session.output.json({"cluster_id": cluster_id, "node_id": node_id})
    else:
        say(f"{session.directory} is node {node_id} of cluster {cluster_id}; `chronik serve` it")


@subverb(
    command, "doubt",
    "chronik -d /var/lib/chronik node doubt events -p 2",
    "chronik -d /var/lib/chronik node doubt --metadata",
)  # fmt: skip
@click.argument("topic", required=False)
@click.option("-p", "--partition", type=click.IntRange(min=0), metavar="N", help="Of the topic.")
@click.option("--metadata", is_flag=True, help="The cluster's metadata instead of a topic.")
@pass_session
def doubt(session: Session, topic: str | None, partition: int | None, metadata: bool) -> None:
    """Have DIR's copy of a partition count as damaged, so that a roll call can be held.

    For a partition that nobody leads since the disks of half of its nodes, or more, were damaged:
    stop its other nodes, do this to each, and start them. Once all are doubted and there, the one
    with the most leads. What none of them has whole is lost by that.
    """
    from chronik_store.replicated import doubt as doubt_copy

    if metadata == (topic is not None):
        raise click.UsageError("name a topic, or say --metadata")
    if metadata != (partition is None):
        raise click.UsageError("name the partition of the topic with -p; the metadata has but one")
    directory = session.own_directory()
    session.must_be_there(directory)
    name, number = (METADATA_TOPIC, 0) if topic is None else (topic, partition or 0)
    doubt_copy(directory, name, number, config=session.config(), env=Environment())
    if session.as_json:
        session.output.json({"topic": topic, "partition": number, "metadata": metadata})
    else:
        what = "the metadata" if metadata else f"{topic}/{number}"
        say(f"{session.directory} counts its copy of {what} as damaged; `chronik serve` it")
