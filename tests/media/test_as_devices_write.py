"""MP4 as phones, recorders and conference servers write it: its samples are copied, its sound is in place."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import pytest

from shared.media.port import Cut, Precision
from spool.camera import frame_numbers
from tests.media.conftest import SMALL, Library
from tests.media.studio import Studio, beep_onsets_ms, frames_between, sound

SPAN = (1234, 6789)
COPIED = ("-c:v", "copy")
SOUND_TWICE = ("-map", "0:v", "-map", "0:a", "-map", "0:a")
CAMERA = replace(SMALL, gop_frames=60)
WRITTEN = [
    pytest.param("in.mov", ("-c", "copy"), id="QuickTime"),
    pytest.param("in.mp4", (*COPIED, "-ac", "1"), id="mono"),
    pytest.param("in.mp4", (*COPIED, "-ac", "6"), id="5.1"),
    pytest.param("in.mp4", (*COPIED, "-ar", "44100"), id="44.1 kHz"),
    pytest.param("in.mp4", (*COPIED, *SOUND_TWICE, "-c:a", "copy"), id="two tracks of sound"),
    pytest.param("in.mp4", ("-c", "copy", "-timecode", "01:00:00:00"), id="with a time code"),
]
ODD = [
    pytest.param(("-x264-params", "tff=1:interlaced=1"), id="interlaced"),
    pytest.param(("-pix_fmt", "yuv420p10le", "-profile:v", "high10"), id="ten bits"),
    pytest.param(("-pix_fmt", "yuv422p", "-profile:v", "high422"), id="4:2:2"),
    pytest.param(("-x264-params", "sps-id=3:cabac=0"), id="another number, CAVLC"),
    pytest.param(("-g", "1"), id="key frames only"),
    pytest.param(("-color_range", "pc", "-colorspace", "bt709"), id="full range"),
]


def rewrite(source: Path, out: Path, *options: str) -> None:
    """Write a recording with other options of ffmpeg."""
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([ffmpeg, "-v", "error", "-i", f"file:{source}", *options, f"file:{out}"], check=True)


@pytest.mark.parametrize("precision", [Precision.EDIT_LIST, Precision.SMART])
@pytest.mark.parametrize(("name", "options"), WRITTEN)
async def test_what_devices_write_is_copied_exactly(
    *, studio: Studio, library: Library, name: str, options: tuple[str, ...], precision: Precision
) -> None:
    recording, _ = await library.pair(CAMERA)
    rewrite(recording.path, studio.path(name), *options)

    clip = await studio.cut(Cut(name, *SPAN), precision=precision)

    path = studio.path("clip.mp4")
    assert clip.reencoded_because is None
    assert await frame_numbers(path) == frames_between(*SPAN, CAMERA.frame_rate)
    assert beep_onsets_ms(await sound(path)) == pytest.approx([764, 1764, 2764, 3764, 4764], abs=2)


@pytest.mark.parametrize("options", ODD)
async def test_pictures_of_an_odd_kind_are_cut_exactly_by_smart(
    studio: Studio, library: Library, options: tuple[str, ...]
) -> None:
    recording, _ = await library.pair(replace(CAMERA, encoder_options=options))

    clip = await studio.cut(Cut(studio.add(recording.path), *SPAN), precision=Precision.SMART)

    assert clip.reencoded_because is None
    assert await frame_numbers(studio.path("clip.mp4"), hidden=True) == frames_between(
        *SPAN, CAMERA.frame_rate
    )


async def test_sound_of_quicktime_and_of_mp4_are_joined(studio: Studio, library: Library) -> None:
    first, second = await library.pair(CAMERA)
    rewrite(first.path, studio.path("first.mov"), "-c", "copy")
    key = studio.add(second.path)

    clip = await studio.cut(Cut("first.mov", 5000, 8000), Cut(key, 0, 3000))

    assert clip.reencoded_because is None
    wanted = frames_between(5000, 11_000, CAMERA.frame_rate)
    assert await frame_numbers(studio.path("clip.mp4")) == wanted
