"""What raftos asks of its storage and its log, answered by the replica.

Place: between the roles and `chronik_store.replica`. Promise: term and vote change in one record,
and no message that shows them leaves before it is durable (`ticket`). Invariant: terms only grow,
and within a term a vote never changes, over any restart (defects 1 to 3, 29).
"""

from __future__ import annotations

from collections.abc import Mapping

from chronik_store.replica import Replica


class HardState:
    """raftos's `storage`. Not thread-safe: the event loop's."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.ticket = replica.last_ticket  # of an open log: what it shows may be on its way yet

    @property
    def term(self) -> int:
        return self._replica.current_term

    @property
    def voted_for(self) -> str | None:
        return self._replica.hard_state[1] or None

    def update(self, changes: Mapping[str, int | str | None]) -> None:
        """Record a new term, a vote, or both; a new term takes the vote back."""
        term, vote = self._replica.hard_state
        new_term = changes.get("term", term)
        assert isinstance(new_term, int), "a term is a number"
        new_vote = str(changes.get("voted_for") or "") if "voted_for" in changes else vote
        if new_term != term and "voted_for" not in changes:
            new_vote = ""
        assert new_term >= term, f"the term would go back from {term} to {new_term}"
        assert new_term > term or vote in ("", new_vote), (
            f"second vote in term {term}: {vote!r}, then {new_vote!r}"
        )
        if (new_term, new_vote) != (term, vote):
            self.ticket = self._replica.save_hard_state(new_term, new_vote)


class LogEnd:
    """raftos's `log`, as far as its voting rule looks at it."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    @property
    def last_log_index(self) -> int:
        return self._replica.last_index

    @property
    def last_log_term(self) -> int:
        return self._replica.last_term

    def position(self) -> tuple[int, int]:
        """(term, index) of the last entry: what "up to date" compares."""
        return self._replica.last_term, self._replica.last_index
