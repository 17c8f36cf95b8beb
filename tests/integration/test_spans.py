"""What a span says of work that fails, and a collector that does not answer."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from shared.database.engine import Database
from shared.events.clip import ClipRequested
from shared.inbox.outcome import Done, Outcome, Work
from shared.inbox.retry import RetryPolicy
from shared.inbox.router import Route
from shared.kernel.errors import Transient
from shared.observability.otlp import OtlpRecorder
from shared.observability.tracing import Role, hop, recorded_by, stage
from tests.collector import Collector, collecting
from tests.integration.workshop import all_work, asked, eventually, message, open_bus, router_of, working


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture
async def recorder(collector: Collector) -> AsyncIterator[OtlpRecorder]:
    endpoint = f"{collector.endpoint}/v1/traces"
    made = OtlpRecorder(endpoint=endpoint, service_name=None, default_name="spool", instance="this")
    with recorded_by(made):
        yield made


async def test_each_attempt_is_a_span_and_one_that_failed_says_so(
    collector: Collector, recorder: OtlpRecorder, database: Database
) -> None:
    async def fails_once(_event: ClipRequested, *, work: Work) -> Outcome:
        with stage("storage read", key="k"):
            if work.attempt == 1:
                raise Transient("amqp://guest:very-secret@rabbit/ is slow")
        return Done()

    router = router_of(Route(ClipRequested, fails_once, retry=RetryPolicy(first_delay_ms=1)))
    async with open_bus(router) as bus, working(router, database, bus):
        await bus.publish([message(asked("one"))])

        async def worked() -> bool:
            return [row.outcome for row in await all_work(database)] == [""]

        await eventually(worked)
    await recorder.close()

    first, second = sorted(
        collector.named("process clip_requested"), key=lambda span: span.attributes["spool.work.attempt"]
    )
    read = [span for span in collector.named("storage read") if span.parent == first.span]
    assert first.failed == read[0].failed == "amqp://(hidden)@rabbit/ is slow"
    assert first.attributes["error.type"] == read[0].attributes["error.type"] == "Transient"
    assert (first.attributes["spool.work.status"], second.attributes["spool.work.status"]) == (
        "retried",
        "done",
    )
    assert second.failed is None
    assert first.parent == second.parent


async def test_what_is_cancelled_has_not_failed(collector: Collector, recorder: OtlpRecorder) -> None:
    async def waits() -> None:
        with hop("process", Role.CONSUMER, parent=None), stage("media cut"):
            await asyncio.Event().wait()

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    await recorder.close()

    assert collector.one("media cut").failed is None
    assert collector.one("media cut").attributes == {"spool.work.status": "stopped"}


async def test_a_collector_that_does_not_answer_holds_up_no_drain(
    collector: Collector, recorder: OtlpRecorder
) -> None:
    collector.silent = threading.Event()
    with hop("process", Role.CONSUMER, parent=None):
        pass

    async with asyncio.timeout(10):
        await recorder.close(within_s=0.2)


BROKEN = "import sys; sys.modules['opentelemetry.sdk'] = None; from spool.cli import main; main()"
OFF = """
import asyncio, sys
import spool.serving
from shared.runtime.wiring import recorded_spans
async def main():
    async with recorded_spans(("clipper",)):
        ours = ("opentelemetry.sdk", "opentelemetry.exporter")
        imported = [name for name in sys.modules if name.startswith(ours)]
        assert not imported, imported
asyncio.run(main())
"""


def test_a_collector_without_the_extra_is_refused_with_what_to_install(tmp_path: object) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", BROKEN, "up", "--port", "0", "--data", f"{tmp_path}/data"],
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert ended.returncode != 0
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in ended.stderr
    assert "'.[otel]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_nothing_of_opentelemetry_is_imported_while_it_is_off() -> None:
    environment = {"PYTHONPATH": ":".join(sys.path)}

    subprocess.run([sys.executable, "-c", OFF], env=environment, timeout=50, check=True)
