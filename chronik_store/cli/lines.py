"""A line of input as a record: plain, `key:value`, a JSON object, or an exported record.

Place: under `produce`. Promise: a line that cannot be read so is a ConfigError that names file and
line; nothing is guessed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from chronik_store.cli.rendering import record_of, time_us_of, utf8_of
from chronik_store.errors import ConfigError
from chronik_store.model import Record


class Line(NamedTuple):
    """One line without its newline, and where it stands: "stdin", or a file's name; its number,
    from 1.
    """

    data: bytes
    file: str
    number: int


Parser = Callable[[Line], Record | bytes]


_SECONDS_MAX = 100_000_000_000
"""Some 3,000 years: what is beyond was meant in another unit."""


def parser_of(
    *,
    key_separator: str | None,
    jsonl: bool,
    records: bool,
    key_field: str | None,
    time_field: str | None,
) -> Parser:
    """The function that the options of `produce` ask for."""
    if records:
        return _located(lambda line: record_of(_json(line.data, "")))
    if jsonl:
        return _located(lambda line: _json_record(line.data, key_field, time_field))
    if key_separator:
        separator = os.fsencode(key_separator)  # as it was typed: it may be no UTF-8
        return lambda line: _keyed(line.data, separator)
    return lambda line: line.data


def _located(parse: Parser) -> Parser:
    def located(line: Line) -> Record | bytes:
        try:
            return parse(line)
        except (ValueError, RecursionError) as error:  # a ConfigError is one
            raise ConfigError(f"{line.file}:{line.number}: {error}") from None

    return located


def _json(data: bytes, advice: str) -> Any:
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error}") from None
    except UnicodeDecodeError as error:
        encoding = error.encoding.upper()
        raise ConfigError(f"not JSON: byte {error.start + 1} is not {encoding}") from None
    except (ValueError, RecursionError):  # bounds of Python's, not of JSON
        raise ConfigError(
            f"JSON with a number of too many digits, or too deep, to be read here{advice}"
        ) from None


def _keyed(data: bytes, separator: bytes) -> Record | bytes:
    key, found, value = data.partition(separator)
    return Record(value, key) if found else data


def _json_record(data: bytes, key_field: str | None, time_field: str | None) -> Record | bytes:
    value = _json(data, "; without --jsonl the line is stored as it is")
    if not isinstance(value, dict):
        raise ConfigError("not a JSON object")
    key = None if key_field is None else value.get(key_field)
    time = None if time_field is None else value.get(time_field)
    return Record(data, _key_bytes(key, key_field), None if time is None else _time_us(time))


def _key_bytes(key: Any, field: str | None) -> bytes | None:
    if key is None:
        return None
    if not isinstance(key, str):
        return json.dumps(key).encode()
    try:
        return utf8_of(key, f"the field {field}")
    except ConfigError as error:
        raise ConfigError(f"{error}; without --key-field the line is stored as it is") from None


def _time_us(time: Any) -> int:
    if isinstance(time, int | float) and not isinstance(time, bool):
        if not abs(time) < _SECONDS_MAX:
            raise ConfigError(f"{time!r} is no year of ours in seconds since 1970; milliseconds?")
        return round(time * 1_000_000)
    if isinstance(time, str):
        return time_us_of(time)
    raise ConfigError(f"{time!r} is not a time: use ISO 8601, or seconds since 1970")
