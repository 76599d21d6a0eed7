"""The README's example is a program that runs."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

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
