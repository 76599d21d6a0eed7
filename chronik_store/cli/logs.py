"""What the library logs, to stderr: structlog over stdlib logging, set up on the first record.

Place: called once by `main`. Promise: stdout carries data only; a run that logs nothing never
imports structlog. Invariant: the library itself configures no logging.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

from chronik_store.cli.terminal import colour_wanted, printable


class StderrHandler(logging.Handler):
    """A stdlib handler that renders through structlog, which it loads when first needed."""

    def __init__(self) -> None:
        super().__init__()
        self._processor: Any = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._processor is None:
                self._processor = _formatter()
            sys.stderr.write(self._processor.format(record) + "\n")
        except Exception:  # noqa: BLE001 (a log line must never end the program)
            self.handleError(record)


def _formatter() -> logging.Formatter:
    import structlog

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _without_control,
            structlog.dev.ConsoleRenderer(colors=colour_wanted(sys.stderr)),
        ],
    )


def _without_control(_: object, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """What is logged quotes servers and buckets; the renderer shows only the rest escaped."""
    event["event"] = printable(str(event["event"]))
    return event


def configure(*, verbose: bool) -> None:
    """Warnings and worse of `chronik_store`; with verbose, everything from INFO up."""
    logger = logging.getLogger("chronik_store")
    logger.handlers = [StderrHandler()]
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    logger.propagate = False
