"""Every history of every node that was met, and what came of one more input to it.

Place: over `cell`; `moves` asks it. Promise: a node's state is named by the history of its inputs,
so schedules that differ only in the order of what happens on different nodes meet in the same
states; an input to a history that was met before costs a look-up. Invariant: a view never changes.

Cells that stand where they were last asked are kept; another history is played anew.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final, NamedTuple

from chronik_server.testing.scope.cell import Cell
from chronik_server.testing.scope.views import Input, View
from chronik_store.format.control import Members

ALIVE_MAX: Final = 600
"""Cells that are kept where they stand."""


class Outcome(NamedTuple):
    """Of an input to a node."""

    state: int
    events: tuple[tuple[int, int], ...]
    """(node, event) of each message that left."""
    told: tuple[tuple[Any, ...], ...]


class Cells:
    """See the module. names: of the nodes, whose numbers are their places in it."""

    def __init__(self, names: tuple[str, ...], members: Members) -> None:
        self.names, self.members = names, members
        self._came_from: list[tuple[int, int, int]] = []
        self._views: list[View | None] = []
        self._next: dict[tuple[int, int], Outcome] = {}
        self._marked: dict[tuple[int, bytes], int] = {}
        self._given: list[tuple[int, Input]] = []
        self._numbers: dict[tuple[int, Input], int] = {}
        self._alive: OrderedDict[int, Cell] = OrderedDict()
        self.computed = self.looked_up = self.replayed = 0
        """Inputs that a cell was given for the first time, that were known, that were repeated."""
        for node in range(len(names)):
            self._came_from.append((node, -1, -1))
            self._views.append(None)

    @property
    def states(self) -> int:
        """How many were met."""
        return len(self._views)

    def number(self, node: int, given: Input) -> int:
        """Of an input to a node: equal inputs, equal numbers."""
        key = (node, given)
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = len(self._given)
            self._given.append(key)
        return found

    def event(self, number: int) -> tuple[int, Input]:
        """(node, input) of a number."""
        return self._given[number]

    def view(self, state: int) -> View:
        """What a node is in this state. Not of one that was given nothing yet."""
        view = self._views[state]
        assert view is not None
        return view

    def give(self, state: int, number: int) -> Outcome:
        """What comes of one more input."""
        known = self._next.get((state, number))
        if known is not None:
            self.looked_up += 1
            return known
        self.computed += 1
        cell = self._alive.pop(state, None) or self._replay(state)
        node, given = self._given[number]
        came = cell.give(given)
        key = (node, came.mark)
        new = self._marked.get(key)
        if new is None:
            new = self._marked[key] = len(self._views)
            self._views.append(came.view)
            self._came_from.append((node, state, number))
        self._alive[new] = cell
        if len(self._alive) > ALIVE_MAX:
            self._alive.popitem(last=False)
        events = tuple(self._event(node, *each) for each in came.sent if each[0] in self.names)
        outcome = self._next[state, number] = Outcome(new, events, came.told)
        return outcome

    def _event(self, node: int, to: str, head: bytes, payload: bytes) -> tuple[int, int]:
        target = self.names.index(to)
        return target, self.number(target, ("hear", self.names[node], head, payload))

    def _replay(self, state: int) -> Cell:
        node, before, number = self._came_from[state]
        given: list[Input] = []
        while before >= 0:
            given.append(self._given[number][1])
            node, before, number = self._came_from[before]
        cell = Cell(self.names[node], self.members)
        for each in reversed(given):
            cell.feed(each)
        self.replayed += len(given)
        return cell
