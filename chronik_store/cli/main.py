"""The root command: options before the verb, verbs loaded when they are called, one way to end.

Place: the top of the embedded command line; `chronik_server.cli` calls `run`. Promise: every run
ends with one of the codes of `exits`; Ctrl-C lets the verb settle what is under way first; a
closed pipe is the reader's "enough", not an error. Invariant: `chronik --help` opens no store.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import takewhile
from types import FrameType
from typing import Any

import click

import chronik_store
from chronik_store.cli import exits
from chronik_store.cli.options import (
    BOTH_NAMED,
    LOCAL_VERBS,
    SERVER_EXTRA,
    is_typed,
    session_at,
)
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import abandon_stdout, say
from chronik_store.errors import ChronikError

VERBS: dict[str, str] = {
    "produce": ".produce",
    "consume": ".consume",
    "search": ".search",
    "status": ".status",
    "topic": ".topics",
    "cursor": ".cursors",
    "export": ".export",
    "verify": ".checks",
    "repair": ".repair",
    "restore": ".recovery",
    "rebuild-index": ".rebuilding",
    "inspect": ".inspection",
    "doctor": ".doctor",
    "demo": ".demo.command",
    "bench": ".bench",
    "simulate": ".simulate",
}
"""Verb -> module, relative to this package. The module's attribute `command` is the click command.
The server adds its own verbs here, and `remote_session`, before it calls `run`.
"""

absent_verbs: set[str] = set()
"""Verbs of the server, when its extra is not there."""

more_worlds: dict[str, Callable[[], Any]] = {}
"""What `simulate --NAME` plays, by name: the server's `Repertoire`s; set by its command line."""

EPILOG = """\b
Exit codes: 0 done, 1 nothing matched or findings, 2 usage, 3 unavailable, 4 corruption,
130 interrupted. Settings come from the environment too (docs/configuration.md).
\b
Completion:  eval "$(_CHRONIK_COMPLETE=bash_source chronik)"     also zsh_source, fish_source
"""


class Verbs(click.Group):
    """A group that imports a verb when it is asked for, and turns outcomes into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in absent_verbs:
            raise click.UsageError(f"{cmd_name} needs {SERVER_EXTRA}")
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(VERBS[cmd_name], __package__)
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> int:
        try:
            result = super().invoke(ctx)
            _flush(ctx)
        except ChronikError as error:
            with suppress(ChronikError, BrokenPipeError):  # then there is no one to show it to
                _flush(ctx)
            return _failed(error, as_json=_wants_json(ctx))
        except (exits.Interrupted, KeyboardInterrupt) as interrupted:
            say(f"chronik: {interrupted}" if str(interrupted) else "chronik: interrupted")
            return exits.INTERRUPTED
        except BrokenPipeError:
            abandon_stdout()  # whoever reads us has enough
            return exits.DONE
        return result if isinstance(result, int) else exits.DONE


def _flush(ctx: click.Context) -> None:
    """What the verb has said so far."""
    if isinstance(ctx.obj, Session) and "output" in vars(ctx.obj):  # made at first use
        ctx.obj.output.flush()


def _wants_json(ctx: click.Context) -> bool:
    """Before the verb, or behind it; also when no session came of it."""
    return ctx.params["as_json"] or (isinstance(ctx.obj, Session) and ctx.obj.as_json)


def _failed(error: ChronikError, *, as_json: bool) -> int:
    say(exits.said(error, as_json))
    return exits.code_of(error)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"chronik {chronik_store.__version__} (Python {sys.version.split()[0]})")
        ctx.exit()


@click.group(
    cls=Verbs,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "-d",
    "--data-dir",
    metavar="DIR",
    default="data",
    envvar="CHRONIK_DATA_DIR",
    show_default=True,
    show_envvar=True,
    help="The data directory; verbs that read topics also take a bucket's URL.",
)
@click.option(
    "-s",
    "--server",
    metavar="HOST:PORT",
    envvar="CHRONIK_SERVER",
    show_envvar=True,
    help="Ask a server instead of a directory; several nodes with commas between.",
)
@click.option(
    "--object-store",
    metavar="URL",
    help="Where old data goes: file:///..., s3://bucket/prefix. Default: what the "
    "directory was made with, else DIR/object_store.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("-v", "--verbose", is_flag=True, help="Log what the library does, to stderr.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version.",
)
@click.pass_context
def chronik(
    ctx: click.Context,
    data_dir: str,
    server: str | None,
    object_store: str | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """A durable, tiered, searchable partition log.

    \b
    chronik produce events < lines.txt       append each line
    chronik consume events                   print them
    chronik search events "disk AND full"    find some
    chronik -d s3://bucket/prefix consume events      read the bucket alone
    """  # noqa: D301 (click knows a block by this character)
    from chronik_store.cli.logs import configure

    configure(verbose=verbose)
    ctx.obj = _session(ctx, data_dir, server, object_store, as_json=as_json)


def _session(
    ctx: click.Context,
    data_dir: str,
    server: str | None,
    object_store: str | None,
    *,
    as_json: bool,
) -> Session:
    """A server's session if one is named; a directory named on the command line, or a verb about
    files of this machine, beats a server that only the environment names.
    """
    verb, is_typed_server = ctx.invoked_subcommand, is_typed(ctx, "server")
    if is_typed_server and is_typed(ctx, "data_dir"):
        raise click.UsageError(BOTH_NAMED)
    is_local = verb in LOCAL_VERBS and not is_typed_server
    if server is None or is_local or is_typed(ctx, "data_dir"):
        return Session(directory=data_dir, object_store=object_store, as_json=as_json)
    session = session_at(server, verb)
    session.as_json = as_json
    session.object_store = object_store  # refused by the verb, unless a -d behind it is meant
    return session


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, sys.argv's by default; returns the exit code."""
    _on_signals()
    _fill_closed_streams()
    try:
        code = chronik.main(
            None if arguments is None else list(arguments),
            prog_name="chronik",
            standalone_mode=False,
        )
    except click.Abort:
        return exits.INTERRUPTED
    except click.ClickException as error:
        if _names_json(sys.argv[1:] if arguments is None else arguments):
            say(exits.usage_as_json(error.format_message()))
        else:
            error.show()
        return exits.USAGE
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        abandon_stdout()  # click's own words, --help or --version, found no room
        say(f"chronik: error: the output cannot be written: {error.strerror}")
        return exits.UNAVAILABLE
    return code if isinstance(code, int) else exits.DONE


def _names_json(arguments: Sequence[str]) -> bool:
    """Of a command line that is wrong: how far click got with its options is not known."""
    return "--json" in takewhile(lambda word: word != "--", arguments)


def _fill_closed_streams() -> None:
    """Of `chronik ... >&-`: lest the next file that is opened, a log's perhaps, becomes stdout."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (for the process)


def _on_signals() -> None:
    """Ctrl-C is KeyboardInterrupt, whatever it was while the program started (or ignored, if it
    was); SIGTERM ends like it, so that what is under way is settled and counted.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(f"interrupted by {signal.Signals(number).name}")

    signal.signal(signal.SIGTERM, interrupt)
