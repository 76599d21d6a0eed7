"""The entry point of the `chronik` command.

Place: `[project.scripts]` and `python -m chronik_server` call `main`, which adds the server's
verbs, `-s`, and the worlds of `simulate --cluster` to the embedded ones of `chronik_store.cli`.
Promise: without the extra `cli` it says in one line what to install; without the extra `server` the
embedded verbs are all there.
"""

from __future__ import annotations

import importlib.util
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chronik_store.cli.session import Session
    from chronik_store.testing.worlds.repertoire import Repertoire


def main() -> None:
    """Run the command line of this process and exit with its code."""
    _end_by_ctrl_c()  # modules load; nothing is at stake yet
    missing = [
        name for name in ("click", "rich", "structlog") if not importlib.util.find_spec(name)
    ]
    if missing:
        sys.stderr.write(
            f'chronik: the command line needs {", ".join(missing)}: pip install "chronik[cli]"\n'
        )
        raise SystemExit(2)
    from chronik_store.cli import main as embedded
    from chronik_store.cli import options

    if missing_for_server():
        embedded.absent_verbs.update(VERBS)
    else:
        embedded.VERBS.update(VERBS)
        options.remote_session = _remote_session
    embedded.more_worlds.update(WORLDS)
    code = embedded.run()
    _end_by_ctrl_c()  # all is settled; what is left is the interpreter's own end
    raise SystemExit(code)


def _end_by_ctrl_c() -> None:
    """Let Ctrl-C end the process at once, without a word; a verb has a better way while it runs.

    One that was told to ignore it (nohup, a script's background job) goes on ignoring it.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


VERBS = {
    "serve": "chronik_server.cli_serve",
    "cluster": "chronik_server.cli_cluster",
    "node": "chronik_server.cli_node",
    "leader": "chronik_server.cli_leader",
}
"""The server's own verbs: name -> module, loaded when it is called."""


def missing_for_server() -> list[str]:
    """What the extra `server` would bring and is not there."""
    return [name for name in ("prometheus_client",) if not importlib.util.find_spec(name)]


def _remote_session(server: str) -> Session:
    from chronik_server.cli_remote import session
    from chronik_server.errors import (
        CertificateError,
        ConnectionLostError,
        NotLeaderError,
        UnauthenticatedError,
    )
    from chronik_store.cli import exits

    exits.ADVICE += [
        (
            ConnectionLostError,
            "is a node there? -s or CHRONIK_SERVER names it, several with commas",
        ),
        (
            NotLeaderError,
            "`chronik leader list` shows who leads (the metadata: `node list`); a majority of its "
            "nodes must be up",
        ),
        (CertificateError, "`openssl s_client -connect HOST:PORT -showcerts` shows it"),
        (UnauthenticatedError, "set CHRONIK_AUTH_TOKEN as the server has it"),
    ]
    return session(server)


def _cluster_worlds() -> Repertoire:
    from chronik_server.testing.playing import cluster_worlds

    return cluster_worlds()


def _server_worlds() -> Repertoire:
    from chronik_server.testing.servers.playing import server_worlds

    return server_worlds()


WORLDS = {"cluster": _cluster_worlds, "servers": _server_worlds}


if __name__ == "__main__":
    main()
