"""The rules of the house that no linter knows, as tests: each finds its breaches by file and line."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

import pytest

from tests.architecture.source_files import (
    EVERYTHING,
    HOUSE,
    dotted,
    function_lines,
    functions,
    imported,
    sources,
)

# Here whatever a handler or a tick raised becomes a row's next state or a log line, and the loop lives on.
MAY_CATCH_EVERYTHING = {"shared/inbox/worker.py", "shared/runtime/scheduler.py"}
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "base_classes", "core", "manager"}
MAX_FUNCTION_LINES = 60  # one screen
P95_FUNCTION_LINES = 30  # the average says nothing; code that reads well has a short tail
P95_FILE_LINES = 300

# After the codes comes a word that says why; or a comment on the line above does.
SUPPRESSION = re.compile(r"#\s*(?:noqa|type:\s*ignore|mypy:|ruff:)")
REASONED = re.compile(r"#\s*(?:noqa: [A-Z0-9, ]+|type: ignore\[[a-z0-9, -]+\])\s*[#:-]+\s*\w")

# Python before 3.11.5 takes too much (python/cpython#100061, #106052), and Debian 12 has 3.11.2.
POSSESSIVE = re.compile(r"(?<!\\)[+*?}]\+|\(\?>")


def percentile_95(numbers: Sequence[int]) -> int:
    return sorted(numbers)[int(len(numbers) * 0.95)]


def test_only_two_files_catch_everything() -> None:
    broad = [
        source.place(node)
        for source in sources(*EVERYTHING)
        if source.name not in MAY_CATCH_EVERYTHING
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or {"Exception", "BaseException"} & {dotted(n) for n in ast.walk(node.type)})
    ]

    assert broad == []


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{source.place(function)} {function.name}": lines
        for source in sources(*EVERYTHING)
        for function in functions(source.tree)
        if (lines := function_lines(function)) > MAX_FUNCTION_LINES
    }

    assert long == {}


def test_nineteen_functions_of_twenty_are_short() -> None:
    lengths = [function_lines(f) for source in sources(*HOUSE) for f in functions(source.tree)]

    assert percentile_95(lengths) <= P95_FUNCTION_LINES


def test_nineteen_files_of_twenty_are_short() -> None:
    lengths = [source.text.count("\n") for source in sources(*HOUSE)]

    assert percentile_95(lengths) <= P95_FILE_LINES


def test_every_module_says_what_it_is_for() -> None:
    silent = [s.name for s in sources(*EVERYTHING) if not ast.get_docstring(s.tree)]

    assert silent == []


def test_only_settings_reads_the_environment() -> None:
    readers = [
        source.place(node)
        for source in sources("shared", "services")
        if not source.name.startswith("shared/settings/")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute)
        and dotted(node) in {"os.environ", "os.environb", "os.getenv", "os.putenv"}
    ]
    importers = [
        source.place(statement)
        for source in sources("shared", "services")
        if not source.name.startswith("shared/settings/")
        for statement, name in imported(source.tree)
        if name in {"os.environ", "os.environb", "os.getenv", "dotenv"}
    ]

    assert readers + importers == []


def test_no_pattern_is_possessive() -> None:
    possessive = [
        source.place(pattern)
        for source in sources(*EVERYTHING)
        for call in ast.walk(source.tree)
        if isinstance(call, ast.Call) and dotted(call.func).startswith("re.") and call.args
        for pattern in ast.walk(call.args[0])
        if isinstance(pattern, ast.Constant) and POSSESSIVE.search(str(pattern.value))
    ]

    assert possessive == []


def test_nothing_is_named_after_a_drawer() -> None:
    drawers = [s.name for s in sources(*EVERYTHING) if DRAWERS & set(s.name.removesuffix(".py").split("/"))]

    assert drawers == []


def test_no_test_patches_our_code() -> None:
    patching = [
        source.place(statement)
        for source in sources("tests")
        for statement, name in imported(source.tree)
        if name.startswith(("unittest.mock", "mock."))
    ]
    replacing = [
        source.place(node)
        for source in sources("tests")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and dotted(node.func) in {"monkeypatch.setattr", "mocker.patch"}
    ]

    assert patching + replacing == []


def test_every_suppressed_warning_says_why() -> None:
    unexplained = []
    for source in sources(*EVERYTHING):
        lines = source.text.splitlines()
        unexplained += [
            f"{source.name}:{number}"
            for number, line in enumerate(lines, start=1)
            if SUPPRESSION.search(line) and source.name != "tests/architecture/test_house_rules.py"
            if not REASONED.search(line) and not lines[number - 2].lstrip().startswith("# ")
        ]

    assert unexplained == []


@pytest.mark.parametrize(
    ("line", "reasoned"),
    [
        pytest.param("x = 1  # noqa: E501", False, id="no reason"),
        pytest.param("x = 1  # noqa: E501, D100 - a literal of the protocol", True, id="noqa with a reason"),
        pytest.param("x = 1  # type: ignore[attr-defined]", False, id="no reason for a type"),
        pytest.param("x = 1  # type: ignore[attr-defined]  # no stubs", True, id="type with a reason"),
    ],
)
def test_a_reason_is_told_from_none(line: str, reasoned: bool) -> None:
    assert bool(REASONED.search(line)) == reasoned


def test_a_docstring_does_not_count_as_length() -> None:
    tree = ast.parse('def f():\n    """One.\n\n    Two.\n    """\n    return 1\n')

    assert [function_lines(f) for f in functions(tree)] == [2]
