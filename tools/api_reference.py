"""Write docs/reference/api.md from the docstrings of the public API.

    python tools/api_reference.py            writes the page
    python tools/api_reference.py --check    exit 1 if the page is not what the source says

The page holds what a reader of the source would read: signatures and docstrings, nothing of its
own. `tests/docs/test_api_reference.py` fails when it is stale.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "api.md"
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import chronik_store as chronik  # noqa: E402 (the tool runs from anywhere)
from chronik_server import client  # noqa: E402
from chronik_store import aio  # noqa: E402

HEAD = """\
# The public API

`import chronik_store as chronik`: everything below is a name of that package, of `chronik.aio`, or
of `chronik_server.client`.
This page is written by `tools/api_reference.py` from the docstrings; a test fails when it is stale.
Errors have a page of their own, [errors.md](../errors.md); settings are in
[configuration.md](../configuration.md).
"""
SECTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Opening", ("LogStore", "PartitionLog", "open_bucket", "restore")),
    ("Reading on", ("Cursor",)),
    ("Records and batches", ("Record", "StoredRecord", "RecordBatch", "StoredBatch")),
    (
        "Results",
        (
            "AppendResult", "FetchResult", "SearchResult", "SearchHit", "Coverage", "Watermarks",
            "TopicInfo", "RecoveryReport", "PipelineReport", "BundlesFound",
            "BundlesRebuilt", "VerifyReport", "Finding", "RestoreReport", "RestoredLog",
            "LogStatus", "StoreStatus",
        ),
    ),
    ("Settings", ("LogConfig", "S3Options")),
    ("The Raft side", ("Replica",)),
)  # fmt: skip
CLIENT = (
    "Client", "AsyncClient", "ClientOptions", "TlsOptions", "Producer", "AsyncProducer", "Placed",
    "Appender", "Consumer", "AsyncConsumer", "Consumed", "Run", "TopicDescription",
    "PartitionPlace", "StatusFound", "PartitionRole", "ClusterDescription", "NodeInfo",
)  # fmt: skip
"""Of `chronik_server.client`; what else they give back are the values above."""
PART = "chronik_server.client.upkeep"
"""What stands there is described with the class that it is a part of."""


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for title, names in SECTIONS:
        lines.append(f"## {title}\n")
        for name in names:
            lines.extend(_describe(name, getattr(chronik, name)))
    lines.append("## asyncio: `chronik.aio`\n")
    for name in aio.__all__:
        lines.extend(_describe(name, getattr(aio, name)))
    lines.append("## Clients of a server or a cluster: `chronik_server.client`\n")
    for name in CLIENT:
        lines.extend(_describe(name, getattr(client, name)))
    return "\n".join(lines).rstrip() + "\n"


def described() -> set[str]:
    """The names of `chronik_store` that have a place on the page."""
    return {name for _, names in SECTIONS for name in names}


def _describe(name: str, value: Any) -> Iterator[str]:
    yield f"### `{name}`\n"
    if not isinstance(value, type):
        yield _code(f"def {name}{_signature(value)}")
        yield _text(value)
        return
    yield _text(value)
    fields = list(_fields(value))
    if fields:
        yield _code("\n".join(fields))
    elif value.__init__ is not object.__init__ and _is_made_by_hand(value):
        yield _code(f"{name}{_signature(value.__init__)}")
    twins = [f"`{attribute}`" for attribute, member in _members(value) if _is_twin(member)]
    if twins:
        yield f"As those of `Async{name}`, blocking: {', '.join(twins)}.\n"
    for attribute, member in _members(value):
        if _is_twin(member):
            continue
        yield f"#### `{name}.{attribute}`\n"
        target = getattr(member, "__func__", member)
        if isinstance(target, FunctionType):
            kind = "async def" if inspect.iscoroutinefunction(target) else "def"
            yield _code(f"{kind} {attribute}{_signature(target)}")
            yield _text(target)
        else:
            returns = inspect.signature(target.fget).return_annotation
            yield _code(f"{attribute}: {returns}")
            yield _text(target.fget)


def _is_made_by_hand(value: type) -> bool:
    """Records and clients are; logs, cursors and batches come from methods that the page shows."""
    return value.__module__ == "chronik_store.model" or value in {client.Client, client.AsyncClient}


def _is_twin(member: Any) -> bool:
    """A method that only passes on what it is given to the one of the asyncio face."""
    text = getattr(member, "__doc__", None) or ""
    return re.fullmatch(r"As `AsyncClient\.\w+`\.", text) is not None and (
        "arguments" in inspect.signature(member).parameters
    )


def _members(value: type) -> Iterator[tuple[str, Any]]:
    parts = [value, *(base for base in value.__bases__ if base.__module__ == PART)]
    for attribute, member in (item for part in parts for item in vars(part).items()):
        target = getattr(member, "__func__", member)
        if not attribute.startswith("_") and isinstance(target, (FunctionType, property)):
            yield attribute, member


def _fields(value: type) -> Iterator[str]:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield f"{field.name}: {field.type}{_default(field)}"
    elif hasattr(value, "_fields") and hasattr(value, "_field_defaults"):
        for name in value._fields:
            default = value._field_defaults
            ending = f" = {default[name]!r}" if name in default else ""
            yield f"{name}: {_plain(value.__annotations__[name])}{ending}"


def _plain(annotation: Any) -> str:
    return getattr(annotation, "__forward_arg__", None) or str(annotation)


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f" = {field.default!r}"
    if field.default_factory is not dataclasses.MISSING:
        return f" = {field.default_factory.__name__}()"
    return ""


class _Written:
    """What is shown as it is, without the quotes of a string."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _signature(function: Any) -> str:
    """One parameter a line once it is long; frozen configurations by name."""
    found = inspect.signature(function)
    parameters = [
        each.replace(
            annotation=_Written(str(each.annotation)) if each.annotation else each.annotation,
            default=_Written(f"{type(each.default).__name__}()")
            if dataclasses.is_dataclass(each.default)
            else each.default,
        )
        for each in found.parameters.values()
        if each.name not in {"self", "cls"}
    ]
    returns = _Written(str(found.return_annotation))
    text = str(found.replace(parameters=parameters, return_annotation=returns))
    if len(text) <= 84:
        return text
    inner, _, ending = text[1:].rpartition(")")
    return "(\n    " + ",\n    ".join(_split(inner)) + f",\n){ending}"


def _split(text: str) -> Iterator[str]:
    """At commas outside brackets."""
    depth, start = 0, 0
    for position, character in enumerate(text):
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0:
            yield text[start:position].strip()
            start = position + 1
    yield text[start:].strip()


def _code(text: str) -> str:
    return f"```text\n{text}\n```\n"


def _text(value: Any) -> str:
    """The docstring; a diagram stays one, since Markdown takes its indentation for code."""
    text = inspect.cleandoc(value.__doc__ or "")
    # "Args:" and "Raises:" head a list, each item one line or more, indented.
    text = re.sub(r"^(Args|Raises):\n", r"\1:\n\n", text, flags=re.MULTILINE)
    return text + "\n"


def main() -> int:
    """Write or check the page."""
    wanted = page()
    if "--check" in sys.argv[1:]:
        return int(not PAGE.exists() or PAGE.read_text() != wanted)
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
