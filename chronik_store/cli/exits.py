"""How the program ends: exit codes, and errors as one line that says what to do.

Place: between `main`, which calls it, and the error tree of the library. Promise: every typed
error becomes one line on stderr and one of the documented codes; an untyped one is a defect and
keeps its traceback.
"""

from __future__ import annotations

from typing import Any

from chronik_store.cli.terminal import json_text
from chronik_store.errors import (
    BackpressureError,
    ChronikError,
    ConfigError,
    CorruptionError,
    DirectoryLockedError,
    DiskFullError,
    LogPoisonedError,
    OffsetConflictError,
    OffsetOutOfRangeError,
    QueryError,
    RecordTooLargeError,
    TopicExistsError,
    TopicNotFoundError,
)

DONE = 0
NOTHING = 1
"""Nothing matched, or a check has findings."""
USAGE = 2
UNAVAILABLE = 3
CORRUPTION = 4
INTERRUPTED = 130

_ASKED_WRONGLY = (
    ConfigError,
    OffsetConflictError,
    OffsetOutOfRangeError,
    QueryError,
    RecordTooLargeError,
    TopicExistsError,
    TopicNotFoundError,
)
# What to do at a shell prompt, of errors whose own text does not say it. A class is here or its
# messages say what to do (CorruptionError, IdentityMismatchError), never both.
ADVICE: list[tuple[type[ChronikError], str]] = [
    (TopicNotFoundError, "`chronik topic list` shows what is there"),
    (DirectoryLockedError, "reading works beside the writer; to write, stop it first"),
    (DiskFullError, "free space and run it again"),
    (BackpressureError, "run it again after a moment"),
    (LogPoisonedError, "look at the disk, then run it again"),
]
"""The server adds what concerns its own errors."""
_AT_A_PROMPT = (
    ("pass reset=True to move it back to", "--reset moves it back to"),
    (": close that one, or open this one with read_only=True", ""),
    ("; pass exist_ok=True to use it", "; --exist-ok takes it as it is"),
    (", or open it with accept_suspect=True to go on from the good part", ""),
    (": open it with read_only=False to change it", ""),
    ("; open it with read_only=False to append", ""),
    ("; create it first", ""),
    (" and pass config=LogConfig.from_env()", ""),
    (
        "give a path here, and a bucket's URL as object_store, or to open_bucket, which reads it "
        "alone",
        "give a path, and a bucket's URL (it has two slashes) with --object-store",
    ),
    (
        "ask again, give more time, or take an incomplete answer",
        "give it more time with --deadline, or leave out --complete",
    ),
)
"""What the library says in Python, and what that is here; ADVICE says the rest."""


class Interrupted(Exception):  # noqa: N818 (an event, not an error)
    """Ctrl-C, after the verb has put everything in order; `report` is its last line."""

    def __init__(self, report: str = "interrupted") -> None:
        super().__init__(report)
        self.report = report


def code_of(error: ChronikError) -> int:
    """The exit code of a typed error."""
    if isinstance(error, CorruptionError):
        return CORRUPTION
    return USAGE if isinstance(error, _ASKED_WRONGLY) else UNAVAILABLE


def line_of(error: ChronikError) -> str:
    """One line: what happened, what is known of an append, and what to do."""
    said = " ".join(str(error).split())
    for in_python, here in _AT_A_PROMPT:
        said = said.replace(in_python, here)
    parts = [said]
    if error.durability == "unknown":
        parts.append(
            "whether it was done is not known: look before doing it again (of records: read the "
            "end before writing them again)"
        )
    parts += [advice for kind, advice in ADVICE if isinstance(error, kind)][:1]
    return "; ".join(parts)


def said(error: ChronikError, in_json: bool) -> str:
    """What stderr has of it."""
    if in_json:
        return json_text(as_json(error))
    return f"chronik: error: {line_of(error)}"


def as_json(error: ChronikError) -> dict[str, Any]:
    """The same for --json."""
    return {
        "error": type(error).__name__,
        "message": str(error),
        "retriable": error.retriable,
        "durability": error.durability,
    }


def usage_as_json(message: str) -> str:
    """A command line that is wrong, as errors are told with --json."""
    told = {"error": "UsageError", "message": message, "retriable": False, "durability": None}
    return json_text(told)
