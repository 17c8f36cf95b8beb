"""Messages without an envelope: the bare result as body, and what receivers dedupe on in the headers."""

from __future__ import annotations

from dataclasses import replace

from shared.bus.message import Message
from shared.events.binary_mode import headers_of
from shared.events.plain import CONTENT_TYPE, PublicPlace, has_plain_form, plain_body
from shared.events.registry import read_posted
from shared.events.unreadable import Unreadable


def as_plain(message: Message, *, place: PublicPlace) -> Message | None:
    """Return a message of an outbox in its plain form, under the same id.

    None for what must not be said without an envelope: the outbox keeps it, and marks it as told.

    Its headers make it a CloudEvent in binary mode: to Spool itself it is the same event as before, so what
    is published in both forms is worked once.
    """
    try:
        received = read_posted(message.body)
    except Unreadable:
        # Written by a newer version, whose events this one does not know: better in an envelope than lost.
        return message
    if not has_plain_form(received.data):
        return None
    headers = headers_of(received.event, trace=message.headers)
    return replace(message, body=plain_body(received, place), content_type=CONTENT_TYPE, headers=headers)
