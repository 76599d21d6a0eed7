"""Times and places in a log as people type them: 15m, an ISO time, `latest`, -10.

Place: under the verbs that take --since, --until and --from. Promise: a text that could mean two
times (no zone) is refused, with the two ways to write it.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable
from typing import Any

from chronik_store.errors import ConfigError, OffsetOutOfRangeError
from chronik_store.model import to_us
from chronik_store.partition_log import PartitionLog
from chronik_store.record_times import first_record_at

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d|w)")
_UNITS_US = {
    "us": 1,
    "ms": 1000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}


def moment_us(text: str, now_us: int) -> int:
    """`15m` (that long ago) or an ISO 8601 time with its zone, as microseconds since 1970 UTC."""
    ago = _AGO.fullmatch(text.strip())
    if ago is not None:
        back_us = float(ago[1]) * _UNITS_US[ago[2]]
        if not math.isfinite(back_us):
            raise ConfigError(f"{text.strip():.20}... is too long ago for any clock")
        return now_us - int(back_us)
    try:
        time = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(
            f"{text!r} is not a time: write 15m, 2h, 3d, or an ISO time such as "
            "2026-01-31T12:00:00Z"
        ) from None
    if time.tzinfo is None:
        raise ConfigError(
            f"{text!r} does not say which zone: write {text.strip()}Z{_or_here(time)}"
        )
    return to_us(time)


def is_age(text: str) -> bool:
    """It is `15m` or the like: another time each time it is read."""
    return _AGO.fullmatch(text.strip()) is not None


def _or_here(time: dt.datetime) -> str:
    """The same time in this machine's zone, where the first and the last year leave room for it."""
    try:
        return f", or {time.astimezone().isoformat()}"
    except (ValueError, OverflowError):
        return ""


def offset_of(log: Any, time_us: int) -> int | None:
    """The first record, as they stand in the log, whose time is this or later; None: there is none.

    The log finds the batch, of which one may hold thousands of records of as many times.
    """
    if isinstance(log, PartitionLog):
        return first_record_at(log, time_us)
    at = log.offset_for_timestamp(time_us)  # of a server, which gives records and no batches
    if at is None:
        return None
    return next((each.offset for each in log.scan(at) if each.timestamp_us >= time_us), None)


def first_offset(log: PartitionLog, place: str | None, since_us: int | None) -> int:
    """Where to begin reading one partition; the later of `place` and `since_us` wins.

    place: earliest, latest, an offset, or -N for the last N records; None is earliest.
    """
    line = log.watermarks
    found = _offset_of("earliest" if place is None else place, line.start, line.committed)
    if not line.start <= found <= line.committed:
        raise OffsetOutOfRangeError(
            f"{log.topic}/{log.partition}: offset {found} is outside [{line.start}, "
            f"{line.committed}]; -p N asks one partition alone",
            offset=found,
            first_offset=line.start,
            end_offset=line.committed,
        )
    if since_us is None:
        return found
    at = offset_of(log, since_us)  # may be behind `line`: of a record that came since
    return max(found, line.committed if at is None else at)


def _offset_of(place: str, start: int, end: int) -> int:
    named: dict[str, Callable[[], int]] = {"earliest": lambda: start, "latest": lambda: end}
    if place in named:
        return named[place]()
    try:
        number = int(place)
    except ValueError:
        raise ConfigError(
            f"{place!r} is no place in a log: write earliest, latest, an offset, or -10 for the "
            "last 10 records"
        ) from None
    return max(start, end + number) if place.startswith("-") else number
