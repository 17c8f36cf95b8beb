"""The precisions of a clip: what each of them shows, hides and encodes anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import pytest

from shared.media.decode import decode_each
from shared.media.ffmpeg import Ffmpeg
from shared.media.framecrc import Entry
from shared.media.mp4.index import read_index
from shared.media.port import Cut, Precision
from spool.camera import Camera, frame_hashes, frame_numbers
from tests.media.conftest import SECONDS, SMALL, Library
from tests.media.studio import Studio, beep_onsets_ms, frames_between, seconds_between, sound

CAMERA = replace(SMALL, gop_frames=60)  # a group is two seconds
WHOLE_MS = SECONDS * 1000
CAMERAS = [
    pytest.param(CAMERA, id="B-frames"),
    pytest.param(replace(CAMERA, b_frames=0), id="no B-frames"),
    pytest.param(replace(CAMERA, b_frames=0, encoder_options=("-profile:v", "baseline")), id="baseline"),
    pytest.param(replace(CAMERA, encoder_options=("-profile:v", "main")), id="main"),
    pytest.param(replace(CAMERA, encoder_options=("-x264-params", "b-pyramid=normal:ref=5")), id="B-pyramid"),
    pytest.param(replace(CAMERA, encoder_options=("-x264-params", "slices=4")), id="several slices"),
    pytest.param(replace(CAMERA, frame_rate=Fraction(30000, 1001)), id="29.97 a second"),
    pytest.param(replace(CAMERA, sound=False), id="no sound"),
    pytest.param(
        replace(CAMERA, encoder_options=("-movflags", "+frag_keyframe+empty_moov+delay_moov")),
        id="fragmented",
    ),
]
SPANS = [
    pytest.param((1234, 6789), id="both ends inside of a group"),
    pytest.param((2000, 6789), id="from a key frame on"),
    pytest.param((1234, 6000), id="up to a key frame"),
    pytest.param((2000, 6000), id="from one key frame to another"),
    pytest.param((1234, 2345), id="the ends of two groups"),
    pytest.param((2345, 3210), id="inside of one group"),
    pytest.param((3967, 4001), id="two frames at a joint"),
    pytest.param((0, WHOLE_MS), id="everything"),
]


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("span", SPANS)
async def test_a_smart_clip_holds_the_frames_of_its_time_and_no_others(
    studio: Studio, library: Library, camera: Camera, span: tuple[int, int]
) -> None:
    recording, _ = await library.pair(camera)
    key = studio.add(recording.path)

    clip = await studio.cut(Cut(key, *span), precision=Precision.SMART)

    wanted = frames_between(*span, camera.frame_rate)
    assert await frame_numbers(studio.path("clip.mp4")) == wanted
    assert await frame_numbers(studio.path("clip.mp4"), hidden=True) == wanted
    assert clip.reencoded_because is None
    assert (clip.video_frames, clip.duration_ms) == (len(wanted), span[1] - span[0])


JOINTS = [
    pytest.param(((0, 6001, 8000), (1, 0, 1999)), 1, id="two that adjoin"),
    pytest.param(((0, 1234, 3456), (1, 2345, 5678)), 1, id="two with a gap"),
    pytest.param(((0, 1000, 3100), (0, 500, 2500)), 1, id="the same source again, from before"),
    pytest.param(((0, 6000, 7777), (1, 111, 5555), (0, 3, 2000), (1, 7000, 8000)), 1, id="four"),
    pytest.param(((0, 500, 8000), (1, 3972, 3982), (1, 500, 2485)), 1, id="no picture in the middle"),
]


@pytest.mark.parametrize(("spans", "edits"), JOINTS)
async def test_pieces_of_a_smart_clip_are_shown_by_one_edit(
    studio: Studio, library: Library, spans: Sequence[tuple[int, int, int]], edits: int
) -> None:
    pair = await library.pair(CAMERA)
    for recording in pair:
        studio.add(recording.path)
    cuts = [Cut(pair[source].path.name, start_ms, end_ms) for source, start_ms, end_ms in spans]

    clip = await studio.cut(*cuts, precision=Precision.SMART)

    wanted = [
        number
        for source, start_ms, end_ms in spans
        for number in frames_between(start_ms, end_ms, CAMERA.frame_rate, first=pair[source].frames.start)
    ]
    index = await read_index(studio.storage, clip.stored)
    assert index.movie is not None
    assert index.movie.video is not None
    assert await frame_numbers(studio.path("clip.mp4")) == wanted
    assert await frame_numbers(studio.path("clip.mp4"), hidden=True) == wanted
    assert len([edit for edit in index.movie.video.edits if edit.media_ticks is not None]) == edits
    assert clip.duration_ms == sum(cut.duration_ms for cut in cuts)


@pytest.mark.parametrize(
    ("span", "reencoded_ms"),
    [
        pytest.param((1000, 7000), ((0, 1000), (5000, 6000)), id="both ends"),
        pytest.param((2000, 7000), ((4000, 5000),), id="the end"),
        pytest.param((1000, 6000), ((0, 1000),), id="the start"),
        pytest.param((2000, 6000), (), id="nothing"),
        pytest.param((2500, 3500), ((0, 1000),), id="all of it"),
    ],
)
async def test_a_smart_clip_says_which_parts_were_encoded_anew(
    studio: Studio, library: Library, span: tuple[int, int], reencoded_ms: tuple[tuple[int, int], ...]
) -> None:
    recording, _ = await library.pair(CAMERA)
    key = studio.add(recording.path)

    clip = await studio.cut(Cut(key, *span), precision=Precision.SMART)

    assert clip.reencoded_ms == reencoded_ms


async def test_the_groups_between_the_ends_of_a_smart_clip_are_the_sources_own(
    studio: Studio, library: Library
) -> None:
    recording, _ = await library.pair(CAMERA)
    key = studio.add(recording.path)

    await studio.cut(Cut(key, 1000, 7000), precision=Precision.SMART)

    hashes, source = await frame_hashes(studio.path("clip.mp4")), await frame_hashes(recording.path)
    assert hashes[30:150] == source[60:180]
    assert not set(hashes[:30] + hashes[150:]) & set(source)


async def test_the_sound_of_a_smart_clip_is_in_place(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair(CAMERA)
    key = studio.add(recording.path)

    await studio.cut(Cut(key, 1234, 6789), precision=Precision.SMART)

    samples = await sound(studio.path("clip.mp4"))
    wanted = [moment_ms - 2 for moment_ms in seconds_between(1234, 6789)]  # a beep is heard as it rises
    assert len(samples) == 48 * (6789 - 1234)
    assert beep_onsets_ms(samples) == pytest.approx(wanted, abs=4)


RATES = [Fraction(30), Fraction(25, 2), Fraction(30000, 1001)]


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("rate", RATES)
async def test_each_picture_comes_at_its_moment_to_the_millisecond(
    studio: Studio, library: Library, precision: Precision, rate: Fraction
) -> None:
    recording, _ = await library.pair(replace(CAMERA, frame_rate=rate))

    clip = await studio.cut(Cut(studio.add(recording.path), 1234, 6789), precision=precision)

    wanted_ms = moments_between(1234 - clip.earlier_ms, 6789 + clip.later_ms, rate)
    assert await moments_ms(studio.path("clip.mp4")) == pytest.approx(wanted_ms, abs=1)


@pytest.mark.parametrize("rate", RATES)
async def test_each_picture_of_a_smart_clip_comes_at_its_moment_behind_a_joint_too(
    studio: Studio, library: Library, rate: Fraction
) -> None:
    first, second = await library.pair(replace(CAMERA, frame_rate=rate))
    cuts = (Cut(studio.add(first.path), 1234, 5678), Cut(studio.add(second.path), 2345, 6789))

    await studio.cut(*cuts, precision=Precision.SMART)

    behind_ms = [5678 - 1234 + moment_ms for moment_ms in moments_between(2345, 6789, rate)]
    wanted_ms = [*moments_between(1234, 5678, rate), *behind_ms]
    assert await moments_ms(studio.path("clip.mp4")) == pytest.approx(wanted_ms, abs=1)


def moments_between(start_ms: int, end_ms: int, rate: Fraction) -> list[float]:
    """Return when the pictures of a cut are shown, counted from its start."""
    return [float(1000 * number / rate - start_ms) for number in frames_between(start_ms, end_ms, rate)]


async def moments_ms(path: Path) -> list[float]:
    """Return when a player shows each picture, beside the sound."""
    found: list[float] = []

    def take(entry: Entry) -> None:
        if entry.stream.kind == "video":
            found.append(float(entry.start_s * 1000))

    with path.open("rb") as file:
        await decode_each(Ffmpeg(Path(imageio_ffmpeg.get_ffmpeg_exe())), file, take)
    return found


async def test_a_smart_clip_of_open_groups_falls_back_on_what_can_be_joined(
    studio: Studio, library: Library
) -> None:
    camera = replace(CAMERA, encoder_options=("-x264-params", "open-gop=1:bframes=3"))
    recording, _ = await library.pair(camera)
    key = studio.add(recording.path)

    clip = await studio.cut(Cut(key, 1234, 6789), precision=Precision.SMART)

    assert await frame_numbers(studio.path("clip.mp4"), hidden=True) == frames_between(
        1234, 6789, Fraction(30)
    )
    assert clip.reencoded_ms == ((0, 5555),)


@pytest.mark.parametrize(
    ("span", "widened"),
    [
        pytest.param((1234, 5678), (0, 6000), id="both ends"),
        pytest.param((2000, 6000), (2000, 6000), id="on key frames already"),
        pytest.param((2001, 5999), (2000, 6000), id="a millisecond off"),
        pytest.param((6500, 7000), (6000, 8000), id="up to the end of the source"),
    ],
)
async def test_a_keyframe_clip_is_widened_and_hides_nothing(
    studio: Studio, library: Library, span: tuple[int, int], widened: tuple[int, int]
) -> None:
    recording, _ = await library.pair(CAMERA)
    key = studio.add(recording.path)

    clip = await studio.cut(Cut(key, *span), precision=Precision.KEYFRAME)

    assert await frame_numbers(studio.path("clip.mp4"), hidden=True) == frames_between(*widened, Fraction(30))
    assert (clip.earlier_ms, clip.later_ms) == (span[0] - widened[0], widened[1] - span[1])
    assert clip.duration_ms == widened[1] - widened[0]
    assert clip.reencoded_ms == ()


async def test_a_keyframe_clip_of_a_fragmented_recording_hides_nothing(
    studio: Studio, library: Library
) -> None:
    fragmented = ("-movflags", "+frag_keyframe+empty_moov+delay_moov")
    recording, _ = await library.pair(replace(CAMERA, encoder_options=fragmented))
    key = studio.add(recording.path)

    clip = await studio.cut(Cut(key, 2345, 3456), precision=Precision.KEYFRAME)

    wanted = frames_between(2345 - clip.earlier_ms, 3456 + clip.later_ms, Fraction(30))
    assert await frame_numbers(studio.path("clip.mp4"), hidden=True) == wanted
    assert (clip.earlier_ms, clip.later_ms) == (345, 544)


async def test_a_smart_clip_of_hevc_is_encoded_anew_as_a_whole(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair(replace(CAMERA, video_codec="libx265"))
    key = studio.add(recording.path)

    clip = await studio.cut(Cut(key, 1234, 6789), precision=Precision.SMART)

    wanted = frames_between(1234, 6789, Fraction(30))
    assert await frame_numbers(studio.path("clip.mp4"), hidden=True) == wanted
    assert "hevc" in (clip.reencoded_because or "")


async def test_a_smart_clip_of_hevc_that_needs_no_encoding_is_copied(
    studio: Studio, library: Library
) -> None:
    recording, _ = await library.pair(replace(CAMERA, video_codec="libx265"))
    key = studio.add(recording.path)

    clip = await studio.cut(Cut(key, 2000, 6000), precision=Precision.SMART)

    assert await frame_numbers(studio.path("clip.mp4"), hidden=True) == list(range(60, 180))
    assert (clip.reencoded_because, clip.reencoded_ms) == (None, ())


async def test_the_same_smart_clip_again_is_adopted(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair(CAMERA)
    cut = Cut(studio.add(recording.path), 1234, 6789)
    first = await studio.cut(cut, precision=Precision.SMART)

    again = await studio.cut(cut, precision=Precision.SMART)

    assert (first.adopted, again.adopted) == (False, True)
    assert again.sha256 == first.sha256


async def test_another_precision_replaces_what_is_there(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair(CAMERA)
    cut = Cut(studio.add(recording.path), 1234, 6789)
    await studio.cut(cut)

    clip = await studio.cut(cut, precision=Precision.SMART)

    assert not clip.adopted
    assert len(await frame_numbers(studio.path("clip.mp4"), hidden=True)) == clip.video_frames
