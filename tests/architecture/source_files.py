"""The project's own Python files, parsed, for the tests that hold them to the rules of the house."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOUSE = ("services", "shared", "spool")
EVERYTHING = (*HOUSE, "bench", "tests")

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file; `name` is its path from the root, with slashes."""

    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.name)

    def place(self, node: ast.expr | ast.stmt | ast.excepthandler) -> str:
        return f"{self.name}:{node.lineno}"


@lru_cache(maxsize=1)
def _parsed() -> tuple[Source, ...]:
    paths = [path for room in EVERYTHING for path in sorted((ROOT / room).rglob("*.py"))]
    return tuple(Source(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in paths)


def sources(*rooms: str) -> list[Source]:
    return [source for source in _parsed() if source.name.split("/", 1)[0] in rooms]


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` for an attribute chain of names, else nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def imported(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    """Yield each import with the full name of what it brings in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def functions(tree: ast.Module) -> Iterator[FunctionNode]:
    yield from (node for node in ast.walk(tree) if isinstance(node, FunctionNode))


def function_lines(function: FunctionNode) -> int:
    """Count a function's lines from `def` on, without its docstring."""
    assert function.end_lineno is not None  # the parser always sets it
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is None or first.end_lineno is None:
        return lines
    return lines - (first.end_lineno - first.lineno + 1)
