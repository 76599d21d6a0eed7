"""A command line in a directory of its own: in this process, or (for pipes and signals) in one."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chronik_store.cli.main import run
from chronik_store.config import LogConfig
from chronik_store.log_store import LogStore

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Every test starts in an empty directory, with settings of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("CHRONIK_DATA_DIR", "OBJECT_STORE_BACKEND", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CHRONIK_WAL_INDEXING_INTERVAL", "3600")
    logger = logging.getLogger("chronik_store")
    kept = logger.handlers, logger.level, logger.propagate
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
    logger.handlers, logger.propagate = kept[0], kept[2]
    logger.setLevel(kept[1])


@pytest.fixture
def chronik(capfd):
    """Runs one command line in this process."""

    def call(*arguments: str) -> Ran:
        capfd.readouterr()
        code = run(list(map(str, arguments)))
        sys.stdout.flush()
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


@pytest.fixture
def started():
    """Starts command lines as processes; ends those that are left."""
    processes = []

    def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **options}
        process = subprocess.Popen(
            [sys.executable, "-m", "chronik_server", *map(str, arguments)],
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            **options,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def events(chronik, tmp_path):
    """A topic `events` of 100 records, half of them sealed into the bucket."""
    lines = [f"line {n} {'disk full' if n % 10 == 3 else 'all well'}" for n in range(100)]
    from chronik_store.partition_log import PartitionLog

    with PartitionLog.open(tmp_path / "data", topic="events") as log:
        log.append([line.encode() for line in lines[:50]])
        log.seal()
        assert not log.run_pipeline_once().errors
        log.append([line.encode() for line in lines[50:]])
    return lines


@pytest.fixture
def bucket(tmp_path):
    """Topics `a`, with two partitions and a cursor, and `b`, published; `c` is not."""
    url = f"file://{tmp_path}/bucket"
    with LogStore.open("data", object_store=url, config=LogConfig(pipeline_enabled=False)) as store:
        for name, partitions in (("a", 2), ("b", 1), ("c", 1)):
            store.create_topic(name, partitions=partitions)
            for number in range(partitions):
                if name != "c":
                    log = store.partition(name, number)
                    log.append([b"one", b"two"])
                    log.cursor("mine").commit(1)
                    log.seal()
        store.run_pipeline_once()
    return url
