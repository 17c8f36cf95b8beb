"""Make a clip of whatever ffmpeg can read, by encoding it anew, honestly: every frame counted, or an error.

For sources whose samples cannot be copied into an MP4. Nothing is downloaded: one ffmpeg seeks in all
sources through a loopback server, and what it encodes goes into the store as it comes. What the header of a
source claims is not believed, and neither is ffmpeg's exit code: the packets of each cut are listed first,
and the result is decoded and compared (`recount.py`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from shared.kernel.errors import Conflict, Corrupt, NotFound, Refused, Transient
from shared.media import commands
from shared.media.commands import Frame, Piece
from shared.media.decode import NO_FILE_BYTES
from shared.media.diagnosis import diagnose
from shared.media.ffmpeg import Ended, Ffmpeg, Limits, Report
from shared.media.loopback import Loopback
from shared.media.mp4.progressive import Progressive
from shared.media.port import Cut, Progress, SourceBroken
from shared.media.survey import Content, Source, examine, inspect, picture_size
from shared.storage.port import Storage, Writer

MAX_CUTS = 64  # inputs of one ffmpeg: each is a connection and a decoder

MIB = 1024 * 1024
BASE_MEMORY_BYTES = 2048 * MIB  # an encoder and a decoder of 8192x4352
CUT_MEMORY_BYTES = 64 * MIB  # what each further input holds while it waits for its turn
BYTES_PER_S = 12 * MIB  # crf 20 of noise in 4K; a usual picture has a hundredth
BASE_BYTES = 64 * MIB
BASE_S = 120
CPU_S_PER_S = 60  # 4K takes about 10 s of CPU for a second, 720p half a second

_INPUT = re.compile(r"\[(?:in|vist|aist)#(\d+)")


@dataclass(frozen=True, slots=True)
class Transcoded:
    """What was encoded, as it has to come out of the decoders again."""

    contents: tuple[Content, ...]
    frame: Frame | None  # None: there is no picture

    @property
    def duration_ms(self) -> int:
        return sum(content.cut.duration_ms for content in self.contents)

    @property
    def sound(self) -> bool:
        return any(content.sound for content in self.contents)


async def transcode(
    ffmpeg: Ffmpeg,
    storage: Storage,
    cuts: Sequence[Cut],
    *,
    into: Writer,
    progress: Progress | None = None,
) -> Transcoded:
    """Join the cuts into a progressive MP4 (H.264, AAC 48 kHz stereo), its media first, its head at the end.

    A frame is in the clip when its presentation time is in its cut, counted from the source's presentation
    start, and it keeps its time: frame rates are not made equal. Pictures are fitted into the first
    source's size, rotation and pixel shape applied. Sound is silent where a source has none; without any
    picture the clip is sound only. What was written is proven by `recount`, before anybody hears of it.
    Raises SourceBroken naming the source (unknown, broken, ends early), Corrupt when the encoder's own is
    broken, Refused for too many cuts, Transient also where a source changed meanwhile, what `into` raises.
    """
    if not 0 < len(cuts) <= MAX_CUTS:
        raise Refused(f"a clip is encoded from 1 to {MAX_CUTS} cuts, not {len(cuts)}", field="cuts")
    async with Loopback(storage) as loopback:
        with _one_version():
            contents = await _look_at(ffmpeg, storage, loopback, cuts)
            frame = await _frame(ffmpeg, loopback, contents)
        transcoded = Transcoded(tuple(contents), frame)
        await _encode(ffmpeg, loopback, transcoded, into, progress)
    return transcoded


@contextmanager
def _one_version() -> Iterator[None]:
    """Tell a source that was replaced from the clip's own conflict, by which it would be there already."""
    try:
        yield
    except (Conflict, NotFound) as error:
        raise Transient("a source was replaced while it was read") from error


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


async def _encode(
    ffmpeg: Ffmpeg, loopback: Loopback, transcoded: Transcoded, into: Writer, progress: Progress | None
) -> None:
    contents, total_ms = transcoded.contents, transcoded.duration_ms
    frames = sum(content.frames for content in contents)

    def report(report: Report) -> None:
        # The time that ffmpeg reports lags behind by what the encoder looks ahead.
        done_ms = total_ms * report.frames // frames if frames else report.out_ms
        if progress is not None:
            progress(min(done_ms, total_ms), total_ms)

    pieces = [_piece(content) for content in contents]
    arguments = commands.encode(pieces, transcoded.frame, sound=transcoded.sound)
    limits, outlet = _limits(total_ms, len(contents)), _Outlet(into, _most_bytes(total_ms))
    ended = await ffmpeg.run("transcode", arguments, limits=limits, sinks=(outlet,), on_report=report)
    # A source that failed under ffmpeg looks to it like one that is short.
    with _one_version():
        loopback.raise_failure()
    _raise_for(ended, contents)
    await into.prepend(await asyncio.to_thread(outlet.progressive.head, total_ms))
    report(Report(frames, total_ms))


class _Outlet:
    """A sink that hands the media of what is encoded to the store, which may be slower."""

    def __init__(self, into: Writer, most_bytes: int) -> None:
        self.progressive = Progressive()
        self._into = into
        self._most_bytes = most_bytes

    async def feed(self, chunk: bytes) -> None:
        media = self.progressive.take(chunk)
        if self.progressive.media_bytes > self._most_bytes:
            raise Corrupt(f"the encoded clip has more than {self._most_bytes} bytes")
        if media:
            await self._into.write(media)


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
        file_bytes=NO_FILE_BYTES,
        wall_s=BASE_S + CPU_S_PER_S * total_s,
    )


def _most_bytes(total_ms: int) -> int:
    return BASE_BYTES + BYTES_PER_S * -(-total_ms // 1000)


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
