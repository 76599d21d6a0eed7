"""What callers may pass where the API asks for a number or a name.

Place: a low room, above `errors`; the public faces ask it before they do anything. Promise: a value
of another type is a TypeError, one out of range a ValueError or the typed error of the API, in
words that name the argument. Invariant: nothing was done yet when it is refused.
"""

from __future__ import annotations

from chronik_store.errors import ConfigError, OffsetOutOfRangeError


def check_offset(value: object, name: str) -> None:
    """TypeError unless it is an int; OffsetOutOfRangeError when it is negative."""
    if type(value) is not int:
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 0:
        raise OffsetOutOfRangeError(
            f"{name} {value} is negative; offsets begin at 0",
            offset=value,
            first_offset=0,
            end_offset=0,
        )


def check_count(value: object, name: str) -> None:
    """TypeError unless it is an int; ValueError below 1."""
    if type(value) is not int:
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 1")


def check_seconds(value: object, name: str) -> None:
    """TypeError unless it is a number; ValueError when it is none that can be waited for."""
    if type(value) not in (int, float):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not value >= 0:  # type: ignore[operator] # nan, too
        raise ValueError(f"{name} is {value}; it must not be negative")
    try:
        float(value)  # type: ignore[arg-type]
    except OverflowError:
        raise ValueError(f"{name} is too large for a time; float('inf') is for ever") from None


def check_partition(value: object) -> None:
    """ConfigError unless it can be the number of a partition."""
    if type(value) is not int or value < 0:
        raise ConfigError(f"partition is {value!r}; partitions are numbered from 0")


def check_name(value: object, what: str) -> None:
    """TypeError unless it is a str.

    No subclass: a member of an enum equals one name, and may be written as another.
    """
    if type(value) is not str:
        raise TypeError(f"{what} is a str, not {type(value).__name__}")
