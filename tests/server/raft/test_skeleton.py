"""raftos: imported in one place, on first use, and only the raftos that we know."""

from __future__ import annotations

import subprocess
import sys

import pytest

from chronik_server.raft import raftos_skeleton
from chronik_server.raft.raftos_skeleton import check_seams, missing_seams
from chronik_store.errors import ConfigError


def run(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "" == ran.stderr, "raftos warns of nothing"
    return ran.stdout.strip()


def test_the_room_is_imported_without_raftos():
    code = (
        "import sys, chronik_server.raft, chronik_server.raft.local; print('raftos' in sys.modules)"
    )

    assert "False" == run(code)


@pytest.mark.parametrize(
    ("missing", "said"),
    [("raftos", "no extra can name"), ("msgpack", "raftos is installed, but msgpack")],
)
def test_what_is_missing_is_told_apart(missing, said):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from chronik_store.errors import ConfigError\n"
        "try:\n    import chronik_server.raft.node\n"
        "except ConfigError as error:\n    print(error)"
    )

    assert said in run(code)
    assert "pip install --no-deps raftos==0.2.6" in run(code)


def test_the_seams_that_we_build_on_are_there():
    assert [] == missing_seams()


def test_another_raftos_is_refused_by_name_of_what_it_lacks(monkeypatch):
    monkeypatch.delattr(raftos_skeleton.Leader, "init_log")

    with pytest.raises(ConfigError, match=r"Leader\.init_log"):
        check_seams()
