"""The verb `demo`.

Place: over `acts`. Promise: exit 1 when a claim fails; what it made stays in one directory, named
at the end, so that it can be looked at and removed.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console

from chronik_store.cli import exits
from chronik_store.cli.demo.acts import ChildFailed, Play
from chronik_store.cli.demo.source import source_of
from chronik_store.cli.demo.stage import Stage
from chronik_store.cli.demo.writer import TOPIC
from chronik_store.cli.options import pass_session, verb
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import say
from chronik_store.errors import ConfigError


@verb("demo", "chronik demo", "chronik demo --fast", "chronik demo /var/log/syslog ~/src")
@click.argument("paths", nargs=-1, type=click.Path(exists=True))
@click.option("--fast", is_flag=True, help="A tenth of the input.")
@pass_session
def command(session: Session, paths: tuple[str, ...], fast: bool) -> int:
    """Kill a log, recover it, lose it, find it in its bucket, search it. Under a minute.

    Input: the lines of PATHS, or of the Python standard library. Every claim is computed in the
    run; the exit code is 1 if one fails.
    """
    if session.object_store is not None:
        raise ConfigError(
            "the demo's bucket is a directory of its own, which it can break: leave out "
            "--object-store; `chronik bench` measures a bucket"
        )
    source = source_of(paths)
    lines, size_bytes = source.measure()
    if fast:
        source = dataclasses.replace(source, limit=max(1, lines // 10))
        lines, size_bytes = source.measure()
    if lines < 2:
        raise ConfigError("the demo needs at least two lines of input")
    directory = Path(tempfile.mkdtemp(prefix="chronik-demo-", dir=_place(session))).resolve()
    stage = Stage(lines, Console(highlight=False, stderr=session.as_json))
    try:
        with stage.lit():
            play = Play(source, directory, stage, lines, size_bytes)
            play.perform()
    except ChildFailed as failure:
        say(f"chronik: the demo stopped: {failure}; see {directory}")
        return exits.NOTHING
    except KeyboardInterrupt:
        shutil.rmtree(directory)
        raise
    _close(session, play)
    return exits.DONE if all(claim.holds for claim in stage.claims) else exits.NOTHING


def _place(session: Session) -> Path | None:
    """Beside the data directory: the system's temporary directory is often memory, where a sync
    costs nothing and proves nothing.
    """
    place = Path.cwd() if session.in_bucket else Path(session.directory).resolve().parent
    return place if os.access(place, os.W_OK) else None


def _own_name() -> str:
    """How to call this program from a shell, here."""
    beside = Path(sys.executable).with_name("chronik")
    if shutil.which("chronik") is not None or not beside.exists():
        return "chronik" if shutil.which("chronik") else f"{sys.executable} -m chronik_server"
    return shlex.quote(os.path.relpath(beside))


def _close(session: Session, play: Play) -> None:
    stage, directory = play.stage, play.directory
    if session.as_json:
        for claim in stage.claims:
            session.output.json(dataclasses.asdict(claim))
    chronik, data = _own_name(), shlex.quote(f"{directory}/data")
    bucket = shlex.quote(play.bucket)
    query = shlex.quote(play.questions[1].query if play.questions else "import")
    stage.close(
        [
            f"{chronik} -d {bucket} consume {TOPIC} -n 3",
            f"{chronik} -d {data} search {TOPIC} {query} -C 1",
            f"{chronik} -d {data} status",
            f"rm -r {shlex.quote(str(directory))}",
        ]
    )
