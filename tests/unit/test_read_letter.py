"""The forms in which other people's events come: each read as what it means, with an identity of its own."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.events.call import CallEnded
from shared.events.clip import ClipRequested
from shared.events.reading import Letter, Reading, read_event, read_letter
from shared.events.registry import Received
from shared.events.s3_notification import Bucket
from shared.events.source import SourceAvailable, SourceRemoved
from shared.events.unreadable import Unreadable

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER_TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REQUEST = {"clipId": "clip-1", "cameraId": "cam-1", "startTimestampInMs": 1, "endTimestampInMs": 2}
ENVELOPE = {"specversion": "1.0", "id": "1", "source": "s", "type": "clip_requested", "data": REQUEST}
RECORDED = "cam-1.stream.20261122T175000123.mp4"
RECORDED_MS = 1_795_369_800_123


def attributes(prefix: str, **more: str) -> dict[str, str]:
    named = {"specversion": "1.0", "id": "1", "source": "s", "type": "clip_requested"} | more
    return {f"{prefix}{name}": value for name, value in named.items()}


def in_sns(message: str, **members: Any) -> bytes:
    """Write what SNS puts around a message on its way to a queue without raw delivery."""
    envelope = {
        "Type": "Notification",
        "MessageId": "sns-1",
        "TopicArn": "arn:aws:sns:us-west-1:000000000000:clips",
        "Message": message,
        "Timestamp": "2026-11-22T18:00:00.000Z",
        "SignatureVersion": "1",
        "Signature": "c2lnbmVk",
        "SigningCertURL": "https://sns.us-west-1.amazonaws.com/a.pem",
        "UnsubscribeURL": "https://sns.us-west-1.amazonaws.com/?Action=Unsubscribe",
    }
    return json.dumps(envelope | members).encode()


def record(
    key: str = RECORDED, *, name: str = "ObjectCreated:Put", bucket: str = "recordings", **members: object
) -> dict[str, Any]:
    """Return one record of an S3 notification, as S3 itself writes it."""
    return {
        "eventVersion": "2.3",
        "eventSource": "aws:s3",
        "awsRegion": "us-west-1",
        "eventTime": "2026-11-22T18:00:10.500Z",
        "eventName": name,
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": key, "size": 1024, "eTag": "d41d8", "sequencer": "0055AED6DCD90281E5"}
            | members,
        },
    }


def notification(*records: object) -> bytes:
    return json.dumps({"Records": records}).encode()


def bridged(detail_type: str, key: str) -> bytes:
    """Return the same as EventBridge tells it."""
    detail = {
        "version": "0",
        "bucket": {"name": "recordings"},
        "object": {"key": key, "size": 1024, "etag": "d41d8", "sequencer": "0055AED6DCD90281E5"},
        "reason": "PutObject",
    }
    event = {"version": "0", "id": "bridge-1", "detail-type": detail_type, "source": "aws.s3"}
    return json.dumps(event | {"time": "2026-11-22T18:00:10Z", "detail": detail}).encode()


def read(
    body: bytes,
    headers: dict[str, str] | None = None,
    content_type: str | None = None,
    *,
    expected: str = "clip_requested",
    bucket: Bucket | None = None,
) -> Received:
    return read_event(
        Letter(body, "message-1", headers or {}, content_type), expected=expected, bucket=bucket
    )


def read_records(
    *records: object, expected: str = "source_available", bucket: Bucket | None = None
) -> tuple[Reading, ...]:
    return read_letter(Letter(notification(*records), "message-1"), expected=expected, bucket=bucket)


def data_of(reading: Reading) -> object:
    assert isinstance(reading.found, Received), reading.found
    return reading.found.data


def said_of(reading: Reading) -> str:
    assert isinstance(reading.found, Unreadable), reading.found
    return f"{reading.found.field}: {reading.found}"


@pytest.mark.parametrize("prefix", ["cloudEvents:", "cloudEvents_", "ce-", "ce_", "CE-"])
def test_a_binary_cloud_event_is_read_by_its_headers(prefix: str) -> None:
    headers = attributes(prefix, subject="clip-1", time="2026-11-22T18:00:00Z", sequence="000000000003")

    received = read(json.dumps(REQUEST).encode(), headers | {"other": "x"}, "application/json; charset=utf-8")

    assert received.data == ClipRequested.model_validate(REQUEST)
    assert (received.event.source, received.event.id) == ("s", "1")
    assert (received.event.subject, received.event.model_extra) == ("clip-1", {"sequence": "000000000003"})
    assert received.event.datacontenttype == "application/json; charset=utf-8"
    assert received.event.time is not None


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        pytest.param({"ce-id": ""}, "id", id="empty id"),
        pytest.param({"ce-type": "source_available"}, "type", id="another type"),
        pytest.param({"ce-specversion": "0.3"}, "specversion", id="another version"),
        pytest.param({"ce-time": "soon"}, "time", id="no time"),
    ],
)
def test_a_binary_cloud_event_that_is_wrong_is_unreadable(headers: dict[str, str], field: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read(json.dumps(REQUEST).encode(), attributes("ce-") | headers)

    assert caught.value.field == field


def in_base64(body: bytes) -> bytes:
    members = {name: value for name, value in ENVELOPE.items() if name != "data"}
    return json.dumps(members | {"data_base64": base64.b64encode(body).decode()}).encode()


def test_data_may_come_in_base64() -> None:
    received = read(in_base64(json.dumps(REQUEST).encode()))

    assert received.data == ClipRequested.model_validate(REQUEST)
    assert json.loads(received.event.to_bytes())["data"] == REQUEST


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(in_base64(b"x"), "holds no JSON object", id="no json"),
        pytest.param(in_base64(b"[]"), "is a list", id="no object"),
        pytest.param(in_base64(b"{}").replace(b"e30=", b"e3,="), "is not text in base64", id="no base64"),
        pytest.param(in_base64(b"{}").replace(b'"e30="', b"7"), "is not text in base64", id="no text"),
    ],
)
def test_what_base64_holds_is_told_when_it_is_no_data(body: bytes, words: str) -> None:
    with pytest.raises(Unreadable, match=words) as caught:
        read(body)

    assert caught.value.field == "data_base64"


@pytest.mark.parametrize(
    ("event", "words"),
    [
        pytest.param(ENVELOPE | {"id": "a\0"}, "id: must not hold control characters", id="NUL"),
        pytest.param(
            ENVELOPE | {"data": REQUEST | {"clipId": "a/b"}}, "clipId: may hold letters", id="slash"
        ),
    ],
)
def test_what_a_name_may_hold_is_said_in_words(event: dict[str, Any], words: str) -> None:
    with pytest.raises(Unreadable, match=words):
        read(json.dumps(event).encode())


def test_headers_cannot_stand_in_for_the_data() -> None:
    with pytest.raises(Unreadable) as caught:
        read(b"{}", attributes("ce-", data=json.dumps(REQUEST)))

    assert caught.value.field == "data.clipId"


def test_the_content_type_says_that_an_event_is_structured() -> None:
    body = json.dumps(ENVELOPE | {"id": "of the body"}).encode()

    received = read(body, attributes("cloudEvents:"), "application/cloudevents+json; charset=utf-8")

    assert received.event.id == "of the body"


def test_headers_are_no_envelope_for_a_body_that_is_said_to_have_its_own() -> None:
    received = read(json.dumps(REQUEST).encode(), attributes("cloudEvents:"), "Application/CloudEvents+json")

    assert (received.event.source, received.event.id) == ("bare", "message-1")


def test_a_bridge_that_copies_the_attributes_changes_nothing() -> None:
    body = json.dumps(ENVELOPE | {"id": "of the body"}).encode()

    assert read(body, attributes("ce-"), "application/json").event.id == "of the body"


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(json.dumps(REQUEST), id="bare"),
        pytest.param(str(REQUEST), id="bare in single quotes"),
        pytest.param(in_sns(str(REQUEST), MessageId="inner").decode(), id="in an envelope again"),
    ],
)
def test_the_envelope_of_sns_is_taken_off(message: str) -> None:
    received = read(in_sns(message))

    assert received.data == ClipRequested.model_validate(REQUEST)
    assert (received.event.source, received.event.id) == ("bare", "inner" if "inner" in message else "sns-1")


def test_a_cloud_event_within_sns_keeps_its_own_identity() -> None:
    received = read(in_sns(json.dumps(ENVELOPE)))

    assert (received.event.source, received.event.id) == ("s", "1")


def test_message_attributes_within_sns_make_a_binary_cloud_event() -> None:
    attached = {name: {"Type": "String", "Value": value} for name, value in attributes("ce-").items()}
    attached["picture"] = {"Type": "Binary", "Value": "AAEC"}

    received = read(in_sns(json.dumps(REQUEST), MessageAttributes=attached))

    assert (received.event.source, received.event.id) == ("s", "1")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(in_sns("[]"), "is a list", id="a list"),
        pytest.param(in_sns("", Message={}), "is a dict, not a string", id="no string"),
        pytest.param(in_sns("\ud800"), "surrogate", id="no unicode"),
        pytest.param(in_sns(in_sns(in_sns(in_sns("{}").decode()).decode()).decode()), "clipId", id="endless"),
    ],
)
def test_an_envelope_of_sns_around_nothing_is_unreadable(body: bytes, words: str) -> None:
    with pytest.raises(Unreadable, match=words):
        read(body)


@pytest.mark.parametrize(
    ("body", "headers", "kept"),
    [
        pytest.param(ENVELOPE | {"traceparent": TRACEPARENT}, {}, TRACEPARENT, id="of the event"),
        pytest.param(
            ENVELOPE | {"traceparent": TRACEPARENT},
            {"traceparent": OTHER_TRACEPARENT},
            TRACEPARENT,
            id="the event's before the message's",
        ),
        pytest.param(ENVELOPE, {"traceparent": TRACEPARENT}, TRACEPARENT, id="of the message"),
        pytest.param(
            ENVELOPE | {"traceparent": "none"}, {"traceparent": TRACEPARENT}, TRACEPARENT, id="only one good"
        ),
        pytest.param(REQUEST, attributes("ce-", traceparent=TRACEPARENT), TRACEPARENT, id="binary"),
    ],
)
def test_a_trace_comes_from_the_event_or_else_from_its_message(
    body: dict[str, object], headers: dict[str, str], kept: str
) -> None:
    assert read(json.dumps(body).encode(), headers).event.traceparent == kept


def test_the_state_of_a_trace_comes_with_it_and_never_alone() -> None:
    body = json.dumps(REQUEST).encode()

    with_both = read(body, {"traceparent": TRACEPARENT, "tracestate": "rojo=1"}).event
    with_state = read(body, {"tracestate": "rojo=1"}).event

    assert (with_both.tracestate, with_state.tracestate) == ("rojo=1", None)


@pytest.mark.parametrize(
    ("key", "camera_id", "start_ms"),
    [
        pytest.param(RECORDED, "cam-1", RECORDED_MS, id="new form, with milliseconds"),
        pytest.param("cam-1.20261122T175000.mp4", "cam-1", RECORDED_MS - 123, id="old form"),
        pytest.param("a/b/" + RECORDED, "cam-1", RECORDED_MS, id="below folders"),
        pytest.param("north.gate.stream.20261122T175000123.mp4", "north.gate", RECORDED_MS, id="dots"),
        pytest.param("cam-1.stream.20240229T000000000.mp4", "cam-1", 1_709_164_800_000, id="leap day"),
    ],
)
def test_an_object_is_a_source_by_its_name(key: str, camera_id: str, start_ms: int) -> None:
    (reading,) = read_records(record(key))

    assert data_of(reading) == SourceAvailable(
        camera_id=camera_id, key=key, start_timestamp_in_ms=start_ms, size_bytes=1024
    )
    assert reading.body == notification(record(key))  # what came, byte for byte


@pytest.mark.parametrize(
    "key",
    [
        "holiday.mp4",
        "cam-1.stream.20261322T175000123.mp4",
        "cam-1.stream.20230229T000000000.mp4",
        "cam-1.20261122T17500012.mp4",
        "20261122T175000.mp4",
    ],
)
def test_a_video_that_nobody_can_place_in_time_is_a_dead_letter(key: str) -> None:
    (reading,) = read_records(record(key))

    assert said_of(reading).startswith("s3.object.key: ")


def test_a_camera_whose_name_cannot_be_one_is_a_dead_letter() -> None:
    (reading,) = read_records(record("north+gate.stream.20261122T175000123.mp4"))

    assert said_of(reading).startswith("data.cameraId: ")


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(record("cam-1.jpg"), id="a picture"),
        pytest.param(record(name="ObjectRemoved:Delete"), id="an object that went"),
        pytest.param(record(name="ObjectRestore:Completed"), id="an object that was restored"),
        pytest.param(record(name="ObjectTagging:Put"), id="a tag"),
    ],
)
def test_what_does_not_concern_a_queue_is_passed_over(told: dict[str, Any]) -> None:
    assert read_records(told) == ()


@pytest.mark.parametrize("name", ["ObjectRemoved:Delete", "s3:ObjectRemoved:DeleteMarkerCreated"])
def test_an_object_that_went_is_a_source_that_went(name: str) -> None:
    (reading,) = read_records(record(name=name), expected="source_removed")

    assert data_of(reading) == SourceRemoved(camera_id="cam-1", key=RECORDED)


def test_an_object_that_expired_is_a_source_that_went() -> None:
    (reading,) = read_records(record(name="LifecycleExpiration:Delete"), expected="source_removed")

    assert data_of(reading) == SourceRemoved(camera_id="cam-1", key=RECORDED)


def test_a_test_of_s3_is_no_event_on_any_queue() -> None:
    body = json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "recordings"}).encode()

    assert read_letter(Letter(body, "m"), expected="source_available") == ()
    assert read_letter(Letter(body, "m"), expected="clip_requested") == ()
    assert read_letter(Letter(in_sns(body.decode()), "m"), expected="source_available") == ()


def test_a_notification_on_a_queue_for_something_else_is_a_dead_letter() -> None:
    (reading,) = read_records(record(), expected="clip_requested")

    assert said_of(reading).startswith("data.clipId: ")


def test_each_record_is_read_for_itself() -> None:
    other = "cam-2.stream.20261122T175000123.mp4"
    records = [record(), record("holiday.mp4"), "nonsense", record(other), record("cam-1.jpg")]

    first, second, third, fourth = read_records(*records)

    assert (data_of(first), data_of(fourth)) == (
        data_of(read_records(records[0])[0]),
        data_of(read_records(records[3])[0]),
    )
    assert said_of(second).startswith("s3.object.key: ")
    assert said_of(third).startswith("Records: ")
    assert [each.transport_id for each in (second, third)] == ["message-1/1", "message-1/2"]


def test_each_record_is_kept_for_itself() -> None:
    records = [record(), record("holiday.mp4"), record("cam-2.stream.20261122T175000123.mp4")]

    for told, reading in zip(records, read_records(*records), strict=True):
        assert json.loads(reading.body) == {"Records": [told]}
        (again,) = read_letter(Letter(reading.body, reading.transport_id), expected="source_available")
        assert str(again.found) == str(reading.found)


def identity(body: bytes, expected: str = "source_available") -> tuple[str, str]:
    event = read(body, expected=expected).event
    return event.source, event.id


def test_a_sequencer_names_what_happened_on_every_road() -> None:
    body = notification(record())

    assert identity(body)[0] == "s3:recordings"
    assert identity(body) == identity(in_sns(body.decode()))
    assert identity(body) == identity(bridged("Object Created", RECORDED))
    assert identity(body) == identity(notification(record(name="s3:ObjectCreated:CompleteMultipartUpload")))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(record(bucket="others"), id="bucket"),
        pytest.param(record("cam-2.stream.20261122T175000123.mp4"), id="key"),
        pytest.param(record(sequencer="0055AED6DCD90281E6"), id="sequencer"),
    ],
)
def test_whatever_differs_makes_another_event(other: dict[str, Any]) -> None:
    assert identity(notification(record())) != identity(notification(other))


def test_a_removal_is_another_event_than_the_creation() -> None:
    removed = notification(record(name="ObjectRemoved:Delete"))

    assert identity(notification(record())) != identity(removed, "source_removed")


def test_without_a_sequencer_the_message_names_its_records() -> None:
    first, second = (record(sequencer=None), record("cam-2.20261122T175000.mp4", sequencer=""))

    alone = read(notification(first), expected="source_available").event
    together = [each.found for each in read_records(first, second)]

    assert (alone.source, alone.id) == ("bare", "message-1")
    assert [each.event.id for each in together if isinstance(each, Received)] == [
        "message-1/0",
        "message-1/1",
    ]


def test_eventbridge_encodes_no_keys() -> None:
    key = "a+b%2Fc/" + RECORDED

    assert read(bridged("Object Created", key), expected="source_available").data == SourceAvailable(
        camera_id="cam-1", key=key, start_timestamp_in_ms=RECORDED_MS, size_bytes=1024
    )
    assert identity(bridged("Object Deleted", key), "source_removed")[0] == "s3:recordings"


@pytest.mark.parametrize(
    ("written", "key"),
    [
        pytest.param("rec%2Fthe+hall%2F" + RECORDED, "rec/the hall/" + RECORDED, id="as s3 does"),
        pytest.param("rec/the+hall%C3%A9/" + RECORDED, "rec/the hall\u00e9/" + RECORDED, id="slashes kept"),
        pytest.param("rec/the hall/" + RECORDED, "rec/the hall/" + RECORDED, id="as versitygw does"),
        pytest.param(
            "hall\u00e9+/" + RECORDED, "hall\u00e9+/" + RECORDED, id="as versitygw does, beyond ascii"
        ),
    ],
)
def test_keys_are_decoded_where_they_were_encoded(written: str, key: str) -> None:
    assert getattr(data_of(read_records(record(written))[0]), "key", None) == key


def test_a_size_of_nothing_is_a_size_that_is_not_known() -> None:
    (reading,) = read_records(record(size=0))

    assert getattr(data_of(reading), "size_bytes", 0) is None


HOME = Bucket("recordings", prefix="spool/", own=("clips/",))


@pytest.mark.parametrize(
    ("told", "key"),
    [
        pytest.param(record("spool/gate/" + RECORDED), "gate/" + RECORDED, id="below the prefix"),
        pytest.param(record("spool/clips/cam-1/clip-7.mp4"), None, id="a clip of ours"),
        pytest.param(record("elsewhere/" + RECORDED), None, id="below another prefix"),
    ],
)
def test_only_objects_of_the_store_are_sources(told: dict[str, Any], key: str | None) -> None:
    keys = [getattr(data_of(reading), "key", None) for reading in read_records(told, bucket=HOME)]

    assert keys == ([key] if key else [])


def test_the_objects_of_another_bucket_are_dead_letters() -> None:
    (reading,) = read_records(record("spool/" + RECORDED, bucket="others"), bucket=HOME)

    assert said_of(reading).startswith("s3.bucket.name: s3.bucket.name: is others")


@pytest.mark.parametrize(
    ("ending", "valid"),
    [
        pytest.param("00:00:14", True, id="as it is sent"),
        pytest.param("23:59:59.250", True, id="milliseconds"),
        pytest.param("120:00:00", True, id="days"),
        pytest.param("00:60:00", False, id="sixty minutes"),
        pytest.param("00:00:60", False, id="sixty seconds"),
        pytest.param("0:00:14", False, id="one digit"),
        pytest.param("00:14", False, id="no hours"),
        pytest.param("-00:00:14", False, id="negative"),
        pytest.param("00:00:14\n", False, id="line break"),
        pytest.param("", False, id="empty"),
        pytest.param(14, False, id="a number"),
    ],
)
def test_a_call_that_ended_is_read_without_an_envelope(ending: object, valid: bool) -> None:
    body = json.dumps({"recordingID": "6f9619ff-8b86-4d01-b42d", "callEndingTimestamp": ending}).encode()
    if valid:
        assert read(body, expected="call_ended").data == CallEnded.model_validate_json(body)
        return
    with pytest.raises(Unreadable) as caught:
        read(body, expected="call_ended")

    assert caught.value.field == "data.callEndingTimestamp"


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
moments = st.integers(0, 253_402_300_799_999)
requests = st.builds(
    lambda clip_id, camera_id, start_ms, end_ms, said: {
        "clipId": clip_id,
        "cameraId": camera_id,
        "startTimestampInMs": start_ms,
        "endTimestampInMs": end_ms,
        "said": said,
    },
    names,
    names,
    moments,
    moments | moments.map(str),
    st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=20),
)


def every_form(data: dict[str, Any]) -> list[Letter]:
    bare, single = json.dumps(data).encode(), repr(data).encode()
    structured = json.dumps(ENVELOPE | {"data": data}).encode()
    headers = attributes("cloudEvents_")
    attached = {name: {"Type": "String", "Value": value} for name, value in attributes("ce-").items()}
    return [
        Letter(bare, "m"),
        Letter(single, "m"),
        Letter(structured, "m"),
        Letter(structured, "m", {}, "application/cloudevents+json"),
        Letter(bare, "m", headers, "application/json"),
        Letter(single, "m", headers),
        Letter(in_sns(bare.decode()), "m"),
        Letter(in_sns(single.decode()), "m"),
        Letter(in_sns(structured.decode()), "m"),
        Letter(in_sns(bare.decode(), MessageAttributes=attached), "m"),
        Letter(in_sns(in_sns(single.decode()).decode()), "m"),
    ]


@settings(deadline=None)
@given(requests)
def test_in_whatever_an_event_is_wrapped_its_data_is_the_same(data: dict[str, Any]) -> None:
    read_as = [read_event(letter, expected="clip_requested") for letter in every_form(data)]

    assert {received.data for received in read_as} == {ClipRequested.model_validate(data)}
    assert all(received.event.data == data for received in read_as)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def torn(whole: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return an object with some of its members, at any depth, replaced by anything."""
    members = {
        name: (torn(value) if isinstance(value, dict) else st.just(value)) | json_values
        for name, value in whole.items()
    }
    return st.fixed_dictionaries({}, optional=members)


foreign = st.one_of(
    torn(json.loads(in_sns("{}"))),
    torn(json.loads(in_sns("{}", MessageAttributes={"ce-id": {"Type": "String", "Value": "1"}}))),
    st.lists(torn(record()) | json_values, max_size=3).map(lambda records: {"Records": records}),
    torn(json.loads(bridged("Object Created", RECORDED))),
    torn(json.loads(bridged("Object Created", RECORDED))).map(
        lambda inner: json.loads(in_sns(json.dumps(inner)))
    ),
    torn(ENVELOPE),
)
header_names = st.sampled_from(
    [
        f"{prefix}{name}"
        for prefix in ("ce-", "cloudEvents:")
        for name in ("specversion", "id", "type", "time")
    ]
    + ["traceparent", "tracestate", "content-type"]
)


@settings(deadline=None, max_examples=400)
@given(
    st.binary(max_size=60) | foreign.map(lambda body: json.dumps(body).encode()),
    st.dictionaries(
        header_names, st.just("1.0") | st.text(st.characters(codec=None), max_size=8), max_size=4
    ),
    st.none() | st.sampled_from(["application/json", "application/cloudevents+json", ""]),
    st.sampled_from(["clip_requested", "source_available", "source_removed", "call_ended"]),
    st.none() | st.just(HOME),
)
def test_whatever_comes_is_events_or_unreadable(
    body: bytes, headers: dict[str, str], content_type: str | None, expected: str, bucket: Bucket | None
) -> None:
    readings = read_letter(Letter(body, "message-1", headers, content_type), expected=expected, bucket=bucket)

    for reading in readings:
        assert isinstance(reading.found, Received | Unreadable)
        assert reading.body in body or b"Records" in reading.body
        if isinstance(reading.found, Received):
            assert reading.found.event.type == expected
            assert reading.found.event.to_bytes()
        else:
            assert json.dumps(str(reading.found), ensure_ascii=False).encode()  # a log can keep it
