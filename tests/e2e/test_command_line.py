"""The service verbs against a Spool that really runs, started as a user starts it."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spool.cli.app import run_command
from spool.cli.failures import FAILED

START_LINES = 2  # the address, and the key of a first start

Verb = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run `spool up` on a directory of its own while the module's tests run."""
    directory = tmp_path_factory.mktemp("up") / "data"
    command = [sys.executable, "-m", "spool", "up", "--data", str(directory), "--port", "0"]
    with (
        (directory.parent / "log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            said = [process.stdout.readline() for _ in range(START_LINES)]
            assert said[0].startswith("Spool runs at http://127.0.0.1:"), (
                directory.parent / "log"
            ).read_text()
            assert (directory / "api-key").read_text().strip() in said[1]
            yield directory
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait()
    assert code == 0
    assert not (directory / "running.json").exists()


@pytest.fixture
def verb(data: Path, capsys: pytest.CaptureFixture[str]) -> Verb:
    """Run a verb on the running Spool and return its exit code, output and error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        option = "--data-directory" if arguments[:2] == ("events", "publish") else "--data"
        code = run_command([*arguments, option, str(data)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def _request(clip_id: str, *, start_ms: int = 1_763_800_010_000, end_ms: int = 1_763_800_020_000) -> str:
    body = {
        "clipId": clip_id,
        "cameraId": "cam-1",
        "startTimestampInMs": start_ms,
        "endTimestampInMs": end_ms,
    }
    return json.dumps(body)


def _events_of(verb: Verb, subject: str) -> list[dict[str, object]]:
    """Follow the stream from its beginning until the subject has its two events."""
    _, out, _ = verb("events", "tail", "--after", "0", "--subject", subject, "--count", "2", "--json")
    return [json.loads(line)["event"] for line in out.splitlines()]


def test_only_the_types_that_were_asked_for_are_shown(verb: Verb) -> None:
    verb("events", "publish", "clip_requested", "--data", _request("typed"))
    answers = ("--type", "clip_not_available", "--type", "clip_failed")

    _, out, _ = verb("events", "tail", "--after", "0", "--subject", "typed", *answers, "--count", "1")

    assert [line.split("  ")[2] for line in out.splitlines()] == ["clip_not_available"]


def test_an_event_is_published_worked_and_answered(verb: Verb) -> None:
    code, said, _ = verb("events", "publish", "--type", "clip_requested", "--data", _request("first"))
    asked, answered = _events_of(verb, "first")
    shown = json.loads(verb("clips", "show", "first", "--json")[1])

    assert code == 0
    assert str(asked["id"]) in said
    assert (asked["type"], answered["type"]) == ("clip_requested", "clip_not_available")
    assert shown["status"] == "not_available"


def test_an_event_is_published_from_a_file(verb: Verb, tmp_path: Path) -> None:
    event = {
        "specversion": "1.0",
        "id": "mine",
        "source": "/test",
        "type": "clip_requested",
        "data": json.loads(_request("from-file")),
    }
    (tmp_path / "event.json").write_text(json.dumps(event))

    code, said, _ = verb("events", "publish", str(tmp_path / "event.json"), "--json")

    assert (code, json.loads(said)) == (0, {"id": "mine"})
    assert _events_of(verb, "from-file")[0]["id"] == "mine"


def test_lists_are_tables_or_the_json_of_the_server(verb: Verb) -> None:
    verb("events", "publish", "--type", "clip_requested", "--data", _request("listed"))
    _events_of(verb, "listed")

    table = verb("clips", "list", "--camera", "cam-1")[1]
    page = json.loads(verb("clips", "list", "--camera", "cam-1", "--json")[1])
    work = json.loads(verb("work", "list", "--type", "clip_requested", "--state", "done", "--json")[1])
    first_page = verb("clips", "list", "--max-items", "1")[1]

    assert "listed" in table
    assert "listed" in {clip["clipId"] for clip in page["clips"]}
    assert "listed" in {row["subject"] for row in work["work"]}
    assert first_page.count("cam-1") == 1


def test_one_piece_of_work_is_shown_whole(verb: Verb) -> None:
    verb("events", "publish", "--type", "clip_requested", "--data", _request("shown"))
    _events_of(verb, "shown")
    rows = json.loads(verb("work", "list", "--json")[1])["work"]
    row = next(row for row in rows if row["subject"] == "shown")

    code, sheet, _ = verb("work", "show", str(row["id"]))

    assert code == 0
    assert row["eventId"] in sheet
    assert "clip_not_available" in sheet


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["clips", "show", "nobody"], "nobody", id="unknown-clip"),
        pytest.param(["clips", "list", "--status", "lost"], "status: ", id="unknown-status"),
        pytest.param(["clips", "list", "--page-token", "!"], "nextPageToken", id="invented-token"),
        pytest.param(["work", "show", "999999"], "999999", id="unknown-work"),
        pytest.param(["dead-letters", "show", "999999"], "999999", id="unknown-letter"),
        pytest.param(["dead-letters", "replay", "999999"], "999999", id="replay-of-nothing"),
        pytest.param(["events", "publish", "--type", "x", "--data", "{}"], "type: 'x'", id="unknown-type"),
        pytest.param(
            ["events", "publish", "--type", "clip_requested", "--data", '{"cameraId": "c"}'],
            "data.clipId",
            id="missing-field",
        ),
    ],
)
def test_what_the_server_refuses_is_told_in_one_line(verb: Verb, arguments: list[str], words: str) -> None:
    code, _, said = verb(*arguments)

    assert code == FAILED
    assert words in said
    assert said.count("\n") == 1


def test_without_dead_letters_their_list_is_empty(verb: Verb) -> None:
    code, _, said = verb("dead-letters", "list")

    assert (code, said) == (0, "")


def test_a_wrong_key_is_refused(verb: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOOL_API_KEY", "not-the-key-of-this-server")

    code, _, said = verb("clips", "list")

    assert (code, "SPOOL_API_KEY" in said) == (FAILED, True)


def test_a_second_spool_on_the_directory_is_refused(verb: Verb) -> None:
    code, _, said = verb("up", "--port", "0")

    assert (code, "in use by the process" in said, said.count("\n")) == (FAILED, True, 1)


def test_the_key_is_for_its_owner_only(data: Path) -> None:
    assert stat.S_IMODE((data / "api-key").stat().st_mode) == 0o600
