"""Answers to a request: the same answer keeps its number and its event id, a new one gets the next."""

from __future__ import annotations

import pytest

from services.clipper.domain.clip_outcome import (
    OUTCOME_OF,
    STATUS_OF,
    conflicting_duplicate,
    failed,
    not_available,
    refused,
    revised,
    said_before,
)
from services.clipper.domain.clip_request import Refusal
from shared.events.clip import ClipOutcome, ClipRequested
from shared.events.envelope import announce
from shared.events.registry import TYPES
from shared.kernel.timeline import TimeRange

REQUEST = ClipRequested(
    clip_id="clip-1", camera_id="cam-1", start_timestamp_in_ms=1000, end_timestamp_in_ms=2000
)
GAP = not_available(REQUEST, [TimeRange(1000, 1500)])
FAILED = failed(REQUEST, reason="is empty", fault="source", advice="store it again", source_key="a.mp4")
REFUSED = refused(REQUEST, Refusal("too_long", "endTimestampInMs", "asks for too much"))


def event_id(outcome: ClipOutcome, *, time_ms: int = 0) -> str:
    return announce(outcome, source="spool/clipper", time_ms=time_ms).id


def stored(outcome: ClipOutcome) -> bytes:
    return outcome.model_dump_json(by_alias=True, exclude_none=True).encode()


@pytest.mark.parametrize("outcome", [GAP, FAILED, REFUSED], ids=lambda outcome: outcome.type)
def test_an_answer_said_again_has_the_same_event_id(outcome: ClipOutcome) -> None:
    before = revised(outcome, None)
    again = revised(outcome, said_before(before.type, stored(before)))

    assert again == before
    assert event_id(again, time_ms=2000) == event_id(before, time_ms=1000)


def test_every_new_answer_counts_up_and_has_an_event_id_of_its_own() -> None:
    answers: list[ClipOutcome] = []
    for outcome in (GAP, FAILED, GAP, REFUSED, FAILED, REFUSED):
        answers.append(revised(outcome, answers[-1] if answers else None))

    assert [answer.revision for answer in answers] == [1, 2, 3, 4, 5, 6]
    assert len({event_id(answer) for answer in answers}) == len(answers)


def test_a_gap_that_has_shrunk_is_a_new_answer() -> None:
    smaller = not_available(REQUEST, [TimeRange(1000, 1400)])

    assert revised(smaller, GAP).revision == 2


def test_two_other_requests_under_one_clip_id_are_two_refusals() -> None:
    one = conflicting_duplicate(REQUEST)
    other = conflicting_duplicate(REQUEST.model_copy(update={"camera_id": "cam-2"}))

    assert (one.reason, one.field) == ("conflicting_duplicate", "clipId")
    assert event_id(one) != event_id(other)


def test_answers_to_two_requests_never_share_an_event_id() -> None:
    other = REQUEST.model_copy(update={"clip_id": "clip-2"})

    assert event_id(GAP) != event_id(not_available(other, [TimeRange(1000, 1500)]))


@pytest.mark.parametrize(("last_type", "last_result"), [(None, None), ("clip_failed", None), (None, b"{}")])
def test_a_request_without_an_answer_was_told_nothing_before(
    last_type: str | None, last_result: bytes | None
) -> None:
    assert said_before(last_type, last_result) is None


def test_every_answer_that_can_be_published_has_a_status() -> None:
    published = {data_type for data_type in TYPES.values() if issubclass(data_type, ClipOutcome)}

    assert published == set(STATUS_OF) == set(OUTCOME_OF.values())
