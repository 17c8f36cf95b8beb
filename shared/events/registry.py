"""Every type of event that Spool understands, and how bytes become one of them."""

from __future__ import annotations

import ast
import json
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
from shared.events.envelope import Event, EventData
from shared.events.source import SourceAvailable
from shared.kernel.errors import Refused
from shared.kernel.ids import derived_id

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
    body: bytes, *, expected: str, transport_id: str | None, headers: Mapping[str, str] | None = None
) -> Received:
    """Read a body from a queue on which `expected` is the type of a message without an envelope.

    Understands a structured CloudEvent, and the bare bodies of existing publishers, which are JSON or the
    same with single quotes. A bare body has no identity of its own: it gets the transport's, or else one
    derived from its bytes, so that a redelivery is recognised. Raises Unreadable.
    """
    parsed = _parse(body)
    if "specversion" in parsed:
        received = read_cloud_event(parsed)
        if received.event.type != expected:
            raise _unexpected(received.event, expected)
        return received
    bare = Event(
        id=transport_id or derived_id(expected, body.decode()),
        source=BARE_SOURCE,
        type=expected,
        traceparent=(headers or {}).get("traceparent"),
        data=parsed,
    )
    return Received(bare, _read_data(bare))


def read_cloud_event(parsed: Mapping[str, Any]) -> Received:
    """Read a CloudEvent that is already a JSON object. Raises Unreadable."""
    try:
        event = Event.model_validate(parsed)
    except ValidationError as error:
        raise Unreadable(
            field_problems(error),
            source=_text_or_none(parsed.get("source")),
            event_id=_text_or_none(parsed.get("id")),
        ) from error
    return Received(event, _read_data(event))


def field_problems(error: ValidationError) -> tuple[FieldProblem, ...]:
    """Say of each invalid field, by its published name, what is wrong with it."""
    return tuple(
        FieldProblem(
            field=".".join(str(step) for step in detail["loc"]) or "body",
            message=detail["msg"].removeprefix("Value error, "),
        )
        for detail in error.errors(include_url=False, include_input=False, include_context=False)
    )


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
    if _depth(text) > MAX_DEPTH:
        raise _unreadable_body(f"is nested more than {MAX_DEPTH} levels deep")
    try:
        parsed = json.loads(text)
    except ValueError as error:
        parsed = _parse_single_quoted(text, error)
    if not isinstance(parsed, dict):
        raise _unreadable_body(f"is a {type(parsed).__name__}, not an object")
    return parsed


def _parse_single_quoted(text: str, json_error: ValueError) -> object:
    """Read the camera service's JSON-like form, a Python literal; apostrophes in values survive."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise _unreadable_body(f"is not JSON: {json_error}") from json_error


def _depth(text: str) -> int:
    """Count how deeply brackets nest at most, strings included: an upper bound, in one pass."""
    depth = deepest = 0
    for character in text:
        if character in "[{(":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]})":
            depth -= 1
    return deepest


def _text_or_none(value: object) -> str | None:
    return value[:256] if isinstance(value, str) and value else None


def _unexpected(event: Event, expected: str) -> Unreadable:
    problem = FieldProblem("type", f"{event.type} does not belong here, only {expected}")
    return Unreadable((problem,), source=event.source, event_id=event.id)


def _unreadable_body(message: str) -> Unreadable:
    return Unreadable((FieldProblem("body", message),))
