"""Plain results: what the subscribers of the older clip pipeline parse, field by field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.bus.message import Message
from shared.events.clip import (
    ClipAvailable,
    ClipFailed,
    ClipNotAvailable,
    ClipOutcome,
    ClipRefused,
    ClipRequested,
    StoredClip,
    Thumbnail,
)
from shared.events.envelope import CONTENT_TYPE, EventData, announce, wrap
from shared.events.plain import PublicPlace
from shared.events.reading import Letter, read_event
from shared.events.source import SourceAvailable
from shared.outbox.plain import as_plain

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PLACE = PublicPlace(bucket="clips-cdn", prefix="spool/", url="https://camclips.example.org")
ASKED = {"clip_id": "clip-7", "camera_id": "cam-1", "start_timestamp_in_ms": 1, "end_timestamp_in_ms": 2}
WIDTHS = {"original": 1280, "300": 300, "640": 640}


def available(*sizes: str) -> ClipAvailable:
    stored = StoredClip(
        key="clips/cam-1/clip-7.mp4",
        size_bytes=1,
        sha256="0" * 64,
        etag="e",
        duration_ms=1,
        video_frames=1,
        width=1280,
        height=720,
        reencoded=False,
    )
    pictures = tuple(
        Thumbnail(size=size, key=f"clips/cam-1/clip-7_{size}.jpg", width=WIDTHS[size], height=1)
        for size in sizes
    )
    return ClipAvailable(**ASKED, clip=stored, thumbnails=pictures, source_keys=(), source_bytes_read=0)


def refused(reason: str) -> ClipRefused:
    return ClipRefused(**ASKED, reason=reason, field="f", message="m", request_digest="d")


def sent(data: EventData, place: PublicPlace = PLACE) -> Message:
    """Return the plain message of an event as the outbox holds it."""
    event = announce(data, source="/spool/clipper", time_ms=1_795_370_423_456, traceparent=TRACEPARENT)
    numbered = event.model_copy(update={"sequence": "000000000003"})
    message = Message(
        event.id,
        data.type,
        numbered.to_bytes(),
        CONTENT_TYPE,
        mandatory=False,
        headers={"traceparent": TRACEPARENT},
    )
    plain = as_plain(message, place=place)
    assert plain is not None
    return plain


def body_of(data: EventData, place: PublicPlace = PLACE) -> Any:
    return json.loads(sent(data, place).body)


def test_a_clip_that_is_available() -> None:
    assert body_of(available("original", "300", "640")) == {
        "clipId": "clip-7",
        "cameraId": "cam-1",
        "startTimestampInMs": 1,
        "endTimestampInMs": 2,
        "status": "CLIP_AVAILABLE",
        "bucket": "clips-cdn",
        "clip": {
            "key": "/spool/clips/cam-1/clip-7.mp4",
            "url": "https://camclips.example.org/spool/clips/cam-1/clip-7.mp4",
        },
        "retryTimestamps": [],
        "thumbnail": {
            "key": "/spool/clips/cam-1/clip-7_{size}.jpg",
            "url": "https://camclips.example.org/spool/clips/cam-1/clip-7_{size}.jpg",
            "sizes": [300, 640],
        },
    }


def test_a_clip_without_a_picture_has_no_thumbnail() -> None:
    assert body_of(available())["thumbnail"] == {"sizes": []}


def test_without_a_url_of_their_own_objects_are_told_by_path() -> None:
    found = body_of(available("300"), PublicPlace(bucket="", prefix="", url=""))

    assert found["clip"]["url"] == found["clip"]["key"] == "/clips/cam-1/clip-7.mp4"
    assert found["thumbnail"]["url"] == "/clips/cam-1/clip-7_{size}.jpg"


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        pytest.param(ClipNotAvailable(**ASKED, missing=()), "CLIP_NOT_AVAILABLE", id="not available"),
        pytest.param(refused("too_long"), "CLIP_TOO_LONG", id="too long"),
        pytest.param(refused("in_the_future"), "CLIP_OUT_OF_RANGE", id="out of range"),
        pytest.param(refused("end_before_start"), "CLIP_REFUSED", id="no word for it"),
        pytest.param(ClipFailed(**ASKED, reason="r", fault="source", next="n"), "FATAL_ERROR", id="failed"),
    ],
)
def test_an_unsuccessful_clip_has_no_place(outcome: ClipOutcome, status: str) -> None:
    assert body_of(outcome) == {
        "clipId": "clip-7",
        "cameraId": "cam-1",
        "startTimestampInMs": 1,
        "endTimestampInMs": 2,
        "status": status,
        "retryTimestamps": [],
        "thumbnail": {"sizes": []},
    }


def test_a_clip_is_not_taken_from_its_subscribers_by_another_request_under_its_id() -> None:
    event = announce(refused("conflicting_duplicate"), source="/spool/clipper", time_ms=1_000)
    message = Message(event.id, event.type, event.to_bytes(), CONTENT_TYPE, mandatory=False)

    assert as_plain(message, place=PLACE) is None


def test_what_has_no_older_form_goes_out_as_its_data() -> None:
    source = SourceAvailable(camera_id="cam-1", key="a.mp4", start_timestamp_in_ms=1)

    assert body_of(source) == {"cameraId": "cam-1", "key": "a.mp4", "startTimestampInMs": 1}


def test_receivers_dedupe_and_trace_by_the_headers() -> None:
    message = sent(available("300"))

    assert message.content_type == "application/json"
    assert message.headers == {
        "cloudEvents_specversion": "1.0",
        "cloudEvents_id": message.id,
        "cloudEvents_source": "/spool/clipper",
        "cloudEvents_type": "clip_available",
        "cloudEvents_subject": "clip-7",
        "cloudEvents_time": "2026-11-22T18:00:23.456000Z",
        "cloudEvents_sequence": "000000000003",
        "traceparent": TRACEPARENT,
    }
    assert list(message.headers)[:5] == [
        *(f"cloudEvents_{name}" for name in ("id", "source", "specversion", "type")),
        "traceparent",
    ]


def test_to_spool_itself_a_plain_command_is_the_event_that_it_was() -> None:
    event = wrap(
        ClipRequested(**ASKED), id="event-1", source="/other", time_ms=1_000, traceparent=TRACEPARENT
    )
    message = Message("event-1", event.type, event.to_bytes(), CONTENT_TYPE, mandatory=True)
    plain = as_plain(message, place=PLACE)
    assert plain is not None

    letter = Letter(plain.body, plain.id, plain.headers, plain.content_type)
    again = read_event(letter, expected="clip_requested")
    before = read_event(Letter(message.body, message.id), expected="clip_requested")

    assert (again.event.source, again.event.id, again.data) == ("/other", "event-1", before.data)
    assert (again.event.subject, again.event.time) == (before.event.subject, before.event.time)


def test_an_event_of_a_newer_version_keeps_its_envelope() -> None:
    body = b'{"specversion":"1.0","id":"1","source":"s","type":"clip_dreamt","data":{}}'
    message = Message("1", "clip_dreamt", body, CONTENT_TYPE, mandatory=False)

    assert as_plain(message, place=PLACE) == message
