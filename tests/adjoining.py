"""Two recordings of one camera: the second begins where the first ends, and so do its frame numbers."""

from __future__ import annotations

from pathlib import Path

from spool.camera import Camera, Recording, record


async def record_adjoining(
    directory: Path, camera: Camera, *, start_ms: int, duration_ms: int
) -> tuple[Recording, Recording]:
    """Record `first.mp4` and `second.mp4` of that duration each."""
    first = await record(directory / "first.mp4", start_ms=start_ms, duration_ms=duration_ms, camera=camera)
    second = await record(
        directory / "second.mp4",
        start_ms=first.end_ms,
        duration_ms=duration_ms,
        first_frame=first.frames.stop,
        camera=camera,
    )
    return first, second
