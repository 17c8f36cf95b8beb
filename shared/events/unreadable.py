"""What is said of bytes that are no event: which field is wrong, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from shared.events.fields import PATTERNS_IN_WORDS
from shared.kernel.errors import Refused

MAX_PROBLEMS = 20  # told of one event: a person mends the first ones, and a log line stays short


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One field of an event that is not acceptable, and why."""

    field: str
    message: str


class Unreadable(Refused):
    """Bytes that are not an event Spool understands. They are kept as a dead letter, never retried."""

    def __init__(self, problems: tuple[FieldProblem, ...]) -> None:
        """Tell every problem, one at least."""
        self.problems = problems
        said = "; ".join(f"{problem.field}: {problem.message}" for problem in problems)
        super().__init__(said, field=problems[0].field)


def field_problems(error: ValidationError, *, within: str = "") -> tuple[FieldProblem, ...]:
    """Say of each invalid field, by its published name below `within`, what is wrong with it."""
    found = error.errors(include_url=False, include_input=False)
    return tuple(
        FieldProblem(
            field=within + (".".join(str(step) for step in detail["loc"]) or "body"),
            message=in_words(detail),
        )
        for detail in found[:MAX_PROBLEMS]
    )


def in_words(detail: Mapping[str, Any]) -> str:
    """Say one of pydantic's errors to who wrote the field and never saw the code."""
    if detail["type"] == "int_parsing":
        return "has to be a whole number"
    pattern = detail.get("ctx", {}).get("pattern")
    return PATTERNS_IN_WORDS.get(str(pattern)) or detail["msg"].removeprefix("Value error, ")
