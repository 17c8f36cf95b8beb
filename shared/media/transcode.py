"""Make a clip of whatever ffmpeg can read, by encoding it anew, honestly: every frame counted, or an error.

For sources whose samples cannot be copied into an MP4. Nothing is downloaded: one ffmpeg seeks in all
sources through a loopback server. What the header of a source claims is not believed, and neither is
ffmpeg's exit code: the packets of each cut are listed first, and the result is decoded and compared.
"""

from __future__ import annotations

import os
import re
import tempfile
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

from shared.kernel.errors import Corrupt, Refused
from shared.media import commands
from shared.media.commands import Frame, Piece
from shared.media.decode import decode_each
from shared.media.diagnosis import diagnose
from shared.media.ffmpeg import Ended, Ffmpeg, Limits, Report
from shared.media.framecrc import Entry
from shared.media.loopback import Loopback
from shared.media.port import Cut, Progress, SourceBroken
from shared.media.survey import Content, Source, examine, inspect, picture_size
from shared.storage.port import Storage

MAX_CUTS = 64  # inputs of one ffmpeg: each is a connection and a decoder
TEMPORARY_PREFIX = "spool-transcode-"  # of the files in `directory`; one that is left was left by a kill -9

MIB = 1024 * 1024
BASE_MEMORY_BYTES = 2048 * MIB  # an encoder and a decoder of 8192x4352
CUT_MEMORY_BYTES = 64 * MIB  # what each further input holds while it waits for its turn
FILE_BYTES_PER_S = 12 * MIB  # crf 20 of noise in 4K; a usual picture has a hundredth
BASE_FILE_BYTES = 64 * MIB
BASE_S = 120
CPU_S_PER_S = 60  # 4K takes about 10 s of CPU for a second, 720p half a second

_AUDIO_TOLERANCE_SAMPLES = 1024  # one AAC frame
_INPUT = re.compile(r"\[(?:in|vist|aist)#(\d+)")


@dataclass(frozen=True, slots=True)
class Transcoded:
    """A finished clip in a local file, proven: it decodes without an error and has exactly these frames."""

    path: Path
    size_bytes: int
    duration_ms: int
    video_frames: int
    width: int  # 0 when there is no picture
    height: int
    sound: bool


@asynccontextmanager
async def transcode(
    ffmpeg: Ffmpeg,
    storage: Storage,
    cuts: Sequence[Cut],
    *,
    directory: Path,
    progress: Progress | None = None,
) -> AsyncIterator[Transcoded]:
    """Join the cuts into a progressive MP4 (H.264, AAC 48 kHz stereo) that exists while the context does.

    A frame is in the clip when its presentation time is in its cut, counted from the source's presentation
    start, and it keeps its time: frame rates are not made equal. Pictures are fitted into the first
    source's size, rotation and pixel shape applied. Sound is silent where a source has none; without any
    picture the clip is sound only. The file lies in `directory` and is removed at the end.
    Raises SourceBroken naming the source (unknown, broken, ends early), Corrupt when the result is not as
    planned, Refused for too many cuts, Conflict when a source changed meanwhile, NotFound, Transient.
    """
    if not 0 < len(cuts) <= MAX_CUTS:
        raise Refused(f"a clip is encoded from 1 to {MAX_CUTS} cuts, not {len(cuts)}", field="cuts")
    async with Loopback(storage) as loopback:
        contents = await _look_at(ffmpeg, storage, loopback, cuts)
        frame = await _frame(ffmpeg, loopback, contents)
        with _temporary(directory) as path:
            await _encode(ffmpeg, loopback, contents, _command(contents, frame, path), progress)
            yield await _prove(ffmpeg, contents, frame, path)


async def _look_at(
    ffmpeg: Ffmpeg, storage: Storage, loopback: Loopback, cuts: Sequence[Cut]
) -> list[Content]:
    sources: dict[str, Source] = {}
    contents = []
    for cut in cuts:
        if cut.source_key not in sources:
            sources[cut.source_key] = await examine(ffmpeg, storage, loopback, cut.source_key)
        contents.append(await inspect(ffmpeg, loopback, sources[cut.source_key], cut))
    return contents


async def _frame(ffmpeg: Ffmpeg, loopback: Loopback, contents: Sequence[Content]) -> Frame | None:
    """Return the picture size of the clip: the first picture's, made even by a black line."""
    for content in contents:
        if content.pictures:
            width, height = await picture_size(ffmpeg, loopback, content)
            return Frame(width + width % 2, height + height % 2)
    return None


@contextmanager
def _temporary(directory: Path) -> Iterator[Path]:
    descriptor, name = tempfile.mkstemp(dir=directory, prefix=TEMPORARY_PREFIX, suffix=".mp4")
    os.close(descriptor)
    path = Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


async def _encode(
    ffmpeg: Ffmpeg,
    loopback: Loopback,
    contents: Sequence[Content],
    arguments: Sequence[str],
    progress: Progress | None,
) -> None:
    total_ms = sum(content.cut.duration_ms for content in contents)
    frames = sum(content.frames for content in contents)

    def report(report: Report) -> None:
        # The time that ffmpeg reports lags behind by what the encoder looks ahead.
        done_ms = total_ms * report.frames // frames if frames else report.out_ms
        if progress is not None:
            progress(min(done_ms, total_ms), total_ms)

    limits = _limits(total_ms, len(contents))
    ended = await ffmpeg.run("transcode", arguments, limits=limits, on_report=report)
    # A source that failed under ffmpeg looks to it like one that is short.
    loopback.raise_failure()
    _raise_for(ended, contents)
    report(Report(frames, total_ms))


def _command(contents: Sequence[Content], frame: Frame | None, path: Path) -> tuple[str, ...]:
    pieces = [_piece(content) for content in contents]
    return commands.encode(
        pieces, frame, sound=any(content.sound for content in contents), path=str(path.resolve())
    )


def _piece(content: Content) -> Piece:
    return Piece(
        source=content.input(),
        start_s=content.start_s,
        duration_ms=content.cut.duration_ms,
        pictures=content.pictures,
        sound=content.sound,
    )


def _limits(total_ms: int, cuts: int) -> Limits:
    total_s = -(-total_ms // 1000)
    return Limits(
        cpu_s=BASE_S + CPU_S_PER_S * total_s,
        memory_bytes=BASE_MEMORY_BYTES + CUT_MEMORY_BYTES * cuts,
        file_bytes=BASE_FILE_BYTES + FILE_BYTES_PER_S * total_s,
        wall_s=BASE_S + CPU_S_PER_S * total_s,
    )


def _raise_for(ended: Ended, contents: Sequence[Content]) -> None:
    error = diagnose(ended, what="Encoding the clip")
    if error is None:
        return
    if not isinstance(error, Corrupt):
        raise error
    # ffmpeg names its inputs by number in what it complains of.
    named = _INPUT.search(ended.stderr)
    index = min(int(named[1]), len(contents) - 1) if named else 0
    raise SourceBroken(contents[index].source.key, error.message, hint=error.hint) from error


async def _prove(ffmpeg: Ffmpeg, contents: Sequence[Content], frame: Frame | None, path: Path) -> Transcoded:
    """Decode the clip and compare it with the packets of its sources, cut by cut."""
    sound = any(content.sound for content in contents)
    total_ms = sum(content.cut.duration_ms for content in contents)
    counted = _Counted(contents)
    await decode_each(ffmpeg, path, counted.take)
    if frame is not None:
        for content, frames in zip(contents, counted.frames, strict=True):
            _compare(content, frames)
    missing = abs(counted.samples - (total_ms * commands.SAMPLES_PER_MS if sound else 0))
    if missing > _AUDIO_TOLERANCE_SAMPLES:
        raise Corrupt(f"the encoded clip has {counted.samples} samples of sound for {total_ms} ms")
    return Transcoded(
        path=path,
        size_bytes=path.stat().st_size,
        duration_ms=total_ms,
        video_frames=sum(counted.frames),
        width=frame.width if frame else 0,
        height=frame.height if frame else 0,
        sound=sound,
    )


class _Counted:
    """What a clip shows, by the cut that it belongs to."""

    def __init__(self, contents: Sequence[Content]) -> None:
        durations_ms = [content.cut.duration_ms for content in contents]
        self._starts_ms = [0, *accumulate(durations_ms[:-1])]
        self.frames = [0] * len(contents)
        self.samples = 0

    def take(self, entry: Entry) -> None:
        if entry.stream.kind == "audio":
            self.samples += entry.duration
            return
        # A frame at the very start of a cut may be stored a tick before it.
        at_ms = entry.start_s * 1000 + Fraction(1, commands.TICKS_PER_MS)
        self.frames[max(0, bisect_right(self._starts_ms, at_ms) - 1)] += 1


def _compare(content: Content, frames: int) -> None:
    """Raise unless a cut shows each of its pictures. Frames that VP8 hides may make it fewer."""
    key, wanted = content.source.key, content.frames if content.pictures else 1
    if frames == wanted or (0 < frames < wanted and not content.exact):
        return
    if frames > wanted:
        raise Corrupt(f"the encoded clip shows {frames} frames of {key}, where {wanted} were asked for")
    raise SourceBroken(key, f"{wanted - frames} of {wanted} pictures of the source {key} cannot be decoded")
