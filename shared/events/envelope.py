"""CloudEvents 1.0, JSON, structured mode: the envelope of everything on the bus.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from shared.events.fields import PRINTABLE, Wire
from shared.kernel.ids import derived_id

CONTENT_TYPE = "application/cloudevents+json"


_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[ -~]{1,512}")  # https://www.w3.org/TR/trace-context/#tracestate-limits


class Kind(StrEnum):
    """Whether somebody has to hear it."""

    COMMAND = "command"  # asked for: unroutable is an error that someone sees
    FACT = "fact"  # noticed or happened: nobody listening is normal


class EventData(Wire):
    """The body of one type of event. Its class names the type, once, for every place that needs it."""

    type: ClassVar[str]
    kind: ClassVar[Kind]

    @property
    @abstractmethod
    def subject(self) -> str:
        """The recording, clip, camera, call or room that the event is about."""

    @property
    def request_key(self) -> str:
        """What the event answers or asks for. With `type` and `revision_key` it makes the id of a result."""
        return self.subject

    @property
    def revision_key(self) -> str:
        """Which outcome of the request this is: said again it has the same, a new outcome another."""
        return "1"


def _trace_or_none(value: object) -> object:
    """Drop a trace that nobody could continue: W3C asks for that, and it is no reason to refuse an event."""
    return value if isinstance(value, str) and _TRACEPARENT.fullmatch(value) else None


def _state_or_none(value: object) -> object:
    return value if isinstance(value, str) and _TRACESTATE.fullmatch(value) else None


def trace_of(names: Mapping[str, object]) -> dict[str, object]:
    """Return the trace context among attributes or headers; empty when there is none to continue."""
    if _trace_or_none(names.get("traceparent")) is None:
        return {}
    return {name: names[name] for name in ("traceparent", "tracestate") if name in names}


class Event(BaseModel):
    """One event in its envelope, before its data is read. Unknown attributes are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    specversion: Literal["1.0"] = "1.0"
    id: Annotated[str, Field(min_length=1, max_length=256, pattern=PRINTABLE)]
    source: Annotated[str, Field(min_length=1, max_length=512, pattern=PRINTABLE)]
    type: Annotated[str, Field(min_length=1, max_length=128, pattern=PRINTABLE)]
    subject: Annotated[str | None, Field(min_length=1, max_length=1024, pattern=PRINTABLE)] = None
    time: AwareDatetime | None = None
    datacontenttype: str | None = None
    traceparent: Annotated[str | None, BeforeValidator(_trace_or_none)] = None
    tracestate: Annotated[str | None, BeforeValidator(_state_or_none)] = None
    data: dict[str, Any]

    def to_bytes(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode()


def wrap(
    data: EventData,
    *,
    id: str,  # noqa: A002 - the attribute's name in CloudEvents
    source: str,
    time_ms: int,
    traceparent: str | None = None,
    tracestate: str | None = None,
) -> Event:
    """Put an event's data into its envelope under a given id."""
    return Event(
        id=id,
        source=source,
        type=data.type,
        subject=data.subject,
        time=datetime.fromtimestamp(time_ms / 1000, UTC),
        datacontenttype="application/json",
        traceparent=traceparent,
        tracestate=tracestate,
        data=data.model_dump(mode="json", by_alias=True, exclude_none=True),
    )


def announce(
    data: EventData,
    *,
    source: str,
    time_ms: int,
    traceparent: str | None = None,
    tracestate: str | None = None,
) -> Event:
    """Put a result into its envelope, under an id that is the same however often it is announced."""
    event_id = derived_id(data.type, data.request_key, data.revision_key)
    return wrap(
        data,
        id=event_id,
        source=source,
        time_ms=time_ms,
        traceparent=traceparent,
        tracestate=tracestate,
    )
