"""The rules of the house, checked as tests.

Ruff's bans are lifted for a whole file at a time, and import-linter knows modules, not lines: what
is finer than either stands here. Each failure names the place and the rule.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import chronik_store.errors
from chronik_server import config as server_config
from chronik_store import config

ROOT = Path(__file__).parent.parent
PACKAGES = ("chronik_store", "chronik_server")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MODULES = [str(path.relative_to(ROOT)) for path in SOURCES]
FILE_LINES_MAX = 450
FUNCTION_LINES_MAX = 70
NAMES_THAT_SAY_NOTHING = re.compile(r"(^|_)(utils?|helpers?|common|misc|manager)($|_)")

# Seams: who may import what, in the library. A path ending in "/" is a whole room. The command
# line is a program, and the test kit brings seams of its own.
PROGRAMS = ("chronik_store/cli/", "chronik_store/testing/", "chronik_server/")
DOORS: dict[str, tuple[str, ...]] = {
    "time": ("chronik_store/clock.py",),
    "random": ("chronik_store/clock.py",),
    "secrets": ("chronik_store/clock.py",),
    "threading": ("chronik_store/threads.py", "chronik_store/fs/posix.py", "chronik_store/aio"),
    "mmap": ("chronik_store/fs/posix.py",),
    "fcntl": ("chronik_store/fs/posix.py",),
    "asyncio": ("chronik_store/aio", "chronik_store/objectstore/fsspec"),
    "socket": (),
    "subprocess": (),
    "signal": (),
}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, top-level name) of every import of a file, also those inside functions."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.partition(".")[0]


def functions_and_classes(kind: Any) -> Iterator[tuple[str, Any]]:
    """(place, node) of each definition of that kind, in all sources."""
    for path, name in zip(SOURCES, MODULES, strict=True):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, kind):
                yield f"{name}:{node.lineno} {node.name}", node


def test_a_module_opens_with_place_promise_and_invariant() -> None:
    assert [] == [
        name
        for path, name in zip(SOURCES, MODULES, strict=True)
        if not ast.get_docstring(tree_of(path))
    ]


def test_a_module_fits_on_the_page() -> None:
    lines = {
        name: path.read_text().count("\n") for path, name in zip(SOURCES, MODULES, strict=True)
    }
    too_long = {name: count for name, count in lines.items() if count > FILE_LINES_MAX}
    assert not too_long, "split them"


def test_a_function_fits_on_one_screen() -> None:
    found = functions_and_classes((ast.FunctionDef, ast.AsyncFunctionDef))
    lengths = {place: node.end_lineno - node.lineno + 1 for place, node in found}
    assert len(lengths) > 1000
    assert {} == {place: lines for place, lines in lengths.items() if lines > FUNCTION_LINES_MAX}


def test_the_name_of_a_module_or_class_says_what_it_is() -> None:
    stems = ((name, path.stem) for path, name in zip(SOURCES, MODULES, strict=True))
    classes = (
        (place, re.sub(r"(?<!^)(?=[A-Z])", "_", node.name).lower())
        for place, node in functions_and_classes(ast.ClassDef)
    )
    wrong = [place for place, said in (*stems, *classes) if NAMES_THAT_SAY_NOTHING.search(said)]
    assert not wrong, "name them after what they do"


def test_seams_are_used_at_their_doors_only() -> None:
    wrong = [
        f"{name}:{line} imports {module}; its doors: {', '.join(DOORS[module]) or 'none'}"
        for path, name in zip(SOURCES, MODULES, strict=True)
        if not name.startswith(PROGRAMS)
        for line, module in imports_of(path)
        if module in DOORS and not name.startswith(DOORS[module])
    ]
    assert [] == wrong


def test_a_third_party_library_has_an_owner() -> None:
    """Named in a contract of pyproject.toml; a new library needs one before its first import."""
    known = {*sys.stdlib_module_names, *PACKAGES, *owned_libraries()}
    wrong = [
        f"{name}:{line} {module}"
        for path, name in zip(SOURCES, MODULES, strict=True)
        for line, module in imports_of(path)
        if module not in known
    ]
    assert not wrong, "give them an owner in [tool.importlinter]"


@cache
def owned_libraries() -> set[str]:
    contracts = project()["tool"]["importlinter"]["contracts"]
    names = (contract.get("protected_modules", []) for contract in contracts)
    # The kit is an owner as a whole: nothing outside it and the tests may import it.
    return {name for some in names for name in some} | {"greenlet", "hypothesis", "pytest"}


def test_importing_the_library_loads_nothing_heavy() -> None:
    """What is loaded on first use costs those nothing who do not use it."""
    heavy = ["asyncio", "fsspec", "s3fs", "tantivy", "structlog", "rich", "click", "raftos"]
    heavy += ["pyarrow", "multiprocessing"]
    code = f"import sys, chronik_store; print([m for m in {heavy!r} if m in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert ran.stdout.strip() == "[]"


def test_everything_public_has_a_docstring() -> None:
    """On exported classes, their public methods and properties too."""
    import chronik_store as chronik

    missing = []
    for name in chronik.__all__:
        value = getattr(chronik, name)
        if callable(value) and not value.__doc__:
            missing.append(name)
        if isinstance(value, type) and value.__module__.startswith("chronik_store"):
            for attribute, member in vars(value).items():
                target = getattr(member, "__func__", member)
                is_callable = callable(target) or isinstance(target, property)
                if is_callable and not attribute.startswith("_") and not target.__doc__:
                    missing.append(f"{name}.{attribute}")

    assert missing == []


def all_errors(base: type[BaseException]) -> Iterator[type[BaseException]]:
    for child in base.__subclasses__():
        if child.__module__ == "chronik_store.errors":
            yield child
            yield from all_errors(child)


def test_each_error_is_documented() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    names = {error.__name__ for error in all_errors(chronik_store.errors.ChronikError)}

    assert {name for name in names if name not in text} == set()


def test_each_setting_is_documented_and_each_documented_one_is_read() -> None:
    """Variables against what `from_env` and the command line read; fields against LogConfig."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    read = set(config.ENVIRONMENT) | {"CHRONIK_DATA_DIR", "OBJECT_STORE_BACKEND"}
    read |= {"LOCAL_STORAGE_PATH", "S3_BUCKET", "S3_PREFIX", "CHRONIK_SERVER"}
    read |= set(server_config.ENVIRONMENT)
    read |= {"CHRONIK_TLS_CERT", "CHRONIK_TLS_KEY", "CHRONIK_TLS_CA"}
    reached = {target for target, _ in config.ENVIRONMENT.values()} | {"s3", "object_store"}
    fields = {field.name for field in dataclasses.fields(config.LogConfig)}

    assert read == set(re.findall(r"`((?:CHRONIK|OBJECT|LOCAL|S3)_[A-Z0-9_]+)`", text))
    assert {name for name in fields - reached if f"`{name}`" not in text} == set()


def test_dependencies_of_the_base_are_those_the_library_needs() -> None:
    dependencies = project()["project"]["dependencies"]
    declared = {re.split(r"[ <>=;\[]", line)[0] for line in dependencies}

    assert {"backports.zstd", "cbor2", "fsspec", "tantivy", "xxhash"} == declared


def test_constraints_name_versions_and_no_places() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)


def test_links_of_the_readme_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())

    assert [target for target in targets if not (ROOT / target).exists()] == []
