"""A message as SNS and SQS carry it: sizes, ten attributes, odd characters, and what strangers send."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from shared.bus.limits import MAX_BODY_BYTES
from shared.bus.message import FIRST_QUEUE, Message
from shared.bus.port import TooLarge
from shared.bus.sqs_message import (
    MAX_ATTRIBUTES,
    MAX_BATCH,
    MAX_MESSAGE_BYTES,
    OWN_BYTES,
    Parcel,
    in_batches,
    is_text,
    pack,
    type_of,
    unpack,
)
from shared.kernel.errors import Refused

if TYPE_CHECKING:
    from types_aiobotocore_sqs.type_defs import MessageTypeDef

QUEUE = "clipper.clip_requested"


def message(body: bytes = b"{}", **changed: Any) -> Message:
    usual: dict[str, Any] = {
        "id": "1",
        "type": "clip_requested",
        "content_type": "application/json",
        "mandatory": True,
    }
    return Message(body=body, **(usual | changed))


def carried(parcel: Parcel) -> MessageTypeDef:
    """Return what SQS hands out of a parcel, with raw delivery."""
    return {
        "MessageId": "of-sqs",
        "ReceiptHandle": "handle",
        "Body": parcel.text,
        "Attributes": {"ApproximateReceiveCount": "1"},
        "MessageAttributes": {
            name: {"DataType": "String", "StringValue": value} for name, value in parcel.attributes.items()
        },
    }


def strange(body: str = "{}", **attributes: str) -> MessageTypeDef:
    """Return what SQS hands out of a message that somebody else sent."""
    named: Any = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
    return {"MessageId": "of-sqs", "ReceiptHandle": "handle", "Body": body, "MessageAttributes": named}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"-", id="what stands for nothing"),
        pytest.param(b" \t\r\n ", id="white space"),
        pytest.param('{"a":"gr\u00fcn \U0001f600"}'.encode(), id="text beyond ASCII"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param(b"a\0b", id="NUL"),
        pytest.param(b"\x1b[0m", id="an escape"),
        pytest.param("\ufffe".encode(), id="no character"),
        pytest.param(b"eyJhIjoxfQ==", id="base64 already"),
        pytest.param("\ud7ff\ue000\ufffd".encode(), id="the last that are characters"),
    ],
)
def test_a_body_arrives_as_it_was(body: bytes) -> None:
    parcel = pack(message(body))

    assert is_text(parcel.text)
    assert unpack(carried(parcel), queue=QUEUE).body == body


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param({"traceparent": "00-1-2-01"}, id="one"),
        pytest.param({f"h{n}": "v" for n in range(7)}, id="as many as there is room for"),
        pytest.param({f"h{n}": "v" for n in range(8)}, id="one more"),
        pytest.param({f"h{n}": "v" for n in range(100)}, id="many"),
        pytest.param({"aws.a": "1", "Amazon.b": "2", "AWS.c": "3"}, id="names that AWS keeps for itself"),
        pytest.param({".a": "1", "a.": "2", "a..b": "3", "a b": "4", "\u00fc": "5"}, id="names it refuses"),
        pytest.param({"a": "", "b": "\0", "c": "\x7f\u00fc\U0001f600"}, id="odd values"),
        pytest.param({"type": "x", "content-type": "y", "spool": "z"}, id="our own names"),
        pytest.param({"Type": "x", "SPOOL": "{}"}, id="our own names in other letters"),
    ],
)
def test_headers_arrive_as_they_were_in_at_most_ten_attributes(headers: dict[str, str]) -> None:
    parcel = pack(message(headers=headers))
    delivery = unpack(carried(parcel), queue=QUEUE)

    assert len(parcel.attributes) <= MAX_ATTRIBUTES
    assert all(is_text(value) for value in parcel.attributes.values())
    assert delivery.headers == headers
    assert (delivery.message_id, delivery.content_type) == ("1", "application/json")
    assert type_of(carried(parcel)) == "clip_requested"


@pytest.mark.parametrize("message_id", ["\0", "\u00fc\U0001f600", '"', "x" * 255])
@pytest.mark.parametrize("content_type", ["", "\x01", "application/json; charset=utf-8"])
def test_an_id_and_a_content_type_arrive_as_they_were(message_id: str, content_type: str) -> None:
    delivery = unpack(carried(pack(message(id=message_id, content_type=content_type))), queue=QUEUE)

    assert delivery.message_id == message_id
    assert (delivery.content_type or "") == content_type


@pytest.mark.parametrize("event_type", ["", "a\0", "\x1b"])
def test_a_type_that_cannot_be_filtered_by_is_refused_with_its_name(event_type: str) -> None:
    with pytest.raises(Refused, match="characters that AWS cannot filter by") as refused:
        pack(message(type=event_type))

    assert refused.value.field == "type"


def test_a_message_may_be_as_large_as_sns_carries_and_no_larger() -> None:
    around = pack(message(b"x")).size_bytes - 1
    largest = pack(message(b"x" * (MAX_MESSAGE_BYTES - around)))

    assert largest.size_bytes == MAX_MESSAGE_BYTES == 262_144
    with pytest.raises(TooLarge, match="has 262145 bytes with its headers, SNS carries 262144"):
        pack(message(b"x" * (MAX_MESSAGE_BYTES - around + 1)))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("\u00fc".encode() * (MAX_MESSAGE_BYTES // 2), id="characters of two bytes"),
        pytest.param(b"\xff" * (MAX_MESSAGE_BYTES * 3 // 4), id="as base64"),
        pytest.param(b"x" * 1024 * 1024, id="a MiB, which SQS would take by itself"),
        pytest.param(b"x" * (MAX_BODY_BYTES + 1), id="what nothing carries"),
    ],
)
def test_what_sns_does_not_carry_is_too_large(body: bytes) -> None:
    with pytest.raises(TooLarge):
        pack(message(body))


@pytest.mark.parametrize("odd", ["x", "\x01", "\U0001f600"])
def test_there_is_room_for_what_every_message_has(odd: str) -> None:
    longest = odd * (255 // len(odd.encode()))
    parcel = pack(message(b"x" * (MAX_MESSAGE_BYTES - OWN_BYTES), id=longest, content_type=longest))

    assert parcel.size_bytes <= MAX_MESSAGE_BYTES


KIB = 1024


@pytest.mark.parametrize(
    ("sizes_kib", "batches"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([1], [1], id="one"),
        pytest.param([1] * MAX_BATCH, [10], id="ten"),
        pytest.param([1] * 25, [10, 10, 5], id="more than ten"),
        pytest.param([128, 128, 128], [2, 1], id="together as large as one may be"),
        pytest.param([256, 256], [1, 1], id="each as large as one may be"),
        pytest.param([150, 150, 50], [1, 2], id="in their order, not packed anew"),
        pytest.param([26] * 10, [9, 1], id="nine that fit"),
    ],
)
def test_batches_have_ten_at_most_and_the_size_of_one_message(
    sizes_kib: list[int], batches: list[int]
) -> None:
    around = pack(message(b"x")).size_bytes - 1
    parcels = [pack(message(b"x" * (size_kib * KIB - around))) for size_kib in sizes_kib]
    found = list(in_batches(parcels))

    assert [len(batch) for batch in found] == batches
    assert [parcel for batch in found for parcel in batch] == parcels


@pytest.mark.parametrize(
    "spool",
    [
        pytest.param("{", id="no JSON"),
        pytest.param("[]", id="a list"),
        pytest.param("null", id="null"),
        pytest.param("{}", id="no id"),
        pytest.param('{"id":5}', id="an id that is a number"),
        pytest.param("[" * 100_000, id="nested without an end"),
        pytest.param('{"id":' * 50_000, id="nested by name"),
    ],
)
def test_an_attribute_that_only_looks_like_ours_is_a_header(spool: str) -> None:
    delivery = unpack(strange(type="x", spool=spool), queue=QUEUE)

    assert delivery.message_id == "of-sqs"
    assert delivery.headers == {"type": "x", "spool": spool}


@pytest.mark.parametrize(
    ("own", "body", "content_type", "headers"),
    [
        pytest.param({"contentType": 5}, b"{}", None, {}, id="a number for a content type"),
        pytest.param({"contentType": {}}, b"{}", None, {}, id="an object for a content type"),
        pytest.param({"headers": "x"}, b"{}", None, {}, id="a text for headers"),
        pytest.param({"headers": {"a": [1]}}, b"{}", None, {"a": "[1]"}, id="a list for a header"),
        pytest.param({"encoding": "gzip"}, b"{}", None, {}, id="an encoding of later"),
        pytest.param({"encoding": []}, b"{}", None, {}, id="a list for an encoding"),
        pytest.param({"encoding": "base64"}, b"{}", None, {}, id="no base64"),
        pytest.param({"more": True}, b"{}", None, {}, id="a field of later"),
    ],
)
def test_what_is_malformed_in_our_own_attribute_is_passed_over(
    own: dict[str, object], body: bytes, content_type: str | None, headers: dict[str, str]
) -> None:
    delivery = unpack(strange(spool=json.dumps({"id": "1"} | own)), queue=QUEUE)

    assert (delivery.message_id, delivery.body) == ("1", body)
    assert (delivery.content_type, delivery.headers) == (content_type, headers)


@pytest.mark.parametrize("text", ["\u00fc", "a", "a===", "\U0001f600=="])
def test_a_body_that_is_not_the_base64_it_is_said_to_be_is_kept(text: str) -> None:
    delivery = unpack(strange(text, spool='{"id":"1","encoding":"base64"}'), queue=QUEUE)

    assert delivery.body == text.encode()


@pytest.mark.parametrize(
    ("received", "body"),
    [
        pytest.param(strange("{'cameraId': 'gate'}"), b"{'cameraId': 'gate'}", id="single quotes"),
        pytest.param(strange("no JSON \u00fc"), "no JSON \u00fc".encode(), id="text"),
        pytest.param(strange("\ud800"), b"?", id="half a character"),
        pytest.param(strange("-"), b"-", id="what stands for nothing with us"),
        pytest.param({}, b"", id="nothing at all"),
    ],
)
def test_a_foreign_body_arrives_as_it_is(received: MessageTypeDef, body: bytes) -> None:
    assert unpack(received, queue=QUEUE).body == body


@pytest.mark.parametrize("name", ["content-type", "Content-Type", "contentType", "ContentType"])
def test_the_attributes_of_a_stranger_are_headers_and_name_the_content_type(name: str) -> None:
    delivery = unpack(strange(**{name: "text/plain", "ce-id": "7"}), queue=QUEUE)

    assert delivery.headers == {name: "text/plain", "ce-id": "7"}
    assert delivery.content_type == "text/plain"


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        pytest.param({"DataType": "Number", "StringValue": "5"}, "5", id="a number"),
        pytest.param({"DataType": "Binary", "BinaryValue": b"ab"}, "ab", id="bytes that are text"),
        pytest.param({"DataType": "Binary", "BinaryValue": b"\xff"}, "\ufffd", id="bytes that are none"),
        pytest.param({"DataType": "String"}, "", id="nothing"),
    ],
)
def test_an_attribute_of_any_kind_is_read_as_text(attribute: Any, value: str) -> None:
    received: MessageTypeDef = {"MessageId": "1", "MessageAttributes": {"type": attribute}}

    assert unpack(received, queue=QUEUE).headers == {"type": value}
    assert type_of(received) == value


def test_a_message_without_attributes_has_no_type() -> None:
    assert type_of({"MessageId": "1"}) is None


@pytest.mark.parametrize(("count", "redelivered"), [("1", False), ("2", True), ("100", True)])
def test_what_was_received_before_says_so(count: str, redelivered: bool) -> None:
    received = strange() | {"Attributes": {"ApproximateReceiveCount": count}}

    assert unpack(received, queue=QUEUE).redelivered is redelivered


def test_what_sqs_gave_up_names_the_queue_in_which_it_died() -> None:
    delivery = unpack(strange(**{FIRST_QUEUE: "a lie"}), queue="clipper.dead", first_queue=QUEUE)

    assert delivery.headers[FIRST_QUEUE] == QUEUE
    assert delivery.queue == "clipper.dead"
