"""The pages of the documentation, and running what stands in them.

Promise: the Python blocks of a page run as one program, top to bottom, in an empty directory; a
block of ```output behind one is what it prints, `...` standing for anything. A block that is not
meant to run says so in its first line of fence: ```python not-run.
"""

from __future__ import annotations

import doctest
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)
_MARK = "\x1e"


class Block(NamedTuple):
    """A fenced block. line: of its first line of code, from 1."""

    info: str
    body: str
    line: int

    @property
    def runs(self) -> bool:
        return self.info == "python"


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(found["info"].strip(), found["body"], text.count("\n", 0, found.start()) + 2)
        for found in _FENCE.finditer(text)
    ]


def program(page: Path) -> str:
    """The page as a program whose line numbers are those of the page. Empty if nothing runs."""
    lines: list[str] = []
    for block in blocks(page):
        if block.runs:
            lines += [""] * (block.line - 2 - len(lines))
            lines.append(f"print({_MARK!r}, end='')")
            lines += block.body.splitlines()
    return "\n".join(lines) + "\n" if lines else ""


def run(page: Path, directory: Path) -> list[tuple[Block, str]]:
    """Run a page; what each of its Python blocks printed. Raises AssertionError when it fails."""
    code = program(page).replace("/tmp/", f"{directory}/tmp/")
    (directory / "tmp").mkdir()
    script = directory / f"{page.name}.py"
    script.write_text(code)
    work = directory / "work"
    work.mkdir()
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        check=False,
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, f"{page.name}: its line numbers are the page's\n{ran.stderr}"
    printed = ran.stdout.split(_MARK)[1:]
    return list(zip([block for block in blocks(page) if block.runs], printed, strict=True))


def promised(page: Path) -> dict[int, str]:
    """Line of a Python block -> the output that the page shows behind it."""
    found = blocks(page)
    return {
        left.line: right.body
        for left, right in itertools.pairwise(found)
        if left.runs and right.info == "output"
    }


def matches(expected: str, printed: str) -> bool:
    """Equal, with `...` for anything."""
    return doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS)
