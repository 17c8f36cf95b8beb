"""The trace context of a request: read, continued and passed on, with and without somebody who collects."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.observability.tracing import (
    Role,
    TraceContext,
    here,
    hop,
    nearest,
    next_hop,
    read_headers,
    read_trace,
    stage,
    trace_id,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
PARENT = TraceContext(TRACEPARENT, "vendor=1")


@pytest.mark.parametrize(
    ("traceparent", "found"),
    [
        pytest.param(TRACEPARENT, TRACE, id="good"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01-what-comes-later", TRACE, id="a later version"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01", TRACE, id="a later version that says no more"),
        pytest.param(None, None, id="none"),
        pytest.param("", None, id="empty"),
        pytest.param(f"00-{'0' * 32}-{SPAN}-01", None, id="trace of zeros"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", None, id="span of zeros"),
        pytest.param(f"ff-{TRACE}-{SPAN}-01", None, id="the version that is none"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01.more", None, id="a later version without a dash"),
        pytest.param(TRACEPARENT.upper(), None, id="capitals"),
        pytest.param(TRACEPARENT + "\n", None, id="line break"),
        pytest.param(TRACEPARENT + "-more", None, id="longer"),
    ],
)
def test_a_trace_is_found_in_a_valid_header_only(traceparent: str | None, found: str | None) -> None:
    assert trace_id(traceparent) == found


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        pytest.param("00", "00", id="not sampled"),
        pytest.param("01", "01", id="sampled"),
        pytest.param("03", "03", id="sampled, and random"),
        pytest.param("fd", "01", id="flags that nobody knows yet"),
    ],
)
def test_the_next_hop_keeps_what_the_caller_decided(flags: str, kept: str) -> None:
    following = next_hop(read_trace(f"00-{TRACE}-{SPAN}-{flags}"))

    assert following.traceparent.endswith(f"-{kept}")


@given(st.none() | st.text() | st.just(TRACEPARENT))
def test_the_next_hop_continues_the_trace_with_a_span_of_its_own(traceparent: str | None) -> None:
    parent = read_trace(traceparent)
    following = next_hop(parent)

    assert read_trace(following.traceparent) == following
    assert following.trace_id == (parent.trace_id if parent else following.trace_id)
    assert following.traceparent != traceparent


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        pytest.param({"traceparent": TRACEPARENT, "tracestate": "a=1,b=2"}, "a=1,b=2", id="good"),
        pytest.param({"traceparent": TRACEPARENT}, None, id="none"),
        pytest.param({"traceparent": TRACEPARENT, "tracestate": ""}, None, id="empty"),
        pytest.param({"traceparent": TRACEPARENT, "tracestate": "a=\x00"}, None, id="no header holds it"),
        pytest.param({"traceparent": TRACEPARENT, "tracestate": "a=" + "x" * 600}, None, id="too long"),
        pytest.param({"traceparent": "broken", "tracestate": "a=1"}, None, id="of a trace that is none"),
    ],
)
def test_what_vendors_say_is_passed_on_with_its_trace(headers: dict[str, str], kept: str | None) -> None:
    parent = read_headers(headers)

    assert next_hop(parent).headers.get("tracestate") == kept


@pytest.mark.parametrize(
    ("event", "message", "chosen"),
    [
        pytest.param(TRACEPARENT, None, TRACEPARENT, id="only the event tells one"),
        pytest.param(None, TRACEPARENT, TRACEPARENT, id="only the message tells one"),
        pytest.param(
            TRACEPARENT, f"00-{TRACE}-{'1' * 16}-01", f"00-{TRACE}-{'1' * 16}-01", id="the same, nearer"
        ),
        pytest.param(TRACEPARENT, OTHER, TRACEPARENT, id="a gateway with a trace of its own"),
        pytest.param(None, None, None, id="none"),
    ],
)
def test_the_nearest_hop_of_the_events_own_trace_counts(
    event: str | None, message: str | None, chosen: str | None
) -> None:
    found = nearest(read_trace(event), read_trace(message))

    assert (found.traceparent if found else None) == chosen


async def test_what_a_task_sends_within_a_hop_belongs_to_it() -> None:
    async def send() -> TraceContext | None:
        return here()

    with hop("outer", Role.CONSUMER, parent=PARENT) as outer:
        sent = await asyncio.create_task(send())
        with hop("other", Role.PRODUCER, parent=None, current=False):
            beside = here()
        with stage("a part"):
            within = here()

    assert sent == beside == within == outer.context
    assert sent is not None
    assert (sent.trace_id, sent.tracestate) == (TRACE, "vendor=1")
    assert sent.traceparent != TRACEPARENT
    assert here() is None
