"""A damaged recording in any container becomes a clip or is refused by its name, and leaves nothing."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from shared.media.port import Precision
from tests.media.damaged_clips import CONTAINERS, cut_damaged, damage, record_containers
from tests.media.studio import Studio

EACH = 3  # `make soak fuzz_clips` tries thousands


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return asyncio.run(record_containers(tmp_path_factory.mktemp("containers")))


@pytest.mark.parametrize("name", CONTAINERS)
async def test_what_is_damaged_is_cut_or_refused(
    studio: Studio, recordings: dict[str, bytes], name: str
) -> None:
    assert await cut_damaged(studio, name, recordings[name], Precision.EDIT_LIST) == "clip"
    for seed in range(EACH):
        damaged = damage(recordings[name], Random(f"{name} {seed}"))
        assert await cut_damaged(studio, name, damaged, Precision.EDIT_LIST) in {
            "clip",
            "SourceBroken",
            "SourceEndsEarly",
        }
