"""Every code block of the documentation runs, or says that it does not."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, NAMES, PAGES, ROOT, blocks, matches, program, promised, run

LANGUAGES = {"", "text", "console", "output", "toml", "json", "python", "python not-run"}
RUNNABLE = [page for page in PAGES if program(page)]
STOPS = re.compile(r"[|;&<>]+|\d?>.*")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_block_says_what_it_is(page: Path) -> None:
    said = {block.info for block in blocks(page) if not block.info.startswith("hexdump ")}

    assert said - LANGUAGES == set()


@pytest.mark.parametrize("page", RUNNABLE, ids=[page.name for page in RUNNABLE])
def test_the_python_of_a_page_runs_from_top_to_bottom(page: Path, tmp_path: Path) -> None:
    expected = promised(page)

    for block, printed in run(page, tmp_path):
        if block.line in expected:
            shown = expected[block.line]
            assert matches(shown, printed), f"{page.name}:{block.line} prints\n{printed}"


def commands() -> list[tuple[str, list[str]]]:
    """Every `chronik ...` behind a prompt of any page, as words; also behind a pipe or a `;`."""
    found = []
    for page in PAGES:
        for block in blocks(page):
            for line in re.findall(r"^\$ (.*)$", block.body, re.MULTILINE):
                segment: list[str] = []
                for word in [*shlex.split(line.replace(";", " ; "), comments=True), ";"]:
                    if not STOPS.fullmatch(word):
                        segment.append(word)
                        continue
                    while segment and re.fullmatch(r"[A-Z_0-9]+=.*", segment[0]):
                        segment.pop(0)
                    if segment and segment[0].rpartition("/")[2] == "chronik":
                        found.append((f"{page.name}: {line}", segment[1:]))
                    segment = []
    return found


@pytest.mark.parametrize(
    "words", [words for _, words in commands()], ids=[w for w, _ in commands()]
)
def test_the_command_line_knows_the_commands_that_are_shown(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    click = pytest.importorskip("click")
    from chronik_server.cli import VERBS as SERVER_VERBS
    from chronik_store.cli.main import VERBS, chronik

    for verb, module in SERVER_VERBS.items():
        monkeypatch.setitem(VERBS, verb, module)
    command, arguments = chronik, words
    context = click.Context(chronik, info_name="chronik")
    while isinstance(command, click.Group):
        options = [name for each in command.params for name in each.opts]
        while arguments[0].startswith("-"):
            assert arguments[0] in options, arguments[0]
            takes = next(each for each in command.params if arguments[0] in each.opts)
            arguments = arguments[1 if takes.is_flag else 2 :]
        found = command.get_command(context, arguments[0])
        assert found is not None, f"no verb {arguments[0]}"
        command, arguments = found, arguments[1:]
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}

    assert {word for word in arguments if re.match(r"--?[a-z]", word)} - known == set()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            missing.append(target)

    assert missing == []


def anchors(page: Path) -> set[str]:
    """The anchors that headings make, as forges spell them."""
    found = set()
    for title in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE):
        plain = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", title).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-"))
    return found


def test_every_page_can_be_found_from_the_index() -> None:
    index = (DOCS / "index.md").read_text()
    linked = {str((DOCS / each).resolve()) for each in re.findall(r"\]\(([^)#]+)[)#]", index)}
    pages = {str(page) for page in PAGES if page.parent in {DOCS, DOCS / "reference"}}

    assert pages - linked - {str(DOCS / "index.md")} == set()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_pages_speak_of_the_project_alone(page: Path) -> None:
    """No path of a machine, no placeholder left behind."""
    text = page.read_text()

    assert not re.search(r"/(work|home|root)/\w", text)
    assert not re.search(r"\b(TODO|FIXME|TBD)\b", text)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    rooms = "chronik_store|chronik_server|tests|tools|benchmarks"
    named = re.findall(rf"`((?:{rooms})/[\w/.-]+)`", page.read_text())

    assert [name for name in named if not (ROOT / name).exists()] == []
