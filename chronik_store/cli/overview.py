"""What is known of every partition, wherever a run looks, and what is not.

Place: between `session` and the verbs that show all topics. Promise: behind what cannot be shown
the rest is; what is missing is named on stderr, and is the exit code: damage weighs most.
Invariant: a partition that is missing is in `missing`, never taken for an empty one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from chronik_store.cli import exits
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import Output, say
from chronik_store.errors import ChronikError, UnavailableError
from chronik_store.model import LogStatus

Failure = ChronikError | str
"""Why something is not shown; the status of a store has words only."""


@dataclass(frozen=True)
class TopicSeen:
    """A topic. topic_id: None when no partition could say. parts: of its partitions those that can
    be shown; missing: the numbers of the others.
    """

    name: str
    topic_id: str | None
    parts: tuple[LogStatus, ...]
    missing: tuple[int, ...]


@dataclass(frozen=True)
class Overview:
    """The topics, by name. failures: why some of them is missing; damaged: part of it is damage."""

    topics: tuple[TopicSeen, ...]
    failures: tuple[Failure, ...]
    damaged: bool

    def outcome(self, shown: Iterable[TopicSeen], output: Output) -> int:
        """Behind what was shown of these topics, say why that is not all; the exit code."""
        missing = [f"{each.name}/{number}" for each in shown for number in each.missing]
        if not missing:
            return exits.DONE
        nobody = f"no node that answers has {', '.join(missing)}"
        output.flush()
        tell(self.failures or [UnavailableError(nobody)], as_json=output.as_json)
        return exits.CORRUPTION if self.damaged else exits.UNAVAILABLE


def overview(session: Session, topic: str | None = None) -> Overview:
    """Of all topics, or of this one. TopicNotFoundError: a bucket does not hold this one; where
    else it is not there, `topics` has none.
    """
    look = _look_into_bucket if session.in_bucket else _look
    return look(session, topic)


def tell(failures: Iterable[Failure], *, as_json: bool) -> None:
    """Each on stderr, as the error that ends a run is."""
    for each in failures:
        said = f"chronik: error: {each}" if isinstance(each, str) else exits.said(each, as_json)
        say(said)


def _look_into_bucket(session: Session, topic: str | None) -> Overview:
    parts: dict[str, list[LogStatus]] = {}
    missing: dict[str, list[int]] = {}
    failures = []
    for name, number, found in session.ask(lambda _, __, log: log.status(), topic):
        here, not_here = parts.setdefault(name, []), missing.setdefault(name, [])
        if isinstance(found, ChronikError):
            not_here.append(number)
            failures.append(found)
        else:
            here.append(found)
    topics = tuple(
        TopicSeen(name, here[0].topic_id if here else None, tuple(here), tuple(missing[name]))
        for name, here in parts.items()
    )
    return Overview(topics, tuple(failures), bool(failures))


def _look(session: Session, topic: str | None) -> Overview:
    with session.reading_store() as store:
        infos, status = store.topics(), store.status()
    topics = []
    for info in infos:
        if topic in {None, info.name}:
            parts = tuple(part for part in status.partitions if part.topic == info.name)
            missing = set(range(info.partitions)) - {part.partition for part in parts}
            if not session.is_remote and not status.unavailable:
                missing = set()  # it has come or gone meanwhile
            topics.append(TopicSeen(info.name, info.topic_id, parts, tuple(sorted(missing))))
    return Overview(tuple(topics), status.unavailable, bool(status.damaged))
