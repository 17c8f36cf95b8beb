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
from spool.cli.failures import FAILED, USAGE

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


def _cancelled(verb: Verb, clip_id: str) -> str:
    """Ask for a clip, cancel it while it waits for its sources, and return the id of the dead letter."""
    verb("events", "publish", "--type", "clip_requested", "--data", _request(clip_id))
    of_clip = ("--subject", clip_id, "--json")
    while not (rows := json.loads(verb("work", "list", "--waiting", *of_clip)[1])["work"]):
        pass
    assert verb("work", "cancel", str(rows[0]["id"]))[0] == 0
    while not (letters := json.loads(verb("dead-letters", "list", *of_clip)[1])["deadLetters"]):
        pass
    return str(letters[0]["id"])


def test_work_that_waits_says_for_what_and_until_when(verb: Verb) -> None:
    verb("events", "publish", "--type", "clip_requested", "--data", _request("waits"))
    while not json.loads(verb("work", "list", "--waiting", "--subject", "waits", "--json")[1])["work"]:
        pass
    table = verb("work", "list", "--waiting", "--subject", "waits", "--service", "clipper")[1]
    others = verb("work", "list", "--failing", "--subject", "waits")[1]

    assert "waits: sources of the camera may just be arriving; again in " in table
    assert "cam-1" in table  # what wakes it
    assert others == "nothing to list\n"


def test_a_dead_letter_is_found_shown_and_replayed_under_its_id(verb: Verb) -> None:
    letter_id = _cancelled(verb, "given-up")
    found = verb("dead-letters", "list", "--reason", "A PERSON", "--newer-than", "1h", "--service", "clipper")
    not_found = verb("dead-letters", "list", "--older-than", "1h")
    sheet = verb("dead-letters", "show", letter_id)[1]
    raw = verb("dead-letters", "show", letter_id, "--raw")[1]
    replayed = verb("dead-letters", "replay", letter_id)
    while json.loads(verb("work", "show", letter_id, "--json")[1])["state"] != "done":
        pass

    assert "given-up" in found[1]
    assert not_found[1] == "nothing to list\n"
    assert "services.clipper.handlers.cut_clip" in sheet
    assert '"clipId": "given-up"' in sheet  # pretty, not as it came
    assert json.loads(raw)["data"]["clipId"] == "given-up"
    assert (replayed[0], letter_id in replayed[1]) == (0, True)


def test_dead_letters_are_dropped_by_what_they_have_in_common_once_that_is_confirmed(verb: Verb) -> None:
    letter_ids = {_cancelled(verb, f"dropped-{each}") for each in range(2)}
    unasked = verb("dead-letters", "drop", "--type", "clip_requested")
    nothing_said = verb("dead-letters", "drop")
    both_ways = verb("dead-letters", "replay", "1", "--all")
    before = verb("dead-letters", "list")[1]
    dropped = json.loads(verb("dead-letters", "drop", "--reason", "by a person", "--yes", "--json")[1])
    again = verb("dead-letters", "drop", *letter_ids, "--yes")

    assert (unasked[0], "--yes" in unasked[2]) == (USAGE, True)
    assert (nothing_said[0], both_ways[0]) == (USAGE, USAGE)
    assert "dropped-0" in before
    assert letter_ids == set(dropped["done"])
    assert (again[0], again[2].count("dropped, not dead")) == (FAILED, len(letter_ids))


def test_several_pieces_of_work_are_cancelled_and_one_that_cannot_be_holds_up_none(verb: Verb) -> None:
    for each in range(2):
        verb("events", "publish", "--type", "clip_requested", "--data", _request(f"stop-{each}"))
    ids: dict[str, str] = {}
    while len(ids) < 2:
        rows = json.loads(verb("work", "list", "--waiting", "--json")[1])["work"]
        ids |= {row["subject"]: str(row["id"]) for row in rows if row["subject"].startswith("stop-")}
    code, said, wrong = verb("work", "cancel", ids["stop-0"], "999999", ids["stop-1"])
    verb("dead-letters", "drop", "--all", "--yes")

    assert (code, said.count("is being stopped"), "999999" in wrong) == (FAILED, 2, True)
