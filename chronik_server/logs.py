"""What a server logs: one JSON object a line, to stderr.

Place: called once by the verbs that serve. Promise: stdlib logging of server and library goes
through structlog; nothing is logged per record or per request. Invariant: the library itself
configures no logging.
"""

from __future__ import annotations

import logging
import sys

import structlog

LOGGERS = ("chronik_server", "chronik_store", "asyncio")


def configure(*, node_id: str, verbose: bool) -> None:
    """JSON lines from INFO up (verbose: DEBUG), each with the node's id."""

    def with_node(
        _: object, __: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event["node"] = node_id
        return event

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                with_node,
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.DEBUG if verbose else logging.INFO)
        logger.propagate = False
