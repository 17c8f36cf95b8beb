"""Decide whether a clip can be asked for at all, before anything is read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from shared.events.clip import ClipRequested
from shared.kernel.timeline import TimeRange

MAX_FUTURE_MS = 24 * 60 * 60 * 1000  # a day: further ahead it is a mistake of units or of a clock


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request will never be carried out: the field to change, and how."""

    reason: str
    field: str
    message: str


def refusal_of(request: ClipRequested, *, now_ms: int, max_clip_ms: int) -> Refusal | None:
    """Return why the request is refused, or None when it makes sense."""
    length_ms = request.end_timestamp_in_ms - request.start_timestamp_in_ms
    if length_ms < 0:
        return Refusal("end_before_start", "endTimestampInMs", "must be later than startTimestampInMs")
    if length_ms == 0:
        return Refusal("zero_length", "endTimestampInMs", "equals startTimestampInMs: nothing to cut")
    if length_ms > max_clip_ms:
        message = f"asks for {length_ms} ms; a clip has at most {max_clip_ms} ms"
        return Refusal("too_long", "endTimestampInMs", message)
    if request.end_timestamp_in_ms > now_ms + MAX_FUTURE_MS:
        return Refusal("in_the_future", "endTimestampInMs", "is more than a day in the future")
    return None


def wanted_range(request: ClipRequested) -> TimeRange:
    """Return the range of a request that was not refused."""
    return TimeRange(request.start_timestamp_in_ms, request.end_timestamp_in_ms)


def digest_of(request: ClipRequested) -> str:
    """Return what tells two requests under one clip id apart."""
    said = f"{request.camera_id}\n{request.start_timestamp_in_ms}\n{request.end_timestamp_in_ms}"
    if request.precision is not None:
        said += f"\n{request.precision}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]
