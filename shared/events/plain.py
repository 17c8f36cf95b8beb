"""Results without an envelope, as the subscribers of the older clip pipeline parse them.

They read an object with a `status`, a clip's `key` and `url`, and one key for all thumbnails with a literal
`{size}` in it. SNS gives a subscriber this object whether it was published as it is or below `default` with
`MessageStructure: json`: the two cannot be told apart. What has no older form goes out as its bare data.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from shared.events.clip import (
    CONFLICTING,
    ClipAvailable,
    ClipFailed,
    ClipNotAvailable,
    ClipOutcome,
    ClipRefused,
)
from shared.events.envelope import EventData
from shared.events.registry import Received

CONTENT_TYPE = "application/json"
ORIGINAL = "original"
# What there was a word for. Of a request that nobody could ever carry out there was none.
_REFUSED = {"too_long": "CLIP_TOO_LONG", "in_the_future": "CLIP_OUT_OF_RANGE"}


@dataclass(frozen=True, slots=True)
class PublicPlace:
    """Where those who read plain results find objects: a bucket, and the URL that its keys are added to.

    `prefix` stands before every key of Spool's in the bucket; it is empty or ends with `/`.
    """

    bucket: str
    prefix: str
    url: str


def has_plain_form(data: EventData) -> bool:
    """Say whether those who read plain results could understand an event.

    They know a result by its `clipId` alone: told that another request was refused under the id of a clip
    that they have, they would lose that clip.
    """
    return not (isinstance(data, ClipRefused) and data.reason == CONFLICTING)


def plain_body(received: Received, place: PublicPlace) -> bytes:
    """Return what is sent instead of an event in its envelope."""
    plain = _plain(received, place)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()


def _plain(received: Received, place: PublicPlace) -> dict[str, Any]:
    match received.data:
        case ClipAvailable() as clip:
            return _available(clip, place)
        case ClipNotAvailable() as outcome:
            return _unsuccessful(outcome, "CLIP_NOT_AVAILABLE")
        case ClipRefused() as outcome:
            return _unsuccessful(outcome, _REFUSED.get(outcome.reason, "CLIP_REFUSED"))
        case ClipFailed() as outcome:
            return _unsuccessful(outcome, "FATAL_ERROR")
        case _:
            return received.event.data


def _available(clip: ClipAvailable, place: PublicPlace) -> dict[str, Any]:
    return {
        **_asked(clip, "CLIP_AVAILABLE"),
        "bucket": place.bucket,
        "clip": _found_at(clip.clip.key, place),
        "thumbnail": _thumbnail(clip, place),
    }


def _unsuccessful(outcome: ClipOutcome, status: str) -> dict[str, Any]:
    return {**_asked(outcome, status), "thumbnail": {"sizes": []}}


def _asked(outcome: ClipOutcome, status: str) -> dict[str, Any]:
    return {
        "clipId": outcome.clip_id,
        "cameraId": outcome.camera_id,
        "startTimestampInMs": outcome.start_timestamp_in_ms,
        "endTimestampInMs": outcome.end_timestamp_in_ms,
        "status": status,
        "retryTimestamps": [],
    }


def _thumbnail(clip: ClipAvailable, place: PublicPlace) -> dict[str, Any]:
    sizes = [int(thumbnail.size) for thumbnail in clip.thumbnails if thumbnail.size != ORIGINAL]
    if not clip.thumbnails:
        return {"sizes": sizes}
    first = clip.thumbnails[0]
    before, _, after = first.key.rpartition(first.size)
    return {**_found_at(f"{before}{{size}}{after}", place), "sizes": sizes}


def _found_at(key: str, place: PublicPlace) -> dict[str, str]:
    path = f"/{place.prefix}{key}"
    return {"key": path, "url": place.url + path}
