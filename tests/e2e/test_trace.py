"""One trace over every hop: HTTP or bus, outbox, bus, inbox, handler, result, and whoever listens."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from shared.events.clip import ClipRequested
from shared.events.envelope import Event, wrap
from shared.observability.logging import LOGGER
from shared.observability.tracing import read_trace
from spool.migrations import migrate
from tests.e2e.running_spool import (
    START_MS,
    Addresses,
    Json,
    RunningSpool,
    clip_of,
    running_spool,
    spool_settings,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
FIRST_SPAN = "00f067aa0ba902b7"
STATE = "vendor=t61rcWkgMzE,other=00f067aa0ba902b7"


@pytest.fixture(params=["embedded", "servers"])
def addresses(request: pytest.FixtureRequest) -> Addresses:
    if request.param == "embedded":
        return Addresses()
    # Asked for by name, so that the embedded half runs where no server is given.
    return Addresses(
        bus=request.getfixturevalue("rabbitmq"), database=request.getfixturevalue("postgres_url")
    )


@pytest.fixture
async def spool(addresses: Addresses, tmp_path: Path) -> AsyncIterator[RunningSpool]:
    """Run a Spool that logs as in production, on either bus and database."""
    if addresses.database:
        await migrate(addresses.database)
    settings = spool_settings(tmp_path / "data", addresses)
    loud = settings.model_copy(update={"log_level": "info", "log_format": "json"})
    async with running_spool(loud) as running:
        yield running


class Said(logging.Handler):
    """What Spool logs, as fields."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Json] = []

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, dict):
            self.lines.append(record.msg)

    def about(self, clip_id: str) -> list[Json]:
        return [line for line in self.lines if line.get("subject") == clip_id]


@pytest.fixture
def said(spool: RunningSpool) -> Iterator[Said]:
    handler = Said()
    logging.getLogger(LOGGER).addHandler(handler)
    yield handler
    logging.getLogger(LOGGER).removeHandler(handler)


def headers(flags: str) -> dict[str, str]:
    return {"traceparent": f"00-{TRACE}-{FIRST_SPAN}-{flags}", "tracestate": STATE}


async def result_of(spool: RunningSpool, clip_id: str) -> tuple[Event, Json]:
    """Return what is told of a clip, and what the message said that brought it."""
    event = (await spool.ears.answers(clip_id))[0]
    return event, dict(spool.ears.headers[event.id])


def check_story(event: Event, message: Json, *, flags: str, not_the_span: str) -> None:
    """Check that it is the same trace, with a span of its own, and what else the caller said."""
    in_event, in_message = read_trace(event.traceparent), read_trace(message["traceparent"])
    assert in_event is not None
    assert in_message is not None
    assert in_event.trace_id == in_message.trace_id == TRACE
    assert (event.tracestate, message["tracestate"]) == (STATE, STATE)
    assert in_event.traceparent.endswith(flags)
    assert not_the_span not in in_event.traceparent


@pytest.mark.parametrize("flags", [pytest.param("00", id="not sampled"), pytest.param("01", id="sampled")])
async def test_a_trace_goes_on_from_the_http_request_to_whoever_hears_the_result(
    spool: RunningSpool, said: Said, flags: str
) -> None:
    body = {
        "clipId": "c",
        "cameraId": "k",
        "startTimestampInMs": START_MS,
        "endTimestampInMs": START_MS + 1_000,
    }
    answer = await spool.http.post("/api/v1/clips", json=body, headers=headers(flags))
    event, message = await result_of(spool, "c")
    told = await spool.get("/api/v1/events", maxItems=500)
    asked = next(each["event"] for each in told["events"] if each["event"]["type"] == ClipRequested.type)
    assert answer.headers["traceresponse"].split("-")[1] == TRACE
    assert asked["traceparent"] == answer.headers["traceresponse"]
    assert asked["tracestate"] == STATE
    check_story(event, message, flags=flags, not_the_span=asked["traceparent"].split("-")[2])
    assert {line["trace_id"] for line in said.about("c")} == {TRACE}
    assert said.about("c")[0].keys() >= {"event_id", "type", "subject", "attempt", "work", "worker", "status"}


def refused_clip() -> ClipRequested:
    """Ask for what is answered at once."""
    return clip_of("c", "k", 1_000, 1_000)


@pytest.mark.parametrize("carried_by", ["attribute", "message"])
async def test_a_trace_goes_on_from_an_event_on_the_bus(spool: RunningSpool, carried_by: str) -> None:
    request = refused_clip()
    event = wrap(request, id="asked", source="e2e", time_ms=START_MS)
    if carried_by == "attribute":
        event = event.model_copy(update=headers("01"))
    await spool.publish_bytes(
        request.type, event.to_bytes(), event.id, headers=headers("01") if carried_by == "message" else {}
    )

    check_story(*await result_of(spool, "c"), flags="01", not_the_span=FIRST_SPAN)


async def test_a_trace_goes_on_from_a_posted_event_that_tells_none_itself(spool: RunningSpool) -> None:
    event = wrap(refused_clip(), id="asked", source="e2e", time_ms=START_MS)
    answer = await spool.http.post("/api/v1/events", content=event.to_bytes(), headers=headers("01"))

    assert answer.status_code == 202
    check_story(*await result_of(spool, "c"), flags="01", not_the_span=FIRST_SPAN)


async def test_a_posted_event_that_tells_its_own_trace_keeps_it(spool: RunningSpool) -> None:
    event = wrap(refused_clip(), id="asked", source="e2e", time_ms=START_MS, **headers("01"))
    other = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    await spool.http.post("/api/v1/events", content=event.to_bytes(), headers=other)

    check_story(*await result_of(spool, "c"), flags="01", not_the_span=FIRST_SPAN)


async def test_who_sends_no_trace_gets_one(spool: RunningSpool) -> None:
    answer = await spool.post_clip("c", "k", START_MS, START_MS + 1_000)
    event, message = await result_of(spool, "c")

    given = read_trace(answer.headers["traceresponse"])
    found = read_trace(event.traceparent)
    assert given is not None
    assert found is not None
    assert found.trace_id == given.trace_id
    assert "tracestate" not in message


async def test_what_cannot_be_read_is_logged_and_kept_under_the_trace_of_its_message(
    spool: RunningSpool, said: Said
) -> None:
    await spool.publish_bytes(ClipRequested.type, b"no event", "broken", headers=headers("01"))
    await spool.dead_letters(1)

    unreadable = [line for line in said.lines if line["event"] == "event.unreadable"]
    assert [(line["trace_id"], line["type"]) for line in unreadable] == [(TRACE, ClipRequested.type)]
