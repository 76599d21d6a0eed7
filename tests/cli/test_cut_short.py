"""Verbs that are ended amid their work say and remember only what is so."""

from __future__ import annotations

import array
import fcntl
import os
import signal
import sys
import termios
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from chronik_store.cli import exits, produce, terminal
from chronik_store.errors import DiskFullError, LogPoisonedError
from chronik_store.model import AppendResult
from chronik_store.partition_log import PartitionLog

RECORDS = 3_000


@pytest.fixture
def numbered(tmp_path):
    with PartitionLog.open(tmp_path / "data", topic="events") as log:
        log.append([b"%06d %s" % (number, b"x" * 60) for number in range(RECORDS)])


def waiting_bytes(descriptor):
    found = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, found)
    return found[0]


@pytest.mark.skipif(sys.platform != "linux", reason="asks a pipe how full it is")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_reader_is_slow_loses_no_record(numbered, started, tmp_path, number):
    consumer = started("consume", "events", "--cursor", "c")
    pipe = consumer.stdout.fileno()
    room = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
    while waiting_bytes(pipe) < room:  # full: the next write, or the rest of this one, stands
        assert consumer.poll() is None
        time.sleep(0.01)
    consumer.send_signal(number)
    assert 130 == consumer.wait(timeout=30)  # although nobody reads
    out, err = consumer.communicate(timeout=30)

    whole = out.decode().split("\n")[:-1]
    with PartitionLog.open(tmp_path / "data", topic="events") as log:
        assert log.cursor("c").offset <= len(whole) < RECORDS
    assert "interrupted amid output" in err.decode()


def test_a_signal_between_two_writes_commits_all_that_was_printed(
    numbered, chronik, tmp_path, monkeypatch
):
    show = terminal.Output.text

    def interrupted(self, text):
        show(self, text)
        if text.startswith("000100"):
            raise KeyboardInterrupt

    monkeypatch.setattr(terminal.Output, "text", interrupted)
    ran = chronik("consume", "events", "--cursor", "c")

    assert 130 == ran.code
    assert 101 == len(ran.lines)
    assert "interrupted; 100 records printed" in ran.err
    with PartitionLog.open(tmp_path / "data", topic="events") as log:
        assert 100 == log.cursor("c").offset


def test_output_that_was_cut_is_never_continued(monkeypatch):
    class Pipe:
        taken = b""

        def write(self, data):
            self.taken += data[:3]
            raise KeyboardInterrupt

        def flush(self):
            pass

    abandoned = []
    monkeypatch.setattr(terminal, "abandon_stdout", lambda: abandoned.append(True))
    output = terminal.Output(as_json=False)
    output._raw = Pipe()
    output.line("first")
    with pytest.raises(KeyboardInterrupt):
        output.flush()
    output.line("second")
    output.flush()

    assert output.is_cut
    assert (b"fir", [True]) == (output._raw.taken, abandoned)


class Log:
    """Takes records; `outcomes` are those of its appends, in order, the last one for ever.

    slow: none of them is known before somebody waits for it.
    """

    def __init__(self, *outcomes, slow=False):
        self.outcomes = outcomes
        self.slow = slow
        self.end = self.appends = 0

    def append_nowait(self, records):
        outcome = self.outcomes[min(self.appends, len(self.outcomes) - 1)]
        self.appends += 1
        future = Future()
        if self.slow:
            future.done = lambda: False
        if outcome is None:
            base, self.end = self.end, self.end + len(records)
            future.set_result(AppendResult(base, self.end))
        else:
            future.set_exception(outcome)
        return future


def produced(log, parse=bytes):
    tally = produce.Tally()
    Path("in").write_text("x\n" * 20_000)
    lines = [os.fspath(Path("in"))]
    produce._append_all(log, lines, lambda line: parse(line.data), 1 << 20, tally, Bar())
    return tally


class Bar:
    def advance(self, amount):
        pass


def test_a_producer_whose_disk_fails_says_how_many_were_acknowledged(capfd):
    with pytest.raises(LogPoisonedError):
        produced(Log(None, None, LogPoisonedError("a sync failed")))

    assert "10000 records acknowledged, offsets 0 to 9999\n" == capfd.readouterr().err


def test_what_was_acknowledged_behind_a_failure_counts_too(capfd):
    with pytest.raises(DiskFullError):
        produced(Log(None, DiskFullError("full"), None, slow=True))

    assert "15000 records acknowledged, offsets 0 to 14999\n" == capfd.readouterr().err


def test_an_interrupted_producer_whose_disk_fails_says_both(capfd):
    def interrupted(_):
        raise KeyboardInterrupt

    log = Log(None, LogPoisonedError("a sync failed"), slow=True)
    with pytest.raises(LogPoisonedError):
        produced(log, parse=at(3, bytes, interrupted))

    assert "5000 records acknowledged, offsets 0 to 4999\n" == capfd.readouterr().err


def test_an_interrupted_producer_counts_what_it_handed_over():
    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(exits.Interrupted, match="interrupted; 10000 records acknowledged"):
        produced(Log(None), parse=at(3, bytes, interrupted))


def at(batch, usual, other):
    """`other` for the lines of batch number `batch`, and `usual` for those before."""
    seen = []

    def parse(data):
        seen.append(data)
        return (usual if len(seen) <= (batch - 1) * produce.RECORDS_PER_BATCH else other)(data)

    return parse
