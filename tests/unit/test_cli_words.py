"""Where a piece of work stands, in words that a person reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spool.cli.words import ago, pretty, stand
from spool.times import parse_age, span_text

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def at(**ago: float) -> str:
    return (NOW - timedelta(**ago)).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("work", "words"),
    [
        pytest.param(
            {
                "state": "working",
                "claimedAt": at(seconds=12),
                "worker": "host:7",
                "leaseUntil": at(seconds=-20),
            },
            "being done for 12 s, by host:7",
            id="working",
        ),
        pytest.param(
            {"state": "working", "claimedAt": at(minutes=3), "worker": "host:7", "progress": "3.0 of 9.0 s"},
            "being done for 3 min, 3.0 of 9.0 s, by host:7",
            id="with-progress",
        ),
        pytest.param(
            {"state": "working", "claimedAt": at(minutes=3), "worker": "gone", "leaseUntil": at(seconds=40)},
            "being done for 3 min, by gone, its lease ran out 40 s ago: it is taken over soon",
            id="abandoned",
        ),
        pytest.param(
            {"state": "working", "claimedAt": at(seconds=1), "worker": "w", "cancelRequested": True},
            "being done for 1.0 s, by w, being cancelled",
            id="being-cancelled",
        ),
        pytest.param(
            {
                "state": "working",
                "claimedAt": at(seconds=1),
                "worker": "w",
                "failingSince": at(hours=2),
                "reason": "no disk",
            },
            "being done for 1.0 s, by w, failing since 2 h ago, last: no disk",
            id="tried-again",
        ),
        pytest.param({"state": "ready", "receivedAt": at(minutes=4)}, "ready for 4 min", id="ready"),
        pytest.param(
            {
                "state": "ready",
                "failingSince": at(minutes=10),
                "nextAt": at(minutes=-4),
                "reason": "the store does not answer",
            },
            "failed, again in 4 min; failing since 10 min ago: the store does not answer",
            id="failed",
        ),
        pytest.param(
            {"state": "ready", "failingSince": at(minutes=10), "nextAt": at(seconds=4), "reason": "x"},
            "failed, again now; failing since 10 min ago: x",
            id="failed-and-due",
        ),
        pytest.param(
            {
                "state": "ready",
                "waiting": True,
                "nextAt": at(seconds=-30),
                "wakeKeys": ["camera:door", "call:1"],
                "reason": "no source yet",
            },
            "waits: no source yet; again in 30 s or when camera:door, call:1 comes",
            id="waiting",
        ),
        pytest.param(
            {"state": "ready", "cancelRequested": True, "receivedAt": at(hours=1)},
            "being cancelled",
            id="cancelled-before-it-began",
        ),
        pytest.param(
            {"state": "done", "doneAt": at(days=3), "outcome": "clip_available"},
            "done 3 days ago: clip_available",
            id="done",
        ),
        pytest.param(
            {"state": "done", "doneAt": at(seconds=30), "outcome": ""},
            "done 30 s ago: nothing to tell",
            id="done-in-silence",
        ),
        pytest.param(
            {"state": "dead", "doneAt": at(minutes=5), "outcome": "cancelled", "reason": "by a person"},
            "cancelled 5 min ago: by a person",
            id="dead",
        ),
    ],
)
def test_where_work_stands_is_said_in_words(work: dict[str, Any], words: str) -> None:
    assert stand(work, NOW) == words


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        pytest.param(at(seconds=0.4), "0.4 s ago", id="just-now"),
        pytest.param(at(hours=-2, minutes=-5), "in 2 h 5 min", id="ahead"),
        pytest.param(None, "-", id="never"),
        pytest.param("nonsense", "-", id="no-moment"),
    ],
)
def test_a_moment_is_told_by_its_distance(moment: str | None, words: str) -> None:
    assert ago(moment, NOW) == words


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("90s", 90, id="seconds"),
        pytest.param("2h", 7_200, id="hours"),
        pytest.param("1d12h", 129_600, id="days-and-hours"),
        pytest.param(" 2w ", 1_209_600, id="weeks"),
    ],
)
def test_an_age_is_read_as_people_type_it(text: str, seconds: int) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "2 h", "-2h", "1h2d", "1.5h", "two"])
def test_what_is_no_age_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(ValueError, match="is not an age"):
        parse_age(text)


@pytest.mark.parametrize(
    ("span", "words"),
    [
        pytest.param(timedelta(seconds=99), "99 s", id="seconds"),
        pytest.param(timedelta(seconds=100), "2 min", id="minutes"),
        pytest.param(timedelta(minutes=100), "1 h 40 min", id="hours-and-minutes"),
        pytest.param(timedelta(hours=47), "47 h", id="hours"),
        pytest.param(timedelta(days=40), "40 days", id="days"),
    ],
)
def test_a_span_is_said_as_people_do(span: timedelta, words: str) -> None:
    assert span_text(span) == words


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        pytest.param('{"a": 1}', '{\n  "a": 1\n}', id="json"),
        pytest.param("{'a': \x1b[31m}\nnext", "{'a': \ufffd[31m}\nnext", id="steers-no-terminal"),
        pytest.param(None, "(not text; --raw writes its bytes)", id="bytes"),
    ],
)
def test_a_body_is_shown_as_a_person_reads_it(body: str | None, shown: str) -> None:
    assert pretty(body) == shown
