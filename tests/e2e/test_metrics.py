"""Every metric of the registry, after a workload that gives each of them something to tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from shared.events.clip import ClipAvailable, ClipRequested
from shared.kernel.errors import Unavailable
from shared.media.port import ClipFile, Cut, Media, MediaInfo, Picture, Precision, Progress
from shared.storage.port import WriteOptions
from spool.camera import Recording
from tests.e2e.running_spool import RunningSpool, clip_of, running_spool, spool_settings

CAMERA = "watched"
ASKED = {"subscription": "clipper.clip_requested"}
ASKED_ON_BUS = ASKED | {"broker": "local"}


class FailsOnce:
    """An engine whose store is away at the first cut."""

    def __init__(self, media: Media) -> None:
        self._media = media
        self._failed = False

    async def cut(
        self,
        cuts: Sequence[Cut],
        *,
        into: str,
        options: WriteOptions,
        precision: Precision = Precision.EDIT_LIST,
        progress: Progress | None = None,
    ) -> ClipFile:
        if not self._failed:
            self._failed = True
            raise Unavailable("the store is away")
        return await self._media.cut(cuts, into=into, options=options, precision=precision, progress=progress)

    async def describe(self, key: str) -> MediaInfo:
        return await self._media.describe(key)

    async def thumbnails(self, key: str, *, at_ms: int, widths: Sequence[int]) -> tuple[Picture, ...]:
        return await self._media.thumbnails(key, at_ms=at_ms, widths=widths)


def counts(least: float) -> Callable[[float], bool]:
    """Hold for what grew by at least so much."""
    return lambda grown: grown >= least


def within(low: float, high: float = math.inf) -> Callable[[float], bool]:
    """Hold for a value between two."""
    return lambda value: low <= value <= high


# Sample, its labels, and by how much the workload below makes it grow.
GROWS: dict[tuple[str, frozenset[tuple[str, str]]], Callable[[float], bool]] = {
    (name, frozenset(labels.items())): holds
    for name, labels, holds in (
        ("spool_received_messages_total", ASKED_ON_BUS | {"result": "accepted"}, within(2, 2)),
        ("spool_received_messages_total", ASKED_ON_BUS | {"result": "duplicate"}, within(1, 1)),
        ("spool_received_messages_total", ASKED_ON_BUS | {"result": "dead"}, within(1, 1)),
        ("spool_received_messages_size_bytes_count", ASKED_ON_BUS, within(4, 4)),
        ("spool_received_messages_size_bytes_sum", ASKED_ON_BUS, within(600, 6_000)),
        ("spool_received_processed_messages_total", ASKED | {"status": "done"}, within(2, 2)),
        ("spool_received_processed_messages_total", ASKED | {"status": "retried"}, within(1, 1)),
        (
            "spool_received_processed_messages_exceptions_total",
            ASKED | {"exception_type": "Unavailable"},
            within(1, 1),
        ),
        ("spool_received_processed_messages_duration_seconds_count", ASKED, within(3, 3)),
        ("spool_received_processed_messages_duration_seconds_sum", ASKED, within(0.01, 60)),
        ("spool_inbox_leases_lost_total", ASKED, within(0, 0)),
        (
            "spool_published_messages_total",
            {"broker": "local", "type": ClipAvailable.type, "status": "success"},
            within(2, 2),
        ),
        ("spool_published_messages_duration_seconds_count", {"broker": "local"}, counts(2)),
        ("spool_published_messages_duration_seconds_sum", {"broker": "local"}, within(0.000_1, 60)),
        ("spool_published_messages_size_bytes_count", {"broker": "local"}, within(2, 2)),
        ("spool_published_messages_size_bytes_sum", {"broker": "local"}, within(1_000, 10_000)),
        ("spool_unrouted_total", {"type": "clip_deleted_by_nobody"}, within(1, 1)),
        ("spool_storage_read_bytes_total", {}, counts(10_000)),
        ("spool_storage_written_bytes_total", {}, counts(10_000)),
        ("spool_storage_copied_bytes_total", {}, within(0, 0)),  # some: tests/media/test_clip_inside_s3.py
        ("spool_ffmpeg_runs_total", {"purpose": "decode", "status": "done"}, counts(1)),
        ("spool_ffmpeg_duration_seconds_count", {"purpose": "decode"}, counts(1)),
        ("spool_uploads_swept_total", {}, within(0, 0)),  # some: tests/integration/test_upload_sweeper.py
        (
            "spool_uploads_recovered_total",
            {},
            within(0, 0),
        ),  # some: tests/integration/test_killed_captures.py
        ("spool_uploads_orphaned", {}, within(0, 0)),
    )
}

# What is so when all is worked and told.
STANDS: dict[tuple[str, frozenset[tuple[str, str]]], Callable[[float], bool]] = {
    (name, frozenset(labels.items())): holds
    for name, labels, holds in (
        ("spool_bus_connected", {"broker": "local"}, within(1, 1)),
        ("spool_bus_consuming", {"broker": "local"}, within(1, 1)),
        ("spool_received_messages_held", {"broker": "local"}, within(0, 0)),
        ("spool_received_messages_in_process", ASKED, within(0, 0)),
        ("spool_hands", ASKED, within(4, 4)),
        ("spool_inbox_ready", ASKED, within(0, 0)),
        ("spool_inbox_paused", ASKED, within(0, 0)),
        ("spool_inbox_ready_oldest_age_seconds", ASKED, within(0, 0)),
        ("spool_dead_letters", {"service": "clipper", "origin": "inbox"}, within(0, 1)),
        ("spool_dead_letters_oldest_age_seconds", {"service": "clipper", "origin": "inbox"}, within(0, 60)),
        ("spool_outbox_unsent", {}, within(0, 10)),
        ("spool_outbox_lag_seconds", {}, within(0, 60)),
        ("spool_database_write_queue_length", {}, within(0, 100)),
        ("spool_ffmpeg_running", {}, within(0, 0)),
    )
}


async def samples(spool: RunningSpool) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = (await spool.http.get("/metrics")).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def work(spool: RunningSpool, recordings: tuple[Recording, Recording]) -> None:
    """Cut two clips, one at the second try; say something twice, something unreadable, something unheard."""
    await spool.add(CAMERA, *recordings)
    await spool.answer(clip_of("tried-twice", CAMERA, 1_000, 2_000))
    request = clip_of("told-twice", CAMERA, 3_000, 4_000)
    event_id = await spool.publish(request)
    await spool.ears.answers(request.clip_id)
    await spool.publish(request, event_id=event_id)
    await spool.publish_bytes(ClipRequested.type, b"no event", uuid4().hex)
    await spool.publish_bytes("clip_deleted_by_nobody", b"{}", uuid4().hex, mandatory=False)
    await spool.dead_letters(1)
    await spool.until("/api/v1/events", lambda page: page["events"][-1]["sentAt"], maxItems=500)


async def test_every_metric_tells_what_a_workload_did(
    tmp_path: Path, recordings: tuple[Recording, Recording]
) -> None:
    async with running_spool(spool_settings(tmp_path / "data"), media=FailsOnce) as spool:
        before = await samples(spool)
        await work(spool, recordings)
        after = await samples(spool)

    grown = {key: after.get(key, math.nan) - before.get(key, 0) for key in GROWS}
    assert {key: by for key, by in grown.items() if not GROWS[key](by)} == {}
    assert {key: after.get(key) for key, holds in STANDS.items() if not holds(after.get(key, math.nan))} == {}


@pytest.mark.usefixtures("spool")
def test_the_workload_looks_at_every_metric_of_the_registry() -> None:
    looked_at = {name for name, _ in (*GROWS, *STANDS)}
    unseen = {
        family.name
        for family in REGISTRY.collect()
        if family.name.startswith("spool_")
        if not {family.name, f"{family.name}_total", f"{family.name}_count"} & looked_at
    }

    # Only where publishing fails: tests/integration/test_metrics.py.
    assert unseen == {"spool_published_messages_exceptions"}
