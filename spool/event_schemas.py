"""JSON Schema of each event: made from the classes that read it, so that it cannot say anything else."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from shared.events.envelope import Event, EventData
from shared.events.registry import TYPES
from shared.outbox.writing import SEQUENCE_DIGITS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TRACEPARENT = "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
_SAID = {
    "specversion": "Of CloudEvents.",
    "id": "Names the event, together with `source`. Sent again it is the same: dedupe on it.",
    "source": "Who tells it.",
    "type": "What happened, or is asked for.",
    "subject": "What it is about.",
    "time": "When it was told.",
    "datacontenttype": "Of `data`.",
    "traceparent": "W3C trace context.",
    "tracestate": "W3C trace context.",
    "sequence": "Grows with each event about one subject: of two events the greater text is the later one.",
}
Schema = dict[str, Any]


def schema_of(data_type: type[EventData]) -> Schema:
    """Return the schema of one event in its envelope, complete in itself."""
    parts = schemas("#/$defs/{model}")
    event = parts.pop(event_name(data_type))
    used = _used_by(event, parts, "#/$defs/")
    return {
        "$schema": DIALECT,
        "$id": f"{data_type.type}.json",
        **event,
        "$defs": {name: parts[name] for name in sorted(used)},
    }


def schemas(references: str) -> dict[str, Schema]:
    """Return the schemas of all events, their data and its parts, by name; `references` says where."""
    types = list(TYPES.values())
    _, found = models_json_schema([(each, "validation") for each in types], ref_template=references)
    parts: dict[str, Schema] = {name: _without_null(part) for name, part in found["$defs"].items()}
    for each in types:
        parts[each.__name__]["description"] = said_of(each)
        parts[event_name(each)] = _event(each, references.format(model=each.__name__))
    return parts


def event_name(data_type: type[EventData]) -> str:
    """Return what the schema of the event in its envelope is called; its data's is called as the class."""
    return f"{data_type.__name__}Event"


def said_of(data_type: type[EventData]) -> str:
    return inspect.cleandoc(data_type.__doc__ or "")


def _event(data_type: type[EventData], data: str) -> Schema:
    envelope = Event.model_json_schema()["properties"]
    members = {name: _without_null(envelope[name]) for name in _SAID if name in envelope}
    members["type"] = {"type": "string", "const": data_type.type}
    members["specversion"] = {"type": "string", "const": "1.0"}
    members["traceparent"] = {"type": "string", "pattern": TRACEPARENT}
    members["sequence"] = {"type": "string", "pattern": f"^[0-9]{{{SEQUENCE_DIGITS}}}$"}
    described = {
        name: {**member, "description": _SAID[name]}
        for name, member in sorted(members.items(), key=lambda item: list(_SAID).index(item[0]))
    }
    return {
        "title": data_type.type,
        "description": said_of(data_type).split("\n\n", 1)[0],
        "type": "object",
        "required": ["specversion", "id", "source", "type", "data"],
        "properties": {**described, "data": {"$ref": data}},
    }


def _without_null(part: Any) -> Any:
    """Say of an optional member what it is when it is there: Spool leaves it out, and sends no null."""
    if isinstance(part, list):
        return [_without_null(each) for each in part]
    if not isinstance(part, dict):
        return part
    # Titles that pydantic makes of names say nothing, and a default of null is none.
    unsaid = {name for name, value in part.items() if name == "title" or value is None}
    plain = {name: _without_null(value) for name, value in part.items() if name not in unsaid}
    kinds = plain.get("anyOf")
    if isinstance(kinds, list) and {"type": "null"} in kinds:
        (kind,) = (each for each in kinds if each != {"type": "null"})
        plain.pop("anyOf")
        return {**kind, **plain}
    return plain


def _used_by(schema: object, parts: Mapping[str, Schema], root: str) -> set[str]:
    """Return the names of all parts that a schema refers to, however far."""
    used: set[str] = set()
    unread: list[object] = [schema]
    while unread:
        part = unread.pop()
        if isinstance(part, list):
            unread += part
        elif isinstance(part, dict):
            unread += part.values()
            name = str(part.get("$ref", "")).removeprefix(root)
            if name in parts and name not in used:
                used.add(name)
                unread.append(parts[name])
    return used
