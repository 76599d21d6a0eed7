"""The entry point of the `chronik` command.

Place: `[project.scripts]` and `python -m chronik_server` call `main`. Today it runs the embedded
verbs of `chronik_store.cli`. Promise: without the extra `cli` it says in one line what to install.
"""

from __future__ import annotations

import importlib.util
import sys


def main() -> None:
    """Run the command line of this process and exit with its code."""
    missing = [
        name for name in ("click", "rich", "structlog") if not importlib.util.find_spec(name)
    ]
    if missing:
        sys.stderr.write(
            f'chronik: the command line needs {", ".join(missing)}: pip install "chronik[cli]"\n'
        )
        raise SystemExit(2)
    from chronik_store.cli.main import run

    raise SystemExit(run())


if __name__ == "__main__":
    main()
