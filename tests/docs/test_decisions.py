"""Each decision says why, what else there was, and what shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS

PAGES = sorted((DOCS / "decisions").glob("0*.md"))


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_decision_has_its_four_parts(page: Path) -> None:
    parts = re.findall(r"^## (\w+)", page.read_text(), re.MULTILINE)

    assert {"Context", "Decision", "Rejected", "Evidence"} <= set(parts)


def test_the_list_has_each_decision_under_its_number_and_title() -> None:
    rows = re.findall(
        r"^\| \[(\d{4})\]\(([\w.-]+)\) \| (.+) \|$",
        (DOCS / "decisions/README.md").read_text(),
        re.MULTILINE,
    )
    titles = {page.name: page.read_text().splitlines()[0] for page in PAGES}

    assert [page.name for page in PAGES] == [name for _, name, _ in rows]
    for number, name, title in rows:
        assert titles[name].startswith(f"# {number} {title}"), name
