"""Records that can be searched, and the searches that a plain scan answers, too.

Place: under `watched_world`. Promise: what belongs to a value (key, headers, times) follows from
the value alone, so a ledger of values is one of records; each `Question` is a query and, sharing
nothing with the product, what it means. Invariant: all is drawn from the generator handed in.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chronik_store.format.record_batch import RecordBatch
from chronik_store.model import StoredRecord
from chronik_store.testing.simulated_threads import EPOCH_US
from chronik_store.testing.worlds.clients import Clients
from chronik_store.testing.worlds.ledger import Ledger

WORDS = ("disk", "full", "error", "warn", "retry", "slow", "ada", "upload")
LEVELS = ("error", "warn", "info")
HOUR_US = 3_600_000_000


class WordyLedger(Ledger):
    """Its values are lines of a log, some of them JSON; no two are equal."""

    def offer(self, count: int = 1, *, size_max: int = 300) -> list[bytes]:
        rng = self._rng
        batch = []
        for _ in range(count):
            self._made += 1
            text = " ".join(rng.choices(WORDS, k=rng.randint(1, 5)))
            padding = "v" * rng.randrange(size_max // 2)
            if rng.random() < 0.5:
                line = {"n": self._made, "level": rng.choice(LEVELS), "text": text}
                if rng.random() < 0.5:
                    line["user"] = {"name": rng.choice(WORDS)}
                batch.append(json.dumps({**line, "padding": padding}).encode())
            else:
                batch.append(f"n{self._made:06} {text}: {padding}".encode())
        self._offered.update(batch)
        self.batches.append(batch)
        return batch


class WordyClients(Clients):
    """They append these values as whole records."""

    def encoded(
        self, values: list[bytes], *, producer_id: int = 0, base_sequence: int = 0
    ) -> RecordBatch:
        return RecordBatch.build(
            values,
            keys=[key_of(value) for value in values],
            headers=[headers_of(value) for value in values],
            timestamps_us=times_of(values),
            producer_id=producer_id,
            base_sequence=base_sequence,
        )


def key_of(value: bytes) -> bytes | None:
    """The key of the record of this value."""
    drawn = zlib.crc32(value) % 5
    return b"host-%d" % drawn if drawn else None


def headers_of(value: bytes) -> tuple[tuple[str, bytes], ...]:
    """Its headers."""
    drawn = zlib.crc32(value) >> 8
    if drawn % 2:
        return ()
    return (("trace", b"4bf9-%02x" % (drawn % 7)), ("kind", WORDS[drawn % len(WORDS)].encode()))


def times_of(values: list[bytes]) -> list[int] | None:
    """The times of a batch, if whoever appends it names any: hours away from any clock, some."""
    drawn = zlib.crc32(values[0]) >> 4
    if drawn % 4:
        return None
    return [EPOCH_US + zlib.crc32(value) % 7 * HOUR_US - 3 * HOUR_US for value in values]


def check_whole(record: StoredRecord) -> None:
    """What a reader was shown beside the value is what was appended with it."""
    found, meant = (record.key, record.headers), (key_of(record.value), headers_of(record.value))
    assert found == meant, f"offset {record.offset} has {found}, appended was {meant}"


@dataclass(frozen=True)
class Question:
    """A search: its query, its bounds, and which records it means."""

    query: str
    matches: Callable[[StoredRecord], bool]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def limit(self) -> int:
        found: int = self.options["limit"]
        return found

    @property
    def is_oldest_first(self) -> bool:
        return bool(self.options["order"] == "oldest")

    def is_met_by(self, record: StoredRecord) -> bool:
        """It matches and is within the bounds."""
        bounds = self.options
        return (
            self.matches(record)
            and bounds.get("start", 0) <= record.offset
            and record.offset < bounds.get("stop", record.offset + 1)
            and bounds.get("since", record.timestamp_us) <= record.timestamp_us
            and record.timestamp_us < bounds.get("until", record.timestamp_us + 1)
        )


def draw_question(rng: random.Random, start: int, end: int) -> Question:
    """One of many, about a log that holds [start, end)."""
    query, matches = rng.choice(_KINDS)(rng)
    options: dict[str, Any] = {
        "limit": rng.choice((1, 3, 10_000, 10_000)),
        "order": rng.choice(("newest", "oldest")),
    }
    if rng.random() < 0.3:
        options["start"] = rng.randint(start, end)
    if rng.random() < 0.3:
        options["stop"] = rng.randint(start, end)
    if rng.random() < 0.2:
        options["since"] = EPOCH_US + rng.randint(-2, 2) * HOUR_US
    if rng.random() < 0.2:
        options["until"] = EPOCH_US + rng.randint(-2, 2) * HOUR_US
    if rng.random() < 0.3:
        options["deadline_seconds"] = rng.choice((0.0, 0.05, 60.0))
    if rng.random() < 0.1:
        options["require_complete"] = True
    return Question(query, matches, options)


Meaning = tuple[str, Callable[[StoredRecord], bool]]


def _words(data: bytes) -> list[str]:
    return [word.lower() for word in re.findall(r"[^\W_]+", data.decode())]


def _has(texts: list[list[str]], *phrase: str) -> bool:
    count = len(phrase)
    return any(tuple(text[at : at + count]) == phrase for text in texts for at in range(len(text)))


def _json(record: StoredRecord, *path: str) -> Any:
    try:
        found = json.loads(record.value)
    except ValueError:
        return None
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _word(rng: random.Random) -> Meaning:
    word = rng.choice((*WORDS, "nowhere"))
    return word, lambda record: _has([_words(record.value)], word)


def _phrase(rng: random.Random) -> Meaning:
    one, other = rng.choices(WORDS, k=2)
    return f'"{one} {other}"', lambda record: _has([_words(record.value)], one, other)


def _both(rng: random.Random) -> Meaning:
    (one, is_one), (other, is_other) = _word(rng), _word(rng)
    return f"{one} AND {other}", lambda record: is_one(record) and is_other(record)


def _without(rng: random.Random) -> Meaning:
    (one, is_one), (other, is_other) = _word(rng), _word(rng)
    return f"{one} -{other}", lambda record: is_one(record) and not is_other(record)


def _either(rng: random.Random) -> Meaning:
    (one, is_one), (other, is_other) = _field(rng), _word(rng)
    return f"{one} OR {other}", lambda record: is_one(record) or is_other(record)


def _field(rng: random.Random) -> Meaning:
    return rng.choice((_key, _trace, _kind, _level, _name, _number))(rng)


def _key(rng: random.Random) -> Meaning:
    host = str(rng.randint(1, 5))
    return (
        f"key:host-{host}",
        lambda record: record.key is not None and _has([_words(record.key)], "host", host),
    )


def _header(record: StoredRecord, name: str) -> list[list[str]]:
    return [_words(value) for found, value in record.headers if found == name]


def _trace(rng: random.Random) -> Meaning:
    number = f"{rng.randrange(8):02x}"
    return f"header.trace:4bf9-{number}", lambda record: _has(
        _header(record, "trace"), "4bf9", number
    )


def _kind(rng: random.Random) -> Meaning:
    word = rng.choice(WORDS)
    return f"header.kind:{word}", lambda record: _has(_header(record, "kind"), word)


def _level(rng: random.Random) -> Meaning:
    level = rng.choice(LEVELS)
    return f"json.level:{level}", lambda record: _json(record, "level") == level


def _name(rng: random.Random) -> Meaning:
    name = rng.choice(WORDS)
    return f"json.user.name:{name}", lambda record: _json(record, "user", "name") == name


def _number(rng: random.Random) -> Meaning:
    number = rng.randint(1, 300)
    return f"json.n:{number}", lambda record: _json(record, "n") == number


def _pattern(rng: random.Random) -> Meaning:
    word = rng.choice(WORDS)
    return f"value:/{word[:2]}.*/", lambda record: any(
        found.startswith(word[:2]) for found in _words(record.value)
    )


_KINDS = (_word, _phrase, _both, _without, _either, _field, _field, _pattern)
