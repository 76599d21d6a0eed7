"""`chronik search`: full-text search over all tiers.

Place: a verb. Promise: what was not searched is said, on stderr; exit 1 means that all
was searched and nothing matched, 3 that nothing was found and something was not searched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import click

from chronik_store.cli import exits
from chronik_store.cli.moments import moment_us
from chronik_store.cli.options import (
    FiniteRange,
    partition_option,
    pass_session,
    since_option,
    topic_argument,
    until_option,
    verb,
)
from chronik_store.cli.rendering import FORMAT_HELP, duration_text, format_of, json_of
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import Output, say
from chronik_store.model import Coverage, SearchHit, SearchResult, StoredRecord
from chronik_store.partition_log import Order, PartitionLog
from chronik_store.search.coverage import merged

CONTEXT_MAX = 1000
REASONS_MAX = 2
HIGHLIGHT = "1;31"
OFFSET_MAX = (1 << 63) - 1
"""The end of a gap of which nobody knows how far it goes: a server's, when nodes are away."""
_WORD = re.compile(r"[^\W_]+")
_DEADLINE = re.compile(r"\Adeadline|deadline\Z")
_NOT_WORDS = {"AND", "OR", "NOT", "TO", "IN"}


@verb(
    "search",
    'chronik search events "disk AND full"',
    "chronik search events 'json.level:error' --since 1h -n 50",
    "chronik search events '\"connection refused\"' -C 2",
    "chronik search events 'value:/time.*out/' -c",
)
@topic_argument
@click.argument("query")
@partition_option
@since_option
@until_option
@click.option(
    "-n",
    "--count",
    "limit",
    type=click.IntRange(min=1, max=100_000),
    default=10,
    show_default=True,
    metavar="N",
    help="At most N hits.",
)
@click.option(
    "--order",
    type=click.Choice(["newest", "oldest", "score"]),
    default="newest",
    show_default=True,
    help="Which hits come first.",
)
@click.option(
    "-C",
    "--context",
    type=click.IntRange(min=0, max=CONTEXT_MAX),
    default=0,
    metavar="N",
    help="N records before and after each hit.",
)
@click.option("-c", "--count-only", is_flag=True, help="Print only how many match.")
@click.option(
    "--deadline",
    "deadline_seconds",
    type=FiniteRange(min=0),
    metavar="SECONDS",
    help="Answer by then with what was searched, in each partition. Default: 10, or the server's.",
)
@click.option("--complete", is_flag=True, help="Fail rather than leave anything unsearched.")
@click.option(
    "--format",
    "pattern",
    metavar="FORMAT",
    default="%o %t %v\\n",
    show_default=True,
    help=FORMAT_HELP,
)
@pass_session
def command(
    session: Session,
    topic: str,
    query: str,
    partition: int | None,
    since: str | None,
    until: str | None,
    limit: int,
    order: Order,
    context: int,
    count_only: bool,
    deadline_seconds: float | None,
    complete: bool,
    pattern: str,
) -> int:
    """Find records of TOPIC that match QUERY.

    \b
    Words search the value. key:web-1, header.trace:ab12 and json.level:error search those.
    AND, OR, NOT, (...), "a phrase", value:/a.*regex/. See docs/search-language.md.
    """  # noqa: D301 (click knows a block by this character)
    now_us = session.now_us
    since_us = None if since is None else moment_us(since, now_us)
    until_us = None if until is None else moment_us(until, now_us)
    with session.reading_lanes(topic, partition) as lanes:
        results = [
            (number, log, log.search(query, since=since_us, until=until_us, limit=limit,
                                     order=order, deadline_seconds=deadline_seconds,
                                     require_complete=complete))
            for number, log in lanes
        ]  # fmt: skip
        total = sum(result.total for _, _, result in results)
        if count_only:
            exact = all(result.total_is_exact for _, _, result in results)
            _count(session.output, total, exact=exact)
        else:
            hits = _merged(results, order)[:limit]
            _Printer(session, topic, query, pattern, dict(lanes)).show(hits, context)
        session.output.flush()
        whole = _remarks([result for _, _, result in results], total, len(lanes))
        outcome = session.outcome(lanes)
    if total or outcome != exits.DONE:
        return outcome
    return exits.NOTHING if whole else exits.UNAVAILABLE  # what was not searched is not absent


Found = tuple[int, SearchHit]
"""(partition, hit)"""


def _merged(results: Sequence[tuple[int, PartitionLog, SearchResult]], order: Order) -> list[Found]:
    """One partition's are in order. Offsets of several do not compare: those go by time."""
    found = [(number, hit) for number, _, result in results for hit in result]
    if len(results) == 1:
        return found
    if order == "score":
        found.sort(key=lambda item: -item[1].score)
    else:
        found.sort(key=lambda item: (item[1].record.timestamp_us, item[1].offset))
        if order == "newest":
            found.reverse()
    return found


def _count(output: Output, total: int, *, exact: bool) -> None:
    if output.as_json:
        output.json({"total": total, "total_is_exact": exact})
    else:
        output.line(str(total) if exact else f"{total}+")


class _Printer:
    """Hits, with what stands around them in the log."""

    def __init__(
        self, session: Session, topic: str, query: str, pattern: str, logs: dict[int, PartitionLog]
    ) -> None:
        self._output = session.output
        self._topic = topic
        self._logs = logs
        self._text = format_of(pattern, for_terminal=session.output.terminal)
        self._marked = _marker(query) if session.output.colour else None

    def show(self, hits: list[Found], context: int) -> None:
        for at, (partition, hit) in enumerate(hits):
            if not context:
                self._one(hit.record, partition, hit=hit)
                continue
            if at and not self._output.as_json:
                self._output.line("--")
            for record in self._around(partition, hit.offset, context):
                self._one(record, partition, hit=hit if record.offset == hit.offset else None)

    def _around(self, partition: int, offset: int, context: int) -> list[StoredRecord]:
        log = self._logs[partition]
        line = log.watermarks
        start = max(line.start, offset - context)
        return list(log.scan(start, min(line.committed, offset + context + 1)))

    def _one(self, record: StoredRecord, partition: int, *, hit: SearchHit | None) -> None:
        if self._output.as_json:
            value = json_of(record, self._topic, partition)
            value["hit"] = hit is not None
            if hit is not None:
                value["score"] = hit.score
            self._output.json(value)
            return
        text = self._text(record, partition)
        self._output.text(self._marked(text) if self._marked and hit is not None else text)


def _marker(query: str) -> Callable[[str], str] | None:
    """Paints the query's words. A hint for the eye: the search itself knows fields and phrases."""
    bare = re.sub(r"[\w.]+:", " ", query)
    words = {word.lower() for word in _WORD.findall(bare) if word not in _NOT_WORDS}
    if not words:
        return None
    longest_first = sorted(map(re.escape, words), key=len, reverse=True)
    pattern = re.compile(rf"(?<![^\W_])(?:{'|'.join(longest_first)})(?![^\W_])", re.IGNORECASE)
    return lambda text: pattern.sub(lambda match: f"\x1b[{HIGHLIGHT}m{match[0]}\x1b[0m", text)


def _remarks(results: list[SearchResult], total: int, partitions: int) -> bool:
    """What the reader of the hits must know, on stderr. True: everything was searched."""
    unknown = sorted(set.intersection(*(set(result.unknown_paths) for result in results)))
    if unknown:
        say(f"chronik: note: no record searched has {', '.join(unknown)}")
    missed = [part for result in results for part in result.coverage if not part.complete]
    for coverage in missed:
        late = any(_DEADLINE.search(reason) for reason in coverage.reasons)
        hint = "; --deadline gives it more time" if late else ""
        say(f"chronik: warning: not searched: {_missing(coverage, partitions)}{hint}")
    if not total:
        seconds = max((result.elapsed_seconds for result in results), default=0.0)
        where = " in what was searched" if missed else ""
        say(f"chronik: nothing matched{where} ({duration_text(seconds)})")
    return not missed


def _missing(coverage: Coverage, partitions: int) -> str:
    ranges = ", ".join(
        f"offsets {start} to {end - 1}" if end < OFFSET_MAX else f"everything from offset {start}"
        for start, end in merged(coverage.missing)
    )
    where = f"partition {coverage.partition}: " if partitions > 1 else ""
    reasons = [*dict.fromkeys(coverage.reasons)]  # of an outage one for each segment
    more = len(reasons) - REASONS_MAX
    shown = "; ".join(reasons[:REASONS_MAX]) + (f"; and {more} more" if more > 0 else "")
    return f"{where}{ranges}" + (f" ({shown})" if shown else "")
