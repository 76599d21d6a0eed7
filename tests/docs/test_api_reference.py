"""docs/reference/api.md is what tools/api_reference.py makes of the docstrings today."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest

import chronik_store as chronik
from chronik_server import client
from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("api_reference", ROOT / "tools/api_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_source_says(tool: ModuleType) -> None:
    assert tool.PAGE.read_text() == tool.page(), "stale: run `python tools/api_reference.py`"


def test_every_public_name_has_a_place(tool: ModuleType) -> None:
    public = {name for name in chronik.__all__ if name != "aio"}
    errors = {name for name in public if name.endswith("Error")}

    assert public - errors == tool.described()
    assert set(client.__all__) == set(tool.CLIENT)


def test_what_a_public_call_gives_back_has_a_place(tool: ModuleType) -> None:
    """Its fields are to be found there: those of the report of `restore` stood nowhere."""
    described = tool.described() | set(tool.CLIENT) | set(chronik.aio.__all__)
    engine = {"EntryRun", "Entry", "Snapshot", "Staged", "Appended", "Members", "OutgoingLane"}
    words = {"Iterator", "AsyncIterator", "Future", "None", "SSLContext"}
    aliases = {"Headers", "Opening", "Taken"}

    given = re.findall(r"^(?:async )?(?:def|\)).*-> (.*)$", tool.page(), re.MULTILINE)
    named = {name for each in given for name in re.findall(r"\b[A-Z]\w+", each)}

    assert named - described - engine - words - aliases == set()


def test_everything_of_the_client_has_a_docstring(tool: ModuleType) -> None:
    missing = [
        f"{name}.{attribute}"
        for name in client.__all__
        for attribute, member in tool._members(getattr(client, name))
        if not (member.__doc__ or "").strip()
    ]

    assert missing == []
