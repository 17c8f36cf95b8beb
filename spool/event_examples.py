"""One example of each event, for the reference and for whoever tries them by hand."""

from __future__ import annotations

from typing import Any

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
from shared.events.envelope import Event, EventData, Kind, announce, wrap
from shared.events.fields import WireRange
from shared.events.plain import PublicPlace, plain_body
from shared.events.registry import Received
from shared.events.source import SourceAvailable, SourceRemoved

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HAPPENED_MS = 1_795_370_423_456  # 2026-11-22T18:00:23.456Z
SEQUENCE = "001763812845"
NAME = "cam-1/cam-1.stream.20261122T175000000.mp4"
PLACE = PublicPlace(bucket="clips", prefix="", url="https://clips.example.org")
ASKED: dict[str, Any] = {
    "clip_id": "clip-7",
    "camera_id": "cam-1",
    "start_timestamp_in_ms": 1_795_370_390_000,
    "end_timestamp_in_ms": 1_795_370_410_000,
}
EXAMPLES: tuple[EventData, ...] = (
    SourceAvailable(
        camera_id="cam-1",
        key=NAME,
        start_timestamp_in_ms=1_795_369_800_000,
        end_timestamp_in_ms=1_795_370_400_000,
        size_bytes=123_456_789,
    ),
    SourceRemoved(camera_id="cam-1", key=NAME),
    ClipRequested(**ASKED, precision="smart"),
    ClipAvailable(
        **ASKED,
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
            reencoded_ranges=(
                WireRange(start_timestamp_in_ms=1_795_370_390_000, end_timestamp_in_ms=1_795_370_391_040),
            ),
            precision="smart",
            shown_range=WireRange(
                start_timestamp_in_ms=1_795_370_390_000, end_timestamp_in_ms=1_795_370_410_000
            ),
        ),
        thumbnails=(
            Thumbnail(size="original", key="clips/cam-1/clip-7_original.jpg", width=1280, height=720),
            Thumbnail(size="300", key="clips/cam-1/clip-7_300.jpg", width=300, height=168),
        ),
        source_keys=(NAME,),
        source_bytes_read=2_456_789,
    ),
    ClipNotAvailable(
        **ASKED,
        missing=(WireRange(start_timestamp_in_ms=1_795_370_400_000, end_timestamp_in_ms=1_795_370_401_500),),
    ),
    ClipRefused(
        **ASKED,
        reason="too_long",
        field="endTimestampInMs",
        message="asks for 20000 ms; a clip has at most 10000 ms",
        request_digest="0123456789abcdef",
    ),
    ClipFailed(
        **ASKED,
        reason=f"{NAME} ends in the middle of its index",
        fault="source",
        next="store the source again, announce it with source_available, and ask again",
        source_key=NAME,
    ),
    CallEnded(recording_id="6f9619ff-8b86-4d01-b42d-00cf4fc964ff", call_ending_timestamp="00:00:14"),
)


def example_event(data: EventData) -> Event:
    """Put an example into its envelope: a result as Spool tells it, anything else as another system does."""
    if data.kind is Kind.FACT and data.type.startswith("clip_"):
        told = announce(data, source="/spool/clipper", time_ms=HAPPENED_MS, traceparent=TRACEPARENT)
        return told.model_copy(update={"sequence": SEQUENCE})
    name = "019aac2e-8d21-7c3e-9f10-6b8a1c2d3e4f"
    return wrap(data, id=name, source="/example", time_ms=HAPPENED_MS, traceparent=TRACEPARENT)


def plain_example(data: EventData) -> bytes:
    """Return the plain form of an example, as `SPOOL_BUS_FORMAT=plain` sends it."""
    return plain_body(Received(example_event(data), data), PLACE)


# What S3 writes of an object that came; `{}` stands where the name of what happened goes.
S3_RECORD: dict[str, Any] = {
    "eventVersion": "2.3",
    "eventSource": "aws:s3",
    "awsRegion": "eu-central-1",
    "eventTime": "2026-11-22T18:00:10.500Z",
    "s3": {
        "s3SchemaVersion": "1.0",
        "bucket": {"name": "recordings", "arn": "arn:aws:s3:::recordings"},
        "object": {"key": NAME, "size": 123_456_789, "eTag": "d41d8", "sequencer": "0055AED6DCD90281E5"},
    },
}


def s3_example(happened: str) -> dict[str, Any]:
    """Return a notification of S3 of one object, as `ObjectCreated:Put`."""
    return {"Records": [{**S3_RECORD, "eventName": happened}]}
