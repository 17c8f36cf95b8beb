"""Read ffmpeg's `framecrc` output: one line per packet or frame, as numbers, with no word of the file's own.

What a source says of itself (titles, languages, handler names) never appears in this format, so nothing
in a hostile file can pretend to be a line of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from shared.kernel.errors import Bug

MAX_LINE_BYTES = 64 * 1024  # side data adds some words to a line, never this many


@dataclass(slots=True)
class Stream:
    """The header of one stream, filled as its lines arrive."""

    time_base: Fraction = Fraction(1, 1000)
    kind: str = ""  # "video" or "audio"
    codec: str = ""
    width: int = 0
    height: int = 0
    sample_rate_hz: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One packet or frame. Times are in the stream's time base; None where the source has none."""

    stream: Stream
    index: int  # of the stream
    dts: int | None
    pts: int | None
    duration: int
    size_bytes: int
    key: bool
    discarded: bool  # read, but never shown: before an edit list's start

    @property
    def start_s(self) -> Fraction:
        """The presentation time; zero where there is none."""
        return (self.pts or 0) * self.stream.time_base

    @property
    def decoded_s(self) -> Fraction:
        """When it is decoded; when it is shown, where the source does not say."""
        return self.start_s if self.dts is None else self.dts * self.stream.time_base

    @property
    def end_s(self) -> Fraction:
        """The presentation time of what comes next."""
        return self.start_s + self.duration * self.stream.time_base


_NO_TIME = ("NOPTS", str(-(1 << 63)))  # AV_NOPTS_VALUE, in words or as the number that it is
_KEY, _DISCARD = 1, 4  # AV_PKT_FLAG_KEY, AV_PKT_FLAG_DISCARD


class FrameLog:
    """A sink that takes the format apart and hands each entry to `on_entry`."""

    def __init__(self, on_entry: Callable[[Entry], None]) -> None:
        self.streams: dict[int, Stream] = {}
        self._on_entry = on_entry
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes. Raises Bug when they are not of this format."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise Bug("a line of ffmpeg's frame log has no end")
        for line in lines:
            self._take(line.decode("ascii", "replace"))

    def _take(self, line: str) -> None:
        try:
            if line.startswith("#"):
                self._take_header(line[1:])
            elif line:
                self._on_entry(self._entry(line))
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise Bug(f"ffmpeg's frame log has a line of another form: {line[:200]}") from error

    def _take_header(self, line: str) -> None:
        name, _, value = line.partition(": ")
        key, _, index = name.partition(" ")
        if not index:  # "#software"
            return
        stream = self.streams.setdefault(int(index), Stream())
        if key == "tb":
            stream.time_base = Fraction(value)
        elif key == "media_type":
            stream.kind = value
        elif key == "codec_id":
            stream.codec = value
        elif key == "dimensions":
            stream.width, stream.height = (int(side) for side in value.split("x"))
        elif key == "sample_rate":
            stream.sample_rate_hz = int(value)

    def _entry(self, line: str) -> Entry:
        fields = [field.strip() for field in line.split(",")]
        index, dts, pts, duration, size = fields[:5]
        flags = next(
            (int(field.removeprefix("F="), 0) for field in fields[6:] if field.startswith("F=")), _KEY
        )
        return Entry(
            self.streams.setdefault(int(index), Stream()),
            int(index),
            None if dts in _NO_TIME else int(dts),
            None if pts in _NO_TIME else int(pts),
            int(duration),
            int(size),
            key=bool(flags & _KEY),
            discarded=bool(flags & _DISCARD),
        )
