"""Whatever stands on a command line: a documented exit code and words, never a traceback."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from chronik_store import LogConfig, LogStore, Record
from chronik_store.cli import exits
from chronik_store.cli.options import FiniteRange
from tests.cli.test_every_verb import commands

CODES = {exits.DONE, exits.NOTHING, exits.USAGE, exits.UNAVAILABLE, exits.CORRUPTION}
LONG = {"demo", "bench", "simulate", "serve", "cluster", "node", "leader"}
"""They run for long, or ask a server."""
ENDLESS = {"follow", "watch", "help"}
TEXTS = [
    *("events", "old", "nope", "", ".", "..", "a/b", "t" * 201, "\udcff", "e\u0301", "events/0"),
    *("-", "--", "all", "0", "-1", "1e309", "nan", "inf", "9" * 30, "9" * 5000, "1" * 400 + "d"),
    *("15m", "0001-01-01T00:00:00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"),
    *("%o %v %q", "%", "\\", "json.level:error", '"', "(", "value:/[/", "offset:[* TO 5}"),
    *("time:>=2020-13-45", "file:///nonexistent", "s3://", "memory://x", "gs://x", "http://x"),
    *("file://rel", "localhost:99999", "[::1", "earliest", "latest", "-5", " ", "\n"),
]
NUMBERS = [
    *("0", "1", "-1", "2", "10", str(1 << 63), str(-(1 << 63) - 1), "1" * 40, "x", "", "1.5"),
    *("\u0663", "0x10", "1_000", "nan", "inf", "1e400", "1e-320"),
]
LIKELY = {
    "query": ["full", "disk OR full", "json.level:error", "key:k1", "offset:>2", "-x", "("],
    "since": ["15m", "2020-01-01T00:00:00Z"],
    "until": ["15m", "2020-01-01T00:00:00Z"],
}


def embedded() -> Iterator[tuple[str, click.Command]]:
    for name, command in commands():
        if name.split()[0] not in LONG:
            yield name, command


@pytest.fixture(autouse=True)
def _no_input(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        yield


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    """A data directory, its bucket, and what is neither; the first is the most useful."""
    bucket = f"file://{tmp_path}/bucket"
    config = LogConfig(pipeline_enabled=False)
    with LogStore.open(tmp_path / "data", object_store=bucket, config=config) as store:
        store.create_topic("events", partitions=2)
        store.create_topic("old")
        record = Record(b'{"level": "error"}', key=b"k1", headers=[("h", b"v")])
        for _ in range(2):
            store.partition("events", 0).append([record, b"disk full"])
            store.partition("events", 1).append([b"\xff\x00", b""])
            store.partition("events", 0).seal()
            assert not store.run_pipeline_once().errors
        store.partition("old").append(b"x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "lines").write_bytes(b'a:b\n{"value": "x"}\n{"value": "x", "headers": 5}\n\xff\n')
    names = ("data", "bucket", "folder", "lines", "empty", "missing", "missing/x", "data/STORE")
    return [*(f"{tmp_path}/{name}" for name in names), bucket, f"file://{tmp_path}/data"]


def drawn(rng: random.Random, places: list[str]) -> list[str]:
    name, command = rng.choice(list(embedded()))
    words = ["-d", rng.choice([places[0]] * 8 + [*places[8:], *places])]
    words += rng.choice(([], [], ["--json"]))
    words += name.split()
    for each in command.params:
        common = each.name in {"directory", "data_dir", "server", "object_store", "as_json"}
        if common or each.name in ENDLESS:
            continue
        if isinstance(each, click.Argument):
            count = each.nargs if each.nargs > 0 else rng.randrange(3)
            words += [_value(rng, each, places) for _ in range(max(count, each.required))]
        elif rng.random() < 0.2:
            words.append(rng.choice([*each.opts, *each.secondary_opts]))
            if not getattr(each, "is_flag", False):
                words.append(_value(rng, each, places))
    return [word.replace("\0", "") for word in words]


def _value(rng: random.Random, of: click.Parameter, places: list[str]) -> str:
    if isinstance(of.type, click.Choice):
        return rng.choice([*map(str, of.type.choices), "bad"])
    if isinstance(of.type, (click.types.IntParamType, click.types.FloatParamType)):
        return rng.choice(NUMBERS)
    if of.name in LIKELY and rng.random() < 0.7:
        return rng.choice(LIKELY[of.name])
    if of.name is not None and "topic" in of.name and rng.random() < 0.9:
        return rng.choice(("events", "events", "old"))
    return rng.choice(TEXTS + places)


@pytest.mark.parametrize(
    "block", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 9))]
)
def test_no_command_line_ends_in_a_traceback(chronik, places, block: int, seed: int) -> None:
    rng = random.Random(f"{seed}/{block}")
    ended = dict.fromkeys(CODES, 0)
    for number in range(100):
        words = drawn(rng, places)
        try:
            ran = chronik(*words)
        except BaseException as error:
            raise AssertionError(f"seed {seed}, block {block}, line {number}: {words}") from error
        assert ran.code in CODES, f"{words}: {ran}"
        assert ran.code in {exits.DONE, exits.NOTHING} or ran.err, f"{words}: not a word"
        ended[ran.code] += 1
    assert ended[exits.DONE] > 5, ended
    assert ended[exits.USAGE] > 5, ended


def test_no_option_takes_what_is_no_number() -> None:
    """nan lies in every range, as far as click can tell."""
    floats = [
        (name, each.name)
        for name, command in commands()
        for each in command.params
        if isinstance(each.type, click.types.FloatParamType)
        and not isinstance(each.type, FiniteRange)
    ]
    assert floats == []
