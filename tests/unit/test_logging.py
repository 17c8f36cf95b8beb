"""Logs: every level that was asked for, one line each, without secrets and without floods."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from shared.observability.logging import (
    LOGGER,
    MAX_FIELD_CHARACTERS,
    MAX_TRACEBACK_CHARACTERS,
    configure_logging,
)
from shared.observability.redaction import SECRET_FIELDS


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


@pytest.mark.parametrize("as_json", [True, False])
def test_a_secret_is_told_by_no_traceback_and_by_no_library(as_json: bool) -> None:
    stream = configured(as_json=as_json)
    logging.getLogger("library").error("cannot reach %s", "amqp://guest:very-secret@rabbit/")
    structlog.get_logger().warning("bus.away", addresses={"bus": "amqp://guest:very-secret@rabbit/"})
    try:
        fail("https://bucket/key?X-Amz-Signature=very-secret")
    except ValueError:
        structlog.get_logger().exception("clip.failed")

    assert "very-secret" not in stream.getvalue()
    assert stream.getvalue().count("(hidden)") >= 3
