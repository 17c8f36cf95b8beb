"""A real Spool sends its spans to a real OTLP receiver: one tree for one clip, over HTTP, bus and store."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from spool.camera import Recording
from tests.collector import Collector, collecting
from tests.e2e.running_spool import PATIENCE_S, START_MS

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
KEY = "a-key-of-this-test-only"
REQUEST = {
    "clipId": "c",
    "cameraId": "k",
    "startTimestampInMs": START_MS + 1_000,
    "endTimestampInMs": START_MS + 2_000,
}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOL_", "OTEL_"))}
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return kept | {"SPOOL_API_KEYS": KEY, "PYTHONPATH": path} | variables


@asynccontextmanager
async def spool_up(directory: Path, **variables: str) -> AsyncIterator[httpx.AsyncClient]:
    """Run `spool up` until the end of the block, and let SIGTERM end it."""
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "spool", "up", "--port", "0", "--data", "data"),
            cwd=directory,
            env=environment(**variables),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            said = (await process.stdout.readline()).decode()
        url = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert url, said + (directory / "log").read_text()
        async with httpx.AsyncClient(
            base_url=url[0], headers={"x-api-key": KEY}, timeout=PATIENCE_S, trust_env=False
        ) as client:
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            await process.communicate()
    assert process.returncode == 0, (directory / "log").read_text()


async def cut(http: httpx.AsyncClient, directory: Path, recording: Recording) -> None:
    """Announce a recording, ask for a clip of it, and wait until that was told."""
    content = recording.path.read_bytes()
    (directory / "data" / "media" / "k.mp4").write_bytes(content)
    source = {
        "specversion": "1.0",
        "id": "s",
        "source": "e2e",
        "type": "source_available",
        "data": {
            "cameraId": "k",
            "key": "k.mp4",
            "startTimestampInMs": recording.start_ms,
            "endTimestampInMs": recording.end_ms,
        },
    }
    (await http.post("/api/v1/events", json=source)).raise_for_status()
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=1"}
    (await http.post("/api/v1/clips", json=REQUEST, headers=headers)).raise_for_status()
    async with asyncio.timeout(PATIENCE_S):
        while True:
            events = (await http.get("/api/v1/events", params={"maxItems": 500})).json()["events"]
            told = [each["event"]["type"] for each in events if each["sentAt"]]
            if "clip_available" in told:
                return
            await asyncio.sleep(0.05)


async def test_one_clip_is_one_tree_of_spans(
    collector: Collector, tmp_path: Path, recordings: tuple[Recording, Recording]
) -> None:
    async with spool_up(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint) as http:
        await cut(http, tmp_path, recordings[0])

    request = collector.one("POST /api/v1/clips")
    asked, answered = collector.one("publish clip_requested"), collector.one("publish clip_available")
    work, clip = collector.one("process clip_requested"), collector.one("media cut")
    received = collector.one("receive clipper.clip_requested")
    assert (request.trace, request.parent, request.kind) == (TRACE, CALLER, "server")
    assert {span.trace for span in (asked, work, clip, answered)} == {TRACE}
    assert (asked.parent, asked.kind) == (request.span, "producer")
    assert (work.parent, work.kind) == (asked.span, "consumer")
    assert collector.children(work) == [
        "media cut",
        "media thumbnails",
        "publish clip_available",
        "storage write",
    ]
    assert {"storage read", "storage write"} <= set(collector.children(clip))
    assert (answered.parent, answered.kind) == (work.span, "producer")
    assert (received.links, received.kind, received.parent) == ((asked.span,), "client", "")
    assert received.trace != TRACE
    assert {span.state for span in (request, asked, work, clip, answered)} == {"vendor=1"}
    assert {span.service for span in collector.spans} == {"spool-clipper"}
    assert [span.failed for span in collector.spans if span.failed] == []


async def test_spans_say_what_they_are_in_the_words_of_opentelemetry(
    collector: Collector, tmp_path: Path, recordings: tuple[Recording, Recording]
) -> None:
    named = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.endpoint}/v1/traces",
        "OTEL_SERVICE_NAME": "mine",
    }
    async with spool_up(tmp_path, **named) as http:
        await cut(http, tmp_path, recordings[0])
        (await http.get("/api/v1/clips/nobody-knows-it")).read()
        (await http.get("/health/live")).raise_for_status()

    work = collector.one("process clip_requested").attributes
    assert work.pop("messaging.message.id") == work.pop("cloudevents.event_id")
    assert int(work.pop("messaging.message.body.size")) > 100
    assert int(work.pop("spool.work.id")) > 0
    assert work == {
        "messaging.system": "local",
        "messaging.destination.name": "clipper.clip_requested",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "cloudevents.event_type": "clip_requested",
        "cloudevents.event_source": "/spool/clipper",
        "cloudevents.event_subject": "c",
        "spool.work.attempt": 1,
        "spool.work.status": "done",
    }
    (looked,) = [s for s in collector.named("GET /api/v1/clips/{clip_id}") if s.kind == "server"]
    assert looked.attributes == {
        "http.request.method": "GET",
        "http.route": "/api/v1/clips/{clip_id}",
        "http.response.status_code": 404,
        "url.path": "/api/v1/clips/nobody-knows-it",
    }
    written = collector.named("storage write")[0].attributes
    assert str(written["spool.storage.key"]).startswith("clips/k/c")
    assert {span.service for span in collector.spans} == {"mine"}
    assert not [span for span in collector.spans if "health" in span.name]


async def test_a_caller_that_does_not_sample_is_not_recorded(
    collector: Collector, tmp_path: Path, recordings: tuple[Recording, Recording]
) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
    async with spool_up(tmp_path, **endpoint) as http:
        headers = {"traceparent": f"00-{TRACE}-{CALLER}-00"}
        answer = await http.post("/api/v1/clips", json=REQUEST, headers=headers)

    assert answer.headers["traceresponse"].startswith(f"00-{TRACE}-")
    assert answer.headers["traceresponse"].endswith("-00")
    assert [span for span in collector.spans if span.trace == TRACE] == []
