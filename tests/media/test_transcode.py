"""Whatever container and codec a source has, exactly the frames of its cut are in the clip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import pytest

from shared.kernel.errors import Refused, Unavailable
from shared.media.port import Cut, SourceBroken
from shared.media.survey import describe
from shared.media.ticks import TICKS_PER_MS
from shared.media.transcode import MAX_CUTS
from shared.storage.local import FileStorage
from spool.camera import Camera, Recording, frame_hashes, frame_numbers, record
from tests.children import children_of
from tests.media.conftest import SMALL
from tests.media.decoded import DecodedCounts, decode_file, picture_times_ms
from tests.media.encoding import KEY, encode
from tests.media.studio import FixedClock, Studio, beep_onsets_ms, frames_between, sound

DURATION_MS = 8000
HEVC = replace(SMALL, video_codec="libx265")
VP8 = replace(SMALL, video_codec="libvpx", b_frames=0)
VP9 = replace(SMALL, video_codec="libvpx-vp9", b_frames=0)
OPEN_GOP = replace(SMALL, gop_frames=90, encoder_options=("-x264-params", "open-gop=1"))
NTSC = replace(SMALL, frame_rate=Fraction(30000, 1001))
LARGE = replace(SMALL, width=480, height=270, seed=2)
SILENT = replace(SMALL, sound=False, seed=3)
NO_B_FRAMES = replace(SMALL, b_frames=0, seed=4)
TINY = replace(SMALL, width=128, height=72, gop_frames=10)
MPEG4 = replace(SMALL, video_codec="mpeg4", b_frames=0)


@dataclass(slots=True)
class Foreign:
    """Recordings in other containers and codecs, each made when it is first asked for."""

    directory: Path
    _made: dict[tuple[Camera, str], Recording] = field(default_factory=dict)

    async def get(self, camera: Camera, suffix: str) -> Recording:
        if (camera, suffix) not in self._made:
            path = self.directory / f"{len(self._made)}{suffix}"
            self._made[camera, suffix] = await record(
                path, start_ms=0, duration_ms=DURATION_MS, camera=camera
            )
        return self._made[camera, suffix]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Foreign:
    return Foreign(tmp_path_factory.mktemp("foreign"))


async def run_ffmpeg(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        imageio_ffmpeg.get_ffmpeg_exe(), *("-nostdin", "-v", "error", "-y", *arguments)
    )
    assert await process.wait() == 0


@pytest.mark.parametrize(
    ("camera", "suffix"),
    [
        pytest.param(SMALL, ".mkv", id="H.264 in Matroska"),
        pytest.param(SMALL, ".ts", id="H.264 in a transport stream"),
        pytest.param(OPEN_GOP, ".ts", id="open GOPs in a transport stream"),
        pytest.param(HEVC, ".mp4", id="HEVC in MP4"),
        pytest.param(VP8, ".webm", id="VP8 in WebM"),
        pytest.param(VP9, ".webm", id="VP9 in WebM"),
        pytest.param(NTSC, ".mkv", id="29.97 frames a second"),
        pytest.param(MPEG4, ".mkv", id="MPEG-4 in Matroska"),
    ],
)
@pytest.mark.parametrize(
    ("start_ms", "end_ms"),
    [
        pytest.param(0, 1000, id="the beginning"),
        pytest.param(4210, 5455, id="the middle"),
        pytest.param(7500, 8000, id="the end"),
    ],
)
async def test_the_frames_of_the_cut_are_exact(
    studio: Studio,
    foreign: Foreign,
    tmp_path: Path,
    *,
    camera: Camera,
    suffix: str,
    start_ms: int,
    end_ms: int,
) -> None:
    source = studio.add((await foreign.get(camera, suffix)).path)
    clip = await encode(studio, [Cut(source, start_ms, end_ms)])
    shown = await frame_numbers(clip.path)

    expected = [n for n in frames_between(start_ms, end_ms, camera.frame_rate) if n < DURATION_MS * 30 / 1000]
    assert shown == expected
    assert clip.video_frames == len(expected)
    assert clip.duration_ms == end_ms - start_ms


@pytest.mark.parametrize("suffix", [".ts", ".flv"])
@pytest.mark.parametrize("end_ms", [1836, 1843, 1850, 1858])
async def test_the_run_up_of_the_sound_hides_no_picture_at_the_end_of_a_cut(
    studio: Studio, foreign: Foreign, *, suffix: str, end_ms: int
) -> None:
    recording = (await foreign.get(NO_B_FRAMES, ".mp4")).path
    await run_ffmpeg("-i", str(recording), "-c", "copy", str(studio.path(f"late{suffix}")))
    clip = await encode(studio, [Cut(f"late{suffix}", 150, end_ms)])

    assert await frame_numbers(clip.path) == frames_between(150, end_ms, SMALL.frame_rate)


async def test_pictures_without_a_time_of_their_own_are_shown_when_the_decoder_says(
    studio: Studio, foreign: Foreign
) -> None:
    recording = (await foreign.get(TINY, ".mp4")).path
    codecs = ("-c:v", "mpeg2video", "-c:a", "mp2", "-f", "vob")
    await run_ffmpeg("-i", str(recording), *codecs, str(studio.path("recorder.mpg")))
    clip = await encode(studio, [Cut("recorder.mpg", 150, 1850)])

    assert await frame_numbers(clip.path) == frames_between(150, 1850, SMALL.frame_rate)


# Matroska's times are whole milliseconds; MP4's are as exact as the clip's.
@pytest.mark.parametrize(("suffix", "off_ms"), [(".mkv", 0.55), (".mp4", 1 / TICKS_PER_MS)])
@pytest.mark.parametrize("start_ms", [1001, 1010, 1020, 1033])
async def test_pictures_behind_a_start_between_two_of_them_stay_at_their_moment(
    studio: Studio, foreign: Foreign, suffix: str, off_ms: float, start_ms: int
) -> None:
    """An edit shows nothing up to the first picture; the first one of the next piece is not in this one."""
    source = studio.add((await foreign.get(MPEG4, suffix)).path)
    clip = await encode(studio, [Cut(source, start_ms, 3000), Cut(source, 3000, 4990)])

    numbers = frames_between(start_ms, 4990, SMALL.frame_rate)
    assert await picture_times_ms(studio.ffmpeg, clip.path) == pytest.approx(
        [number * 1000 / 30 - start_ms for number in numbers], abs=off_ms
    )
    assert await frame_numbers(clip.path) == numbers


async def changing(studio: Studio, recording: Path, change: str) -> str:
    """Make a transport stream whose picture is another one from the third second on."""
    stream = ("-muxdelay", "0", "-muxpreload", "0", "-f", "mpegts")
    encoded = ("-c:v", "libx264", "-bf", "0", "-g", "30", "-c:a", "aac", *stream)
    whole, changed = str(studio.path("before.ts")), str(studio.path("after.ts"))
    await run_ffmpeg("-i", str(recording), *encoded, whole)
    await run_ffmpeg("-i", str(recording), "-vf", change, *encoded, changed)
    halves = studio.path("1.ts"), studio.path("2.ts")
    await run_ffmpeg("-copyts", "-i", whole, "-t", "3", "-c", "copy", *stream, str(halves[0]))
    await run_ffmpeg("-copyts", "-ss", "3", "-i", changed, "-c", "copy", *stream, str(halves[1]))
    studio.path("changing.ts").write_bytes(halves[0].read_bytes() + halves[1].read_bytes())
    return "changing.ts"


async def test_a_picture_that_changes_its_size_stays_exact_and_in_step_with_its_sound(
    studio: Studio, foreign: Foreign
) -> None:
    recording = (await foreign.get(NO_B_FRAMES, ".mp4")).path
    clip = await encode(studio, [Cut(await changing(studio, recording, "scale=640:360"), 1500, 4500)])

    assert await frame_numbers(clip.path) == frames_between(1500, 4500, SMALL.frame_rate)
    assert beep_onsets_ms(await sound(clip.path)) == pytest.approx([498, 1498, 2498], abs=4)
    assert (clip.width, clip.height) == (SMALL.width, SMALL.height)


async def test_a_phone_that_is_turned_gets_bars_and_keeps_its_pictures(
    studio: Studio, foreign: Foreign
) -> None:
    recording = (await foreign.get(NO_B_FRAMES, ".mp4")).path
    clip = await encode(studio, [Cut(await changing(studio, recording, "transpose=1"), 1500, 4500)])

    assert clip.video_frames == 90
    assert (clip.width, clip.height) == (SMALL.width, SMALL.height)
    assert beep_onsets_ms(await sound(clip.path)) == pytest.approx([498, 1498, 2498], abs=4)


async def test_packets_of_sound_that_are_lost_do_not_move_the_others(
    studio: Studio, foreign: Foreign
) -> None:
    recording = (await foreign.get(SMALL, ".mp4")).path
    lost = ("-c", "copy", "-bsf:a", "noise=drop=not(mod(n\\,31))")
    await run_ffmpeg("-i", str(recording), *lost, str(studio.path("lost.mkv")))
    clip = await encode(studio, [Cut("lost.mkv", 500, 7500)])

    wanted = [500 + 1000 * second for second in range(7)]
    assert beep_onsets_ms(await sound(clip.path)) == pytest.approx(wanted, abs=8)


async def test_sources_of_different_kinds_are_joined(
    studio: Studio, foreign: Foreign, tmp_path: Path
) -> None:
    matroska, stream = await foreign.get(SMALL, ".mkv"), await foreign.get(SMALL, ".ts")
    large = await foreign.get(LARGE, ".mp4")
    cuts = [Cut(studio.add(source.path), 2215, 3687) for source in (matroska, stream, large)]
    clip = await encode(studio, cuts)
    shown = await frame_numbers(clip.path)
    onsets_ms = beep_onsets_ms(await sound(clip.path))

    assert shown == frames_between(2215, 3687, SMALL.frame_rate) * 3
    assert (clip.width, clip.height) == (SMALL.width, SMALL.height)
    assert clip.duration_ms == 3 * 1472
    # The beep of second 3 is 785 ms into each piece, wherever that piece starts.
    assert onsets_ms == pytest.approx([785, 785 + 1472, 785 + 2 * 1472], abs=8)


async def test_a_picture_of_another_shape_gets_bars(studio: Studio, foreign: Foreign, tmp_path: Path) -> None:
    tall = await foreign.get(replace(SMALL, width=180, height=320), ".mkv")
    wide = await foreign.get(SMALL, ".mkv")
    cuts = (Cut(studio.add(tall.path), 0, 500), Cut(studio.add(wide.path), 0, 500))
    clip = await encode(studio, cuts)

    assert (clip.width, clip.height, clip.video_frames) == (180, 320, 30)


async def test_a_source_without_sound_is_silent_between_others(
    studio: Studio, foreign: Foreign, tmp_path: Path
) -> None:
    heard, silent = await foreign.get(SMALL, ".mkv"), await foreign.get(SILENT, ".mkv")
    first, second = studio.add(heard.path), studio.add(silent.path, "silent.mkv")
    clip = await encode(studio, [Cut(second, 0, 1000), Cut(first, 500, 1500)])
    samples = await sound(clip.path)

    assert clip.sound
    assert abs(samples[: 48 * 980]).max() < 10
    assert beep_onsets_ms(samples) == pytest.approx([1500], abs=8)


async def test_without_any_sound_there_is_no_track(studio: Studio, foreign: Foreign, tmp_path: Path) -> None:
    source = studio.add((await foreign.get(SILENT, ".mkv")).path)
    clip = await encode(studio, [Cut(source, 0, 1000)])
    decoded = await decode_file(studio.ffmpeg, clip.path)

    assert not clip.sound
    assert decoded == DecodedCounts(video_frames=30, audio_samples=0)


@pytest.mark.parametrize(
    ("name", "coding"),
    [
        pytest.param("call.wav", ("-ac", "1", "-ar", "8000", "-c:a", "pcm_mulaw"), id="telephone"),
        pytest.param("call.wav", ("-ar", "44100"), id="WAV"),
        pytest.param("call.mp3", (), id="MP3"),
        pytest.param("call.ogg", ("-c:a", "libopus"), id="Opus in Ogg"),
        pytest.param("call.ogg", ("-c:a", "libvorbis"), id="Vorbis in Ogg"),
        pytest.param("call.flac", (), id="FLAC"),
    ],
)
async def test_sound_alone_becomes_sound_alone_at_its_moment(
    studio: Studio, foreign: Foreign, tmp_path: Path, name: str, coding: tuple[str, ...]
) -> None:
    recording = (await foreign.get(SMALL, ".mp4")).path
    await run_ffmpeg("-i", str(recording), "-vn", *coding, str(studio.path(name)))
    clip = await encode(studio, [Cut(name, 500, 2750)])
    samples = await sound(clip.path)

    assert (clip.width, clip.height, clip.video_frames) == (0, 0, 0)
    assert len(samples) == 48 * 2250
    assert beep_onsets_ms(samples) == pytest.approx([498, 1498], abs=2)  # as they are found in the source


async def test_a_cut_without_pictures_is_black_between_others(
    studio: Studio, foreign: Foreign, tmp_path: Path
) -> None:
    recording = (await foreign.get(SMALL, ".mkv")).path
    await run_ffmpeg("-i", str(recording), "-vn", str(studio.path("call.wav")))
    source = studio.add(recording)
    clip = await encode(studio, [Cut(source, 0, 500), Cut("call.wav", 0, 1000), Cut(source, 500, 1000)])
    hashes = await frame_hashes(clip.path)

    assert clip.video_frames == len(hashes) == 15 + 1 + 15
    assert clip.duration_ms == 2000


async def test_a_rotated_picture_stands_upright(studio: Studio, foreign: Foreign, tmp_path: Path) -> None:
    recording = (await foreign.get(HEVC, ".mp4")).path
    rotated = studio.path("phone.mp4")
    await run_ffmpeg("-display_rotation", "90", "-i", str(recording), "-c", "copy", str(rotated))
    clip = await encode(studio, [Cut("phone.mp4", 0, 500)])

    assert (clip.width, clip.height) == (SMALL.height, SMALL.width)


@pytest.mark.parametrize(
    ("end_ms", "broken"), [pytest.param(8100, False, id="a tolerance"), pytest.param(8500, True, id="early")]
)
@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
async def test_a_source_that_ends_early_is_broken(
    studio: Studio, foreign: Foreign, tmp_path: Path, *, suffix: str, end_ms: int, broken: bool
) -> None:
    source = studio.add((await foreign.get(SMALL, suffix)).path)
    said = None
    try:
        await encode(studio, [Cut(source, 7000, end_ms)])
    except SourceBroken as error:
        said = str(error)

    assert (said is not None) == broken
    assert said is None or (source in said and "ends early: at 8000 ms" in said)


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".webm"])
async def test_a_source_that_was_cut_off_is_broken(
    studio: Studio, foreign: Foreign, tmp_path: Path, suffix: str
) -> None:
    recording = await foreign.get(VP8 if suffix == ".webm" else SMALL, suffix)
    whole = recording.path.read_bytes()
    studio.path(f"cut{suffix}").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(SourceBroken, match=f"cut{suffix}") as caught:
        await encode(studio, [Cut(f"cut{suffix}", 1000, 7500)])
    assert caught.value.source_key == f"cut{suffix}"


async def test_a_hole_in_a_source_is_not_passed_over(
    studio: Studio, foreign: Foreign, tmp_path: Path
) -> None:
    holed = bytearray((await foreign.get(SMALL, ".mkv")).path.read_bytes())
    middle = len(holed) // 2
    holed[middle : middle + 60_000] = bytes(60_000)
    studio.path("holed.mkv").write_bytes(holed)

    with pytest.raises(SourceBroken, match=r"holed\.mkv"):
        await encode(studio, [Cut("holed.mkv", 1000, 7500)])


@pytest.mark.parametrize("fails_at_share", [0.3, 0.9])
async def test_a_store_that_fails_is_not_the_sources_fault(
    studio: Studio, foreign: Foreign, tmp_path: Path, fails_at_share: float
) -> None:
    source = studio.add((await foreign.get(LARGE, ".mkv")).path)
    storage = LimitedStorage(
        studio.directory, public_url="http://x", signing_key=b"k" * 32, clock=FixedClock()
    )
    storage.ends_at = int(studio.path(source).stat().st_size * fails_at_share)
    with pytest.raises(Unavailable, match="the store is away"):
        await encode(studio, [Cut(source, 0, 8000)], storage=storage)
    await storage.close()


class LimitedStorage(FileStorage):
    """A store that fails beyond a byte of every object."""

    ends_at = 0

    @asynccontextmanager
    async def read(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        if end is None or end > self.ends_at:
            raise Unavailable("the store is away")
        async with super().read(key, start=start, end=end, if_match=if_match) as chunks:
            yield chunks


async def test_progress_reaches_the_end(studio: Studio, foreign: Foreign, tmp_path: Path) -> None:
    source = studio.add((await foreign.get(SMALL, ".mkv")).path)
    reports: list[tuple[int, int]] = []

    def progress(done_ms: int, of_ms: int) -> None:
        reports.append((done_ms, of_ms))

    await encode(studio, [Cut(source, 0, 4000)], progress=progress)

    assert reports == sorted(reports)
    assert reports[-1] == (4000, 4000)


async def test_what_is_encoded_goes_into_the_store_as_it_comes(studio: Studio, foreign: Foreign) -> None:
    source = studio.add((await foreign.get(LARGE, ".mkv")).path)
    uploaded: list[tuple[int, int]] = []  # how far the encoder was, and how much was in the store

    def progress(done_ms: int, of_ms: int) -> None:
        sizes = [path.stat().st_size for path in studio.path(".spool-uploads").glob("*.data")]
        uploaded.append((done_ms, sum(sizes)))

    clip = await encode(studio, [Cut(source, 0, 8000)] * 4, progress=progress)

    assert any(done_ms < 32_000 and size_bytes > 100_000 for done_ms, size_bytes in uploaded)
    assert clip.video_frames == 4 * 240


async def test_nothing_is_left_of_a_clip_that_cannot_be_encoded(studio: Studio, foreign: Foreign) -> None:
    source = studio.add((await foreign.get(SMALL, ".mkv")).path)
    with pytest.raises(SourceBroken):
        await encode(studio, [Cut(source, 0, 99_000)])

    assert await studio.storage.unfinished() == []
    assert not studio.path(KEY).exists()


async def test_cancelling_leaves_neither_upload_nor_process(studio: Studio, foreign: Foreign) -> None:
    source = studio.add((await foreign.get(LARGE, ".mkv")).path)
    before = children_of()
    started = asyncio.Event()

    async def make() -> None:
        await encode(studio, [Cut(source, 0, 8000)] * 8, progress=lambda *_: started.set())

    task = asyncio.create_task(make())
    await started.wait()
    during = await studio.storage.unfinished()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert len(during) == 1
    assert await studio.storage.unfinished() == []
    assert not studio.path(KEY).exists()
    assert children_of() <= before


async def test_cuts_are_bounded(studio: Studio, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        await encode(studio, [*[Cut("a.mp4", 0, 1000)] * (MAX_CUTS + 1)])


@pytest.mark.parametrize(
    ("camera", "suffix", "codecs"),
    [
        pytest.param(SMALL, ".mkv", ("matroska", "h264", "aac"), id="matroska"),
        pytest.param(VP8, ".webm", ("matroska", "vp8", "opus"), id="webm"),
        pytest.param(SMALL, ".ts", ("mpegts", "h264", "aac"), id="transport stream"),
        pytest.param(HEVC, ".mp4", ("mp4", "hevc", "aac"), id="hevc"),
        pytest.param(SILENT, ".mkv", ("matroska", "h264", None), id="no sound"),
    ],
)
async def test_a_source_is_described(
    studio: Studio, foreign: Foreign, camera: Camera, suffix: str, codecs: tuple[str, str, str | None]
) -> None:
    source = studio.add((await foreign.get(camera, suffix)).path)
    info = await describe(studio.ffmpeg, studio.storage, source)

    assert (info.container, info.video_codec, info.audio_codec) == codecs
    assert (info.width, info.height) == (camera.width, camera.height)
    assert info.duration_ms == pytest.approx(DURATION_MS, abs=50)
    assert info.size_bytes == studio.path(source).stat().st_size


async def test_a_source_that_does_not_say_how_long_it_is_is_measured(
    studio: Studio, foreign: Foreign
) -> None:
    recording = (await foreign.get(SMALL, ".mkv")).path
    # Written like a live stream, without going back to the header.
    await run_ffmpeg("-i", str(recording), "-c", "copy", "-live", "1", str(studio.path("live.mkv")))
    info = await describe(studio.ffmpeg, studio.storage, "live.mkv")

    assert info.duration_ms == pytest.approx(DURATION_MS, abs=50)
