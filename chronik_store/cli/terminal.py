"""The two streams: data to stdout, everything said about it to stderr.

Place: under every verb. Promise: stdout is written in large pieces, is flushed before anything is
remembered as delivered, and carries bytes that are not UTF-8 only escaped; a terminal never
receives a control character of a record, a name, or what a server, a bucket or a file says: `line`,
`table`, `styled`, `json` and `say` escape what they are given. A write that was broken off is never
taken for one that left (`Output.is_cut`). Colour and progress appear on a terminal only, never with
NO_COLOR set. rich is imported when the first bar or table is drawn.
"""

from __future__ import annotations

import errno
import json
import os
import re
import select
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from chronik_store.errors import DiskFullError, UnavailableError

PENDING_BYTES = 1 << 16
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def text_of(data: bytes, *, for_terminal: bool) -> str:
    r"""Bytes as text: what is not UTF-8 as \xNN; for a terminal control characters as well."""
    text = data.decode("utf-8", "backslashreplace")
    return printable(text) if for_terminal else text


def printable(text: str) -> str:
    r"""Text as a terminal may have it: control characters as \xNN or \uNNNN."""
    return _CONTROL.sub(_escape, text)


def json_line(value: Any) -> str:
    """One JSON value on one line, not escaped beyond need."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _escape_in_json(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def is_terminal(stream: IO[Any]) -> bool:
    """Somebody is looking at this stream."""
    return stream.isatty()


def colour_wanted(stream: IO[Any]) -> bool:
    """A terminal, and nobody has said no (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and _TERM_SHOWS_COLOUR()


def _TERM_SHOWS_COLOUR() -> bool:  # noqa: N802 (a constant of the process, read late)
    return os.environ.get("TERM") != "dumb"


def json_text(value: Any) -> str:
    """JSON for a terminal: control characters are escaped, which is the same value."""
    return _CONTROL.sub(_escape_in_json, json.dumps(value, ensure_ascii=False))


def say(message: str) -> None:
    """A line on stderr, which a person reads sooner or later: without control characters."""
    sys.stderr.write(printable(message) + "\n")
    sys.stderr.flush()


def abandon_stdout() -> None:
    """Nothing more can be written there: lest the interpreter's own flush at exit complains."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Output:
    """stdout, in large pieces. `flush` returns when the bytes have left this process."""

    def __init__(self, *, as_json: bool) -> None:
        if sys.stdout is None:
            raise UnavailableError("the output cannot be written: standard output is closed")
        self.as_json = as_json
        self.terminal = is_terminal(sys.stdout)
        self.colour = colour_wanted(sys.stdout)
        self._raw = sys.stdout.buffer
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self.is_cut = False
        """A write was broken off (Ctrl-C, an error): nobody knows how much of it left."""

    def text(self, text: str) -> None:
        """Text as it is, without a newline of its own."""
        # Lone surrogates cannot arise: `text_of` is the only way from bytes to text.
        data = text.encode("utf-8", "backslashreplace")
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= PENDING_BYTES:
            self.flush()

    def line(self, text: str = "") -> None:
        """One line; for a terminal without control characters."""
        self.drawn(self.shown(text))

    def drawn(self, text: str) -> None:
        """One line of what is `shown` or `styled`."""
        self.text(text + "\n")

    def shown(self, text: str) -> str:
        """Text as this output may have it."""
        return printable(text) if self.terminal else text

    def json(self, value: Any) -> None:
        """One JSON object, on one line; for a terminal without control characters in its texts,
        which escaped are the same value.
        """
        line = json_line(value)
        self.text(_CONTROL.sub(_escape_in_json, line) if self.terminal else line)

    def flush(self) -> None:
        """Hand everything to the reader; BrokenPipeError when it has gone away.

        DiskFullError, UnavailableError when it is a file that cannot be written. Once `is_cut`
        it writes nothing more: a rest behind a hole would read like a whole.
        """
        if self.is_cut:
            return
        try:
            data = b"".join(self._pending)
            self._pending.clear()
            self._pending_bytes = 0
            if data:
                self._raw.write(data)
            self._raw.flush()
        except BrokenPipeError:
            self.is_cut = True
            raise
        except OSError as error:
            self.is_cut = True
            abandon_stdout()
            full = DiskFullError if error.errno == errno.ENOSPC else UnavailableError
            raise full(f"the output cannot be written: {error.strerror}") from error
        except BaseException:
            # Ctrl-C while the reader is slow. How many bytes the pipe took is lost with the
            # interrupted call, and waiting for a reader that waits for us to end has no end.
            self.is_cut = True
            abandon_stdout()
            raise

    def check_reader(self) -> None:
        """BrokenPipeError when whoever reads has gone away: for a verb that has nothing to write
        until something comes, and would not be told before.
        """
        poll = select.poll()
        poll.register(self._raw, 0)  # errors and hang-ups are told unasked
        if poll.poll(0):
            raise BrokenPipeError

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Columns, aligned; right-aligned where every cell is a number."""
        body = [list(map(self.shown, row)) for row in rows]
        widths = [len(head) for head in heads]
        numeric = [bool(body)] * len(heads)
        for row in body:
            for column, cell in enumerate(row):
                widths[column] = max(widths[column], len(cell))
                numeric[column] &= bool(cell) and cell[0].isdigit()
        for row in [list(heads), *body]:
            cells = [
                cell.rjust(width) if is_number else cell.ljust(width)
                for cell, width, is_number in zip(row, widths, numeric, strict=True)
            ]
            self.drawn("  ".join(cells).rstrip())

    def styled(self, text: str, code: str) -> str:
        """`text` as it may be shown, in an SGR style where colour is wanted."""
        text = self.shown(text)
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text


class Progress:
    """How far a long piece of work has come; draws nothing without a terminal."""

    def __init__(self, bar: Any = None, task: Any = None) -> None:
        self._bar = bar
        self._task = task

    def advance(self, amount: int) -> None:
        """`amount` more units are done."""
        if self._bar is not None:
            self._bar.advance(self._task, amount)

    def at(self, done: int, total: int) -> None:
        """So many units are done by now, of so many."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)


@contextmanager
def progress(label: str, total: int | None, *, unit: str = "bytes") -> Iterator[Progress]:
    """A bar on stderr while the block runs. unit: "bytes", or the name of what is counted."""
    if not is_terminal(sys.stderr):
        yield Progress()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    if unit == "bytes":
        amounts: tuple[Any, ...] = (DownloadColumn(binary_units=True), TransferSpeedColumn())
    else:
        amounts = (MofNCompleteColumn(), TextColumn(unit))
    columns = (TextColumn("{task.description}"), BarColumn(), *amounts, TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        yield Progress(bar, bar.add_task(label, total=total))
