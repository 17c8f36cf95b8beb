"""Spans for an OpenTelemetry collector, over OTLP/HTTP. Imported only where one is configured: extra `otel`.

The rest of Spool names what it notes in its own words; the one table here says what OpenTelemetry calls it.
https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/ is still in development.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from contextvars import Token
from types import TracebackType
from typing import Self

import structlog
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan

from shared.kernel.errors import Conflict, NotFound, words_of
from shared.observability.redaction import without_secrets
from shared.observability.tracing import Role, Span, TraceContext, enter, leave

log = structlog.get_logger()

FLUSH_S = 5.0  # of a drain, for the last spans; a collector that is away must not hold up a restart
MAX_TEXT = 1_000  # of one attribute

# Our name of an attribute, and what OpenTelemetry calls it.
NAMES: dict[str, tuple[str, ...]] = {
    "system": ("messaging.system",),
    "destination": ("messaging.destination.name",),
    "operation": ("messaging.operation.type", "messaging.operation.name"),
    "batch": ("messaging.batch.message_count",),
    "event_id": ("messaging.message.id", "cloudevents.event_id"),
    "body_bytes": ("messaging.message.body.size",),
    "type": ("cloudevents.event_type",),
    "source": ("cloudevents.event_source",),
    "subject": ("cloudevents.event_subject",),
    "method": ("http.request.method",),
    "path": ("url.path",),
    "route": ("http.route",),
    "status_code": ("http.response.status_code",),
    "error_type": ("error.type",),
    "work": ("spool.work.id",),
    "attempt": ("spool.work.attempt",),
    "status": ("spool.work.status",),
    "key": ("spool.storage.key",),
    "size_bytes": ("spool.storage.size_bytes",),
    "pieces": ("spool.clip.pieces",),
    "precision": ("spool.clip.precision",),
    "duration_ms": ("spool.clip.duration_ms",),
}
_KINDS = {
    Role.SERVER: SpanKind.SERVER,
    Role.CLIENT: SpanKind.CLIENT,
    Role.CONSUMER: SpanKind.CONSUMER,
    Role.PRODUCER: SpanKind.PRODUCER,
    Role.PART: SpanKind.INTERNAL,
}


class OtlpSpan:
    """A span that will be sent. What follows from it carries its place in the trace."""

    def __init__(self, span: OtelSpan, *, current: bool) -> None:
        self._span = span
        self._current = current
        self._entered: Token[Span | None] | None = None
        self._attached: Token[Context] | None = None

    @property
    def context(self) -> TraceContext:
        place = self._span.get_span_context()
        parent = f"00-{place.trace_id:032x}-{place.span_id:016x}-{int(place.trace_flags):02x}"
        return TraceContext(parent, place.trace_state.to_header() or None)

    def __enter__(self) -> Self:
        if self._current:
            self._entered = enter(self)
            # Also for instrumentations of other libraries, should somebody use them.
            self._attached = otel_context.attach(set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._attached is not None:
            otel_context.detach(self._attached)
        if self._entered is not None:
            leave(self._entered)
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self.note(status="stopped")
        elif error is not None:
            self.note(error_type=type(error).__name__)
            # That something is not there, or is already, is an answer: whoever asked knows what to do.
            if not isinstance(error, NotFound | Conflict):
                self.fail(words_of(error))
        self._span.end()

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def note(self, **attributes: object) -> None:
        self._span.set_attributes(_named(attributes))

    def fail(self, reason: str) -> None:
        self._span.set_status(Status(StatusCode.ERROR, without_secrets(reason)[:MAX_TEXT]))


class OtlpRecorder:
    """Collects the spans of a process and sends them in batches, from a thread of its own."""

    def __init__(self, *, endpoint: str, service_name: str | None, default_name: str, instance: str) -> None:
        """Begin. Sampling, headers, limits and what else is usual come from the SDK's own variables."""
        resource = Resource.create({"service.instance.id": instance})
        known = str(resource.attributes.get(SERVICE_NAME, ""))
        if service_name or not known or known.startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: service_name or default_name}))
        self._exporter = OTLPSpanExporter(endpoint)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("spool")

    def start(
        self,
        name: str,
        role: Role,
        *,
        parent: TraceContext | None,
        links: Iterable[TraceContext],
        current: bool,
        attributes: Mapping[str, object],
    ) -> OtlpSpan:
        before = set_span_in_context(NonRecordingSpan(_place(parent)), Context()) if parent else Context()
        span = self._tracer.start_span(
            name,
            before,
            _KINDS[role],
            _named(attributes),
            [Link(_place(link)) for link in links],
        )
        return OtlpSpan(span, current=current)

    def start_part(self, name: str, *, current: bool, attributes: Mapping[str, object]) -> OtlpSpan:
        span = self._tracer.start_span(name, kind=SpanKind.INTERNAL, attributes=_named(attributes))
        return OtlpSpan(span, current=current)

    async def close(self, *, within_s: float = FLUSH_S) -> None:
        """Send what is left, in bounded time."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # it came too late: the loop is closed
                loop.call_soon_threadsafe(done.set)

        # A daemon: should the collector hang, nobody waits for it, the end of the process neither.
        threading.Thread(target=shut_down, name="last spans", daemon=True).start()
        try:
            async with asyncio.timeout(within_s):
                await done.wait()
        except TimeoutError:
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the SDK does not annotate it
            log.warning("tracing.not_flushed", reason="the collector does not answer in time")


def _place(context: TraceContext) -> SpanContext:
    parent, state = context
    return SpanContext(
        trace_id=int(parent[3:35], 16),
        span_id=int(parent[36:52], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(parent[53:55], 16)),
        trace_state=TraceState.from_header([state]) if state else None,
    )


def _named(attributes: Mapping[str, object]) -> dict[str, str | int | float | bool]:
    """Return attributes under their names there, without those that are unknown here, and bounded."""
    named: dict[str, str | int | float | bool] = {}
    for ours, value in attributes.items():
        if value is None:
            continue
        told = value if isinstance(value, bool | int | float) else without_secrets(str(value))[:MAX_TEXT]
        named |= dict.fromkeys(NAMES[ours], told)
    return named
