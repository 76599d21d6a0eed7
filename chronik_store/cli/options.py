"""What verbs have in common: the options that may also stand behind the verb, and examples.

Place: between click and the verbs. Promise: `chronik --json consume x` and `chronik consume x
--json` are the same; every verb's --help ends in examples that can be pasted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from chronik_store.cli.session import Session


class FiniteRange(click.FloatRange):
    """A float in a range; nan lies in every range, as far as click can tell."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if math.isnan(float(number := super().convert(value, param, ctx))):
            self.fail(f"{value} is not a number", param, ctx)
        return number


F = TypeVar("F", bound=Callable[..., Any])


def _set(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value not in {None, False} and isinstance(ctx.obj, Session):
            setattr(ctx.obj, name, value)

    return callback


def _set_directory(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    """As before the verb: a directory that is named beats a server of the environment."""
    session = ctx.obj
    if value is None or not isinstance(session, Session):
        return
    if not session.is_remote:
        session.directory = value
        return
    if is_typed(ctx, "server"):
        raise click.UsageError(BOTH_NAMED)
    _replace(ctx, Session(directory=value), session)


def _set_server(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    session = ctx.obj
    if value is None or not isinstance(session, Session):
        return
    if is_typed(ctx, "data_dir"):
        raise click.UsageError(BOTH_NAMED)
    _replace(ctx, session_at(value, ctx.find_root().invoked_subcommand), session)


def _replace(ctx: click.Context, session: Session, before: Session) -> None:
    session.object_store, session.as_json = before.object_store, before.as_json
    each: click.Context | None = ctx
    while each is not None:
        each.obj, each = session, each.parent


def is_typed(ctx: click.Context, name: str) -> bool:
    """The option stands on the command line, before the verb or behind it."""
    return any(
        each.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        for each in (ctx, ctx.find_root())
    )


def session_at(server: str, verb: str | None) -> Session:
    """What -s means. UsageError where it means nothing."""
    if verb in LOCAL_VERBS:
        raise _not_through_a_server(verb)
    if remote_session is None:
        raise click.UsageError(f"-s needs {SERVER_EXTRA}")
    return remote_session(server)


def _not_through_a_server(verb: str) -> click.UsageError:
    return click.UsageError(
        f"{verb} works on files of this machine, not through a server: run it on the node, with "
        "-d DIR"
    )


def _stay_here(ctx: click.Context, session: Session, verb: str) -> None:
    """For a local verb of a group, whose name nobody knew when the session was made."""
    if is_typed(ctx, "server"):
        raise _not_through_a_server(verb)
    _replace(ctx, Session(directory=ctx.find_root().params["data_dir"]), session)


BOTH_NAMED = "-d and -s exclude each other"
SERVER_EXTRA = 'the extra `server`: pip install "chronik[server]"'
LOCAL_VERBS = {
    "verify", "repair", "restore", "inspect", "doctor", "demo", "bench", "simulate", "serve",
    "cluster", "node convert", "node doubt",
}  # fmt: skip
"""Verbs about files of this machine, which a server has no part in."""

remote_session: Callable[[str], Session] | None = None
"""HOST:PORT -> a session whose stores are at that server. Set by the server's command line."""

BUCKET_VERBS = {
    "consume", "search", "status", "export", "verify", "doctor", "topic list", "topic describe",
    "cursor list",
}  # fmt: skip
"""They read from a bucket alone, too."""


def _common(verb: str) -> list[click.Parameter]:
    bucket = ", or a bucket's URL, to read from it" if verb in BUCKET_VERBS else ""
    return [
        click.Option(
            ["-d", "--data-dir"], metavar="DIR", expose_value=False, callback=_set_directory,
            help=f"The data directory{bucket}.",
        ),
        click.Option(
            ["-s", "--server"], metavar="HOST:PORT", expose_value=False, callback=_set_server,
            help="A server instead.", hidden=verb in LOCAL_VERBS,
        ),
        click.Option(
            ["--object-store"], metavar="URL", expose_value=False, callback=_set("object_store"),
            help="Where old data goes.",
        ),
        click.Option(
            ["--json"], is_flag=True, expose_value=False, callback=_set("as_json"),
            help="One JSON object a line.",
        ),
    ]  # fmt: skip


class Verb(click.Command):
    """A command that also takes the root's options, and shows examples."""

    def __init__(
        self, *args: Any, examples: Sequence[str] = (), full_name: str = "", **kwargs: Any
    ) -> None:
        if examples:
            kwargs["epilog"] = "\n".join(["\b", "Examples:", *("  " + line for line in examples)])
        super().__init__(*args, **kwargs)
        self.params.extend(_common(full_name))
        self._full_name = full_name

    def invoke(self, ctx: click.Context) -> Any:
        session = ctx.find_object(Session)
        if session is not None and session.is_remote and self._full_name in LOCAL_VERBS:
            _stay_here(ctx, session, self._full_name)
            session = ctx.obj
        if session is not None and session.is_remote and session.object_store is not None:
            raise click.UsageError(
                "--object-store belongs to a data directory; a server has its own: name a "
                "directory with -d"
            )
        return super().invoke(ctx)


def verb(name: str, *examples: str) -> Callable[[F], Verb]:
    """Declare a verb: its name, and lines that can be pasted into a shell."""

    def decorate(function: F) -> Verb:
        return click.command(name, cls=Verb, examples=examples, full_name=name)(function)

    return decorate


def subverb(group: click.Group, name: str, *examples: str) -> Callable[[F], click.Command]:
    """The same for a verb of a group: `chronik topic list`."""

    def decorate(function: F) -> click.Command:
        full_name = f"{group.name} {name}"
        return group.command(name, cls=Verb, examples=examples, full_name=full_name)(function)

    return decorate


def _complete_topic(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Topic names for the shell; nothing when the directory cannot be read."""
    from chronik_store.errors import ChronikError

    directory = (ctx.find_root().params or {}).get("data_dir") or "data"
    try:
        with Session(directory=directory).reading_store() as store:
            names = [topic.name for topic in store.topics()]
    except ChronikError:
        return []
    return [name for name in names if name.startswith(incomplete)]


topic_argument = click.argument("topic", shell_complete=_complete_topic)
partition_option = click.option(
    "-p",
    "--partition",
    type=click.IntRange(min=0),
    metavar="N",
    help="One partition; default: all.",
)
since_option = click.option(
    "--since", metavar="TIME", help="From this time on: 15m (ago), 2h, 3d, or 2026-01-31T12:00:00Z."
)
until_option = click.option("--until", metavar="TIME", help="Up to this time.")
pass_session = click.make_pass_decorator(Session)
