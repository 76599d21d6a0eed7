"""What the audience sees: the plot line on top, the acts below it, the table at the end.

Place: under `acts`. Promise: without a terminal the same facts come as plain lines, none of them
more often than every few seconds. Draws with rich, which the extra `cli` brings.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from chronik_store.cli.plot import PARTS, cells_of
from chronik_store.model import Watermarks

BAR_CELLS = 64
QUIET_SECONDS = 5.0


@dataclass(frozen=True)
class Claim:
    """One thing that the demo says about itself: what, how much, and whether it held."""

    text: str
    measured: str
    holds: bool


@dataclass
class Stage:
    """The display of one performance."""

    total: int
    console: Console = field(default_factory=lambda: Console(highlight=False))
    claims: list[Claim] = field(default_factory=list)
    _line: Watermarks | None = None
    _transcript: list[Text] = field(default_factory=list)
    _live: Live | None = None
    _last_plain: float = field(default_factory=time.monotonic)

    @contextmanager
    def lit(self) -> Iterator[Stage]:
        """While the block runs, the plot line moves (on a terminal)."""
        if not self.console.is_terminal:
            yield self
            return
        with Live(
            get_renderable=self._scene, console=self.console, refresh_per_second=12
        ) as self._live:
            yield self
        self._live = None

    # --- what is told ----------------------------------------------------------------------------

    def act(self, number: int, title: str) -> None:
        """A new act begins."""
        self._say(Text.assemble("\n", (f"{number}  {title}", "bold")))

    def note(self, text: str) -> None:
        """One fact of this act."""
        self._say(Text("   " + text))

    def claim(self, text: str, measured: str, *, holds: bool) -> None:
        """One claim, checked; it comes again in the table."""
        self.claims.append(Claim(text, measured, holds))
        mark = ("ok  ", "green") if holds else ("FAILS  ", "bold red")
        self._say(Text.assemble("   ", mark, f"{text}: {measured}"))

    def move(self, line: Watermarks) -> None:
        """The log has come so far."""
        self._line = line
        now = time.monotonic()
        if self._live is None and now - self._last_plain >= QUIET_SECONDS:
            self._last_plain = now
            self.console.print(Text(f"   {line}", style="dim"), soft_wrap=True)

    def _say(self, text: Text) -> None:
        if self._live is None:
            self.console.print(text, soft_wrap=True)
        else:
            self._transcript.append(text)
            self._live.refresh()

    # --- what is drawn ---------------------------------------------------------------------------

    def _scene(self) -> Any:
        room = max(5, self.console.height - 5)
        return Group(self.bar(), *self._transcript[-room:])

    def bar(self) -> Text:
        """The plot line: how much of the input is where."""
        text = Text()
        if self._line is not None:
            line = self._line
            filled = min(
                BAR_CELLS, max(1, BAR_CELLS * (line.end - line.start) // max(1, self.total))
            )
            for (_, _, cell, style), count in zip(PARTS, cells_of(line, filled), strict=True):
                text.append(cell * count, style=_STYLES[style])
            text.append(" " * (BAR_CELLS - len(text)))
            text.append(f" {line.end:,} lines\n")
        for name, _, cell, style in PARTS:
            text.append(f"{cell} ", style=_STYLES[style])
            limit = getattr(self._line, name, 0) if self._line is not None else 0
            text.append(f"{name} {limit:,}  ", style="dim")
        return text

    def table(self) -> Table:
        """All claims."""
        table = Table(title="Computed in this run", title_justify="left", box=None, pad_edge=False)
        table.add_column("")
        table.add_column("claim")
        table.add_column("measured", justify="right")
        for claim in self.claims:
            mark = Text("ok", "green") if claim.holds else Text("FAILS", "bold red")
            table.add_row(mark, claim.text, claim.measured)
        return table

    def close(self, commands: list[str]) -> None:
        """The table, and what to try next."""
        self.console.print()
        self.console.print(self.table())
        self.console.print("\nGo on by hand:")
        for command in commands:
            self.console.print(f"  {command}", soft_wrap=True, markup=False)


_STYLES = {"31": "red", "32": "green", "33": "yellow", "34": "blue", "36": "cyan"}
