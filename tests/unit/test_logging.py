"""Logs: every level that was asked for, one line each, without secrets and without floods; and trace ids."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shared.observability.logging import (
    LOGGER,
    MAX_FIELD_CHARACTERS,
    MAX_TRACEBACK_CHARACTERS,
    SECRET_FIELDS,
    configure_logging,
)
from shared.observability.tracing import next_hop, trace_id

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger(LOGGER)
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def configured(level: str = "info", *, as_json: bool = True) -> io.StringIO:
    stream = io.StringIO()
    configure_logging(level=level, as_json=as_json, stream=stream)
    return stream


def fail(reason: str) -> None:
    raise ValueError(reason)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_what_spool_says_is_written_from_its_level_on(level: str, written: list[str]) -> None:
    stream = configured(level)
    log = structlog.get_logger()

    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("clip.cut")

    assert [line["level"] for line in lines(stream)] == written


@pytest.mark.parametrize(
    ("level", "written"),
    [("debug", ["warning", "error"]), ("info", ["warning", "error"]), ("error", ["error"])],
)
def test_libraries_are_heard_from_warning_on(level: str, written: list[str]) -> None:
    stream = configured(level)

    for name in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("aio_pika.connection"), name)("the %s", "connection")

    assert [line["level"] for line in lines(stream)] == written
    assert {line["event"] for line in lines(stream)} == {"the connection"}


def test_a_line_has_its_time_its_fields_and_what_it_belongs_to() -> None:
    stream = configured()
    structlog.contextvars.bind_contextvars(clip_id="clip-1")

    structlog.get_logger().info("clip.cut", duration_ms=20_000, place="Größe\nzwei")

    line = lines(stream)[0]
    assert str(line.pop("time")).endswith("Z")
    assert line == {
        "event": "clip.cut",
        "level": "info",
        "clip_id": "clip-1",
        "duration_ms": 20_000,
        "place": "Größe\nzwei",
    }


@pytest.mark.parametrize("as_json", [True, False])
def test_secrets_are_not_written(as_json: bool) -> None:
    stream = configured(as_json=as_json)

    structlog.get_logger().warning("http.asked", **dict.fromkeys(SECRET_FIELDS, "very-secret"))

    assert "very-secret" not in stream.getvalue()
    assert stream.getvalue().count("(hidden)") == len(SECRET_FIELDS)


def test_no_field_floods_the_log() -> None:
    stream = configured()

    structlog.get_logger().error("event.unreadable", reason="x" * 100_000)
    logging.getLogger("library").error("y" * 100_000)
    try:
        fail("z" * 100_000)
    except ValueError:
        structlog.get_logger().exception("clip.failed", many=["w" * 100_000])

    assert len(stream.getvalue()) < 4 * MAX_FIELD_CHARACTERS + MAX_TRACEBACK_CHARACTERS
    assert len(lines(stream)) == 3


@pytest.mark.parametrize("as_json", [True, False])
def test_an_exception_is_told_with_where_it_happened(as_json: bool) -> None:
    stream = configured(as_json=as_json)
    try:
        fail("the reason")
    except ValueError:
        structlog.get_logger().exception("clip.failed")

    told = str(lines(stream)[0]["exception"]) if as_json else stream.getvalue().rstrip("\n")
    assert "test_logging.py" in told
    assert told.endswith("ValueError: the reason")


def test_configuring_again_does_not_write_twice() -> None:
    first, second = configured(), configured()

    structlog.get_logger().info("clip.cut")

    assert (first.getvalue(), len(lines(second))) == ("", 1)


@pytest.mark.parametrize(
    ("traceparent", "found"),
    [
        pytest.param(TRACEPARENT, TRACE, id="good"),
        pytest.param(None, None, id="none"),
        pytest.param("", None, id="empty"),
        pytest.param(f"00-{'0' * 32}-00f067aa0ba902b7-01", None, id="trace of zeros"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", None, id="span of zeros"),
        pytest.param(f"ff-{TRACE}-00f067aa0ba902b7-01", None, id="another version"),
        pytest.param(TRACEPARENT.upper(), None, id="capitals"),
        pytest.param(TRACEPARENT + "\n", None, id="line break"),
        pytest.param(TRACEPARENT + "-more", None, id="longer"),
    ],
)
def test_a_trace_is_found_in_a_valid_header_only(traceparent: str | None, found: str | None) -> None:
    assert trace_id(traceparent) == found


@given(st.none() | st.text() | st.just(TRACEPARENT))
def test_the_next_hop_continues_the_trace_with_a_span_of_its_own(traceparent: str | None) -> None:
    following = next_hop(traceparent)

    assert trace_id(following) is not None
    assert trace_id(following) == (trace_id(traceparent) or trace_id(following))
    assert following != traceparent
