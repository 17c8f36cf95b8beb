"""Whatever ends a command: one line and an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from shared.kernel.errors import Bug, Refused
from spool.cli.app import run_command
from spool.cli.failures import MAX_LINE_CHARACTERS, Terminated, one_line, report


@pytest.mark.parametrize(
    ("error", "exit_code", "words"),
    [
        pytest.param(Refused("no", hint="say yes"), 1, "spool: no (say yes)\n", id="refused"),
        pytest.param(
            FileNotFoundError(2, "No such file", "x.mp4"), 1, "spool: x.mp4: No such file\n", id="system"
        ),
        pytest.param(KeyboardInterrupt(), 130, "spool: interrupted\n", id="ctrl-c"),
        pytest.param(Terminated(), 143, "spool: terminated\n", id="sigterm"),
        pytest.param(typer.BadParameter("is bad"), 2, "spool: Invalid value: is bad\n", id="usage"),
        pytest.param(
            ExceptionGroup("g", [Refused("first"), Refused("second")]), 1, "spool: first\n", id="group"
        ),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    error: BaseException, exit_code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = report(error)

    assert code == exit_code
    assert capsys.readouterr().err == words


@pytest.mark.parametrize("error", [Bug("broken"), ValueError("x"), ExceptionGroup("g", [Bug("broken")])])
def test_a_bug_keeps_its_traceback(error: BaseException) -> None:
    assert report(error) is None


def test_a_line_has_no_breaks_no_escapes_and_an_end() -> None:
    line = one_line("a\nb\x1b[31mred\x07 " + "x" * 5000)

    assert line.startswith("a b�[31mred� x")
    assert len(line) == MAX_LINE_CHARACTERS
    assert line.isprintable()


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        pytest.param(["--help"], 0, "", id="help"),
        pytest.param([], 0, "", id="nothing"),
        pytest.param(["--version"], 0, "", id="version"),
        pytest.param(["evnets"], 2, "No such command", id="unknown-command"),
        pytest.param(["events"], 2, "Missing command", id="group-without-a-verb"),
        pytest.param(["clip", "in.mp4"], 2, "-o", id="no-output"),
        pytest.param(["clip", "in.mp4", "-o", "out.mp4", "--from", "soon"], 2, "--from", id="not-a-time"),
        pytest.param(
            ["clip", "nowhere.mp4", "-o", "out.mp4"], 1, "nowhere.mp4 does not exist", id="no-source"
        ),
        pytest.param(["serve", "cutter"], 2, "clipper", id="unknown-service"),
        pytest.param(["clips", "list"], 1, "spool up", id="nothing-runs"),
        pytest.param(["clips", "show", "x", "--url", "gopher://x"], 1, "gopher://x", id="not-a-url"),
        pytest.param(["clips", "list", "--max-items", "0"], 2, "--max-items", id="page-of-nothing"),
        pytest.param(["events", "publish"], 2, "--data", id="nothing-to-publish"),
        pytest.param(["events", "publish", "--data", "{}"], 2, "--type", id="data-without-a-type"),
        pytest.param(
            ["events", "publish", "--type", "call_ended", "--data", '{"specversion": "1.0"}'],
            2,
            "without --type",
            id="a-whole-event-with-a-type",
        ),
        pytest.param(["events", "publish", "call_ended"], 2, "--data", id="type-without-data"),
        pytest.param(
            ["events", "publish", "--type", "x", "--data", "{"], 1, "--data is not JSON", id="bad-json"
        ),
        pytest.param(
            ["events", "publish", "--type", "x", "--data", "[]"], 1, "holds a list", id="not-an-object"
        ),
        pytest.param(["events", "publish", "nowhere.json"], 1, "nowhere.json", id="no-event-file"),
        pytest.param(["events", "publish", "."], 1, "directory", id="directory-for-an-event"),
        pytest.param(
            ["demo", "--file", "nowhere.mp4"], 1, "nowhere.mp4 does not exist", id="demo-without-its-file"
        ),
    ],
)
def test_a_wrong_command_is_told_in_one_line(
    *,
    arguments: list[str],
    exit_code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    code = run_command(arguments)

    said = capsys.readouterr().err
    assert (code, words in said) == (exit_code, True)
    assert said.count("\n") == (1 if exit_code else 0)


def test_a_wrong_setting_stops_a_service_verb_with_its_variable(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPOOL_HTTP_PORT", "many")

    code = run_command(["clips", "list"])

    assert code == 1
    assert "SPOOL_HTTP_PORT" in capsys.readouterr().err


def test_a_deeply_nested_event_is_refused_without_a_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 200_000)

    code = run_command(["events", "publish", str(deep)])

    assert code == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_an_event_file_may_be_no_larger_than_an_event(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    large = tmp_path / "large.json"
    large.write_text(json.dumps({"x": "y" * 2_000_000}))

    code = run_command(["events", "publish", str(large)])

    assert code == 1
    assert "cannot be an event" in capsys.readouterr().err
