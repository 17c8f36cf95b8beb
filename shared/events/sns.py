"""The envelope of SNS, taken off: a subscription without raw delivery puts every message into one.

Source: https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.events.parsing import check_plain
from shared.events.unreadable import FieldProblem, Unreadable


@dataclass(frozen=True, slots=True)
class Notification:
    """What was published, under the id that SNS gave it, with its attributes."""

    body: bytes
    message_id: str | None
    headers: Mapping[str, str]


def is_notification(parsed: Mapping[str, Any]) -> bool:
    """Tell whether an object is the envelope that SNS puts around a message."""
    return parsed.get("Type") == "Notification" and "Message" in parsed


def open_notification(parsed: Mapping[str, Any]) -> Notification:
    """Take the message out of its envelope. Raises Unreadable."""
    check_plain(parsed)
    message, message_id = parsed["Message"], parsed.get("MessageId")
    if not isinstance(message, str):
        raise Unreadable((FieldProblem("Message", f"is a {type(message).__name__}, not a string"),))
    return Notification(
        body=message.encode(),
        message_id=message_id if isinstance(message_id, str) and message_id else None,
        headers=_attributes(parsed.get("MessageAttributes")),
    )


def _attributes(found: object) -> dict[str, str]:
    """Return the attributes that are text; a publisher's own binary ones are no business of ours."""
    if not isinstance(found, dict):
        return {}
    values = {name: each.get("Value") for name, each in found.items() if isinstance(each, dict)}
    return {name: value for name, value in values.items() if isinstance(value, str)}
