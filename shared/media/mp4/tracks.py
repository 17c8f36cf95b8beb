"""What the index of an MP4 file (`moov`) says: its tracks, how they are shown, where their samples lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from shared.media.mp4.boxes import FULL_BYTES, Box, Malformed, child, children, read_rows, take, unpack, walk
from shared.media.mp4.entries import SampleEntry, read_entries
from shared.media.mp4.fragments import Defaults, read_defaults
from shared.media.mp4.tables import MAX_TICKS, SampleTable, read_tables

MAX_TRACKS = 64  # cameras have two or three; each costs time to look at
MAX_EDITS = 4096  # a clip of ours has one for each source
MATRIX_BYTES = 36
_ONE = 1 << 16  # the playing rate of an ordinary edit, 16.16
_ENABLED = 1  # a flag of `tkhd`

Span: TypeAlias = tuple[int, int]  # [start, end) of a presentation, in milliseconds


@dataclass(frozen=True, slots=True)
class Edit:
    """For `duration_ticks` of the movie's time scale, show the media from `media_ticks` of the track's on.

    None shows nothing; a duration of 0 reaches to the end of the media.
    """

    duration_ticks: int
    media_ticks: int | None
    at_normal_rate: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One track of pictures or sound."""

    number: int  # in the file
    handler: bytes  # `vide` or `soun`
    timescale: int  # ticks per second of the media
    language: int
    size: tuple[int, int]  # as shown, 16.16 fixed point
    matrix: bytes  # how the picture is turned
    entries: tuple[SampleEntry, ...]
    edits: tuple[Edit, ...]
    samples: SampleTable
    media_ticks: int  # from the first decode time to the end of the last sample
    shown_ticks: int  # on the same line, when the picture that is shown last ends

    @property
    def entry(self) -> SampleEntry:
        return self.entries[0]


@dataclass(frozen=True, slots=True, eq=False)
class Movie:
    """The index of one file. Of pictures and sound the first enabled track counts."""

    timescale: int  # ticks per second of the edits
    declared_ms: int  # how long the file says it is, rounded to the nearest
    matrix: bytes
    defaults: Mapping[int, Defaults] | None  # of the tracks' fragments, by number; None: there are none
    video: Track | None
    audio: Track | None
    truncated: bool = False  # the last fragment is not there to its end

    @property
    def fragmented(self) -> bool:
        """Whether there are samples that the index does not list."""
        return self.defaults is not None

    @property
    def tracks(self) -> tuple[Track, ...]:
        return tuple(track for track in (self.video, self.audio) if track is not None)

    @property
    def memory_bytes(self) -> int:
        return sum(track.samples.memory_bytes for track in self.tracks)

    @property
    def duration_ms(self) -> int:
        """How long the longest track is shown, rounded up."""
        return max((shown_ms(track, self.timescale)[1] for track in self.tracks), default=0)


def shown_ms(track: Track, movie_timescale: int) -> tuple[int, int]:
    """Return the first and, rounded up, the last millisecond of the presentation that a track fills."""
    lead_ticks, shown_ticks = 0, 0
    for edit in track.edits:
        if edit.media_ticks is None and not shown_ticks:
            lead_ticks += edit.duration_ticks
            continue
        # An edit may promise more than the media holds; nothing is shown in what is left of it.
        to_end_ticks = max(0, track.shown_ticks - (edit.media_ticks or 0)) * movie_timescale
        to_end_ticks = -(-to_end_ticks // track.timescale)
        shown_ticks += min(edit.duration_ticks or to_end_ticks, to_end_ticks)
    if not track.edits:
        return 0, -(-track.shown_ticks * 1000 // track.timescale)
    end_ticks = lead_ticks + shown_ticks
    return lead_ticks * 1000 // movie_timescale, -(-end_ticks * 1000 // movie_timescale)


def read_movie(moov: memoryview, *, object_bytes: int) -> Movie:
    """Read the payload of a `moov` box. Raises Malformed."""
    inner = children(moov)
    mvhd = child(inner, b"mvhd")
    (version,) = unpack(">B", mvhd)
    timescale, duration = unpack(">IQ" if version else ">II", mvhd, 20 if version else 12)
    if timescale == 0:
        raise Malformed("the movie's time scale is zero")
    traks = [box for box in walk(moov) if box.kind == b"trak"]
    if len(traks) > MAX_TRACKS:
        raise Malformed(f"the file declares {len(traks)} tracks")
    return Movie(
        timescale=timescale,
        declared_ms=(duration * 1000 + timescale // 2) // timescale,
        matrix=take(mvhd, 48 if version else 36, MATRIX_BYTES),
        defaults=read_defaults(inner[b"mvex"]) if b"mvex" in inner else None,
        video=_first_track(traks, b"vide", object_bytes),
        audio=_first_track(traks, b"soun", object_bytes),
    )


def _first_track(traks: Sequence[Box], handler: bytes, object_bytes: int) -> Track | None:
    """Read the first enabled track of a kind, or the first if none is enabled."""
    fitting = [trak for trak in map(_open_trak, traks) if trak.handler == handler]
    chosen = next((trak for trak in fitting if trak.enabled), fitting[0] if fitting else None)
    return None if chosen is None else _read_track(chosen, object_bytes)


@dataclass(frozen=True, slots=True)
class _Trak:
    inner: dict[bytes, memoryview]
    mdia: dict[bytes, memoryview]
    handler: bytes
    enabled: bool


def _open_trak(trak: Box) -> _Trak:
    inner = children(trak.payload)
    mdia = children(child(inner, b"mdia"))
    (flags,) = unpack(">I", child(inner, b"tkhd"))
    return _Trak(inner, mdia, take(child(mdia, b"hdlr"), 8, 4), bool(flags & _ENABLED))


def _read_track(trak: _Trak, object_bytes: int) -> Track:
    tkhd, mdhd = child(trak.inner, b"tkhd"), child(trak.mdia, b"mdhd")
    (version,) = unpack(">B", mdhd)
    (timescale,) = unpack(">I", mdhd, 20 if version else 12)
    (language,) = unpack(">H", mdhd, 32 if version else 20)
    if timescale == 0:
        raise Malformed("a track's time scale is zero")
    minf = children(child(trak.mdia, b"minf"))
    _check_own_data(minf)
    stbl = children(child(minf, b"stbl"))
    samples = read_tables(stbl, object_bytes=object_bytes)
    wide = unpack(">B", tkhd)[0]
    matrix_at = 52 if wide else 40
    (number,) = unpack(">I", tkhd, 20 if wide else 12)
    width, height = unpack(">II", tkhd, matrix_at + MATRIX_BYTES)
    return Track(
        number=number,
        handler=trak.handler,
        timescale=timescale,
        language=language,
        size=(width, height),
        matrix=take(tkhd, matrix_at, MATRIX_BYTES),
        entries=read_entries(child(stbl, b"stsd"), trak.handler),
        edits=_read_edits(trak.inner.get(b"edts")),
        samples=samples,
        media_ticks=int(samples.decode_ticks[-1]) + samples.last_ticks if len(samples) else 0,
        shown_ticks=int(samples.shown_ticks.max(initial=0)) + samples.last_ticks,
    )


def _check_own_data(minf: dict[bytes, memoryview]) -> None:
    """Refuse a track whose samples lie in another file: an MP4 may name any path or URL there."""
    dref = children(child(minf, b"dinf")).get(b"dref") if b"dinf" in minf else None
    if dref is None:
        return
    for reference in walk(dref[FULL_BYTES + 4 :]):
        (flags,) = unpack(">I", reference.payload)
        if not flags & 1:
            raise Malformed("a track keeps its samples in another file")


def _read_edits(edts: memoryview | None) -> tuple[Edit, ...]:
    elst = children(edts).get(b"elst") if edts is not None else None
    if elst is None:
        return ()
    version, rows = unpack(">B3xI", elst)
    if rows > MAX_EDITS:
        raise Malformed(f"a track declares {rows} edits")
    durations, medias, rates = read_rows(elst, FULL_BYTES + 4, rows, "u8 i8 i4" if version else "u4 i4 i4")
    if (durations < 0).any() or (medias < -1).any() or (medias > MAX_TICKS).any():
        raise Malformed("an edit lies outside of the media")
    return tuple(
        Edit(duration, None if media == -1 else media, rate == _ONE)
        for duration, media, rate in zip(durations.tolist(), medias.tolist(), rates.tolist(), strict=True)
    )
