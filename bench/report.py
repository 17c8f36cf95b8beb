"""What every program in bench/ shares: its options, its table, its goals, and a line of JSON at the end."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Options:
    """How a benchmark was called."""

    quick: bool
    check: bool


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio or a limit that has to hold on every machine. Absolute times are for a person to judge.

    `target` is what is aimed at beyond it; missing that fails nothing. `floor` is what `--check` holds in
    place of the goal: for one that is not reached yet, or for a run that is full of noise.
    """

    name: str
    value: float
    at_most: float = math.inf
    unit: str = ""
    at_least: float = -math.inf
    target: float | None = None
    floor: float | None = None

    @property
    def is_met(self) -> bool:
        return self.at_least <= self.value <= self.at_most

    @property
    def holds(self) -> bool:
        return self.is_met or (self.floor is not None and self.value >= self.floor)

    def __str__(self) -> str:
        verdict = "met" if self.is_met else "MISSED"
        limits = [f"{words} {self._figure(limit)}" for words, limit in self._limits()]
        return f"{verdict}: {self.name} {self._figure(self.value)}, {', '.join(limits)}"

    def as_json(self) -> dict[str, object]:
        limits = {words.replace(" ", "_"): limit for words, limit in self._limits()}
        return {"value": round(self.value, 4), **limits, "met": self.is_met}

    def _limits(self) -> Iterator[tuple[str, float]]:
        if self.at_most < math.inf:
            yield "at most", self.at_most
        if self.at_least > -math.inf:
            yield "at least", self.at_least
        if self.target is not None:
            yield "target", self.target
        if self.floor is not None:
            yield "checked at", self.floor

    def _figure(self, value: float) -> str:
        return f"{_figure(value)}{self.unit}"


@dataclass(slots=True)
class Report:
    """A benchmark's result: rows that all have the same columns, facts that must hold, and goals.

    `measures` are figures that no goal is set for, by what was measured and their name with its unit.
    """

    name: str
    notes: list[str] = field(default_factory=list)
    rows: list[Mapping[str, str | float]] = field(default_factory=list)
    measures: dict[str, dict[str, float]] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    facts: dict[str, bool] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        return all(goal.is_met for goal in self.goals) and all(self.facts.values())

    @property
    def holds(self) -> bool:
        return all(goal.holds for goal in self.goals) and all(self.facts.values())

    def finish(self, options: Options) -> int:
        """Print everything and return the exit code: 1 with `--check` when something does not hold."""
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
        print(
            f"{self.name}{' (quick)' if options.quick else ''}, {moment}, {machine}, "
            f"Python {platform.python_version()}"
        )
        for note in self.notes:
            print(f"- {note}")
        for measured, figures in self.measures.items():
            print(f"- {measured}: {', '.join(f'{name} {_figure(value)}' for name, value in figures.items())}")
        print()
        _print_table(self.rows)
        print()
        for fact, holds in self.facts.items():
            print(f"- {'yes' if holds else 'NO'}: {fact}")
        for goal in self.goals:
            print(f"- {goal}")
        print()
        print(json.dumps(self._as_json(options, moment)))
        return 1 if options.check and not self.holds else 0

    def _as_json(self, options: Options, moment: str) -> dict[str, object]:
        return {
            "bench": self.name,
            "quick": options.quick,
            "time": moment,
            "good": self.is_good,
            "goals": {goal.name: goal.as_json() for goal in self.goals},
            "facts": self.facts,
            "rows": self.rows,
            "measures": self.measures,
        }


def read_options(description: str, arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smaller inputs, a minute or a few")
    parser.add_argument(
        "--check",
        action="store_true",
        help="exit 1 when a goal is missed, or what is checked in its place",
    )
    found = parser.parse_args(arguments)
    return Options(quick=found.quick, check=found.check)


def _print_table(rows: Sequence[Mapping[str, str | float]]) -> None:
    """Print Markdown: it reads well on a terminal and in a report alike."""
    columns = list(rows[0])
    lines = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else _figure(value)


def _figure(value: float) -> str:
    """Write three digits that mean something, and none of a large number's behind the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
