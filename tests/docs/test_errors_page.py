"""docs/errors.md has a section for each error, and it says what the class says."""

from __future__ import annotations

import inspect
import re

import pytest

import chronik_store as chronik
from chronik_server import errors as server_errors
from chronik_store import errors
from tests.docs.pages import DOCS

SECTIONS = dict(
    re.findall(
        r"^## `(\w+)`\n(.*?)(?=^## |\Z)", (DOCS / "errors.md").read_text(), re.DOTALL | re.MULTILINE
    )
)
CLASSES = {
    name: value
    for module in (errors, server_errors)
    for name, value in vars(module).items()
    if isinstance(value, type)
    and issubclass(value, errors.ChronikError)
    and value is not errors.ChronikError
}


def test_each_error_has_a_section_and_each_section_an_error() -> None:
    assert set(CLASSES) == set(SECTIONS)
    ours = {name for name, kind in CLASSES.items() if kind.__module__ == errors.__name__}
    assert {name for name in ours if not hasattr(chronik, name)} == set()


@pytest.mark.parametrize("name", CLASSES)
def test_a_section_answers_the_four_questions(name: str) -> None:
    questions = re.findall(r"^- \*\*([^*]+):\*\* \S", SECTIONS[name], re.MULTILINE)

    assert ["What happened", "Retriable", "Durability", "What to do"] == questions


@pytest.mark.parametrize("name", CLASSES)
def test_a_section_says_whether_the_error_is_retriable(name: str) -> None:
    said = re.search(r"^- \*\*Retriable:\*\* (\w+)", SECTIONS[name], re.MULTILINE)

    assert said is not None
    assert CLASSES[name].retriable == (said[1] == "yes")


@pytest.mark.parametrize("name", CLASSES)
def test_a_section_names_the_attributes(name: str) -> None:
    own = CLASSES[name].__dict__.get("__init__")
    parameters = inspect.signature(own).parameters if own is not None else {}
    attributes = set(parameters) - {"self", "message", "durability"}

    assert {each for each in attributes if f"`.{each}`" not in SECTIONS[name]} == set()


@pytest.mark.parametrize("name", CLASSES)
def test_a_section_names_the_other_base(name: str) -> None:
    builtin = {LookupError, ValueError} & set(CLASSES[name].__mro__[:3])

    assert all(f"`{base.__name__}`" in SECTIONS[name] for base in builtin)


def sets_its_durability(error: type[errors.ChronikError]) -> bool:
    """Its constructor says what is known; of the others, whoever raises them."""
    own = error.__dict__.get("__init__")
    return (
        own is not None and re.search(r'durability[^,()]*= ?"', inspect.getsource(own)) is not None
    )


@pytest.mark.parametrize("name", [name for name in CLASSES if sets_its_durability(CLASSES[name])])
def test_a_class_that_knows_the_durability_has_it_in_its_section(name: str) -> None:
    assert re.search(r"\*\*Durability:\*\* (not_durable|unknown)", SECTIONS[name])
