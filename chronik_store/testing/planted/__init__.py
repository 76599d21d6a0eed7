"""Known bugs, to put back into the product for a while: what finds none of them proves nothing.

Place: in the test kit; `chronik simulate --planted` and tests/planted use it. The bugs are those
that logs like this one have had, or that a plausible change would bring. Promise: within
`planted(name)` the product has that one bug, after it it has not. Invariant: no switch in the
product itself: a bug is a function put in the place of a good one.

    log_bugs       what is durable, acknowledged, recovered
    tiering_bugs   what is uploaded, published, pruned, dropped, deleted
    reading_bugs   what is read, cached, found
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

from chronik_store.testing.planted import log_bugs, reading_bugs, tiering_bugs

Plant = Callable[[Callable[[Any, str, Any], None]], None]
"""Given `put(owner, name, value)`, puts the bug in."""


def bugs_of(module: object) -> dict[str, Plant]:
    """The bugs that a module defines, by name."""
    return {
        name.replace("_", "-"): value
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", "") == getattr(module, "__name__", None)
        if not name.startswith("_")
    }


BUGS: dict[str, Plant] = {**bugs_of(log_bugs), **bugs_of(tiering_bugs), **bugs_of(reading_bugs)}
"""Name -> bug; its docstring says what it is."""


@contextlib.contextmanager
def planted(name: str, bugs: Mapping[str, Plant] = BUGS) -> Iterator[None]:
    """Within this, the product has the bug. Not thread-safe. KeyError if there is no such bug."""
    with contextlib.ExitStack() as stack:

        def put(owner: Any, attribute: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(owner, attribute, value))

        bugs[name](put)
        yield
