"""A message as SNS and SQS carry it: text with at most ten attributes, and back. Pure.

`type` is for filters, `content-type` for readers, `spool` holds in JSON what has no room or no form of its
own: the id, headers beyond the ten attributes or with names that AWS does not allow, the body's encoding.
Messages of others need none of these: their attributes are headers, their id is the one SQS gave.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.bus.limits import check_size
from shared.bus.message import FIRST_QUEUE, Delivery, Message
from shared.bus.port import TooLarge
from shared.kernel.errors import Refused

if TYPE_CHECKING:
    from types_aiobotocore_sns.type_defs import MessageAttributeValueTypeDef as SnsAttribute
    from types_aiobotocore_sqs.type_defs import MessageAttributeValueOutputTypeDef as SqsAttribute
    from types_aiobotocore_sqs.type_defs import MessageTypeDef

MAX_BATCH = 10  # entries in one call of SNS or SQS
MAX_MESSAGE_BYTES = 256 * 1024  # of SNS: the body with all attributes; the same for a batch together
OWN_BYTES = 4 * 1024  # kept free for the attributes that every message has
MAX_ATTRIBUTES = 10  # with raw delivery SQS throws a message away that has more

TYPE, CONTENT_TYPE, SPOOL = "type", "content-type", "spool"
_OWN = frozenset({TYPE, CONTENT_TYPE, SPOOL})
_STRING = "String"
_ATTRIBUTE_NAME = re.compile(r"(?!(?i:aws|amazon)\.)[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_NO_TEXT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what AWS takes as text
_NOTHING = "-"  # a body of no bytes: AWS has none


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message as SNS takes it."""

    message: Message
    text: str
    attributes: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        """What counts towards the limits of SNS."""
        names_and_values = (
            len(name) + len(_STRING) + len(value.encode()) for name, value in self.attributes.items()
        )
        return len(self.text.encode()) + sum(names_and_values)

    def entry(self) -> dict[str, SnsAttribute]:
        """Return the attributes in the words of the SDK."""
        return {name: {"DataType": _STRING, "StringValue": value} for name, value in self.attributes.items()}


@dataclass(frozen=True, slots=True)
class Receipt:
    """What SQS knows a delivery by: only until it hands the message out again."""

    handle: str


def pack(message: Message) -> Parcel:
    """Raise TooLarge for what SNS does not carry, Refused for what it cannot route."""
    check_size(message)
    if not is_text(message.type):
        raise Refused(f"the type {message.type!r} has characters that AWS cannot filter by", field="type")
    text = _as_text(message.body)
    own: dict[str, Any] = {"id": message.id}
    if text is None:
        text = base64.b64encode(message.body).decode() or _NOTHING
        own["encoding"] = "base64"
    attributes = {TYPE: message.type}
    if is_text(message.content_type):
        attributes[CONTENT_TYPE] = message.content_type
    else:
        own["contentType"] = message.content_type
    packed = {}
    for name, value in message.headers.items():
        if len(attributes) < MAX_ATTRIBUTES - 1 and _is_attribute(name, value):
            attributes[name] = value
        else:
            packed[name] = value
    if packed:
        own["headers"] = packed
    attributes[SPOOL] = _compact(own)
    parcel = Parcel(message, text, attributes)
    if (size_bytes := parcel.size_bytes) > MAX_MESSAGE_BYTES:
        raise TooLarge(
            f"the message has {size_bytes} bytes with its headers, SNS carries {MAX_MESSAGE_BYTES}"
        )
    return parcel


def in_batches(parcels: Sequence[Parcel]) -> Iterator[list[Parcel]]:
    """Cut into batches of ten that are together no larger than one message may be."""
    batch: list[Parcel] = []
    size_bytes = 0
    for parcel in parcels:
        if batch and (len(batch) == MAX_BATCH or size_bytes + parcel.size_bytes > MAX_MESSAGE_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(parcel)
        size_bytes += parcel.size_bytes
    if batch:
        yield batch


def unpack(received: MessageTypeDef, *, queue: str, first_queue: str | None = None) -> Delivery:
    """Return the delivery, whoever sent it. `first_queue` is where SQS gave it up, if it did."""
    attributes = {
        name: _value(attribute) for name, attribute in received.get("MessageAttributes", {}).items()
    }
    own = _own(attributes.get(SPOOL))
    headers = {name: value for name, value in attributes.items() if own is None or name not in _OWN}
    headers |= _texts(own.get("headers")) if own else {}
    if first_queue:
        headers[FIRST_QUEUE] = first_queue
    own = own or {}
    count = received.get("Attributes", {}).get("ApproximateReceiveCount", "1")
    return Delivery(
        message_id=own.get("id") or received.get("MessageId"),
        queue=queue,
        body=_as_bytes(received.get("Body", ""), own.get("encoding")),
        content_type=_text(own.get("contentType")) or _content_type(attributes),
        headers=headers,
        redelivered=count != "1",
        receipt=Receipt(received.get("ReceiptHandle", "")),
    )


def type_of(received: MessageTypeDef) -> str | None:
    """Return the type that a received message was routed by."""
    attribute = received.get("MessageAttributes", {}).get(TYPE)
    return _value(attribute) if attribute else None


def is_text(text: str) -> bool:
    """Say whether AWS takes it as it is."""
    return bool(text) and _NO_TEXT.search(text) is None


def _is_attribute(name: str, value: str) -> bool:
    return name not in _OWN and _ATTRIBUTE_NAME.fullmatch(name) is not None and is_text(value)


def _as_text(body: bytes) -> str | None:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return text if is_text(text) else None


def _as_bytes(text: str, encoding: object) -> bytes:
    if encoding != "base64":
        return text.encode(errors="replace")
    if text == _NOTHING:
        return b""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return text.encode(errors="replace")  # not what it says: whoever reads it will tell


def _compact(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text if is_text(text) else json.dumps(value, separators=(",", ":"))


def _own(text: str | None) -> dict[str, Any] | None:
    """Return what `spool` holds, None when the message is of somebody else."""
    try:
        own = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    return own if isinstance(own, dict) and isinstance(own.get("id"), str) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(headers: object) -> dict[str, str]:
    if not isinstance(headers, dict):
        return {}
    return {str(name): str(value) for name, value in headers.items()}


def _content_type(attributes: Mapping[str, str]) -> str | None:
    found = (value for name, value in attributes.items() if name.lower() in {CONTENT_TYPE, "contenttype"})
    return next(found, None)


def _value(attribute: SqsAttribute) -> str:
    if "StringValue" in attribute:
        return attribute["StringValue"]
    return attribute.get("BinaryValue", b"").decode(errors="replace")
