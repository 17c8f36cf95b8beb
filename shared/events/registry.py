"""Every type of event that Spool understands, and how bytes become one of them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from shared.events.clip import (
    ClipAvailable,
    ClipFailed,
    ClipNotAvailable,
    ClipRefused,
    ClipRequested,
)
from shared.events.envelope import PRINTABLE, Event, EventData
from shared.events.single_quotes import to_json
from shared.events.source import SourceAvailable
from shared.kernel.errors import Refused

TYPES: dict[str, type[EventData]] = {
    data_type.type: data_type
    for data_type in (
        SourceAvailable,
        ClipRequested,
        ClipAvailable,
        ClipNotAvailable,
        ClipRefused,
        ClipFailed,
    )
}

MAX_EVENT_BYTES = 256 * 1024  # what SNS carries; the smallest of the transports
MAX_DEPTH = 32  # of nested JSON: the deepest event has four levels
MAX_PROBLEMS = 20  # told of one event: a person mends the first ones, and a log line stays short

BARE_SOURCE = "bare"  # of an event that came without an envelope


@dataclass(frozen=True, slots=True)
class Received:
    """An event that was read and found valid: its envelope and its data."""

    event: Event
    data: EventData


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One field of an event that is not acceptable, and why."""

    field: str
    message: str


class Unreadable(Refused):
    """Bytes that are not an event Spool understands. They are kept as a dead letter, never retried."""

    def __init__(
        self,
        problems: tuple[FieldProblem, ...],
        *,
        source: str | None = None,
        event_id: str | None = None,
    ) -> None:
        """Tell every problem, and the envelope's own id where that much could be read."""
        self.problems = problems
        self.source = source
        self.event_id = event_id
        said = "; ".join(f"{problem.field}: {problem.message}" for problem in problems)
        super().__init__(said, field=problems[0].field)


def read_event(
    body: bytes, *, expected: str, transport_id: str, headers: Mapping[str, str] | None = None
) -> Received:
    """Read a body from a queue on which `expected` is the type of a message without an envelope.

    Understands a structured CloudEvent, and the bare bodies of existing publishers, which are JSON or the
    same with single quotes. A bare body has no identity of its own: it gets the transport's.
    Raises Unreadable.
    """
    parsed = _parse(body)
    if "specversion" in parsed:
        event = _read_envelope(parsed)
        if event.type != expected:
            raise _unexpected(event, expected)
        return Received(event, _read_data(event))
    return read_cloud_event(
        {
            "specversion": "1.0",
            "id": transport_id,
            "source": BARE_SOURCE,
            "type": expected,
            "traceparent": (headers or {}).get("traceparent"),
            "data": parsed,
        }
    )


def read_posted(body: bytes) -> Received:
    """Read a body that has to be a structured CloudEvent, of any known type. Raises Unreadable."""
    parsed = _parse(body)
    if "specversion" not in parsed:
        raise Unreadable((FieldProblem("specversion", "is missing: send a CloudEvent 1.0 as JSON"),))
    return read_cloud_event(parsed)


def read_cloud_event(parsed: Mapping[str, Any]) -> Received:
    """Read a CloudEvent that is already a JSON object. Raises Unreadable."""
    event = _read_envelope(parsed)
    return Received(event, _read_data(event))


def field_problems(error: ValidationError) -> tuple[FieldProblem, ...]:
    """Say of each invalid field, by its published name, what is wrong with it."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return tuple(
        FieldProblem(
            field=".".join(str(step) for step in detail["loc"]) or "body",
            message=detail["msg"].removeprefix("Value error, "),
        )
        for detail in found[:MAX_PROBLEMS]
    )


def _read_envelope(parsed: Mapping[str, Any]) -> Event:
    source, event_id = _identity_or_none(parsed.get("source")), _identity_or_none(parsed.get("id"))
    wrong = _not_plain(parsed)
    if wrong:
        raise Unreadable((FieldProblem("body", wrong),), source=source, event_id=event_id)
    try:
        return Event.model_validate(parsed)
    except ValidationError as error:
        raise Unreadable(field_problems(error), source=source, event_id=event_id) from error


def _read_data(event: Event) -> EventData:
    data_type = TYPES.get(event.type)
    if data_type is None:
        problem = FieldProblem("type", f"{event.type!r} is not known; known are {', '.join(sorted(TYPES))}")
        raise Unreadable((problem,), source=event.source, event_id=event.id)
    try:
        return data_type.model_validate(event.data)
    except ValidationError as error:
        problems = tuple(
            FieldProblem(f"data.{problem.field}", problem.message) for problem in field_problems(error)
        )
        raise Unreadable(problems, source=event.source, event_id=event.id) from error


def _parse(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_EVENT_BYTES:
        raise _unreadable_body(f"is {len(body)} bytes long; an event has at most {MAX_EVENT_BYTES}")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise _unreadable_body("is not UTF-8") from error
    try:
        parsed = _load(text)
    except RecursionError as error:
        raise _unreadable_body(f"is nested more than {MAX_DEPTH} levels deep") from error
    if not isinstance(parsed, dict):
        raise _unreadable_body(f"is a {type(parsed).__name__}, not an object")
    return parsed


def _load(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        not_json = error
    try:
        return json.loads(to_json(text))
    except ValueError:
        # The first error is told: where both forms fail, JSON was meant.
        raise _unreadable_body(f"is not JSON: {not_json}") from not_json


def _not_plain(parsed: Mapping[str, Any]) -> str | None:
    """Say what keeps a JSON object from being written again everywhere, or None.

    Python reads more than JSON allows to be passed on: `NaN`, halves of surrogate pairs, any depth.
    """
    open_values: list[tuple[object, int]] = [(parsed, 1)]
    while open_values:
        value, depth = open_values.pop()
        if depth > MAX_DEPTH:
            return f"is nested more than {MAX_DEPTH} levels deep"
        if isinstance(value, Mapping):
            open_values.extend((key, depth) for key in value)
            open_values.extend((inner, depth + 1) for inner in value.values())
        elif isinstance(value, list):
            open_values.extend((inner, depth + 1) for inner in value)
        elif isinstance(value, str) and not _is_unicode(value):
            return "has half of a surrogate pair, which is no Unicode"
        elif isinstance(value, float) and not math.isfinite(value):
            return "has a number that JSON cannot write"
    return None


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _identity_or_none(value: object) -> str | None:
    """Return an id or source of an event that cannot be read, if a database can keep it."""
    if not isinstance(value, str) or not re.fullmatch(PRINTABLE, value) or not _is_unicode(value):
        return None
    return value[:256] or None


def _unexpected(event: Event, expected: str) -> Unreadable:
    problem = FieldProblem("type", f"{event.type} does not belong here, only {expected}")
    return Unreadable((problem,), source=event.source, event_id=event.id)


def _unreadable_body(message: str) -> Unreadable:
    return Unreadable((FieldProblem("body", message),))
