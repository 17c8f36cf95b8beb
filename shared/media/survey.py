"""Look at a source before anything is made of it: what it holds, when it starts, what a cut of it contains.

Everything is read from lists of packets, so it costs demuxing only, and what the source's header claims of
its length is not believed where it matters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from shared.kernel.errors import Corrupt
from shared.media import commands
from shared.media.commands import Input
from shared.media.decode import NO_FILE_BYTES
from shared.media.diagnosis import diagnose, quoted
from shared.media.ffmpeg import Ended, Ffmpeg, Limits, Sink
from shared.media.framecrc import Entry, FrameLog
from shared.media.loopback import Loopback
from shared.media.packets import Packets, Starts
from shared.media.port import Cut, MediaInfo, SourceBroken
from shared.media.sniff import MP4, SNIFF_BYTES, Container, sniff
from shared.storage.port import Storage, StoredObject

MIB = 1024 * 1024
SURVEY_MEMORY_BYTES = 1024 * MIB  # the index of a day-long recording has tens of MiB
SURVEY_LIMITS = Limits(cpu_s=300, memory_bytes=SURVEY_MEMORY_BYTES, file_bytes=NO_FILE_BYTES, wall_s=600)
STARTS_S = Fraction(1)  # of a source is read to see when its streams start: nearly always together
LATE_STARTS_S = Fraction(30)  # and this much when one of them has not
EMPTY_START_S = Fraction(1)  # later, and an MP4 is a fragment of something longer, with that one's clock
# How far before a cut reading starts, so that a key frame lies in between. An index finds one by itself;
# a transport stream has none, so if the first try meets no key frame, the next starts earlier.
_LEADS_S = {True: (2, 60), False: (10, 60)}
_INDEXED = frozenset({"mp4", "matroska", "avi", "flv"})
# A VP8 packet may hold a picture that is only referred to and never shown.
_HIDING_CODECS = frozenset({"vp8"})

# A transport stream says how long it is only in its last packets, which nobody needs twice.
_UNMEASURED = ("-skip_estimate_duration_from_pts", "1")

# Anchored to its indentation: what a file says of itself is indented further or comes after it.
_DURATION = re.compile(
    r"^  Duration: (?:(\d+):(\d\d):(\d\d)\.(\d\d)|N/A)(?:, start: (-?\d+\.\d+))?", re.MULTILINE
)
# What a demuxer complains of: a hole that it jumped over. That bytes are not there at the end is no damage to
# what comes before: whether it suffices is seen by its packets.
_COMPLAINT = re.compile(r"^\[in#0/[^\]]*\] (?!File ended prematurely)(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Source:
    """A source that was looked at. Times count from its first packet; `start_s` is where it is shown from."""

    stored: StoredObject
    url: str
    container: Container
    start_s: Fraction
    declared_ms: int  # what its header says; 0 when it says nothing
    video_codec: str | None
    audio_codec: str | None
    width: int  # as stored, before rotation
    height: int

    @property
    def key(self) -> str:
        return self.stored.key

    def input(self, from_s: Fraction | None, length_s: Fraction) -> Input:
        """Describe a part of it to ffmpeg."""
        options = commands.window(from_s, length_s)
        return commands.served(self.url, self.container.demuxer, *_UNMEASURED, *options)


@dataclass(frozen=True, slots=True)
class Content:
    """What a cut of a source holds, and from where it has to be read."""

    source: Source
    cut: Cut
    from_s: Fraction | None
    first_s: Fraction  # of the packets that come when reading from there: the key frame before it
    frames: int  # packets with a presentation time in the cut
    untimed: int  # packets of pictures, of which only the decoder knows whether they are in the cut
    exact: bool  # each of those packets is a frame that is shown
    pictures: bool  # there is something to decode
    sound: bool

    @property
    def start_s(self) -> Fraction:
        """When the cut starts, counted from the source's first packet."""
        return self.source.start_s + Fraction(self.cut.start_ms, 1000)

    @property
    def end_s(self) -> Fraction:
        """When the cut ends, counted from the source's first packet."""
        return self.source.start_s + Fraction(self.cut.end_ms, 1000)

    def input(self) -> Input:
        """Describe to ffmpeg what to read, up to a little after the end."""
        # ffmpeg ends the reading that long after `from_s`, and the pictures that long after their first one.
        # Frames are stored in another order than they are shown in; a second is more than any reordering.
        return self.source.input(self.from_s, self.end_s - self.first_s + 1)


async def describe(ffmpeg: Ffmpeg, storage: Storage, key: str) -> MediaInfo:
    """Say what a source holds, whatever its container.

    `duration_ms` is what its header says, or for containers that say nothing, where its packets end.
    Raises SourceBroken, NotFound, Unavailable, Transient.
    """
    async with Loopback(storage) as loopback:
        source = await examine(ffmpeg, storage, loopback, key)
        return MediaInfo(
            duration_ms=source.declared_ms or await _measure_ms(ffmpeg, loopback, source),
            container=source.container.name,
            video_codec=source.video_codec,
            audio_codec=source.audio_codec,
            width=source.width,
            height=source.height,
            size_bytes=source.stored.size_bytes,
        )


async def examine(ffmpeg: Ffmpeg, storage: Storage, loopback: Loopback, key: str) -> Source:
    """Recognise a source, share it on the loopback, and read what it starts with. Errors as `describe`."""
    stored = await storage.head(key)
    container = await _recognise(storage, stored)
    url = loopback.share(stored)
    starts, log, ended = await _read_starts(ffmpeg, loopback, key, url, container)
    streams = {stream.kind: stream for stream in log.streams.values()}
    video, audio = streams.get("video"), streams.get("audio")
    if not starts.kinds:
        raise SourceBroken(key, f"the source {key} has neither pictures nor sound")
    return Source(
        stored=stored,
        url=url,
        container=container,
        start_s=_presentation_start_s(container, ended.stderr, starts.presentation_s),
        declared_ms=_declared_ms(ended.stderr),
        video_codec=video.codec if video else None,
        audio_codec=audio.codec if audio else None,
        width=video.width if video else 0,
        height=video.height if video else 0,
    )


async def picture_size(ffmpeg: Ffmpeg, loopback: Loopback, content: Content) -> tuple[int, int]:
    """Return width and height of a source's picture as it is shown: rotated, with square pixels."""
    log = FrameLog(lambda _: None)
    arguments = commands.measure_picture(content.input())
    await _run(ffmpeg, loopback, content.source.key, arguments, log)
    stream = log.streams.get(0)
    if stream is None or not stream.width or not stream.height:
        key = content.source.key
        raise SourceBroken(key, f"the source {key} has a picture that cannot be decoded")
    return stream.width, stream.height


async def inspect(ffmpeg: Ffmpeg, loopback: Loopback, source: Source, cut: Cut) -> Content:
    """List what a cut holds. Raises SourceBroken when the source ends before the cut does."""
    start_s = source.start_s + Fraction(cut.start_ms, 1000)
    end_s = source.start_s + Fraction(cut.end_ms, 1000)
    from_s, packets = await _read_packets(ffmpeg, loopback, source, start_s, end_s)
    packets.check_end(source.key, cut, source.start_s)
    return Content(
        source=source,
        cut=cut,
        from_s=from_s,
        first_s=packets.first_s if packets.first_s is not None else source.start_s,
        frames=packets.frames,
        untimed=packets.untimed,
        exact=not packets.untimed and source.video_codec not in _HIDING_CODECS,
        pictures=packets.pictures,
        sound=packets.sound,
    )


async def _read_starts(
    ffmpeg: Ffmpeg, loopback: Loopback, key: str, url: str, container: Container
) -> tuple[Starts, FrameLog, Ended]:
    """Read a second of a source, or more if one of its streams starts later."""

    async def read(length_s: Fraction) -> tuple[Starts, FrameLog, Ended]:
        starts = Starts()
        log = FrameLog(starts.take)
        reading = commands.served(url, container.demuxer, *commands.window(None, length_s))
        arguments = commands.list_packets(reading, describe=True)
        return starts, log, await _run(ffmpeg, loopback, key, arguments, log)

    starts, log, ended = await read(STARTS_S)
    if len(starts.kinds) == len(log.streams):
        return starts, log, ended
    return await read(LATE_STARTS_S)


async def _read_packets(
    ffmpeg: Ffmpeg, loopback: Loopback, source: Source, start_s: Fraction, end_s: Fraction
) -> tuple[Fraction | None, Packets]:
    """List the packets of a cut from a moment on from which its first picture can be decoded."""
    for lead_s in _LEADS_S[source.container.name in _INDEXED]:
        from_s = start_s - lead_s
        if from_s <= source.start_s:
            break
        packets = Packets(start_s, end_s)
        await _list(ffmpeg, loopback, source, source.input(from_s, end_s - from_s), packets)
        if packets.decodable or source.video_codec is None:
            return from_s, packets
    packets = Packets(start_s, end_s)
    # From the first packet on, which may come before the presentation starts: the sound's run-up.
    length_s = end_s - min(source.start_s, Fraction(0))
    await _list(ffmpeg, loopback, source, source.input(None, length_s), packets)
    return None, packets


async def _list(ffmpeg: Ffmpeg, loopback: Loopback, source: Source, reading: Input, packets: Packets) -> None:
    key, log = source.key, FrameLog(packets.take)
    ended = await _run(ffmpeg, loopback, key, commands.list_packets(reading), log)
    if complaint := _COMPLAINT.search(ended.stderr):
        raise SourceBroken(key, f"the source {key} is damaged: {quoted(complaint[1])}")


async def _recognise(storage: Storage, stored: StoredObject) -> Container:
    key = stored.key
    if stored.size_bytes == 0:
        raise SourceBroken(key, f"the source {key} is empty")
    end = min(SNIFF_BYTES, stored.size_bytes)
    async with storage.read(key, end=end, if_match=stored.etag) as chunks:
        head = b"".join([chunk async for chunk in chunks])
    container = sniff(head)
    if container is None:
        raise SourceBroken(
            key,
            f"the source {key} is not a recording: its first bytes are of no container that Spool reads",
            hint="MP4, Matroska, WebM, MPEG-TS, MPEG-PS, AVI, FLV, Ogg, WAV, MP3, AAC and FLAC are read",
        )
    return container


async def _measure_ms(ffmpeg: Ffmpeg, loopback: Loopback, source: Source) -> int:
    """Read all packets of a source whose header does not say how long it is."""
    end_s = source.start_s

    def take(entry: Entry) -> None:
        nonlocal end_s
        end_s = max(end_s, entry.end_s)

    reading = commands.served(source.url, source.container.demuxer, "-copyts", "-start_at_zero")
    await _run(ffmpeg, loopback, source.key, commands.list_packets(reading), FrameLog(take))
    return round((end_s - source.start_s) * 1000)


def _declared_ms(stderr: str) -> int:
    match = _DURATION.search(stderr)
    if match is None or match[1] is None:
        return 0
    hours, minutes, seconds, hundredths = (int(number) for number in match.groups()[:4])
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + hundredths * 10


def _presentation_start_s(container: Container, stderr: str, first_s: Fraction) -> Fraction:
    """Return when the presentation starts, counted from the first packet.

    An MP4 has a clock of its own, on which the first packet may come later than zero.
    """
    match = _DURATION.search(stderr)
    if container != MP4 or match is None or match[5] is None:
        return first_s
    empty_s = Fraction(match[5])
    return -empty_s if 0 <= empty_s < EMPTY_START_S else first_s


async def _run(ffmpeg: Ffmpeg, loopback: Loopback, key: str, arguments: tuple[str, ...], sink: Sink) -> Ended:
    """Run a survey. The store's failure comes before ffmpeg's, which is only its consequence."""
    ended = await ffmpeg.run("survey", arguments, limits=SURVEY_LIMITS, sinks=(sink,))
    loopback.raise_failure()
    error = diagnose(ended, what=f"Reading the source {key}")
    if isinstance(error, Corrupt):
        raise SourceBroken(key, error.message, hint=error.hint) from error
    if error is not None:
        raise error
    return ended
