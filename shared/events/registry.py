"""Every type of event that Spool understands."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from shared.events.call import CallEnded
from shared.events.clip import (
    ClipAvailable,
    ClipFailed,
    ClipNotAvailable,
    ClipRefused,
    ClipRequested,
)
from shared.events.envelope import Event, EventData
from shared.events.parsing import check_plain, parse
from shared.events.source import SourceAvailable, SourceRemoved
from shared.events.unreadable import FieldProblem, Unreadable, field_problems

TYPES: dict[str, type[EventData]] = {
    data_type.type: data_type
    for data_type in (
        SourceAvailable,
        SourceRemoved,
        ClipRequested,
        ClipAvailable,
        ClipNotAvailable,
        ClipRefused,
        ClipFailed,
        CallEnded,
    )
}


@dataclass(frozen=True, slots=True)
class Received:
    """An event that was read and found valid: its envelope and its data."""

    event: Event
    data: EventData


def read_posted(body: bytes) -> Received:
    """Read a body that has to be a structured CloudEvent, of any known type. Raises Unreadable."""
    parsed = parse(body)
    if "specversion" not in parsed:
        raise Unreadable((FieldProblem("specversion", "is missing: send a CloudEvent 1.0 as JSON"),))
    return read_cloud_event(parsed)


def read_cloud_event(parsed: Mapping[str, Any], *, expected: str | None = None) -> Received:
    """Read a CloudEvent that is a JSON object: of the expected type, or of any. Raises Unreadable."""
    parsed = _with_data(parsed)
    check_plain(parsed)
    try:
        event = Event.model_validate(parsed)
    except ValidationError as error:
        raise Unreadable(field_problems(error)) from error
    if expected is not None and event.type != expected:
        raise Unreadable((FieldProblem("type", f"{event.type} does not belong here, only {expected}"),))
    data_type = TYPES.get(event.type)
    if data_type is None:
        known = ", ".join(sorted(TYPES))
        raise Unreadable((FieldProblem("type", f"{event.type!r} is not known; known are {known}"),))
    try:
        return Received(event, data_type.model_validate(event.data))
    except ValidationError as error:
        raise Unreadable(field_problems(error, within="data.")) from error


def _with_data(parsed: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take data out of `data_base64`, where CloudEvents allows a publisher to put them. Raises Unreadable."""
    if "data" in parsed or "data_base64" not in parsed:
        return parsed
    encoded = parsed["data_base64"]
    try:
        body = base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else None
    except ValueError:
        body = None
    if body is None:
        raise Unreadable((FieldProblem("data_base64", "is not text in base64; or send the object in data"),))
    try:
        data = parse(body)
    except Unreadable as error:
        told = error.problems[0].message
        raise Unreadable(
            (FieldProblem("data_base64", f"holds no JSON object, decoded it {told}"),)
        ) from error
    return {name: value for name, value in parsed.items() if name != "data_base64"} | {"data": data}
