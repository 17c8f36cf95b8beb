"""Plan a clip as an MP4 file, and write everything of it that comes before the media. Pure.

All sizes are known from the tables of the sources, so the index goes first and the media streams behind it:
the result plays while it is still being downloaded, and is written without a temporary file.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from shared.media.mp4.boxes import HEADER_BYTES, LARGE_HEADER_BYTES, Ints, box, full_box, rows
from shared.media.mp4.layout import Layout, chunks, lay_out
from shared.media.mp4.selection import BEFORE, CannotCopy, Run, common_timescale, select_audio, select_video
from shared.media.mp4.timeline import TrackPlan, place_audio, place_video
from shared.media.mp4.tracks import Movie, Track
from shared.media.port import Cut
from shared.media.ticks import TICKS_PER_MS, TICKS_PER_S

_U32 = 1 << 32
_HEADER_ROOM_BYTES = 1 << 28  # far more than any header of ours: then offsets may pass 32 bits
_ONE = 1 << 16
_UNITY = struct.pack(">9I", _ONE, 0, 0, 0, _ONE, 0, 0, 0, 1 << 30)
_ENABLED_IN_MOVIE = 7  # enabled, in the movie, in its preview
_SELF_CONTAINED = 1


@dataclass(frozen=True, slots=True, eq=False)
class MoviePlan:
    """A clip that is planned to the byte."""

    tracks: tuple[TrackPlan, ...]
    layout: Layout
    header: bytes  # ftyp, moov, and the header of mdat: what is written before the media
    durations_ms: tuple[int, ...]  # of the pieces

    @property
    def duration_ms(self) -> int:
        return sum(self.durations_ms)

    @property
    def reencoded_ms(self) -> tuple[tuple[int, int], ...]:
        """Which parts of the clip, [start, end), have pictures that were encoded anew."""
        if self.video is None:
            return ()
        starts_ms, parts = [0, *accumulate(self.durations_ms)], []
        for run in self.video.runs:
            if run.held is not None:
                from_tick = run.start if run.part == BEFORE else int(run.shown[0])
                ticks = (from_tick, int(run.shown[-1]) + run.ticks_after_last)
                first_ms, last_ms = ((tick - run.start) * 1000 // self.video.timescale for tick in ticks)
                parts.append((starts_ms[run.piece] + first_ms, starts_ms[run.piece] + last_ms))
        return tuple(parts)

    @property
    def size_bytes(self) -> int:
        return len(self.header) + self.layout.media_bytes

    @property
    def video(self) -> TrackPlan | None:
        return next((track for track in self.tracks if track.track.handler == b"vide"), None)

    @property
    def audio(self) -> TrackPlan | None:
        return next((track for track in self.tracks if track.track.handler == b"soun"), None)


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """The pictures that the cuts need: for each cut the runs that follow one another, none where none is."""

    track: Track  # whose settings they have
    timescale: int
    pieces: tuple[tuple[Run, ...], ...]


def select_pictures(movies: Sequence[Movie], cuts: Sequence[Cut]) -> Pictures | None:
    """Choose the pictures of sources that have no obstacle; None where the sources have none.

    `movies` has the index of each cut's source. Raises CannotCopy when the samples do not allow a cut.
    """
    tracks = [movie.video for movie in movies if movie.video is not None]
    if not tracks:
        return None
    timescale = common_timescale(tracks)
    runs = [
        select_video(movie, track, cut, piece, timescale)
        for piece, (movie, track, cut) in enumerate(zip(movies, tracks, cuts, strict=True))
    ]
    return Pictures(tracks[0], timescale, tuple(() if run is None else (run,) for run in runs))


def plan_movie(movies: Sequence[Movie], cuts: Sequence[Cut], pictures: Pictures | None) -> MoviePlan:
    """Join cuts of sources that have no obstacle. `movies` has the index of each cut's source.

    Raises CannotCopy when the samples at a cut do not allow it.
    """
    durations_ms = tuple(cut.duration_ms for cut in cuts)
    video = None
    if pictures is not None:
        video = place_video(pictures.track, pictures.timescale, pictures.pieces, durations_ms)
    audio = _plan_audio(movies, cuts, durations_ms)
    tracks = tuple(track for track in (video, audio) if track is not None)
    if not tracks:
        raise CannotCopy("nothing is shown or heard in the cuts")
    layout = lay_out(tracks, len(cuts))
    header = write_header(tracks, layout, movies[0].matrix, sum(durations_ms))
    return MoviePlan(tracks, layout, header, durations_ms)


def _plan_audio(
    movies: Sequence[Movie], cuts: Sequence[Cut], durations_ms: Sequence[int]
) -> TrackPlan | None:
    track = next((movie.audio for movie in movies if movie.audio is not None), None)
    if track is None:
        return None
    runs = [
        None if movie.audio is None else select_audio(movie, movie.audio, cut, piece)
        for piece, (movie, cut) in enumerate(zip(movies, cuts, strict=True))
    ]
    return place_audio(track, runs, durations_ms)


def write_header(tracks: Sequence[TrackPlan], layout: Layout, matrix: bytes, duration_ms: int) -> bytes:
    """Return all that comes before the media. Raises CannotCopy for times that do not fit a file."""
    ftyp = box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomiso2avc1mp41")
    large = layout.media_bytes + LARGE_HEADER_BYTES >= _U32
    mdat_bytes = LARGE_HEADER_BYTES if large else HEADER_BYTES
    wide = layout.media_bytes + _HEADER_ROOM_BYTES >= _U32
    duration_ticks = duration_ms * TICKS_PER_MS
    # The index holds offsets that depend on how long the index is; its length does not depend on them.
    length = len(_write_moov(tracks, layout, 0, matrix, duration_ticks, wide=wide))
    first = len(ftyp) + length + mdat_bytes
    moov = _write_moov(tracks, layout, first, matrix, duration_ticks, wide=wide)
    mdat = struct.pack(">I4s", 1 if large else HEADER_BYTES + layout.media_bytes, b"mdat")
    if large:
        mdat += struct.pack(">Q", LARGE_HEADER_BYTES + layout.media_bytes)
    return ftyp + moov + mdat


def _write_moov(
    tracks: Sequence[TrackPlan], layout: Layout, first: int, matrix: bytes, duration_ticks: int, *, wide: bool
) -> bytes:
    traks = [
        _write_trak(number, track, offsets + first, duration_ticks, wide=wide)
        for number, (track, offsets) in enumerate(zip(tracks, layout.offsets, strict=True), start=1)
    ]
    mvhd = full_box(
        b"mvhd",
        1,
        0,
        # No times of making: the same request gives the same bytes.
        struct.pack(">QQIQIH10x", 0, 0, TICKS_PER_S, duration_ticks, _ONE, 0x0100),
        matrix,
        struct.pack(">24xI", len(tracks) + 1),
    )
    return box(b"moov", mvhd, *traks)


def _write_trak(number: int, plan: TrackPlan, offsets: Ints, duration_ticks: int, *, wide: bool) -> bytes:
    track, is_video = plan.track, plan.track.handler == b"vide"
    tkhd = full_box(
        b"tkhd",
        1,
        _ENABLED_IN_MOVIE,
        struct.pack(">QQI4xQ8xHHH2x", 0, 0, number, duration_ticks, 0, 0, 0 if is_video else 0x0100),
        track.matrix if is_video else _UNITY,
        struct.pack(">II", *(track.size if is_video else (0, 0))),
    )
    media_ticks = int(plan.decode[-1]) + plan.last_ticks
    mdhd = full_box(
        b"mdhd", 1, 0, struct.pack(">QQIQHH", 0, 0, plan.timescale, media_ticks, track.language, 0)
    )
    handler = b"VideoHandler\0" if is_video else b"SoundHandler\0"
    hdlr = full_box(b"hdlr", 0, 0, struct.pack(">4x4s12x", track.handler), handler)
    media_header = full_box(b"vmhd", 0, 1, bytes(8)) if is_video else full_box(b"smhd", 0, 0, bytes(4))
    url = full_box(b"url ", 0, _SELF_CONTAINED)
    dinf = box(b"dinf", full_box(b"dref", 0, 0, struct.pack(">I", 1), url))
    minf = box(b"minf", media_header, dinf, _write_stbl(plan, offsets, wide=wide))
    return box(b"trak", tkhd, _write_edits(plan), box(b"mdia", mdhd, hdlr, minf))


def _write_edits(plan: TrackPlan) -> bytes:
    durations = np.array([edit.duration_ticks for edit in plan.edits], np.int64)
    medias = np.array([-1 if edit.media_ticks is None else edit.media_ticks for edit in plan.edits], np.int64)
    rates = np.full(len(plan.edits), _ONE, np.int64)
    if (durations < 1 << 31).all() and (medias < 1 << 31).all():
        return box(b"edts", full_box(b"elst", 0, 0, rows((durations, "u4"), (medias, "i4"), (rates, "u4"))))
    return box(b"edts", full_box(b"elst", 1, 0, rows((durations, "u8"), (medias, "i8"), (rates, "u4"))))


def _write_stbl(plan: TrackPlan, offsets: Ints, *, wide: bool) -> bytes:
    sizes = plan.sizes
    chunk_offsets, per_chunk = chunks(offsets, sizes)
    stsd = full_box(b"stsd", 0, 0, struct.pack(">I", 1), plan.track.entry.raw)
    stsz = full_box(b"stsz", 0, 0, struct.pack(">I", 0), rows((sizes, "u4")))
    stco = full_box(b"co64" if wide else b"stco", 0, 0, rows((chunk_offsets, "u8" if wide else "u4")))
    return box(b"stbl", stsd, *_write_times(plan), _write_sync(plan), _write_stsc(per_chunk), stsz, stco)


def _write_times(plan: TrackPlan) -> list[bytes]:
    deltas = np.diff(plan.decode, append=plan.decode[-1] + plan.last_ticks)
    composition = plan.shown - plan.decode
    if (deltas >= _U32).any() or (composition >= 1 << 31).any() or (deltas < 0).any():
        raise CannotCopy("the times between samples do not fit the file")
    counts, values = run_lengths(deltas)
    boxes = [full_box(b"stts", 0, 0, rows((counts, "u4"), (values, "u4")))]
    if composition.any():
        counts, values = run_lengths(composition)
        boxes.append(full_box(b"ctts", 0, 0, rows((counts, "u4"), (values, "u4"))))
    return boxes


def _write_sync(plan: TrackPlan) -> bytes:
    sync = plan.sync
    return b"" if len(sync) == len(plan) else full_box(b"stss", 0, 0, rows((sync + 1, "u4")))


def _write_stsc(per_chunk: Ints) -> bytes:
    counts, values = run_lengths(per_chunk)
    firsts = np.cumsum(counts) - counts + 1
    return full_box(b"stsc", 0, 0, rows((firsts, "u4"), (values, "u4"), (np.ones_like(firsts), "u4")))


def run_lengths(values: Ints) -> tuple[Ints, Ints]:
    """Return how often each value comes in a row, and the values."""
    firsts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    return np.diff(firsts, append=len(values)), values[firsts]
