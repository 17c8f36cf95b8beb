"""The lossless clip: exactly the frames that were asked for, their sound, and few bytes read for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from shared.media.mp4.index import read_index
from shared.media.mp4.tracks import Edit, Movie
from shared.media.port import Cut
from shared.media.ticks import TICKS_PER_MS
from shared.storage.port import WriteOptions
from spool.camera import Camera, Recording, extend, frame_numbers
from tests.media.conftest import SECONDS, SMALL, Library
from tests.media.decoded import picture_times_ms
from tests.media.studio import Studio, beep_onsets_ms, frames_between, seconds_between, sound

WHOLE_MS = SECONDS * 1000
CAMERAS = [
    pytest.param(SMALL, False, id="moov at the end"),
    pytest.param(SMALL, True, id="moov at the front"),
    pytest.param(replace(SMALL, gop_frames=25, b_frames=0), False, id="no B-frames"),
    pytest.param(replace(SMALL, video_codec="libx265"), False, id="HEVC"),
    pytest.param(replace(SMALL, sound=False), False, id="no sound"),
    pytest.param(replace(SMALL, frame_rate=Fraction(30000, 1001)), False, id="29.97 a second"),
    pytest.param(replace(SMALL, frame_rate=Fraction(25, 2)), False, id="12.5 a second"),
    pytest.param(
        replace(SMALL, frame_rate=Fraction(179, 6), gop_frames=10, b_frames=0), False, id="29.83, no B-frames"
    ),
]
BEEP_EARLY_MS = 4  # the onset is found this much before the second, in the source as well


async def movie_of(studio: Studio, key: str = "clip.mp4") -> Movie:
    index = await read_index(studio.storage, await studio.storage.head(key))
    assert index.movie is not None
    return index.movie


def pieces(*cuts: tuple[Recording, int, int]) -> tuple[Cut, ...]:
    return tuple(
        Cut(
            recording.path.name,
            start_ms,
            end_ms,
            declared_ms=WHOLE_MS,
            declared_bytes=recording.path.stat().st_size,
        )
        for recording, start_ms, end_ms in cuts
    )


def numbers_of(camera: Camera, *cuts: tuple[Recording, int, int]) -> list[int]:
    return [
        number
        for recording, start_ms, end_ms in cuts
        for number in frames_between(start_ms, end_ms, camera.frame_rate, first=recording.frames.start)
    ]


@pytest.mark.parametrize(("camera", "faststart"), CAMERAS)
@pytest.mark.parametrize(
    "span",
    [
        pytest.param((0, 2000), id="from the start"),
        pytest.param((4000, 6000), id="whole seconds, on a key frame for most"),
        pytest.param((1234, 5679), id="odd milliseconds"),
        pytest.param((3967, 4001), id="a frame or two"),
        pytest.param((1311, 4000), id="just before a key frame for some"),
        pytest.param((6500, WHOLE_MS), id="to the end"),
        pytest.param((0, WHOLE_MS), id="everything"),
    ],
)
async def test_a_clip_shows_exactly_the_frames_of_its_time(
    studio: Studio, library: Library, camera: Camera, faststart: bool, span: tuple[int, int]
) -> None:
    start_ms, end_ms = span
    recording, _ = await library.pair(camera, faststart=faststart)
    studio.add(recording.path)

    clip = await studio.cut(*pieces((recording, start_ms, end_ms)))

    wanted = numbers_of(camera, (recording, start_ms, end_ms))
    assert await frame_numbers(studio.path("clip.mp4")) == wanted
    assert clip.reencoded_because is None
    assert (clip.video_frames, clip.duration_ms) == (len(wanted), end_ms - start_ms)
    assert (clip.width, clip.height) == (320, 180)


@pytest.mark.parametrize(("start_ms", "end_ms"), [(1001, 3000), (4000, 6000), (5010, 7990)])
async def test_each_picture_is_shown_at_its_moment(
    studio: Studio, library: Library, start_ms: int, end_ms: int
) -> None:
    recording, _ = await library.pair()
    studio.add(recording.path)

    await studio.cut(*pieces((recording, start_ms, end_ms)))

    wanted = [number * 1000 / 30 - start_ms for number in frames_between(start_ms, end_ms, SMALL.frame_rate)]
    times_ms = await picture_times_ms(studio.ffmpeg, studio.path("clip.mp4"))
    assert times_ms == pytest.approx(wanted, abs=2 / TICKS_PER_MS)  # the source's ticks are others


@pytest.mark.parametrize(("camera", "faststart"), CAMERAS)
@pytest.mark.parametrize(
    "span",
    [
        pytest.param((6001, 1999), id="odd milliseconds"),
        pytest.param((4000, 4000), id="whole seconds"),
        pytest.param((7900, 100), id="next to the joint"),
    ],
)
async def test_adjoining_sources_are_shown_by_one_edit(
    studio: Studio, library: Library, camera: Camera, faststart: bool, span: tuple[int, int]
) -> None:
    first_from_ms, second_to_ms = span
    first, second = await library.pair(camera, faststart=faststart)
    for recording in (first, second):
        studio.add(recording.path)
    cuts = ((first, first_from_ms, WHOLE_MS), (second, 0, second_to_ms))

    clip = await studio.cut(*pieces(*cuts))

    movie = await movie_of(studio)
    assert await frame_numbers(studio.path("clip.mp4")) == numbers_of(camera, *cuts)
    assert clip.duration_ms == WHOLE_MS - first_from_ms + second_to_ms
    shown = [[edit for edit in track.edits if edit.media_ticks is not None] for track in movie.tracks]
    assert [len(edits) for edits in shown] == [1] * len(movie.tracks)


async def test_a_piece_between_two_pictures_takes_its_time_and_shows_none(
    studio: Studio, library: Library
) -> None:
    first, second = await library.pair()
    for recording in (first, second):
        studio.add(recording.path)
    cuts = ((first, 7990, 8000), (second, 0, 100))

    clip = await studio.cut(*pieces(*cuts))

    movie = await movie_of(studio)
    assert await frame_numbers(studio.path("clip.mp4")) == numbers_of(SMALL, *cuts)
    assert clip.duration_ms == 110
    assert movie.video is not None
    assert movie.video.edits[0] == Edit(10 * TICKS_PER_MS, None)


OVERLAPS = [
    pytest.param(((0, 5000, 7000), (1, 1500, 3000)), 2, id="the second starts inside of a group"),
    pytest.param(((0, 1000, 3100), (0, 500, 2500)), 2, id="the same source again, from before"),
    pytest.param(((0, 6000, 8000), (1, 0, 8000), (0, 0, 2000)), 1, id="three sources that adjoin"),
    pytest.param(((0, 6000, 7777), (1, 111, 5555), (0, 3, 2000), (1, 7000, 8000)), 4, id="four that do not"),
    pytest.param(((0, 500, 3480), (1, 2655, 2748)), 2, id="a key frame after a hidden end"),
    pytest.param(((0, 500, 8000), (1, 3972, 3982), (1, 500, 2485)), 2, id="no picture in the middle"),
]


@pytest.mark.parametrize(("spans", "edits"), OVERLAPS)
async def test_hidden_pictures_at_a_joint_stay_hidden(
    studio: Studio, library: Library, spans: Sequence[tuple[int, int, int]], edits: int
) -> None:
    pair = await library.pair()
    for recording in pair:
        studio.add(recording.path)
    cuts = [(pair[source], start_ms, end_ms) for source, start_ms, end_ms in spans]

    clip = await studio.cut(*pieces(*cuts))

    movie = await movie_of(studio)
    assert await frame_numbers(studio.path("clip.mp4")) == numbers_of(SMALL, *cuts)
    assert clip.duration_ms == sum(end_ms - start_ms for _, start_ms, end_ms in cuts)
    assert movie.video is not None
    assert len(movie.video.edits) == edits


async def test_the_sound_of_a_clip_is_exactly_in_place(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair()
    studio.add(recording.path)

    await studio.cut(*pieces((recording, 1234, 6789)))

    samples = await sound(studio.path("clip.mp4"))
    onsets = beep_onsets_ms(samples)
    wanted = [moment_ms - BEEP_EARLY_MS // 2 for moment_ms in seconds_between(1234, 6789)]
    assert len(samples) == 48 * (6789 - 1234)
    assert onsets == pytest.approx(wanted, abs=BEEP_EARLY_MS)


async def test_the_sound_after_each_joint_is_within_half_a_frame(studio: Studio, library: Library) -> None:
    first, second = await library.pair()
    for recording in (first, second):
        studio.add(recording.path)
    cuts = ((first, 6501, 8000), (second, 0, 8000), (first, 0, 8000), (second, 0, 3500))

    await studio.cut(*pieces(*cuts))

    movie = await movie_of(studio)
    onsets = np.array(beep_onsets_ms(await sound(studio.path("clip.mp4"))))
    seconds = np.array(seconds_between(6501, 6501 + 1499 + 19_500))
    # The beep of second 0 lies on a joint, where the frame before it fades out.
    inside = [second_ms for second_ms in seconds if (second_ms + 6501) % WHOLE_MS]
    off_ms = [float(np.abs(onsets - second_ms).min()) for second_ms in inside]
    assert max(off_ms) <= 11 + BEEP_EARLY_MS
    assert movie.audio is not None
    assert movie.audio.edits == (Edit(20_999 * TICKS_PER_MS, movie.audio.edits[0].media_ticks),)


async def test_a_minute_out_of_ten_reads_hardly_more_than_the_clip(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair(
        Camera(width=640, height=360, gop_frames=60, encoder_options=("-b:v", "1600k"))
    )
    await extend(recording, 600 // SECONDS, studio.path("long.mp4"))
    before = studio.storage.bytes_read

    clip = await studio.cut(Cut("long.mp4", 301_234, 361_234))

    # As the store counts them: all that was read, less what was read back from the clip to prove it.
    assert studio.storage.bytes_read - before == clip.source_bytes_read + clip.proof_bytes_read
    assert clip.source_bytes_read / clip.stored.size_bytes < 1.15
    assert clip.video_frames == 1800


async def test_the_index_of_a_source_is_kept_until_the_source_changes(
    studio: Studio, library: Library
) -> None:
    first, second = await library.pair()
    studio.add(first.path, "source.mp4")
    once = await studio.cut(Cut("source.mp4", 0, 2000), into="once.mp4")
    again = await studio.cut(Cut("source.mp4", 0, 2000), into="again.mp4")
    studio.path("source.mp4").unlink()
    studio.add(second.path, "source.mp4")

    await studio.cut(Cut("source.mp4", 0, 2000), into="other.mp4")

    assert again.source_bytes_read < once.source_bytes_read
    assert (await frame_numbers(studio.path("other.mp4")))[0] == second.frames.start


async def test_a_clip_is_a_source_like_any_other(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair()
    studio.add(recording.path)
    await studio.cut(*pieces((recording, 1500, 7500)))

    clip = await studio.cut(Cut("clip.mp4", 1000, 3000), into="second.mp4")

    assert clip.reencoded_because is None
    assert await frame_numbers(studio.path("second.mp4")) == list(range(75, 135))


async def test_so_is_a_clip_of_several_edits_that_starts_between_two_pictures(
    studio: Studio, library: Library
) -> None:
    pair = await library.pair()
    for recording in pair:
        studio.add(recording.path)
    await studio.cut(*pieces((pair[0], 5010, 7777), (pair[1], 111, 5555)))

    clip = await studio.cut(Cut("clip.mp4", 0, 4000), into="second.mp4")

    assert clip.reencoded_because is None
    wanted = numbers_of(SMALL, (pair[0], 5010, 7777), (pair[1], 111, 111 + 1233))
    assert await frame_numbers(studio.path("second.mp4")) == wanted


async def test_what_an_earlier_attempt_finished_is_adopted(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair()
    studio.add(recording.path)
    first = await studio.cut(*pieces((recording, 1000, 3000)))

    again = await studio.cut(*pieces((recording, 1000, 3000)))

    assert (first.adopted, again.adopted) == (False, True)
    assert (again.sha256, again.stored.etag) == (first.sha256, first.stored.etag)


async def test_what_is_there_and_is_not_the_clip_is_replaced(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair()
    studio.add(recording.path)
    await studio.cut(*pieces((recording, 0, 3000)))

    clip = await studio.cut(*pieces((recording, 1000, 3000)))

    assert not clip.adopted
    assert await frame_numbers(studio.path("clip.mp4")) == list(range(30, 90))


async def test_a_clip_whose_first_picture_is_damaged_is_not_adopted(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair()
    studio.add(recording.path)
    first = await studio.cut(*pieces((recording, 1000, 3000)))
    movie = await movie_of(studio)
    assert movie.video is not None
    damaged = bytearray(studio.path("clip.mp4").read_bytes())
    middle = int(movie.video.samples.offsets[0]) + int(movie.video.samples.sizes[0]) // 2
    damaged[middle : middle + 400] = bytes(400)
    studio.path("clip.mp4").write_bytes(damaged)

    clip = await studio.cut(*pieces((recording, 1000, 3000)))

    assert not clip.adopted
    assert clip.sha256 == first.sha256


async def test_progress_counts_the_milliseconds_of_the_clip(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair()
    studio.add(recording.path)
    reports: list[tuple[int, int]] = []

    await studio.engine.cut(
        pieces((recording, 1000, 5000)),
        into="clip.mp4",
        options=WriteOptions(),
        progress=lambda done_ms, of_ms: reports.append((done_ms, of_ms)),
    )

    assert reports == sorted(reports)
    assert reports[-1] == (4000, 4000)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
async def test_thumbnails_show_the_frame_of_their_moment(
    studio: Studio, library: Library, codec: str
) -> None:
    first, second = await library.pair(replace(SMALL, video_codec=codec))
    for recording in (first, second):
        studio.add(recording.path)
    await studio.cut(*pieces((first, 6100, 7700), (second, 500, 2000)))
    before = studio.storage.bytes_read

    pictures = await studio.engine.thumbnails("clip.mp4", at_ms=1900, widths=(160, 64, 4000))

    assert [(picture.width, picture.height) for picture in pictures] == [(160, 90), (64, 36), (320, 180)]
    assert await frame_numbers_of(studio, pictures[2].jpeg) == [second.frames.start + 24]
    assert studio.storage.bytes_read - before < studio.path("clip.mp4").stat().st_size / 2


async def frame_numbers_of(studio: Studio, jpeg: bytes) -> list[int]:
    path = studio.directory / "thumbnail.jpg"
    path.write_bytes(jpeg)
    return await frame_numbers(path)


async def test_a_source_is_described_by_its_index(studio: Studio, library: Library) -> None:
    recording, _ = await library.pair()
    key = studio.add(recording.path)

    described = await studio.engine.describe(key)

    assert (described.duration_ms, described.container) == (WHOLE_MS, "mp4")
    assert (described.video_codec, described.audio_codec) == ("h264", "aac")
    assert described.size_bytes == recording.path.stat().st_size
