"""What goes into a node and what is seen of it: plain values.

Place: under `cell`, `checks` and `moves`, which speak in them. Invariant: none of them changes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from chronik_store.format.control import Members

Content = tuple[int, bytes]
"""Term and bytes of an entry."""
Shown = tuple[int, Content] | None
"""(term in which it was shown as committed, entry); None: a snapshot stands for it."""
Input = tuple[Any, ...]
"""What is given, by name, and its details: bytes, numbers and words only."""


class View(NamedTuple):
    """What a node is, seen from outside; led, shown, acked and wrong are of all its lives."""

    is_up: bool
    is_suspect: bool
    life: int
    role: str
    is_ready: bool
    term: int
    first: int
    log: tuple[Content, ...]
    """From index `first` on."""
    durable: int
    commit: int
    counted: int
    """What it has counted as committed, on its own disk or not; 0 unless it leads."""
    members: Members
    changes: tuple[tuple[int, Members], ...]
    """The MEMBERS entries of `log`, by index."""
    sync_waits: bool
    work_waits: bool
    led: frozenset[int]
    """Terms."""
    shown: tuple[Shown, ...]
    acked: tuple[tuple[int, bytes], ...]
    wrong: tuple[str, ...]


class Came(NamedTuple):
    """What came of an input: `mark` is equal for nodes that go on equally (see `marks`)."""

    mark: bytes
    view: View
    sent: tuple[tuple[str, bytes, bytes], ...]
    """(to, head, payload)."""
    told: tuple[tuple[Any, ...], ...]
    """Clients."""
