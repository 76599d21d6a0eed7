"""`chronik cluster`: what cannot work is said, before or after it was tried; the code tells."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from chronik_server import cli_cluster
from chronik_server.cli import VERBS as SERVER_VERBS
from chronik_server.cli_cluster import last_words
from chronik_store.cli import main
from tests.ports import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _served(monkeypatch):
    for verb, module in SERVER_VERBS.items():
        monkeypatch.setitem(main.VERBS, verb, module)


def test_a_port_that_is_taken_is_said_before_anything_is_started(chronik, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ran = chronik("-d", "d", "cluster", "--nodes", "1", "--port", str(port))

    assert (ran.code, f"port {port} cannot be used" in ran.err) == (2, True), ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_setting_that_cannot_be_used_is_said_once(chronik, tmp_path, monkeypatch):
    monkeypatch.setenv("CHRONIK_INSECURE", "perhaps")
    ran = chronik("-d", "d", "cluster", "--port", str(free_port()))

    assert (ran.code, ran.err.count("CHRONIK_INSECURE")) == (2, 1), ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_cannot_start_is_named_with_the_reason_and_nothing_is_announced(chronik):
    Path("d").mkdir()
    Path("d/1").write_text("a file where the directory would be")
    ran = chronik("-d", "d", "cluster", "--nodes", "1", "--port", str(free_port()))

    assert (ran.code, ran.out) == (3, ""), ran.err
    assert "node 1 has ended, exit code 2" in ran.err
    assert "is a file" in ran.err


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [("d", 2, "d is a file; a directory is needed"), ("d/2.log", 3, "d/2.log: Is a directory")],
)
def test_a_place_for_logs_that_cannot_be_used_is_said_and_no_node_is_left_behind(
    chronik, tmp_path, monkeypatch, name, code, said
):
    """It was a traceback, behind which the nodes before it ran on."""
    place = tmp_path / name
    if code == 2:
        place.write_text("")
    else:
        place.mkdir(parents=True)
    monkeypatch.setattr(cli_cluster, "_start", lambda *_: pytest.fail("a node was started"))
    ran = chronik("-d", "d", "cluster", "--nodes", "2", "--port", str(free_port()))

    assert (ran.code, ran.out, said in ran.err) == (code, "", True), ran.err


def test_nodes_that_were_started_are_stopped_when_the_next_one_cannot_be(chronik, monkeypatch):
    started = []

    def start(*_):
        if started:
            raise KeyboardInterrupt
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return started[0]

    monkeypatch.setattr(cli_cluster, "_start", start)
    try:
        chronik("-d", "d", "cluster", "--nodes", "2", "--port", str(free_port()))
        assert started[0].poll() == -signal.SIGTERM
    finally:
        started[0].kill()
        started[0].wait()


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("", ""),
        ('{"event": "listens"}\n{"error": "ConfigError", "message": "no room"}\n', ": no room"),
        ('{"event": "this process must end"}', ": this process must end"),
        ("Traceback\nKeyError: 1\n", ": KeyError: 1"),
    ],
)
def test_the_last_words_of_a_log(tmp_path, log, said):
    (tmp_path / "1.log").write_text(log)
    assert last_words(tmp_path / "1.log") == said


@pytest.mark.cluster
@pytest.mark.timeout(120)
@pytest.mark.parametrize("end", ["SIGINT", "SIGHUP", "dies"])
def test_settings_of_one_node_are_not_for_all_and_the_end_has_a_code(tmp_path, end):
    dies = end == "dies"
    port = free_port()
    settings = {
        "CHRONIK_NODE_ID": "9",
        "CHRONIK_LISTEN": "127.0.0.1:1",
        "CHRONIK_PEERS": "9@127.0.0.1:1",
        "CHRONIK_JOIN": "127.0.0.1:1",
        "CHRONIK_SERVER": "127.0.0.1:1",
    }
    words = ["-d", str(tmp_path / "d"), "--json", "cluster", "--nodes", "1", "--port", str(port)]
    with subprocess.Popen(
        [sys.executable, "-m", "chronik_server", *words], cwd=ROOT, env={**os.environ, **settings},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            found = json.loads(process.stdout.readline())
            assert found["nodes"] == {"1": f"127.0.0.1:{port}"}
            node = json.loads((tmp_path / "d/1/LOCK").read_text().rstrip("\0"))["pid"]
            if dies:
                os.kill(node, signal.SIGKILL)
            else:
                process.send_signal(signal.Signals[end])
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == (3 if dies else 0), err
    assert ("node 1 has ended, exit code -9" in err) == dies, err
    with pytest.raises(ProcessLookupError):
        os.kill(node, 0)  # nothing is left behind
    for line in (tmp_path / "d/1.log").read_text().splitlines():
        assert json.loads(line)
