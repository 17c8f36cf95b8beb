"""What cannot be copied is encoded anew, shows the same frames, and says why."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from shared.media.port import Cut
from spool.camera import Camera, frame_numbers, record
from tests.media.conftest import SMALL, Library
from tests.media.studio import Studio

OPEN_GROUPS = ("-x264-params", "open-gop=1:bframes=3:b-adapt=0")

ALONE = [
    pytest.param(SMALL, "source.mkv", "the container is matroska", id="matroska"),
    pytest.param(SMALL, "source.ts", "the container is mpegts", id="transport stream"),
    pytest.param(
        replace(SMALL, video_codec="libx265", encoder_options=("-x265-params", "open-gop=1:log-level=error")),
        "source.mp4",
        "is open",
        id="HEVC in open groups",
    ),
    pytest.param(
        replace(SMALL, video_codec="mpeg4"), "source.mp4", "the video is 'mp4v'", id="MPEG-4 part 2"
    ),
    pytest.param(
        replace(SMALL, encoder_options=("-c:a", "libmp3lame")), "source.mp4", "the audio is mp3", id="MP3"
    ),
    pytest.param(
        replace(SMALL, encoder_options=OPEN_GROUPS),
        "source.mp4",
        "is open",
        id="open groups of pictures",
    ),
]


@pytest.mark.parametrize(("camera", "key", "reason"), ALONE)
async def test_what_cannot_be_copied_is_encoded_anew(
    studio: Studio, camera: Camera, key: str, reason: str
) -> None:
    await record(studio.path(key), start_ms=0, duration_ms=5000, camera=camera)

    clip = await studio.cut(Cut(key, 2100, 3500))

    assert await frame_numbers(studio.path("clip.mp4")) == list(range(63, 105))
    assert clip.reencoded_because is not None
    assert reason in clip.reencoded_because
    assert (clip.video_frames, clip.duration_ms) == (42, 1400)


TOGETHER = [
    pytest.param(replace(SMALL, width=480, height=270), "video settings", id="another size"),
    pytest.param(replace(SMALL, sound=False), None, id="without sound, which is no obstacle"),
    pytest.param(replace(SMALL, frame_rate=Fraction(25)), "video settings", id="another frame rate"),
    pytest.param(
        replace(SMALL, encoder_options=("-ar", "44100")), "audio settings", id="another sampling rate"
    ),
]


@pytest.mark.parametrize(("camera", "reason"), TOGETHER)
async def test_sources_that_differ_are_joined_all_the_same(
    studio: Studio, library: Library, camera: Camera, reason: str | None
) -> None:
    recording, _ = await library.pair()
    studio.add(recording.path, "first.mp4")
    await record(studio.path("second.mp4"), start_ms=0, duration_ms=3000, camera=camera, first_frame=1000)

    clip = await studio.cut(Cut("first.mp4", 7000, 8000), Cut("second.mp4", 0, 2000))

    frames = int(camera.frame_rate) * 2
    assert await frame_numbers(studio.path("clip.mp4")) == [*range(210, 240), *range(1000, 1000 + frames)]
    assert (clip.reencoded_because or "").endswith(reason or "")
    assert (clip.reencoded_because is None) == (reason is None)
    assert clip.duration_ms == 3000


async def test_a_clip_that_was_encoded_is_adopted_as_well(studio: Studio) -> None:
    await record(studio.path("source.mkv"), start_ms=0, duration_ms=3000, camera=SMALL)
    first = await studio.cut(Cut("source.mkv", 1000, 2000))

    again = await studio.cut(Cut("source.mkv", 1000, 2000))

    assert again.adopted
    assert (again.sha256, again.video_frames) == (first.sha256, first.video_frames)
