"""Plain schedules to depart from, each with a fault or a change in its middle.

Place: beside `search`; tests/server/raft plays them. Promise: without a departure each ends with a
leader, everything committed, and every member equal. Invariant: names of nodes are n1, n2, n3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from chronik_server.testing.scope.moves import Group, Script

THREE: Final = ("n1", "n2", "n3")
LED: Final[Script] = (("silence", "n1"), ("record", b"a"))
"""n1 leads, and has committed a record."""


class Mix(NamedTuple):
    """See `Group`. since: so much of the script comes before the first departure."""

    names: tuple[str, ...]
    script: Script
    since: int = len(LED)
    learners: tuple[str, ...] = ()

    def group(self) -> Group:
        """One that begins."""
        return Group(self.names, self.script, learners=self.learners)


MIXES: Final[Mapping[str, Mix]] = {
    "first election": Mix(THREE, LED, since=0),
    "two leaders": Mix(
        THREE,
        (
            *LED,
            *(("isolate", "n1"), ("record", b"nowhere else"), ("silence", "n2"), ("record", b"b")),
            *(("read",), ("rejoin",), ("beat",)),
        ),
    ),
    "figure 8": Mix(
        THREE,
        (
            *(("silence", "n1"), ("isolate", "n1"), ("record", b"a"), ("silence", "n2")),
            *(("rejoin",), ("isolate", "n2"), ("silence", "n1"), ("record", b"b")),
            *(("rejoin",), ("silence", "n2"), ("beat",)),
        ),
        since=3,
    ),
    "who is behind asks": Mix(
        THREE,
        (
            *LED,
            *(("isolate", "n3"), ("record", b"b"), ("rejoin",), ("crash", "n1")),
            *(("silence", "n3"), ("silence", "n2"), ("boot",), ("beat",)),
        ),
    ),
    "two of three": Mix(
        THREE, (*LED, ("isolate", "n3"), ("record", b"b"), ("read",), ("rejoin",), ("beat",))
    ),
    "hand-over": Mix(THREE, (*LED, ("lead", "n2"), ("record", b"b"), ("read",))),
    "snapshot": Mix(
        THREE,
        (
            *LED,
            *(("isolate", "n3"), ("record", b"b"), ("seal",), ("list",), ("prune", "n1")),
            *(("rejoin",), ("beat",), ("record", b"c"), ("silence", "n3"), ("beat",)),
        ),
        since=7,
    ),
    "one comes and one goes": Mix(
        THREE,
        (
            *LED,
            *(("members", THREE, ()), ("record", b"b"), ("members", ("n2", "n3"), ("n1",))),
            *(("silence", "n2"), ("record", b"c"), ("beat",)),
        ),
        learners=("n3",),
    ),
    "two voters and one": Mix(
        ("n1", "n2"),
        (
            *LED,
            *(("members", ("n1",), ("n2",)), ("record", b"b"), ("members", ("n1", "n2"), ())),
            *(("record", b"c"), ("beat",)),
        ),
    ),
    "a leader goes": Mix(
        ("n1", "n2"),
        (
            *LED,
            *(("isolate", "n2"), ("members", ("n2",), ("n1",)), ("rejoin",), ("beat",)),
            *(("silence", "n2"), ("record", b"b")),
        ),
    ),
    "damage": Mix(
        THREE,
        (
            *LED,
            *(("rot", "n3"), ("isolate", "n2"), ("beat",), ("record", b"b"), ("rejoin",)),
            *(("beat",), ("silence", "n2"), ("beat",), ("record", b"c")),
        ),
    ),
    "an empty disk meets an old leader": Mix(
        THREE,
        (
            *LED,
            *(("isolate", "n1"), ("silence", "n2"), ("record", b"b"), ("isolate", "n2")),
            *(("rejoin", "n1"), ("wipe", "n3"), ("beat", "n1"), ("record", b"c")),
            *(("rejoin",), ("beat",)),
        ),
        since=6,
    ),
    "two voters": Mix(
        ("n1", "n2"), (*LED, ("bounce", "n1"), ("silence", "n2"), ("record", b"b"), ("beat",))
    ),
}
"""By name."""
