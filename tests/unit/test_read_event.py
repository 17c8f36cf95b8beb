"""Bytes from a queue: an event or Unreadable, and never anything that cannot be written again."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.events.parsing import MAX_DEPTH, MAX_EVENT_BYTES
from shared.events.reading import Letter, read_event
from shared.events.registry import Received, read_cloud_event
from shared.events.unreadable import MAX_PROBLEMS, Unreadable

REQUEST = {"clipId": "clip-1", "cameraId": "cam-1", "startTimestampInMs": 1, "endTimestampInMs": 2}
ENVELOPE = {"specversion": "1.0", "id": "1", "source": "s", "type": "clip_requested", "data": REQUEST}
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
events = st.builds(
    lambda envelope, body: ENVELOPE | envelope | {"data": REQUEST | body},
    st.dictionaries(st.sampled_from([*ENVELOPE, "subject", "time", "traceparent", "other"]), json_values),
    st.dictionaries(st.sampled_from([*REQUEST, "other"]), json_values),
)
bodies = (
    st.binary(max_size=80)
    | st.text("{}[]()'\",:\\ tTn1-.x", max_size=60).map(str.encode)
    | json_values.map(lambda value: json.dumps(value).encode())
    | events.map(lambda event: json.dumps(event).encode())
    | events.map(lambda event: repr(event).encode(errors="surrogatepass"))
)


def read(body: bytes) -> Received:
    return read_event(Letter(body, "message-1"), expected="clip_requested")


def read_or_refusal(body: bytes) -> Received | Unreadable:
    try:
        return read(body)
    except Unreadable as error:
        return error


def request_with(members: str) -> bytes:
    return (json.dumps(REQUEST).removesuffix("}") + f", {members}}}").encode()


@settings(deadline=None, max_examples=400)
@given(bodies)
@example(b"{[1]: 2}")
@example(b"{1: 2}")
@example(b"{'a': {1, 2}}")
@example(b"'\\")
def test_any_bytes_are_an_event_or_unreadable(body: bytes) -> None:
    found = read_or_refusal(body)

    if isinstance(found, Unreadable):
        said = [str(found), found.field]
        assert found.problems
        assert json.dumps(said, ensure_ascii=False).encode()  # a database and a log can keep it
        return
    again = read(found.event.to_bytes())
    assert again.event.to_bytes() == found.event.to_bytes()
    assert again.data == found.data


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"", "is not JSON", id="empty"),
        pytest.param(b"\xff\xfe", "is not UTF-8", id="not utf-8"),
        pytest.param(b"[]", "is a list", id="a list"),
        pytest.param(b'"{}"', "is a str", id="a string"),
        pytest.param(b" " * (MAX_EVENT_BYTES + 1), f"at most {MAX_EVENT_BYTES}", id="too long"),
        pytest.param(request_with('"a": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH), "nested", id="too deep"),
        pytest.param(b'{"a": "' + b"]" * 100_000 + b'", "b": ' + b"[" * 100_000, "nested", id="far too deep"),
        pytest.param(b"{'a': " * 40_000, "nested", id="far too deep in single quotes"),
        pytest.param(request_with('"a": "\\ud800"'), "surrogate", id="half a surrogate pair"),
        pytest.param(request_with('"\\udfff": 1'), "surrogate", id="half a surrogate pair in a name"),
        pytest.param(request_with('"a": [{"b": NaN}]'), "a number that JSON", id="not a number"),
        pytest.param(request_with('"a": -1e999'), "a number that JSON", id="infinite"),
        pytest.param(request_with('"a": ' + "9" * 5000), "is not JSON", id="more digits than python reads"),
        pytest.param(b"{'a': 'it}", "is not JSON", id="a string without an end"),
        pytest.param(b"{'a': 'b',, 'c': 1}", "with single quotes: .*column 11", id="wrong in single quotes"),
        pytest.param(b"'" * 200_000, "is a str", id="many quotes"),
        pytest.param(b"-" * 200_000 + b"1", "is not JSON", id="many signs"),
        pytest.param(b"{'a': __import__('os').getpid()}", "is not JSON", id="a program"),
    ],
)
def test_a_body_that_is_no_event_is_told_why(body: bytes, words: str) -> None:
    with pytest.raises(Unreadable, match=words) as caught:
        read(body)

    assert caught.value.field == "body"


def test_the_deepest_event_that_is_taken() -> None:
    nested = "[" * (MAX_DEPTH - 2) + "]" * (MAX_DEPTH - 2)  # the envelope and its data are two levels

    assert read(request_with(f'"a": {nested}')).data.subject == "clip-1"


def test_the_last_of_two_equal_names_counts_in_both_forms() -> None:
    double = request_with('"clipId": "later"')
    single = double.replace(b'"', b"'")

    assert read(double).data.subject == read(single).data.subject == "later"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{'a': 'b'}", id="plain"),
        pytest.param("{'a': True, 'b': False, 'c': None, 'd': -1.5e3}", id="words and numbers"),
        pytest.param("{'a': 'True, None', 'b': \"None\"}", id="words in strings"),
        pytest.param(r"{'a': 'tab\t quote\' backslash\\ byte\xe9 line\n u\u20ac'}", id="escapes"),
        pytest.param("{'a': '\"'}", id="double quote in single"),
        pytest.param("{'a': ''}", id="empty string"),
        pytest.param("{'a' : [ 'b' , 'c' ] }", id="spaces"),
    ],
)
def test_the_single_quoted_form_means_what_python_means_by_it(text: str) -> None:
    body = request_with('"a": 0').decode().replace('"', "'").replace("'a': 0", text[1:-1])

    # Python's own parser is the reference for a text we know to be harmless.
    assert read(body.encode()).event.data == eval(body)


@given(
    st.dictionaries(
        st.text(st.characters(max_codepoint=0xFFFF, codec="utf-8"), max_size=5), st.text(max_size=9)
    )
)
def test_what_python_prints_is_read_back(more: dict[str, str]) -> None:
    printable = {
        name: value for name, value in (REQUEST | more).items() if str(value).isprintable()
    } | REQUEST

    assert read(repr(printable).encode()).event.data == printable


@pytest.mark.parametrize(
    ("transport_id", "taken"),
    [
        pytest.param("m-1", True, id="plain"),
        pytest.param("é" * 200, True, id="beyond ascii"),
        pytest.param("a\x00", False, id="nul"),
        pytest.param("a\x1b[31m", False, id="escape sequence"),
        pytest.param("x" * 257, False, id="long"),
    ],
)
def test_a_bare_message_has_the_id_of_its_transport(transport_id: str, taken: bool) -> None:
    body = json.dumps(REQUEST).encode()
    if taken:
        received = read_event(Letter(body, transport_id), expected="clip_requested")
        assert (received.event.id, received.event.source) == (transport_id, "bare")
        return
    with pytest.raises(Unreadable) as caught:
        read_event(Letter(body, transport_id), expected="clip_requested")

    assert caught.value.field == "id"


@pytest.mark.parametrize(
    ("given_traceparent", "kept"),
    [
        pytest.param(TRACEPARENT, TRACEPARENT, id="good"),
        pytest.param("00-nonsense", None, id="bad"),
        pytest.param(TRACEPARENT + "\n", None, id="line break"),
        pytest.param("x" * 10_000, None, id="long"),
    ],
)
def test_a_trace_is_continued_or_dropped_but_no_reason_to_refuse(
    given_traceparent: str, kept: str | None
) -> None:
    letter = Letter(json.dumps(REQUEST).encode(), "message-1", {"traceparent": given_traceparent})
    bare = read_event(letter, expected="clip_requested")
    wrapped = read(json.dumps(ENVELOPE | {"traceparent": given_traceparent}).encode())

    assert bare.event.traceparent == wrapped.event.traceparent == kept


def test_an_object_that_is_already_parsed_is_checked_as_well() -> None:
    nested: object = 0
    for _ in range(5000):
        nested = [nested]

    with pytest.raises(Unreadable, match="nested"):
        read_cloud_event(ENVELOPE | {"data": REQUEST | {"a": nested}})


def test_of_many_problems_the_first_ones_are_told() -> None:
    data = {
        "clipId": "a",
        "cameraId": "b",
        "startTimestampInMs": 1,
        "endTimestampInMs": 2,
        "missing": [7] * 1000,
    }
    body = json.dumps(ENVELOPE | {"type": "clip_not_available", "data": data}).encode()

    with pytest.raises(Unreadable) as caught:
        read_event(Letter(body, "message-1"), expected="clip_not_available")

    assert len(caught.value.problems) == MAX_PROBLEMS
