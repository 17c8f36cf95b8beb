"""What the benchmarks share: a missed goal fails a strict run, and the last line is for programs."""

from __future__ import annotations

import json

import pytest

from bench.report import Goal, Options, Report, read_options


def a_report(*, ratio: float, fact: bool = True) -> Report:
    report = Report("clip", rows=[{"way": "Spool", "CPU s": 0.2916}])
    report.goals = [Goal("CPU ratio", ratio, 0.01)]
    report.facts = {"the frames are exact": fact}
    return report


@pytest.mark.parametrize(
    ("ratio", "fact", "check", "code"),
    [
        pytest.param(0.01, True, True, 0, id="met"),
        pytest.param(0.011, True, True, 1, id="missed"),
        pytest.param(0.01, False, True, 1, id="wrong"),
        pytest.param(0.011, False, False, 0, id="not checked"),
    ],
)
def test_only_a_strict_run_fails_on_what_was_missed(
    *, ratio: float, fact: bool, check: bool, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = a_report(ratio=ratio, fact=fact).finish(Options(quick=True, check=check))

    lines = capsys.readouterr().out.splitlines()
    told = json.loads(lines[-1])
    assert ended == code
    assert told["good"] is (ratio <= 0.01 and fact)
    assert told["goals"]["CPU ratio"] == {"value": ratio, "at_most": 0.01, "met": ratio <= 0.01}
    assert "| Spool | 0.292 |" in lines
    assert any("MISSED: CPU ratio" in line for line in lines) is (ratio > 0.01)


def test_options_are_read() -> None:
    assert read_options("", ["--quick", "--check"]) == Options(quick=True, check=True)
    assert read_options("", []) == Options(quick=False, check=False)


@pytest.mark.parametrize(
    ("value", "met"),
    [pytest.param(1.0, True, id="just enough"), pytest.param(0.99, False, id="too slow")],
)
def test_a_goal_may_ask_for_at_least_something(*, value: float, met: bool) -> None:
    goal = Goal("Spool to FastStream", value, at_least=1, target=2)

    assert goal.is_met is met
    assert str(goal).endswith("at least 1, target 2")
    assert goal.as_json() == {"value": value, "at_least": 1, "target": 2, "met": met}


@pytest.mark.parametrize(
    ("value", "code"),
    [pytest.param(0.7, 0, id="missed, and not fallen back"), pytest.param(0.5, 1, id="fallen back")],
)
def test_a_goal_that_is_not_reached_yet_may_not_fall_back(
    *, value: float, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    report = a_report(ratio=0.01)
    report.goals = [Goal("Spool to FastStream", value, at_least=1.2, floor=0.6)]
    ended = report.finish(Options(quick=False, check=True))

    said = capsys.readouterr().out
    assert ended == code
    assert f"MISSED: Spool to FastStream {value:.3g}, at least 1.2, checked at 0.6" in said
    assert not report.is_good
