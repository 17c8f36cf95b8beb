"""Make recordings as a camera would, and read back which of its frames a file shows.

For `spool demo`, the tests and the benchmarks: whoever cuts a clip of such a recording can prove, number by
number, that exactly the right frames are in it. Encoding and decoding happen in a child ffmpeg.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from shared.kernel.errors import Permanent
from spool.picture import Scene, read_frame_number

__all__ = [
    "Camera",
    "FfmpegFailed",
    "Recording",
    "extend",
    "frame_hashes",
    "frame_numbers",
    "read_frame_number",
    "record",
]

SAMPLE_RATE_HZ = 48_000
MAX_SECONDS = 1800  # for one ffmpeg: far more than any test or benchmark takes, and still an end
_TAIL_BYTES = 4096  # of what ffmpeg complains about
_PIPE_BYTES = 1 << 20  # what asyncio buffers of ffmpeg's output
_READ_WIDTH, _READ_HEIGHT = (
    320,
    180,
)  # frames are scaled to this before their number is read, whatever they were
_AUDIO_CODECS = {".webm": "libopus"}  # every other container takes AAC


class FfmpegFailed(Permanent):
    """A child ffmpeg ended with an error."""


@dataclass(frozen=True, slots=True)
class Camera:
    """How a camera encodes. The defaults are a small but ordinary one: H.264 High, closed GOPs, B-frames."""

    width: int = 640
    height: int = 360
    frame_rate: Fraction = Fraction(30)
    gop_frames: int = 60
    b_frames: int = 3
    sound: bool = True  # a tone with a beep each second: AAC, 48 kHz, stereo (Opus in WebM)
    seed: int = 1  # equal seeds see equal scenes
    video_codec: str = "libx264"  # or libx265, libvpx, libvpx-vp9, mpeg4
    encoder_options: tuple[
        str, ...
    ] = ()  # more ffmpeg output options, such as ("-x264-params", "open-gop=1")


@dataclass(frozen=True, slots=True)
class Recording:
    """A file with the frames of [start_ms, end_ms), Unix milliseconds; `frames` are their numbers."""

    path: Path
    frames: range
    start_ms: int
    end_ms: int


async def record(
    path: Path,
    *,
    start_ms: int,
    duration_ms: int,
    first_frame: int = 0,
    camera: Camera = Camera(),
    faststart: bool = False,
) -> Recording:
    """Record `duration_ms` from `start_ms` on into `path`, replacing what was there.

    The suffix decides the container: .mp4 (`moov` at the end unless `faststart`), .mkv, .webm, .ts.
    Frame `first_frame + n` is shown at n / frame_rate seconds, for every such time before the end.
    For a recording that adjoins another, continue its numbers: `first_frame=other.frames.stop`.
    Raises Refused for a picture that cannot be drawn and FfmpegFailed.
    """
    scene = Scene(camera.width, camera.height, seed=camera.seed)
    count = -int(-duration_ms * camera.frame_rate // 1000)
    frames = range(first_frame, first_frame + count)
    argv = recording_argv(path, duration_ms=duration_ms, camera=camera, faststart=faststart)
    async with _ffmpeg(*argv, feed=True) as process:
        assert process.stdin is not None  # asked for by `feed`
        # When ffmpeg dies the pipe breaks; why it died is said by `_ffmpeg`.
        with suppress(BrokenPipeError, ConnectionResetError):
            for index, number in enumerate(frames):
                shown_ms = start_ms + int(index * 1000 / camera.frame_rate)
                process.stdin.write(scene.draw(number, shown_ms=shown_ms))
                await process.stdin.drain()
            process.stdin.close()
    return Recording(path, frames, start_ms, start_ms + duration_ms)


async def frame_numbers(path: Path, *, hidden: bool = False) -> list[int]:
    """Decode a whole file as a player shows it (edit lists honoured) and return its frames' numbers in order.

    With `hidden` the edit lists of an MP4 are ignored: what they hide comes as well.
    Raises ValueError when a frame carries no number and FfmpegFailed when the file does not decode.
    """
    # Passthrough: neither dropped nor repeated frames, whatever the timestamps say.
    argv = ["-ignore_editlist", "1"] if hidden else []
    argv += ["-i", f"file:{path}", "-map", "0:v:0", "-fps_mode", "passthrough"]
    argv += ["-vf", f"scale={_READ_WIDTH}:{_READ_HEIGHT}:flags=area,format=gray", "-f", "rawvideo", "pipe:1"]
    numbers = []
    async with _ffmpeg(*argv) as process:
        async for picture in _chunks(process, _READ_WIDTH * _READ_HEIGHT):
            luma = np.frombuffer(picture, np.uint8).reshape(_READ_HEIGHT, _READ_WIDTH)
            numbers.append(read_frame_number(luma))
    return numbers


async def frame_hashes(path: Path) -> list[str]:
    """Decode a whole file as a player shows it and return the MD5 of each frame's pixels in order.

    For recordings that carry no numbers. Raises FfmpegFailed when the file does not decode.
    """
    argv = ["-i", f"file:{path}", "-map", "0:v:0", "-fps_mode", "passthrough"]
    async with _ffmpeg(*argv, "-f", "framehash", "-hash", "md5", "pipe:1") as process:
        assert process.stdout is not None  # always a pipe
        lines = [line.decode("ascii") async for line in process.stdout]
    # stream, dts, pts, duration, size, hash
    return [line.rsplit(",", 1)[1].strip() for line in lines if not line.startswith("#")]


async def extend(recording: Recording, copies: int, out: Path) -> None:
    """Write `copies` of a recording one after another into `out` without encoding: long sources, cheaply.

    Copy n starts exactly n times the recording's duration after the first; frame numbers start again in each.
    """
    quoted = str(recording.path.resolve()).replace("'", r"'\''")
    # The stated duration, and not the longer of two tracks, is where the next copy starts.
    entry = f"file 'file:{quoted}'\nduration {(recording.end_ms - recording.start_ms) / 1000:.3f}\n"
    # -copyts: AAC starts with a frame of priming before zero; else the picture would start later by that.
    # -auto_convert 0: the samples stay as they are, with no parameter sets repeated among them.
    argv = ["-copyts", "-f", "concat", "-safe", "0", "-auto_convert", "0"]
    argv += ["-protocol_whitelist", "file,pipe", "-i", "pipe:0", "-c", "copy", f"file:{out}"]
    # ffmpeg mends the audio's overlap at each joint and would warn of every one.
    async with _ffmpeg("-v", "fatal", *argv, feed=True) as process:
        assert process.stdin is not None  # asked for by `feed`
        with suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(b"ffconcat version 1.0\n" + entry.encode() * copies)
            await process.stdin.drain()
            process.stdin.close()


def recording_argv(path: Path, *, duration_ms: int, camera: Camera, faststart: bool) -> list[str]:
    """Return ffmpeg's arguments that encode raw frames from its standard input, with sound, into `path`."""
    argv = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{camera.width}x{camera.height}"]
    argv += ["-r", str(camera.frame_rate), "-i", "pipe:0"]
    if camera.sound:
        sine = (
            f"sine=frequency=220:beep_factor=4:sample_rate={SAMPLE_RATE_HZ}:duration={duration_ms / 1000:.3f}"
        )
        argv += ["-f", "lavfi", "-i", sine, "-ac", "2", "-c:a", _AUDIO_CODECS.get(path.suffix, "aac")]
    argv += [*_video_options(camera), *camera.encoder_options]
    if faststart:
        argv += ["-movflags", "+faststart"]
    return [*argv, f"file:{path}"]


def _video_options(camera: Camera) -> Iterator[str]:
    yield from ("-c:v", camera.video_codec, "-g", str(camera.gop_frames))
    if camera.video_codec in ("libx264", "mpeg4"):
        yield from ("-bf", str(camera.b_frames))
    if camera.video_codec == "libx264":
        # superfast is the fastest preset whose stream is High; key frames only where the GOP says.
        yield from ("-preset", "superfast", "-profile:v", "high", "-sc_threshold", "0")
    if camera.video_codec == "libx265":
        parameters = f"bframes={camera.b_frames}:open-gop=0:scenecut=0:log-level=error"
        yield from ("-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params", parameters)
    if camera.video_codec.startswith("libvpx"):
        yield from ("-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M")


@asynccontextmanager
async def _ffmpeg(*argv: str, feed: bool = False) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an ffmpeg for the length of the block; leaving it waits for the end and raises FfmpegFailed."""
    process = await asyncio.create_subprocess_exec(
        imageio_ffmpeg.get_ffmpeg_exe(),
        *("-hide_banner", "-nostdin", "-y", "-v", "error", *argv),
        stdin=asyncio.subprocess.PIPE if feed else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_PIPE_BYTES,
    )
    assert process.stderr is not None  # always a pipe
    complaint = asyncio.create_task(_tail(process.stderr))
    try:
        async with asyncio.timeout(MAX_SECONDS):
            yield process
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        said = await complaint
    if process.returncode:
        raise FfmpegFailed(f"ffmpeg ended with {process.returncode}: {said or 'and said nothing'}")


async def _tail(stream: asyncio.StreamReader) -> str:
    """Read a stream to its end, so that its writer never waits, and return the last of it."""
    tail = b""
    while chunk := await stream.read(_TAIL_BYTES):
        tail = (tail + chunk)[-_TAIL_BYTES:]
    return tail.decode("utf-8", "replace").strip()


async def _chunks(process: asyncio.subprocess.Process, size_bytes: int) -> AsyncIterator[bytes]:
    assert process.stdout is not None  # always a pipe
    while True:
        try:
            yield await process.stdout.readexactly(size_bytes)
        except asyncio.IncompleteReadError as end:
            if end.partial:
                raise FfmpegFailed(f"the last frame is cut off after {len(end.partial)} bytes") from end
            return
