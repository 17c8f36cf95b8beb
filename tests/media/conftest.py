"""Recordings that are made once for all tests of the room, and a store to cut them in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from spool.camera import Camera, Recording, record
from tests.media.studio import Studio, open_studio

SECONDS = 8
SMALL = Camera(width=320, height=180, gop_frames=40)


@dataclass(slots=True)
class Library:
    """Two adjoining recordings of each camera, made when they are first asked for."""

    directory: Path
    _made: dict[tuple[Camera, bool], tuple[Recording, Recording]] = field(default_factory=dict)

    async def pair(self, camera: Camera = SMALL, *, faststart: bool = False) -> tuple[Recording, Recording]:
        key = (camera, faststart)
        if key not in self._made:
            self._made[key] = await self._record(camera, faststart=faststart)
        return self._made[key]

    async def _record(self, camera: Camera, *, faststart: bool) -> tuple[Recording, Recording]:
        number, duration_ms = len(self._made), SECONDS * 1000
        first = await record(
            self.directory / f"{number}-first.mp4",
            start_ms=0,
            duration_ms=duration_ms,
            camera=camera,
            faststart=faststart,
        )
        second = await record(
            self.directory / f"{number}-second.mp4",
            start_ms=duration_ms,
            duration_ms=duration_ms,
            first_frame=first.frames.stop,
            camera=camera,
            faststart=faststart,
        )
        return first, second


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(tmp_path_factory.mktemp("recordings"))


@pytest.fixture
async def studio(tmp_path: Path) -> AsyncIterator[Studio]:
    room = await open_studio(tmp_path / "store")
    yield room
    await room.storage.close()
