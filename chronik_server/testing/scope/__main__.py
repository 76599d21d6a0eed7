"""Plays one schedule of the small scope again, step by step, as a failing test prints it.

    python -m chronik_server.testing.scope "two leaders: 78 read n1"

Place: over the scope. Promise: what happens at each step, and what each node then is; a violation
ends it.
"""

from __future__ import annotations

import sys

from chronik_server.testing.scope.mixes import MIXES
from chronik_server.testing.scope.search import play


def tell(line: str) -> None:
    """A line for people."""
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    mix, _, schedule = sys.argv[1].partition(": ")
    play(MIXES[mix].group(), schedule, tell)
