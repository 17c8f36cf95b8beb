"""The events of bench/bus.py: the same 600 bytes for everybody, asked for and answered."""

from __future__ import annotations

import json
import time

from shared.events.clip import ClipNotAvailable, ClipRequested
from shared.events.envelope import Event, announce, wrap
from shared.events.fields import WireRange

SOURCE = "/bench"
EVENT_BYTES = 600
START_MS, END_MS = 1_763_800_000_000, 1_763_800_060_000


class Asked(Event):
    """A request as it stands on the bus, envelope and data: what the peers validate with."""

    data: ClipRequested  # type: ignore[assignment]  # pydantic lets a field be narrowed


def asked(name: str) -> bytes:
    """Ask for a clip, in a CloudEvent of 600 bytes. The name is the event's id, and the clip's."""
    data = ClipRequested(
        clip_id=name, camera_id="gate", start_timestamp_in_ms=START_MS, end_timestamp_in_ms=END_MS
    )
    event = json.loads(wrap(data, id=name, source=SOURCE, time_ms=START_MS).to_bytes())
    missing = EVENT_BYTES - len(json.dumps(event | {"padding": ""}))
    return json.dumps(event | {"padding": "." * missing}).encode()


def answer(data: ClipRequested) -> ClipNotAvailable:
    """Answer a request without looking at anything."""
    return ClipNotAvailable(
        clip_id=data.clip_id,
        camera_id=data.camera_id,
        start_timestamp_in_ms=data.start_timestamp_in_ms,
        end_timestamp_in_ms=data.end_timestamp_in_ms,
        missing=(WireRange(start_timestamp_in_ms=START_MS, end_timestamp_in_ms=END_MS),),
    )


def answered(data: ClipRequested) -> Event:
    """Put the answer into its envelope, as a service does."""
    return announce(answer(data), source=SOURCE, time_ms=time.time_ns() // 1_000_000)


def timed_name(number: int) -> str:
    """Name a request by the moment at which it is made: the one clock of the machine, for all processes."""
    return f"{number}-{time.monotonic_ns()}"


def age_ms(data: ClipRequested) -> float:
    """Return how long ago a request with a timed name was made."""
    return (time.monotonic_ns() - int(data.clip_id.rpartition("-")[2])) / 1e6
