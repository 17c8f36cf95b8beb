"""The synthetic camera: what it draws can be read back, whatever was done to the picture in between."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from shared.kernel.errors import Refused
from spool.camera import Camera, FfmpegFailed, extend, frame_hashes, frame_numbers, record
from spool.picture import Luma, Scene, read_frame_number
from tests.children import children_of

SMALL = Camera(width=320, height=180)
START_MS = 1_700_000_000_000


def luma_of(number: int, *, width: int = 640, height: int = 360) -> Luma:
    frame = Scene(width, height, seed=1).draw(number, shown_ms=START_MS)
    return np.frombuffer(frame, np.uint8)[: width * height].reshape(height, width)


@pytest.mark.parametrize("number", [0, 1, 599, 600, 0xAAAAAA, 0xFFFFFF])
def test_a_drawn_number_is_read_back(number: int) -> None:
    assert read_frame_number(luma_of(number)) == number


@pytest.mark.parametrize(
    ("width", "height"),
    [
        pytest.param(128, 72, id="smallest"),
        pytest.param(854, 480, id="not a multiple of the blocks"),
        pytest.param(1280, 720, id="large"),
    ],
)
def test_a_number_is_read_from_any_size(width: int, height: int) -> None:
    assert read_frame_number(luma_of(123_456, width=width, height=height)) == 123_456


def test_a_number_survives_noise_and_scaling() -> None:
    noise = np.random.default_rng(1).normal(0, 25, (360, 640))
    noisy = (luma_of(98_765) + noise).clip(0, 255).astype(np.uint8)

    assert read_frame_number(noisy[::3, ::3]) == 98_765


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        pytest.param(np.zeros((180, 320), np.uint8), "check bits", id="black"),
        pytest.param(np.full((180, 320), 255, np.uint8), "check bits", id="white"),
        pytest.param(np.full((180, 320), 128, np.uint8), "neither black nor white", id="grey"),
    ],
)
def test_a_picture_without_a_number_is_told_apart(picture: Luma, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_frame_number(picture)


def test_one_wrong_block_is_noticed() -> None:
    luma = luma_of(600).copy()
    luma[300:330, 40:80] = 255 - luma[300:330, 40:80]

    with pytest.raises(ValueError, match="check bits"):
        read_frame_number(luma)


def test_a_frame_that_has_no_room_for_its_number_is_refused() -> None:
    with pytest.raises(Refused, match="24 bits"):
        luma_of(1 << 24)


def test_the_clock_moves_with_the_time_shown() -> None:
    scene = Scene(320, 180, seed=1)

    assert scene.draw(0, shown_ms=START_MS) != scene.draw(0, shown_ms=START_MS + 1)


@pytest.mark.parametrize(
    ("name", "camera"),
    [
        pytest.param("clip.mp4", SMALL, id="h264 in mp4"),
        pytest.param("clip.mkv", SMALL, id="h264 in matroska"),
        pytest.param("clip.ts", SMALL, id="h264 in transport stream"),
        pytest.param("clip.mp4", Camera(320, 180, video_codec="libx265"), id="hevc in mp4"),
        pytest.param("clip.webm", Camera(320, 180, video_codec="libvpx"), id="vp8 in webm"),
        pytest.param("silent's.mp4", Camera(320, 180, sound=False), id="silent"),
        pytest.param("clip.mp4", Camera(320, 180, frame_rate=Fraction(30_000, 1001)), id="ntsc"),
    ],
)
async def test_every_frame_of_a_recording_is_found_in_it(tmp_path: Path, name: str, camera: Camera) -> None:
    recording = await record(
        tmp_path / name, start_ms=START_MS, duration_ms=2_000, first_frame=600, camera=camera
    )

    assert await frame_numbers(recording.path) == list(recording.frames)
    assert recording.frames == range(600, 660)
    assert len(await frame_hashes(recording.path)) == 60


async def test_moov_is_last_as_cameras_write_it_unless_asked_otherwise(tmp_path: Path) -> None:
    last = await record(tmp_path / "last.mp4", start_ms=START_MS, duration_ms=1_000, camera=SMALL)
    first = await record(
        tmp_path / "first.mp4", start_ms=START_MS, duration_ms=1_000, camera=SMALL, faststart=True
    )

    assert last.path.read_bytes().index(b"moov") > last.path.read_bytes().index(b"mdat")
    assert first.path.read_bytes().index(b"moov") < first.path.read_bytes().index(b"mdat")


async def test_an_extended_recording_shows_every_copy_whole(tmp_path: Path) -> None:
    recording = await record(tmp_path / "it's.mp4", start_ms=START_MS, duration_ms=2_000, camera=SMALL)

    await extend(recording, 3, tmp_path / "long.mp4")

    assert await frame_numbers(tmp_path / "long.mp4") == [*recording.frames] * 3
    assert await frame_hashes(tmp_path / "long.mp4") == await frame_hashes(recording.path) * 3


async def test_a_file_that_is_no_video_says_so(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")

    with pytest.raises(FfmpegFailed, match="Invalid data"):
        await frame_numbers(tmp_path / "text.mp4")


async def test_a_recording_into_nowhere_says_so(tmp_path: Path) -> None:
    with pytest.raises(FfmpegFailed, match="No such file"):
        await record(tmp_path / "missing" / "clip.mp4", start_ms=START_MS, duration_ms=1_000, camera=SMALL)


async def test_a_cancelled_recording_leaves_no_ffmpeg(tmp_path: Path) -> None:
    before = children_of()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await record(tmp_path / "clip.mp4", start_ms=START_MS, duration_ms=3_600_000, camera=SMALL)

    assert children_of() <= before
