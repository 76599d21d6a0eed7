"""Records, times and sizes as text and as JSON.

Place: under the verbs, beside `terminal`. Promise: the JSON of a record loses nothing: `key` or
`key_base64`, `value` or `value_base64`, headers in order, the time as text and as microseconds;
`record_of` reads it back. Times are UTC.
"""

from __future__ import annotations

import base64
import datetime as dt
import re
from collections.abc import Callable, Mapping
from typing import Any

from chronik_store.cli.terminal import text_of
from chronik_store.errors import ConfigError
from chronik_store.model import EPOCH, Record, StoredRecord, to_us


def time_text(timestamp_us: int) -> str:
    """ISO 8601 in UTC with microseconds; the bare number outside the years 1 to 9999."""
    try:
        time = EPOCH + dt.timedelta(microseconds=timestamp_us)
    except OverflowError:
        return f"{timestamp_us}us"
    return time.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def time_us_of(text: str) -> int:
    """The microseconds of an ISO 8601 time, such as `time_text` writes. ConfigError: it is none, or
    does not say its zone.
    """
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r:.60} is not a time: write it as 2026-01-31T12:00:00Z") from None
    if time.tzinfo is None:
        raise ConfigError(f"the time {text!r} does not say which zone; add Z or +01:00")
    return to_us(time)


def count_text(count: int, what: str) -> str:
    """A number of things: 1 record, 2 records."""
    return f"{count} {what}" + ("" if count == 1 else "s")


def size_text(size_bytes: float) -> str:
    """A size for people: 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def duration_text(seconds: float) -> str:
    """A short time for people: 850 us, 12.3 ms, 4.20 s."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds:.2f} s"


# --- JSON ----------------------------------------------------------------------------------------


def _put_bytes(target: dict[str, Any], name: str, data: bytes) -> None:
    try:
        target[name] = data.decode()
    except UnicodeDecodeError:
        target[f"{name}_base64"] = base64.b64encode(data).decode()


def json_of(record: StoredRecord, topic: str, partition: int) -> dict[str, Any]:
    """A stored record for --json and for exports to JSON lines."""
    result: dict[str, Any] = {
        "topic": topic,
        "partition": partition,
        "offset": record.offset,
        "time": time_text(record.timestamp_us),
        "timestamp_us": record.timestamp_us,
    }
    if record.key is not None:
        _put_bytes(result, "key", record.key)
    _put_bytes(result, "value", record.value)
    if record.headers:
        result["headers"] = headers = []
        for name, value in record.headers:
            header: dict[str, Any] = {"name": name}
            _put_bytes(header, "value", value)
            headers.append(header)
    return result


def utf8_of(text: str, what: str) -> bytes:
    """The bytes of a text that JSON brought. ConfigError: it is none, with what it is called."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{what} has half of a surrogate pair, which is no text") from None


def _take_bytes(source: Mapping[str, Any], name: str) -> bytes | None:
    """None: it is not there, or null. Anything else that is no text is refused, not left out."""
    packed_name = f"{name}_base64"
    text, packed = source.get(name), source.get(packed_name)
    for field, given in ((name, text), (packed_name, packed)):
        if given is not None and not isinstance(given, str):
            raise ConfigError(f"{field} is not a text: {given!r:.40}")
    if text is not None and packed is not None:
        raise ConfigError(f"{name} and {packed_name} exclude each other")
    if packed is None:
        return None if text is None else utf8_of(text, name)
    try:
        return base64.b64decode(packed, validate=True)
    except ValueError:  # binascii.Error, and letters beyond ASCII
        raise ConfigError(f"{packed_name} is not base64: {packed[:40]!r}") from None


def _take_time(source: Mapping[str, Any]) -> int | None:
    """`timestamp_us`, which is exact; else `time`."""
    timestamp_us, time = source.get("timestamp_us"), source.get("time")
    if timestamp_us is None:
        if time is not None and not isinstance(time, str):
            raise ConfigError(f"time is not a text such as 2026-01-31T12:00:00Z: {time!r:.40}")
        return None if time is None else time_us_of(time)
    if type(timestamp_us) is not int:
        raise ConfigError("timestamp_us is not a whole number")
    if not -(2**63) <= timestamp_us < 2**63:
        raise ConfigError("timestamp_us is beyond 64 bits")
    return timestamp_us


def _take_headers(source: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    headers, pairs = [], source.get("headers", [])
    if not isinstance(pairs, list):
        raise ConfigError('headers are a list of {"name": ..., "value": ...}')
    for header in pairs:
        name = header.get("name") if isinstance(header, dict) else None
        content = _take_bytes(header, "value") if isinstance(header, dict) else None
        if not isinstance(name, str) or content is None:
            raise ConfigError('a header is {"name": ..., "value": ...}')
        utf8_of(name, "the name of a header")
        headers.append((name, content))
    return headers


def record_of(value: Any) -> Record:
    """What `json_of` wrote, as a record to append; offset, topic and partition are not taken over.

    ConfigError says what is missing, or is no key, value, time or header.
    """
    if not isinstance(value, dict):
        raise ConfigError("not a JSON object")
    data = _take_bytes(value, "value")
    if data is None:
        raise ConfigError('no "value" or "value_base64"; for plain JSON use --jsonl')
    return Record(data, _take_bytes(value, "key"), _take_time(value), _take_headers(value))


# --- text ----------------------------------------------------------------------------------------

_FORMAT = re.compile(r"%(.)|\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "0": "\0", "\\": "\\"}
Part = Callable[[StoredRecord, int], str]
FORMAT_HELP = (
    "%o offset, %p partition, %t time, %T microseconds, %k key, %v value, %h headers, %s size "
    "of the value in bytes, %% percent, \\n newline, \\t tab"
)


def format_of(pattern: str, *, for_terminal: bool) -> Part:
    """A --format pattern as a function of (record, partition); ConfigError names a bad letter."""

    def text(data: bytes | None) -> str:
        return "" if data is None else text_of(data, for_terminal=for_terminal)

    def headers(record: StoredRecord) -> str:
        return ",".join(f"{text(name.encode())}={text(value)}" for name, value in record.headers)

    letters: dict[str, Part] = {
        "o": lambda record, _: str(record.offset),
        "p": lambda _, partition: str(partition),
        "t": lambda record, _: time_text(record.timestamp_us),
        "T": lambda record, _: str(record.timestamp_us),
        "k": lambda record, _: text(record.key),
        "v": lambda record, _: text(record.value),
        "h": lambda record, _: headers(record),
        "s": lambda record, _: str(len(record.value)),
        "%": lambda *_: "%",
    }
    parts: list[Part] = []
    position = 0
    for match in _FORMAT.finditer(pattern):
        _literal(parts, pattern[position : match.start()])
        position = match.end()
        if match[1] is None:
            _literal(parts, _ESCAPES.get(match[2], match[0]))
        elif match[1] in letters:
            parts.append(letters[match[1]])
        else:
            raise ConfigError(f"--format: %{match[1]} is unknown; use {FORMAT_HELP}")
    _literal(parts, pattern[position:])
    return lambda record, partition: "".join([part(record, partition) for part in parts])


def _literal(parts: list[Part], text: str) -> None:
    if text:
        parts.append(lambda *_: text)
