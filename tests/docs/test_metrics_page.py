"""docs/operations.md against what /metrics exports, and against what is logged."""

from __future__ import annotations

import ast
import re
from typing import NamedTuple

import pytest

from tests.docs.pages import DOCS, ROOT

TEXT = (DOCS / "operations.md").read_text()


def section(title: str) -> str:
    found = re.search(rf"^### {title}\n(.*?)(?=^##)", TEXT + "\n##", re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[1]


ROWS = {
    row[0].strip(" `"): row[1].strip()
    for row in (line.strip("|").split("|") for line in section("Metrics").splitlines())
    if row[0].startswith(" `")
}


def exported() -> dict[str, str]:
    """Name as it is written in an expression -> kind and labels."""
    pytest.importorskip("prometheus_client")
    from chronik_server.metrics import ServerMetrics
    from chronik_server.protocol.cluster import PartitionRole, StatusFound
    from chronik_server.protocol.verbs import Verb
    from chronik_server.store_metrics import families
    from chronik_store.model import StoreStatus

    metrics = ServerMetrics()
    metrics.refused.labels("idle").inc()
    metrics.failures.labels("fetch", 1).inc()
    metrics.by_verb[Verb.FETCH].note(1)
    store = StoreStatus("data", "id", "memory://b", False, 2, 1, 0, 0, ())
    status = StatusFound(store, (PartitionRole("t", 0, "leader"),), "1")
    found = {}
    for family in (*metrics.registry.collect(), *families(status)):
        ending = "_total" if family.type == "counter" else ""
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        # In the order in which the page names them.
        named = "".join(
            f", `{name}`" for name in ("verb", "code", *sorted(labels)) if name in labels
        )
        seen = ", ".join(dict.fromkeys(named.split(", ")))
        found[family.name + ending] = family.type + seen
    return found


def test_each_metric_has_a_row_and_each_row_a_metric() -> None:
    assert exported() == ROWS


def test_alerts_use_metrics_that_there_are() -> None:
    used = set(re.findall(r"\bchronik_\w+", section("Alerts")))

    assert used
    assert {re.sub(r"_bucket$", "", name) for name in used} <= set(ROWS)


def test_two_metrics_that_an_alert_puts_together_have_the_same_labels() -> None:
    """Prometheus matches series whose labels are equal: else the alert never fires."""
    expressions = re.findall(r"^\| [^|]+ \| `([^`]+)`", section("Alerts"), re.MULTILINE)
    two_sided = [text for text in expressions if len(re.findall(r"\bchronik_", text)) > 1]

    assert two_sided
    for text in two_sided:
        left, sign, right = re.split(r" (and on \(instance\)|or|>) (?=\D)", text, maxsplit=1)
        if sign == ">":
            assert labels_left(left) == labels_left(right), text


def labels_left(side: str) -> set[str]:
    """Of a metric's own labels, those that are still there; `instance` alone after a `by`."""
    name = next(name for name in ROWS if re.search(rf"\b{name}\b", side))
    if re.search(r"\bsum by \(instance\)", side):
        return {"only", "instance"}
    own = set(re.findall(r"`(\w+)`", ROWS[name]))
    dropped = re.search(r"\bsum without \((\w+)\)", side)
    return own - ({dropped[1]} if dropped else set())


def test_log_events_that_the_page_names_are_logged() -> None:
    """Each text in the table of events stands in a source."""
    source = "\n".join(
        re.sub(r'"\s*\n\s*f?"', "", path.read_text())
        for room in ("chronik_store", "chronik_server")
        for path in (ROOT / room).rglob("*.py")
    )
    events = [
        text
        for line in section("Log events").splitlines()
        if line.startswith("| ") and "`chronik_" in line
        for text in re.findall(r"`([^`]+)`", line.split("|")[3])
    ]

    assert len(events) > 10
    assert [text for text in events if text not in source] == []


LEVELS = {"info", "warning", "error", "exception", "critical"}


class Logged(NamedTuple):
    level: str
    logger: str
    text: str


def logged() -> list[Logged]:
    """Each call of a logger in the sources, with the texts that stand in it."""
    found = []
    for path in (path for room in ("chronik_store", "chronik_server")
                 for path in (ROOT / room).rglob("*.py")):  # fmt: skip
        calls = [
            (node.func.attr, node)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        ]
        texts = {call: " ".join(each.value for each in ast.walk(call)
                                if isinstance(each, ast.Constant) and isinstance(each.value, str))
                 for _, call in calls}  # fmt: skip
        name = next((texts[call] for made, call in calls if made == "getLogger"), "")
        found += [
            Logged("error" if level == "exception" else level, name, texts[call])
            for level, call in calls
            if level in LEVELS
        ]
    return found


def test_log_events_have_the_level_and_the_logger_that_the_page_says() -> None:
    """Where the text stands in the call itself; what an error says is logged by many."""
    calls = logged()
    wrong = []
    for line in section("Log events").splitlines():
        if not line.startswith("| ") or "`chronik_" not in line:
            continue
        level, loggers, texts = (cell.strip() for cell in line.split("|")[1:4])
        for text in re.findall(r"`([^`]+)`", texts):
            made = {call[:2] for call in calls if text in call.text and f"`{call.logger}`" in loggers}
            if made and not any(said == level for said, _ in made):
                wrong.append((level, loggers, text))
    assert wrong == []
