"""The plot line, drawn: where a log's data is, from the oldest to what is not yet on disk.

Place: under `status` and the demo. Promise: the bar is to scale within a cell, each non-empty part
gets at least one, and the numbers beside it are the watermarks themselves.
"""

from __future__ import annotations

import itertools

from chronik_store.model import Watermarks

# Oldest first, as the plot line runs. Shade says how far a record has come.
PARTS: tuple[tuple[str, str, str, str], ...] = (
    # name, what it means, cell, SGR style
    ("indexed", "in the bucket, with its search index", "█", "32"),
    ("tiered", "in the bucket", "▓", "36"),
    ("sealed", "sealed, waiting for upload", "▒", "33"),
    ("committed", "on the local disk", "░", "34"),
    ("end", "being written", "·", "31"),
)


def lengths_of(line: Watermarks) -> list[int]:
    """Records in each part of `PARTS`, from `start` on."""
    limits = [line.start, line.indexed, line.tiered, line.sealed, line.committed, line.end]
    return [right - left for left, right in itertools.pairwise(limits)]


def cells_of(line: Watermarks, width: int) -> list[int]:
    """How many of `width` cells each part gets. Their sum is `width`, or 0 for an empty log."""
    lengths = lengths_of(line)
    total = sum(lengths)
    if not total:
        return [0] * len(lengths)
    cells = [max(1, length * width // total) if length else 0 for length in lengths]
    # What rounding left over is the widest part's; what it took too much goes cell by cell.
    cells[cells.index(max(cells))] += max(0, width - sum(cells))
    while sum(cells) > width:
        cells[cells.index(max(cells))] -= 1
    return cells


def bar_of(line: Watermarks, width: int, *, colour: bool) -> str:
    """The bar as text, `width` cells long."""
    parts = []
    for (_, _, cell, style), count in zip(PARTS, cells_of(line, width), strict=True):
        if count:
            parts.append(f"\x1b[{style}m{cell * count}\x1b[0m" if colour else cell * count)
    return "".join(parts) or " " * width
