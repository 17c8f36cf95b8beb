"""The published language: what Spool writes and what it reads, held against files that never change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cloudevents.core.formats.json import JSONFormat

from shared.events.call import CallEnded
from shared.events.clip import (
    ClipAvailable,
    ClipFailed,
    ClipNotAvailable,
    ClipRefused,
    ClipRequested,
    StoredClip,
    Thumbnail,
)
from shared.events.envelope import Event, EventData, announce, wrap
from shared.events.fields import WireRange
from shared.events.reading import Letter, read_event
from shared.events.registry import TYPES
from shared.events.source import SourceAvailable, SourceRemoved
from shared.events.unreadable import Unreadable

GOLDEN = Path(__file__).parent / "events"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HAPPENED_MS = 1_795_370_423_456

REQUEST = ClipRequested(
    clip_id="clip-7",
    camera_id="cam-1",
    start_timestamp_in_ms=1_795_370_390_000,
    end_timestamp_in_ms=1_795_370_410_000,
)
SOURCE_KEYS = ("cam-1/2026-11-22T17-50.mp4", "cam-1/2026-11-22T18-00.mp4")


def asked_for(request_id: str, data: EventData) -> Event:
    return wrap(data, id=request_id, source="spool", time_ms=HAPPENED_MS, traceparent=TRACEPARENT)


def answered(data: EventData) -> Event:
    return announce(data, source="/spool/clipper", time_ms=HAPPENED_MS, traceparent=TRACEPARENT)


PUBLISHED = {
    "source_available": asked_for(
        "019aac2e-8d20-7c3e-9f10-6b8a1c2d3e4f",
        SourceAvailable(
            camera_id="cam-1",
            key="cam-1/2026-11-22T17-50.mp4",
            start_timestamp_in_ms=1_795_369_800_000,
            end_timestamp_in_ms=1_795_370_400_000,
            size_bytes=123_456_789,
        ),
    ),
    "source_removed": asked_for(
        "019aac2e-8d22-7c3e-9f10-6b8a1c2d3e4f",
        SourceRemoved(camera_id="cam-1", key="cam-1/2026-11-22T17-50.mp4"),
    ),
    "clip_requested": asked_for("019aac2e-8d21-7c3e-9f10-6b8a1c2d3e4f", REQUEST),
    "call_ended": asked_for(
        "019aac2e-8d23-7c3e-9f10-6b8a1c2d3e4f",
        CallEnded(recording_id="6f9619ff-8b86-4d01-b42d-00cf4fc964ff", call_ending_timestamp="00:00:14"),
    ),
    "clip_available": answered(
        ClipAvailable(
            **REQUEST.model_dump(),
            clip=StoredClip(
                key="clips/cam-1/clip-7.mp4",
                size_bytes=2_345_678,
                sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                etag="d41d8cd98f00b204e9800998ecf8427e-1",
                duration_ms=20_000,
                video_frames=500,
                width=1280,
                height=720,
                reencoded=True,
                reencoded_because="the sources differ in size",
            ),
            thumbnails=(
                Thumbnail(size="original", key="clips/cam-1/clip-7_original.jpg", width=1280, height=720),
                Thumbnail(size="300", key="clips/cam-1/clip-7_300.jpg", width=300, height=168),
            ),
            source_keys=SOURCE_KEYS,
            source_bytes_read=2_456_789,
        )
    ),
    "clip_not_available": answered(
        ClipNotAvailable(
            **REQUEST.model_dump(),
            missing=(
                WireRange(start_timestamp_in_ms=1_795_370_400_000, end_timestamp_in_ms=1_795_370_401_500),
            ),
        )
    ),
    "clip_refused": answered(
        ClipRefused(
            **REQUEST.model_dump(),
            reason="too_long",
            field="endTimestampInMs",
            message="asks for 20000 ms; a clip has at most 10000 ms",
            request_digest="0123456789abcdef",
        )
    ),
    "clip_failed": answered(
        ClipFailed(
            **REQUEST.model_dump(),
            revision=2,
            reason="cam-1/2026-11-22T18-00.mp4 ends in the middle of its index",
            fault="source",
            next="store the source again, announce it with source_available, and ask again",
            source_key="cam-1/2026-11-22T18-00.mp4",
        )
    ),
}


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.json").read_bytes().removesuffix(b"\n")


def test_every_type_has_its_file() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(PUBLISHED) == set(TYPES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_event_is_published_byte_for_byte(name: str) -> None:
    assert PUBLISHED[name].to_bytes() == golden(name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_event_is_read_back_as_it_was(name: str) -> None:
    received = read_event(Letter(golden(name), "ignored: it has an id of its own"), expected=name)

    assert received.event == PUBLISHED[name]
    assert received.event.to_bytes() == golden(name)
    assert (
        wrap(
            received.data,
            id=received.event.id,
            source=received.event.source,
            time_ms=HAPPENED_MS,
            traceparent=TRACEPARENT,
        )
        == received.event
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_another_implementation_of_cloudevents_reads_the_same(name: str) -> None:
    event = PUBLISHED[name]
    read = JSONFormat().read(None, golden(name))

    assert read.get_specversion() == "1.0"
    assert read.get_id() == event.id
    assert read.get_source() == event.source
    assert read.get_type() == name
    assert read.get_subject() == event.subject
    assert read.get_time() == event.time
    assert read.get_datacontenttype() == "application/json"
    assert read.get_extension("traceparent") == TRACEPARENT
    assert read.get_data() == event.data


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_event_that_another_implementation_writes_is_read(name: str) -> None:
    written = JSONFormat().write(JSONFormat().read(None, golden(name)))

    assert read_event(Letter(written, "message-1"), expected=name).event == PUBLISHED[name]


def test_attributes_that_spool_does_not_know_are_kept() -> None:
    known = json.loads(golden("clip_requested"))
    body = json.dumps(known | {"partitionkey": "cam-1", "sampledrate": 3}).encode()

    event = read_event(Letter(body, "message-1"), expected="clip_requested").event

    assert json.loads(event.to_bytes()) == json.loads(body)


# What the camera service's messages of `events/bare` say, by spec 1-01 and 1-02.
BARE = {
    "camera_message.txt": ("1111111111111", "1111111111111", 1_537_119_363_000, 1_537_119_423_000),
    "camera_message_of_the_console.txt": (
        "111111111111",
        "111111111111",
        1_538_412_898_000,
        1_538_413_498_000,
    ),
    "retried_with_numeric_strings.txt": ("clip-7", "cam-1", 1_537_119_363_000, 1_537_119_423_000),
    "without_retry_timestamps.json": ("clip-7", "cam-1", 1_537_119_363_000, 1_537_119_423_000),
    "apostrophes.txt": ("clip-7", "cam-1", 1_537_119_363_000, 1_537_119_423_000),
    "apostrophes_in_double_quotes.txt": ("clip-7", "cam-1", 1_537_119_363_000, 1_537_119_423_000),
    "apostrophes_not_escaped.txt": ("clip-7", "cam-1", 1_537_119_363_000, 1_537_119_423_000),
}


@pytest.mark.parametrize("name", BARE)
def test_a_bare_message_of_the_camera_service_is_understood(name: str) -> None:
    clip_id, camera_id, start_ms, end_ms = BARE[name]
    body = (GOLDEN / "bare" / name).read_bytes()

    received = read_event(Letter(body, "message-1"), expected="clip_requested")

    assert received.data == ClipRequested(
        clip_id=clip_id, camera_id=camera_id, start_timestamp_in_ms=start_ms, end_timestamp_in_ms=end_ms
    )
    assert (received.event.id, received.event.source) == ("message-1", "bare")


def test_every_bare_file_is_read() -> None:
    assert {path.name for path in (GOLDEN / "bare").iterdir()} == set(BARE)


@pytest.mark.parametrize("name", [name for name in BARE if name.startswith("apostrophes")])
def test_apostrophes_in_a_value_survive(name: str) -> None:
    body = (GOLDEN / "bare" / name).read_bytes()

    received = read_event(Letter(body, "message-1"), expected="clip_requested")

    assert received.event.data["requestedBy"] == "O'Brien's \"team\""


class Missing:
    def __repr__(self) -> str:
        return "missing"


MISSING = Missing()


def changed(type_name: str, path: str, value: object) -> bytes:
    """Return the golden event with one field set to another value, or without it."""
    event = json.loads(golden(type_name))
    *parents, last = path.split(".")
    place = event
    for step in parents:
        place = place[int(step)] if isinstance(place, list) else place[step]
    if isinstance(value, Missing):
        del place[last]
    else:
        place[last] = value
    return json.dumps(event).encode()


INVALID = [
    ("clip_requested", "id", MISSING),
    ("clip_requested", "id", ""),
    ("clip_requested", "id", "a\x00"),
    ("clip_requested", "id", "x" * 257),
    ("clip_requested", "id", 7),
    ("clip_requested", "source", MISSING),
    ("clip_requested", "source", ""),
    ("clip_requested", "specversion", "0.3"),
    ("clip_requested", "type", MISSING),
    ("clip_requested", "type", "clip_eaten"),
    ("clip_requested", "type", "source_available"),
    ("clip_requested", "subject", ""),
    ("clip_requested", "time", "yesterday"),
    ("clip_requested", "time", "2026-11-22T18:00:00"),
    ("clip_requested", "data", MISSING),
    ("clip_requested", "data", None),
    ("clip_requested", "data", []),
    ("clip_requested", "data", '{"clipId":"a"}'),
    ("clip_requested", "data.clipId", MISSING),
    ("clip_requested", "data.clipId", ""),
    ("clip_requested", "data.clipId", "../../etc/passwd"),
    ("clip_requested", "data.clipId", "clip-7\n"),
    ("clip_requested", "data.clipId", "x" * 129),
    ("clip_requested", "data.clipId", 7),
    ("clip_requested", "data.cameraId", MISSING),
    ("clip_requested", "data.cameraId", "a/b"),
    ("clip_requested", "data.cameraId", ".hidden"),
    ("clip_requested", "data.startTimestampInMs", MISSING),
    ("clip_requested", "data.startTimestampInMs", -1),
    ("clip_requested", "data.startTimestampInMs", "-1"),
    ("clip_requested", "data.startTimestampInMs", 1.5),
    ("clip_requested", "data.startTimestampInMs", True),
    ("clip_requested", "data.startTimestampInMs", None),
    ("clip_requested", "data.startTimestampInMs", "soon"),
    ("clip_requested", "data.startTimestampInMs", "1_000"),
    ("clip_requested", "data.startTimestampInMs", "\N{ARABIC-INDIC DIGIT SEVEN}"),
    ("clip_requested", "data.endTimestampInMs", 1_795_370_390_000_000),
    ("clip_requested", "data.endTimestampInMs", "9" * 4000),
    ("source_available", "data.key", MISSING),
    ("source_available", "data.key", "../../etc/passwd"),
    ("source_available", "data.key", "/etc/passwd"),
    ("source_available", "data.key", "a\x00.mp4"),
    ("source_available", "data.sizeBytes", -1),
    ("clip_available", "data.clip.sha256", "none"),
    ("clip_available", "data.clip.key", "a/../b"),
    ("clip_available", "data.thumbnails.1.width", 0),
]


@pytest.mark.parametrize(
    ("type_name", "path", "value"),
    [pytest.param(type_name, path, value, id=f"{path}: {value!a:.20}") for type_name, path, value in INVALID],
)
def test_an_invalid_event_is_unreadable_and_names_the_field(type_name: str, path: str, value: object) -> None:
    with pytest.raises(Unreadable) as caught:
        read_event(Letter(changed(type_name, path, value), "message-1"), expected=type_name)

    assert [problem.field for problem in caught.value.problems] == [path]
    assert caught.value.field == path
    assert str(caught.value).startswith(f"{path}: ")


def test_a_source_that_ends_before_it_starts_is_unreadable() -> None:
    body = changed("source_available", "data.endTimestampInMs", 1)

    with pytest.raises(Unreadable, match=r"data\.endTimestampInMs: must be later than startTimestampInMs"):
        read_event(Letter(body, "message-1"), expected="source_available")


def test_every_problem_of_an_event_is_told_at_once() -> None:
    with pytest.raises(Unreadable) as caught:
        read_event(
            Letter(b"{'clipId': 'a b', 'endTimestampInMs': 'x'}", "message-1"), expected="clip_requested"
        )

    assert {problem.field for problem in caught.value.problems} == {
        "data.clipId",
        "data.cameraId",
        "data.startTimestampInMs",
        "data.endTimestampInMs",
    }
