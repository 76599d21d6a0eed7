"""docs/raft.md, protocol.md and known-bugs.md against what cites them, and what they cite."""

from __future__ import annotations

import re

from chronik_server.raft.settings import RaftSettings
from tests.docs.pages import DOCS, ROOT

RAFT = (DOCS / "raft.md").read_text()
PROTOCOL = (DOCS / "protocol.md").read_text()
SOURCES = [
    path for room in ("chronik_store", "chronik_server") for path in (ROOT / room).rglob("*.py")
]


def test_each_defect_has_a_row_and_a_test_in_the_file_that_its_heading_names() -> None:
    rows = []
    for file, section in re.findall(
        r"^### [^\n]*`(tests/server/raft/test_defects_\w+\.py)`\n(.*?)(?=^##|\Z)",
        RAFT,
        re.DOTALL | re.MULTILINE,
    ):
        tested = {
            int(n)
            for n in re.findall(r"^def test_(\d\d)_", (ROOT / file).read_text(), re.MULTILINE)
        }
        found = [int(n) for n in re.findall(r"^\| (\d+)[ SDLP]* \|", section, re.MULTILINE)]
        assert tested == set(found), file
        rows += found

    assert list(range(1, 38)) == rows


def test_the_rules_are_numbered_and_each_that_the_source_cites_is_there() -> None:
    rules = [int(n) for n in re.findall(r"^\*\*(\d+)\. ", PROTOCOL, re.MULTILINE)]
    cited = {
        int(n)
        for path in SOURCES
        for run in re.findall(r"\(protocol ([\d, ]+)\)", path.read_text())
        for n in run.replace(" ", "").strip(",").split(",")
    }

    assert list(range(1, 21)) == rules
    assert cited <= set(rules)
    assert len(cited) > 10, "they are cited, and found"


def test_each_known_bug_that_a_test_is_named_after_has_a_row_that_leads_there() -> None:
    rows = dict(
        re.findall(
            r"^\| (\d+) \|.*`(tests/[\w/]+\.py)` \|$",
            (DOCS / "known-bugs.md").read_text(),
            re.MULTILINE,
        )
    )
    file = "tests/schedules/test_known_bugs.py"
    named = {
        number
        for numbers in re.findall(r"^def test((?:_\d+)+)_", (ROOT / file).read_text(), re.MULTILINE)
        for number in numbers.strip("_").split("_")
    }

    assert named == {number for number, path in rows.items() if path == file}


def test_the_times_and_bounds_of_the_page_are_those_of_the_settings() -> None:
    settings = RaftSettings()
    shown = dict(
        re.findall(
            r"^\| ([^|]+) \| ([\d.]+(?: to [\d.]+)?) (?:s|per second) \|$", RAFT, re.MULTILINE
        )
    )
    low, high = settings.election_seconds_min, settings.election_seconds_max
    in_order = (
        settings.heartbeat_seconds,
        f"{low:g} to {high:g}",
        settings.lost_seconds,
        settings.check_quorum_seconds,
        settings.elections_per_second,
    )

    assert [f"{each:g}" if isinstance(each, float) else each for each in in_order] == list(
        shown.values()
    )
    assert f"batches of up to {settings.batch_bytes >> 20} MiB" in RAFT
    assert f"a window of {settings.window_bytes >> 20} MiB" in RAFT
    assert f"told within {settings.commit_notice_seconds * 1000:g} ms" in RAFT
