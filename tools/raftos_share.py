"""How much of raftos runs under our roles, and how much is ours: the figures of docs/raft.md.

    python tools/raftos_share.py

Runs the directed tests of the roles with a line tracer on raftos's own files. Counted are
statements inside functions, without docstrings: what merely runs when raftos is imported
(decorators, its configuration) is not behaviour of a role.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
ROOM = ROOT / "chronik_server" / "raft"
TESTS = [
    path
    for family in ("test_defects_*.py", "test_protocol_*.py")
    for path in sorted((ROOT / "tests" / "server" / "raft").glob(family))
]


def main() -> int:
    """Print the figures; 1 when a test fails."""
    spec = importlib.util.find_spec("raftos")
    if spec is None or spec.origin is None:
        print("raftos is not installed")
        return 1
    home = Path(spec.origin).parent
    ran, failed = _traced(home)
    if failed:
        return 1
    per_function: Counter[str] = Counter()
    all_statements = run_statements = 0
    for path in sorted(home.glob("*.py")):
        for line, function in _statements(path):
            all_statements += 1
            if line in ran[str(path)]:
                run_statements += 1
                per_function[f"{path.stem}.{function}"] += 1
    for function, count in sorted(per_function.items()):
        print(f"{count:4}  {function}")
    ours = sum(1 for path in ROOM.glob("*.py") for _ in _statements(path))
    print(f"raftos: {run_statements} of {all_statements} statements run")
    print(f"ours:   {ours} statements in {len(list(ROOM.glob('*.py')))} modules of {ROOM.name}/")
    return 0


def _traced(home: Path) -> tuple[dict[str, set[int]], bool]:
    """Lines of raftos that ran, by file; whether a test failed."""
    ran: dict[str, set[int]] = defaultdict(set)

    def on_line(frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            ran[frame.f_code.co_filename].add(frame.f_lineno)
        return on_line

    def on_call(frame: FrameType, _event: str, _argument: Any) -> Any:
        return on_line if frame.f_code.co_filename.startswith(str(home)) else None

    sys.path.insert(0, str(ROOT))
    # Nothing of an import may count, so it is imported before.
    __import__("chronik_server.raft.group")
    sys.settrace(on_call)
    try:
        code = pytest.main(["-q", "-p", "no:cacheprovider", *map(str, TESTS)])
    finally:
        sys.settrace(None)
    return ran, code != pytest.ExitCode.OK


def _statements(path: Path) -> Iterator[tuple[int, str]]:
    """(line, function) of each statement inside a function."""

    def inside(node: ast.AST, names: tuple[str, ...], in_function: bool) -> Iterator[Any]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                if in_function:
                    yield child.lineno, ".".join(names)
                yield from inside(child, (*names, child.name), True)
            elif isinstance(child, ast.ClassDef):
                yield from inside(child, (*names, child.name), False)
            else:
                if in_function and isinstance(child, ast.stmt) and not _is_docstring(child):
                    yield child.lineno, ".".join(names)
                yield from inside(child, names, in_function)

    return inside(ast.parse(path.read_text()), (), False)


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


if __name__ == "__main__":
    raise SystemExit(main())
