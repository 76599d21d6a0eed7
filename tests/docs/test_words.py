"""The glossary has the words that the source uses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from chronik_store.format.entry import EntryKind
from chronik_store.model import Tier, Watermarks
from tests.docs.pages import DOCS, NAMES, PAGES, ROOT

GLOSSARY = (DOCS / "glossary.md").read_text()
WORDS = set(re.findall(r"^- \*\*([^*]+)\*\*:", GLOSSARY, re.MULTILINE))
LINE = "start <= indexed <= tiered <= sealed <= committed <= durable <= end"


def test_the_glossary_has_every_limit() -> None:
    assert set(Watermarks.__annotations__) <= WORDS
    assert LINE in GLOSSARY


def test_the_glossary_has_every_control_entry_and_no_other() -> None:
    (line,) = re.findall(r"^- \*\*control entry\*\*:.*$", GLOSSARY, re.MULTILINE)
    named = set(re.findall(r"\b[A-Z_]{4,}\b", line))

    assert {kind.name for kind in EntryKind} - {"RECORDS"} == named


def test_the_glossary_has_every_tier() -> None:
    assert all(f"`{tier}`" in GLOSSARY for tier in get_args(Tier) if tier != "none")


def test_a_word_stands_there_once() -> None:
    words = re.findall(r"^- \*\*([^*]+)\*\*:", GLOSSARY, re.MULTILINE)

    assert len(words) == len(set(words))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_plot_line_is_the_same_everywhere(page: Path) -> None:
    for line in re.findall(r"start <= indexed.*", page.read_text()):
        assert LINE == line.strip(" `.")


def test_every_family_of_tests_is_described() -> None:
    text = (DOCS / "testing.md").read_text()
    families = {
        path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("*.py")
    }
    folders = {name for name in families if (ROOT / "tests" / name).is_dir()}

    assert {name for name in folders if f"`tests/{name}`" not in text} == set()


def test_the_map_of_the_source_has_25_lines() -> None:
    (drawn,) = re.findall(r"```text\n(.*?)```", (DOCS / "source-map.md").read_text(), re.DOTALL)

    assert 25 == len(drawn.splitlines())
