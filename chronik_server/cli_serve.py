"""`chronik serve`: one node, in the foreground.

Place: a verb. Promise: the address it listens on is the first line on stdout (with --json an
object), so that a script that asked for port 0 can read it; SIGTERM and Ctrl-C stop it
gracefully. Exit 0 when it stopped as asked, 2 for a setting that cannot be used.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import click

from chronik_server.addresses import parse_address, parse_peers, parse_reachable
from chronik_server.backend import NodeRemovedError, StoppedError
from chronik_server.config import ServerConfig, parse_join
from chronik_server.health import Health
from chronik_server.node import open_backend
from chronik_server.running import files_allowed, run
from chronik_server.server import Server
from chronik_store.cli import exits
from chronik_store.cli.options import pass_session, verb
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import say
from chronik_store.config import LogConfig
from chronik_store.environment import Environment

logger = logging.getLogger("chronik_server.serve")


@verb(
    "serve",
    "chronik serve",
    "chronik -d /var/lib/chronik serve --listen 127.0.0.1:7411 --health 127.0.0.1:7412",
    "chronik -d n1 --object-store s3://bucket/p serve --node-id 1 --peers 1@10.0.0.1:7411",
    "chronik -d n2 --object-store s3://bucket/p serve --node-id 2 --listen 10.0.0.2:7411 "
    "--join 10.0.0.1:7411",
    "CHRONIK_AUTH_TOKEN=... CHRONIK_TLS_CERT=... CHRONIK_TLS_KEY=... "
    "chronik serve --listen 0.0.0.0:7411",
)
@click.option("--listen", metavar="HOST:PORT", help="Where clients connect. [CHRONIK_LISTEN]")
@click.option("--advertise", metavar="HOST:PORT", help="What they connect to. [CHRONIK_ADVERTISE]")
@click.option(
    "--health", metavar="HOST:PORT", help="/live /ready /metrics. [CHRONIK_HEALTH_LISTEN]"
)
@click.option("--node-id", metavar="ID", help="This node's name. [CHRONIK_NODE_ID]")
@click.option(
    "--peers",
    metavar="ID@HOST:PORT,...",
    help="The first nodes of a new cluster, this one too. [CHRONIK_PEERS]",
)
@click.option(
    "--join",
    metavar="HOST:PORT,...",
    help="Nodes of a cluster that this new node joins. [CHRONIK_JOIN]",
)
@click.option("--insecure", is_flag=True, help="Listen to other machines without TLS and a token.")
@pass_session
def command(session: Session, /, **options: Any) -> int:
    """Serve the data directory: alone, or as a node of a cluster."""
    from chronik_server import logs

    config = config_of(session, options)
    config.check_exposure()
    log_config = session.writing_config()
    logs.configure(node_id=config.node_id, verbose=False)
    asked, files = config.connections_max, files_allowed()
    config = config.within(files)
    if config.connections_max < asked:
        logger.warning(
            "this process may open %d files (`ulimit -n`): of %d connections it takes %d",
            files, asked, config.connections_max,
        )  # fmt: skip
    return run(lambda stop: serve(session, config, log_config, stop))


def config_of(session: Session, options: dict[str, Any]) -> ServerConfig:
    """The server's settings: flags over environment over defaults."""

    def address(name: str) -> Any:
        parse = parse_reachable if name == "advertise" else parse_address
        return None if options[name] is None else parse(options[name], what=f"--{name}")

    return ServerConfig.from_env(
        data_dir=session.own_directory(),
        listen=address("listen"),
        advertise=address("advertise"),
        health_listen=address("health"),
        node_id=options["node_id"],
        peers=None if options["peers"] is None else parse_peers(options["peers"]),
        join=None if options["join"] is None else parse_join(options["join"]),
        insecure=options["insecure"] or None,
    )


async def serve(
    session: Session,
    config: ServerConfig,
    log_config: LogConfig,
    stop: asyncio.Event,
    *,
    env: Environment = Environment(),  # noqa: B008 (frozen)
) -> int:
    """Run one node until `stop`. env: its clock, its disk; a test hands in worse ones."""
    fatal: list[BaseException] = []

    def end(error: BaseException) -> None:
        fatal.append(error)
        stop.set()

    try:
        backend = await open_backend(config, log_config, end, env=env, stop=stop)
    except StoppedError as stopped:
        say(f"chronik: {stopped}")
        return exits.DONE
    server = Server(
        backend,
        config,
        clock=env.clock,
        batch_bytes_max=log_config.batch_bytes_max,
        search_seconds=log_config.search_deadline_seconds,
    )
    health = Health(server, asyncio.get_running_loop())
    try:
        address = await server.start()
        found = {"node_id": config.node_id, "listen": str(address), "health": None}
        if config.health_listen is not None:
            found["health"] = str(health.start(config.health_listen))
        if session.as_json:
            session.output.json(found)
        else:
            session.output.line(f"node {config.node_id} listens on {address}")
        session.output.flush()
        sys.stdout.flush()
        await stop.wait()
    finally:
        await asyncio.to_thread(health.stop)
        await server.stop()
    if fatal and isinstance(fatal[0], NodeRemovedError):
        say(f"chronik: {fatal[0]}")
    elif fatal:
        say(f"chronik: error: this node had to end: {fatal[0]}")
        return exits.UNAVAILABLE
    return exits.DONE
