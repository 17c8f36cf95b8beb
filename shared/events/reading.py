"""What a queue brings becomes events, in whichever of the known forms it comes.

A CloudEvent, structured or binary; the bare bodies of older publishers; an S3 notification; and the envelope
of SNS around any of them. None of it needs I/O, and nothing but `Unreadable` comes of bytes that are none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shared.events import s3_notification as s3
from shared.events.binary_mode import attributes_of
from shared.events.envelope import trace_of
from shared.events.parsing import parse
from shared.events.registry import Received, read_cloud_event
from shared.events.s3_notification import Bucket
from shared.events.sns import is_notification, open_notification
from shared.events.unreadable import FieldProblem, Unreadable

BARE_SOURCE = "bare"  # of an event that came without an envelope
MAX_ENVELOPES = 3  # of SNS around each other: EventBridge and forwarders add one each


@dataclass(frozen=True, slots=True)
class Letter:
    """What a transport handed over, and under which name."""

    body: bytes
    transport_id: str
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One event of a letter, or why it is none. `body` is what to keep: the letter's, or this one's part.

    `transport_id` names what is no event.
    """

    found: Received | Unreadable
    body: bytes
    transport_id: str


def read_letter(letter: Letter, *, expected: str, bucket: Bucket | None = None) -> tuple[Reading, ...]:
    """Read all events of a letter that came for `expected`: mostly one, none of a test or of no interest.

    A message without an envelope is of the expected type, and has the identity that its transport gave.
    `bucket` is where Spool's objects are, for notifications of S3.
    """
    try:
        return tuple(_read(letter, expected=expected, bucket=bucket))
    except Unreadable as error:
        return (Reading(error, letter.body, letter.transport_id),)


def read_event(letter: Letter, *, expected: str, bucket: Bucket | None = None) -> Received:
    """Read the one event of a letter. Raises Unreadable, also when it holds none or several."""
    readings = read_letter(letter, expected=expected, bucket=bucket)
    if len(readings) != 1:
        raise Unreadable((FieldProblem("body", f"holds {len(readings)} events for {expected}, not one"),))
    if isinstance(readings[0].found, Unreadable):
        raise readings[0].found
    return readings[0].found


def _read(letter: Letter, *, expected: str, bucket: Bucket | None) -> Iterator[Reading]:
    inner, parsed = _opened(letter)
    if "specversion" in parsed:
        event = parsed
    elif attributes := attributes_of(inner.headers, inner.content_type):
        event = {**attributes, "data": parsed}
    elif s3.is_test(parsed) or (expected in s3.TYPES_OF_S3 and s3.is_s3(parsed)):
        yield from _read_records(letter, inner, parsed, expected=expected, bucket=bucket)
        return
    else:
        event = _bare(parsed, inner.transport_id, expected)
    received = read_cloud_event(_traced(event, inner.headers), expected=expected)
    yield Reading(received, letter.body, letter.transport_id)


def _opened(letter: Letter) -> tuple[Letter, dict[str, Any]]:
    """Take off the envelopes of SNS. What is inside has SNS's id, which is the same on every road."""
    inner, parsed = letter, parse(letter.body)
    for _ in range(MAX_ENVELOPES):
        if not is_notification(parsed):
            break
        notice = open_notification(parsed)
        inner = replace(
            inner,
            body=notice.body,
            transport_id=notice.message_id or inner.transport_id,
            headers={**inner.headers, **notice.headers},
            content_type=notice.headers.get("content-type", notice.headers.get("contentType")),
        )
        parsed = parse(inner.body)
    return inner, parsed


def _read_records(
    letter: Letter, inner: Letter, parsed: Mapping[str, Any], *, expected: str, bucket: Bucket | None
) -> Iterator[Reading]:
    """Read each record for itself: a bad one must not hold its neighbours."""
    records = s3.records_of(parsed)
    for number, record in enumerate(records):
        alone = len(records) == 1
        body = letter.body if alone else s3.body_of(record)
        name = inner.transport_id if alone else f"{inner.transport_id}/{number}"
        try:
            event = s3.as_cloud_event(record, expected=expected, bucket=bucket, transport=(BARE_SOURCE, name))
            if event is None:
                continue
            received = read_cloud_event(_traced(event, inner.headers), expected=expected)
        except Unreadable as error:
            yield Reading(error, body, name)
        else:
            yield Reading(received, body, name)


def _bare(parsed: Mapping[str, Any], transport_id: str, expected: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": transport_id,
        "source": BARE_SOURCE,
        "type": expected,
        "data": parsed,
    }


def _traced(event: Mapping[str, Any], headers: Mapping[str, str]) -> Mapping[str, Any]:
    """Continue the event's own trace, or else the one of the message that carried it."""
    if trace_of(event):
        return event
    return {**event, **trace_of(headers)}
