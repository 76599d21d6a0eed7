"""The examples of docs/search-language.md run, in the order in which they are read."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "search-language.md"


def test_the_examples_run() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 6

    exec(compile("\n".join(blocks), str(PAGE), "exec"), {})
