"""A recording whose end is missing: what is left of it is used, and where that ends is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shared.media.port import Cut, SourceBroken, SourceEndsEarly
from spool.camera import Camera, frame_numbers, record
from tests.media.conftest import SMALL
from tests.media.studio import Studio, frames_between

DURATION_MS = 6_000
FRAGMENTED = replace(SMALL, encoder_options=("-movflags", "+frag_keyframe+empty_moov+delay_moov"))
CAMERAS = [
    pytest.param(SMALL, ".mkv", id="Matroska"),
    pytest.param(replace(SMALL, video_codec="libvpx"), ".webm", id="WebM"),
    pytest.param(SMALL, ".ts", id="transport stream"),
    pytest.param(FRAGMENTED, ".mp4", id="fragmented MP4"),
]
GROUP_MS = SMALL.gop_frames * 1000 // 30


@pytest.mark.parametrize("share", [0.37, 0.81])
@pytest.mark.parametrize(("camera", "suffix"), CAMERAS)
async def test_a_recording_that_was_cut_off_is_used_up_to_where_it_ends(
    studio: Studio, tmp_path: Path, camera: Camera, suffix: str, share: float
) -> None:
    recording = await record(tmp_path / f"film{suffix}", start_ms=0, duration_ms=DURATION_MS, camera=camera)
    whole = recording.path.read_bytes()
    studio.path("film").write_bytes(whole[: int(len(whole) * share)])
    cut = Cut("film", 321, DURATION_MS, declared_ms=DURATION_MS, declared_bytes=len(whole))

    with pytest.raises(SourceEndsEarly, match="film ends early: at") as caught:
        await studio.cut(cut, into="never.mp4")
    end_ms = caught.value.playable_ms
    clip = await studio.cut(replace(cut, end_ms=end_ms))

    assert share * DURATION_MS - GROUP_MS - 500 < end_ms < DURATION_MS
    # Matroska's times are whole milliseconds: the first frame beyond the end may round to it.
    shown = await frame_numbers(studio.path("clip.mp4"))
    assert shown == frames_between(321, end_ms - 1, camera.frame_rate)
    assert clip.video_frames == len(shown)
    assert not studio.path("never.mp4").exists()


async def test_sound_that_was_cut_off_is_used_up_to_where_it_ends(studio: Studio, tmp_path: Path) -> None:
    camera = replace(SMALL, encoder_options=("-vn",))
    recording = await record(tmp_path / "call.mkv", start_ms=0, duration_ms=DURATION_MS, camera=camera)
    whole = recording.path.read_bytes()
    studio.path("call").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(SourceEndsEarly) as caught:
        await studio.cut(Cut("call", 321, DURATION_MS), into="never.mp4")
    clip = await studio.cut(Cut("call", 321, caught.value.playable_ms))

    assert 2_000 < caught.value.playable_ms < 4_000
    assert (clip.width, clip.duration_ms) == (0, caught.value.playable_ms - 321)


async def test_an_index_in_one_place_is_nothing_without_the_pictures_it_lists(
    studio: Studio, tmp_path: Path
) -> None:
    recording = await record(
        tmp_path / "film.mp4", start_ms=0, duration_ms=DURATION_MS, camera=SMALL, faststart=True
    )
    studio.path("film").write_bytes(recording.path.read_bytes()[:-1000])

    with pytest.raises(SourceBroken, match="truncated") as caught:
        await studio.cut(Cut("film", 321, 1000))

    assert not isinstance(caught.value, SourceEndsEarly)
