"""A collector of OpenTelemetry: takes spans over OTLP/HTTP and keeps them for a test to look at."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeAlias

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

Attributes: TypeAlias = dict[str, str | int | float | bool]

KINDS = {
    trace_pb2.Span.SPAN_KIND_INTERNAL: "internal",
    trace_pb2.Span.SPAN_KIND_SERVER: "server",
    trace_pb2.Span.SPAN_KIND_CLIENT: "client",
    trace_pb2.Span.SPAN_KIND_PRODUCER: "producer",
    trace_pb2.Span.SPAN_KIND_CONSUMER: "consumer",
}


@dataclass(frozen=True, slots=True)
class Collected:
    """A span as it came over the wire."""

    name: str
    kind: str
    trace: str
    span: str
    parent: str
    links: tuple[str, ...]  # the spans linked to
    attributes: Attributes
    failed: str | None  # what the status says when it is an error
    state: str
    service: str


@dataclass(slots=True)
class Collector:
    """What came, and where to send more. `answers` is the status that it gives."""

    endpoint: str
    spans: list[Collected] = field(default_factory=list)
    answers: int = 200
    silent: threading.Event | None = None  # answers only once this is set

    def named(self, name: str) -> list[Collected]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Collected:
        (found,) = self.named(name)
        return found

    def children(self, parent: Collected) -> list[str]:
        """Return the names of the spans right below one, each once."""
        return sorted({span.name for span in self.spans if span.parent == parent.span})


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector on a free port of loopback."""
    collector = Collector("")

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if collector.silent is not None:
                collector.silent.wait()
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.headers["content-type"] == "application/x-protobuf"
            if self.path == "/v1/traces":
                collector.spans += _read(body)
            self.send_response(collector.answers if self.path == "/v1/traces" else 404)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_said: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    collector.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    try:
        yield collector
    finally:
        if collector.silent is not None:
            collector.silent.set()
        server.shutdown()
        serving.join()
        server.server_close()


def _read(body: bytes) -> list[Collected]:
    request = ExportTraceServiceRequest.FromString(body)
    return [
        _collected(span, service=str(_attributes(resource.resource.attributes)["service.name"]))
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _collected(span: trace_pb2.Span, *, service: str) -> Collected:
    failed = span.status.message if span.status.code == trace_pb2.Status.STATUS_CODE_ERROR else None
    return Collected(
        name=span.name,
        kind=KINDS[span.kind],
        trace=span.trace_id.hex(),
        span=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        links=tuple(link.span_id.hex() for link in span.links),
        attributes=_attributes(span.attributes),
        failed=failed,
        state=span.trace_state,
        service=service,
    )


def _attributes(pairs: Iterable[KeyValue]) -> Attributes:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> str | int | float | bool:
    kind = value.WhichOneof("value")
    assert kind is not None
    found: str | int | float | bool = getattr(value, kind)
    return found
