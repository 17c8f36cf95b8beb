"""What the demo cuts from: two recordings of a made-up camera, or one of the user's own."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from shared.kernel.errors import Refused
from shared.kernel.timeline import TimeRange
from shared.media.port import MediaInfo, Progress
from spool.camera import Camera, Recording, record
from spool.proof import Check, check_length, check_numbers, check_pixels

RECORDING_MS = 30_000  # of each of the two: the clip fits in with room at both ends
CLIP_MS = 20_000
LEAD_MS = 12_300  # of the clip before the joint: no whole second and no key frame lies at either end

# Given the clip's file and the data of its `clip_available`, look whether it is what was asked for.
Prove: TypeAlias = Callable[[Path, Mapping[str, Any]], Awaitable[tuple[Check, ...]]]


@dataclass(frozen=True, slots=True)
class Source:
    """A recording that will be stored and announced."""

    path: Path
    key: str
    span: TimeRange


@dataclass(frozen=True, slots=True)
class Footage:
    """A camera's recordings, what to cut of them, and how the clip will be proved."""

    camera_id: str
    sources: tuple[Source, ...]
    wanted: TimeRange
    prove: Prove


async def made_up(directory: Path, *, now_ms: int, progress: Progress) -> Footage:
    """Record two adjoining files, as a camera that ended just now, and ask for 20 s across their joint."""
    camera_id = _fresh_camera()
    start_ms = now_ms // 1000 * 1000 - 2 * RECORDING_MS
    joint_ms = start_ms + RECORDING_MS
    camera = Camera()

    progress(0, 2)
    first = await record(directory / "1.mp4", start_ms=start_ms, duration_ms=RECORDING_MS, camera=camera)
    progress(1, 2)
    second = await record(
        directory / "2.mp4",
        start_ms=joint_ms,
        duration_ms=RECORDING_MS,
        first_frame=first.frames.stop,
        camera=camera,
    )
    progress(2, 2)

    wanted = TimeRange(joint_ms - LEAD_MS, joint_ms - LEAD_MS + CLIP_MS)
    expected = frames_shown((first, second), wanted, camera)

    async def prove(clip: Path, _told: Mapping[str, Any]) -> tuple[Check, ...]:
        return await check_numbers(clip, expected)

    sources = tuple(_camera_source(camera_id, recording) for recording in (first, second))
    return Footage(camera_id, sources, wanted, prove)


def frames_shown(recordings: tuple[Recording, ...], wanted: TimeRange, camera: Camera) -> range:
    """Return the numbers of the frames whose time lies in the range, by how the camera counts."""
    shown = [
        number
        for recording in recordings
        for index, number in enumerate(recording.frames)
        if wanted.start_ms <= recording.start_ms + index * 1000 / camera.frame_rate < wanted.end_ms
    ]
    return range(shown[0], shown[-1] + 1)


def own_file(path: Path, info: MediaInfo, *, now_ms: int) -> Footage:
    """Take a recording of the user's as one that ended just now, and ask for the middle of it."""
    camera_id = _fresh_camera()
    clip_ms = min(CLIP_MS, info.duration_ms // 3)
    if clip_ms < 1:
        raise Refused(f"{path} lasts {info.duration_ms} ms: too short to cut a third of it")
    start_ms = now_ms // 1000 * 1000 - info.duration_ms
    from_ms = (info.duration_ms - clip_ms) // 2
    to_ms = from_ms + clip_ms

    async def prove(clip: Path, told: Mapping[str, Any]) -> tuple[Check, ...]:
        if told["width"] == 0:
            duration_ms = told["durationMs"]
            return (Check(abs(duration_ms - clip_ms) <= 100, f"{duration_ms} ms of sound for {clip_ms} ms"),)
        if told["reencoded"]:
            duration_ms = told["durationMs"]
            return await check_length(clip, path, start_ms=from_ms, end_ms=to_ms, duration_ms=duration_ms)
        return await check_pixels(clip, path, start_ms=from_ms, end_ms=to_ms)

    span = TimeRange(start_ms, start_ms + info.duration_ms)
    source = Source(path, f"cameras/{camera_id}/recording{_plain_suffix(path)}", span)
    return Footage(camera_id, (source,), TimeRange(start_ms + from_ms, start_ms + to_ms), prove)


def _camera_source(camera_id: str, recording: Recording) -> Source:
    span = TimeRange(recording.start_ms, recording.end_ms)
    return Source(recording.path, f"cameras/{camera_id}/{recording.start_ms}.mp4", span)


def _fresh_camera() -> str:
    """Name a camera that no earlier run has recorded: its clips come from this run's files only."""
    return f"camera-{secrets.token_hex(3)}"


def _plain_suffix(path: Path) -> str:
    """Return a suffix that any store takes; the user's file may be called anything."""
    suffix = path.suffix.lower()
    return suffix if suffix[1:].isalnum() and suffix.isascii() and len(suffix) <= 8 else ""
