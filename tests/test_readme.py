"""The README's examples run: the program, and the cluster that is pasted into a shell."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ports import free_ports

README = Path(__file__).parent.parent / "README.md"


def test_the_example_does_what_it_says(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()

    with contextlib.redirect_stdout(printed):
        exec(code.replace("/tmp/bucket", f"{tmp_path}/bucket"), {})

    lines = printed.getvalue().splitlines()
    assert 4 == len(lines)
    assert "disk full on web-3" in lines[0]
    assert "[1, 0]" == lines[2]
    assert "tiered 2" in lines[3]


@pytest.mark.cluster
@pytest.mark.timeout(200)
def test_the_five_lines_lose_nothing_when_they_are_pasted(tmp_path):
    """In a shell with job control, with ports and a directory of this test's own."""
    section = README.read_text().split("## Five lines, three nodes")[1]
    (block, *_) = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    *commands, shown = block.splitlines()
    assert 5 == len(commands)
    port, *_ = free_ports(3)
    text = "\n".join(command.removeprefix("$ ") for command in commands)
    text = text.replace("/tmp/", f"{tmp_path}/").replace("-f three", f"-f {tmp_path}/three")
    for at in range(3):
        text = text.replace(str(7411 + at), str(port + at))
    script = tmp_path / "pasted.sh"
    script.write_text(text.replace(" cluster &", f" cluster --port {port} &"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # Files, not pipes: the cluster outlives the shell and would hold them open.
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        try:
            ran = subprocess.run(
                ["bash", "-m", script],
                check=False,
                cwd=tmp_path,
                env={**os.environ, "PATH": path},
                stdout=out,
                stderr=err,
                timeout=150,
            )
        finally:
            subprocess.run(["pkill", "-f", f"{tmp_path}/three"], check=False)

    said = (tmp_path / "err").read_text()
    assert 0 == ran.returncode, said
    assert shown == (tmp_path / "out").read_text().splitlines()[-1].strip(), said
