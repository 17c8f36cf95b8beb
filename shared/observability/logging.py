"""Logs: one line of JSON per event, named with dots, with the ids that tell what it belongs to."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from shared.observability.redaction import field_without_secrets, without_secrets

MAX_FIELD_CHARACTERS = 2_000  # a line stays readable, whatever an untrusted field holds
MAX_TRACEBACK_CHARACTERS = 16_000  # of an exception in an exception in a task group

LOGGER = "spool"  # of everything that Spool itself says

# Fields in which nobody can have written a secret: they are looked at for each line that is written.
_OURS = frozenset(
    {"_from_structlog", "_record", "attempt", "exc_info", "level", "seconds", "status", "time", "trace_id"}
    | {"work", "worker"}
)


def configure_logging(*, level: str, as_json: bool, stream: TextIO | None = None) -> None:
    """Send every log, structlog's and the libraries', to `stream` (standard error)."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _hide_secrets,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=lambda *_: logging.getLogger(LOGGER),
        wrapper_class=structlog.make_filtering_bound_logger(_number_of(level)),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _write_exception,
                _cut_long_fields,
                _renderer(as_json=as_json),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(_number_of(level), logging.WARNING))  # of the libraries only what may matter
    logging.getLogger(LOGGER).setLevel(_number_of(level))
    quiet_libraries()


def quiet_libraries() -> None:
    """Silence what says a second time, and in worse words, what somebody above it says already."""
    # It calls every failed attempt to connect an error; aio-pika, above it, says the same as a warning.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)


def _renderer(*, as_json: bool) -> Processor:
    if as_json:
        return structlog.processors.JSONRenderer(ensure_ascii=False)
    return structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)


def _number_of(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _hide_secrets(_logger: WrappedLogger, _name: str, fields: EventDict) -> EventDict:
    for name, value in fields.items():
        if name not in _OURS:
            fields[name] = field_without_secrets(name, value)
    return fields


def _write_exception(logger: WrappedLogger, name: str, fields: EventDict) -> EventDict:
    """Turn an exception into text here, where its length can still be seen to."""
    written = structlog.processors.format_exc_info(logger, name, fields)
    if isinstance(written.get("exception"), str):
        # Its message and those of its causes were not seen before.
        written["exception"] = _without_middle(without_secrets(written["exception"]))
    return written


def _cut_long_fields(_logger: WrappedLogger, _name: str, fields: EventDict) -> EventDict:
    for name, value in fields.items():
        if name == "exception" or isinstance(value, int | float | None):
            continue
        text = value if isinstance(value, str) else repr(value)
        if len(text) > MAX_FIELD_CHARACTERS:
            fields[name] = text[:MAX_FIELD_CHARACTERS] + "…"
    return fields


def _without_middle(traceback: str) -> str:
    """Keep both ends: where it began, and what it was."""
    if len(traceback) <= MAX_TRACEBACK_CHARACTERS:
        return traceback
    half = MAX_TRACEBACK_CHARACTERS // 2
    return f"{traceback[:half]}\n…\n{traceback[-half:]}"
