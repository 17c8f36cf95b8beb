"""Whatever the bytes of an MP4 say: it is understood or refused, from its own bytes and within bounds."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.media.hostile import MemoryStorage, Sample, damaged, read_and_plan, record_samples

MOST_BYTES = 64 << 20


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def samples(directory: Path) -> list[Sample]:
    return asyncio.run(record_samples(directory))


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as running:
        yield running


def test_the_recordings_are_fine_before_they_are_damaged(
    samples: list[Sample], directory: Path, runner: asyncio.Runner
) -> None:
    storage = MemoryStorage(directory)
    for sample in samples:
        storage.put(sample.whole)

        assert runner.run(read_and_plan(storage)) == "planned"


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_recording_is_understood_or_refused(
    samples: list[Sample], directory: Path, runner: asyncio.Runner, data: st.DataObject
) -> None:
    storage = MemoryStorage(directory)
    sample = data.draw(st.sampled_from(samples))
    storage.put(damaged(sample, lambda count: data.draw(st.integers(0, count - 1))))

    tracemalloc.start()
    try:
        # Any error but a refusal fails, and so does a read outside of the object.
        runner.run(read_and_plan(storage))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < MOST_BYTES
