"""CloudEvents in binary mode: the attributes travel beside the data, as headers or message attributes.

Sources: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/amqp-protocol-binding.md for
`cloudEvents:` and `cloudEvents_`; `ce-` and `ce_` are HTTP's and Kafka's, which bridges to SQS, SNS and
RabbitMQ keep.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from shared.events.envelope import Event

_ATTRIBUTE = re.compile(r"(?:cloudevents[:_]|ce[-_])([a-z0-9]{1,20})", re.IGNORECASE)
PREFIX = "cloudEvents_"  # the one that AMQP, SNS and SQS all allow
STRUCTURED = "application/cloudevents"
_NEEDED = tuple(f"{PREFIX}{name}" for name in ("id", "source", "specversion", "type"))
_NO_HEADERS = {"data", "datacontenttype", "traceparent", "tracestate"}


def attributes_of(headers: Mapping[str, str], content_type: str | None) -> dict[str, str] | None:
    """Return the attributes of a CloudEvent in binary mode; None when the headers hold none."""
    if (content_type or "").strip().lower().startswith(STRUCTURED):
        return None
    found = {
        name[1].lower(): value for header, value in headers.items() if (name := _ATTRIBUTE.fullmatch(header))
    }
    found.pop("data", None)  # no attribute: what is in the body counts
    if "specversion" not in found:
        return None
    return found | {"datacontenttype": content_type} if content_type else found


def headers_of(event: Event, trace: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that make bare data a CloudEvent, whatever carries them, with those of its trace.

    The most needed come first: SNS has room for ten attributes, and what is beyond them only Spool reads.
    """
    attributes = event.model_dump(mode="json", exclude_none=True, exclude=_NO_HEADERS)
    named = {f"{PREFIX}{name}": str(attributes[name]) for name in sorted(attributes)}
    needed = {name: named.pop(name) for name in _NEEDED}
    return {**needed, **trace, **named}
