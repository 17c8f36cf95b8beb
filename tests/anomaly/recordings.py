"""Two adjoining recordings, and the frames that a clip across their joint has to show."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from spool.camera import Camera, Recording, frame_numbers
from tests.adjoining import record_adjoining

START_MS = 1_700_000_000_000
RECORDED_MS = 3_000  # each
SMALL = Camera(width=320, height=180, gop_frames=15)
# S3 takes a clip in several parts only when it is larger than 8 MiB: noise does not compress.
LARGE = Camera(
    width=480, height=270, gop_frames=5, encoder_options=("-vf", "noise=alls=30:allf=t", "-crf", "7")
)


@dataclass(slots=True)
class Footage:
    """What was recorded, and which clips of it were looked at already."""

    pair: tuple[Recording, Recording]
    frame_rate: int
    proven: dict[tuple[str, int, int], bool] = field(default_factory=dict)

    @property
    def start_ms(self) -> int:
        return self.pair[0].start_ms

    @property
    def end_ms(self) -> int:
        return self.pair[1].end_ms

    def frames(self, start_ms: int, end_ms: int) -> list[int]:
        """Return the numbers of the frames shown in [start_ms, end_ms)."""
        first, stop = (
            -(-(moment_ms - self.start_ms) * self.frame_rate // 1000) for moment_ms in (start_ms, end_ms)
        )
        return list(range(first, stop))

    async def shows_exactly(self, clip: Path, start_ms: int, end_ms: int) -> bool:
        """Decode a clip and compare every frame; equal bytes are decoded once."""
        key = (hashlib.sha256(clip.read_bytes()).hexdigest(), start_ms, end_ms)
        if key not in self.proven:
            self.proven[key] = await frame_numbers(clip) == self.frames(start_ms, end_ms)
        return self.proven[key]


async def record_footage(directory: Path, camera: Camera) -> Footage:
    """Record both, with frame numbers that go on from one to the other."""
    pair = await record_adjoining(directory, camera, start_ms=START_MS, duration_ms=RECORDED_MS)
    return Footage(pair, int(camera.frame_rate))
