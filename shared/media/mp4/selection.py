"""Choose the samples of one source that a cut needs. Pure.

Pictures: all that are shown in the cut, the key frame that the first of them needs, and whatever lies
between in decode order. Sound: all frames that sound in the cut, and two before them to warm the decoder up.
Times are counted in ticks, as integers; a cut is exact to the tick.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from shared.media.mp4.boxes import Ints
from shared.media.mp4.tables import SampleTable
from shared.media.mp4.tracks import Movie, Track
from shared.media.port import Cut

MAX_TIMESCALE = (1 << 31) - 1  # of a track: some readers keep it in a signed number
PREROLL_FRAMES = 2  # of AAC: each frame's first half needs the one before; HE-AAC needs one more
_MAX_SPAN_TICKS = 1 << 53
BEFORE, COPIED, AFTER = range(3)  # parts of a piece: what is encoded anew stands before and after the rest


class CannotCopy(Exception):
    """The samples of a source cannot be copied for this cut. The message says why, for the result."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Consecutive samples of one track of one source, times in ticks of `timescale`.

    The cut is [start, end) on the same scale, which starts wherever the source's media does.
    """

    piece: int  # which of the clip's cuts
    table: SampleTable
    first: int  # the samples are [first, stop) of the table
    stop: int
    start: int
    end: int
    decode: Ints
    shown: Ints
    ticks_after_last: int
    part: int = COPIED
    held: bytes | None = None  # the samples themselves, where they are not the source's

    def __len__(self) -> int:
        return self.stop - self.first

    @property
    def sizes(self) -> Ints:
        return self.table.sizes[self.first : self.stop].astype(np.int64)

    @property
    def offsets(self) -> Ints:
        return self.table.offsets[self.first : self.stop]

    @property
    def sync(self) -> Ints:
        """The samples that can be decoded alone, counted from the run's first."""
        if self.table.sync is None:
            return np.arange(len(self))
        inside = (self.table.sync >= self.first) & (self.table.sync < self.stop)
        return self.table.sync[inside] - self.first

    @property
    def visible(self) -> int:
        """How many samples are shown in the cut."""
        return int(((self.shown >= self.start) & (self.shown < self.end)).sum())


def common_timescale(tracks: Iterable[Track]) -> int:
    """Return a time scale in which every track's ticks, and every millisecond, are whole numbers.

    Raises CannotCopy when there is none that fits a file.
    """
    timescale = math.lcm(1000, *(track.timescale for track in tracks))
    if timescale > MAX_TIMESCALE:
        raise CannotCopy("the time scales of the sources have no common one")
    return timescale


def select_video(movie: Movie, track: Track, cut: Cut, piece: int, timescale: int) -> Run | None:
    """Return the pictures that a cut needs, or None when none is shown in it. Raises CannotCopy."""
    samples, factor = track.samples, timescale // track.timescale
    if track.media_ticks * factor > _MAX_SPAN_TICKS:
        raise CannotCopy("the source's times are too large to be counted exactly")
    zero, shown_from, shown_until = shown_window(track, movie.timescale, timescale)
    start, end = (zero + ms * timescale // 1000 for ms in (cut.start_ms, cut.end_ms))
    shown = samples.shown_ticks * factor
    wanted = np.flatnonzero((shown >= max(start, shown_from)) & (shown < min(end, shown_until)))
    if not len(wanted):
        return None
    first = _key_frame(samples, shown, int(wanted[0]), int(shown[wanted].min()))
    stop = int(wanted[-1]) + 1
    if (shown[first:stop] < shown[first]).any() and _is_open(samples, shown, first, stop):
        raise CannotCopy(
            "the group of pictures at a cut is open: it needs pictures from before its key frame"
        )
    inside = (shown[first:stop] >= start) & (shown[first:stop] < end)
    if int(inside.sum()) != len(wanted):
        raise CannotCopy("the source's edit list hides pictures inside of the cut")
    decode = samples.decode_ticks[first:stop] * factor
    after = int(samples.decode_ticks[stop]) if stop < len(samples) else track.media_ticks
    # Showing before decoding is allowed in a file and confuses readers: decode earlier by as much instead.
    early = min(0, int((shown[first:stop] - decode).min()))
    last = after * factor - int(decode[-1])
    return Run(piece, samples, first, stop, start, end, decode + early, shown[first:stop], last)


def _key_frame(samples: SampleTable, shown: Ints, first: int, first_shown: int) -> int:
    """Find the last key frame from which everything wanted can be decoded.

    It comes before the first wanted sample in decode order and is not shown after the first wanted picture:
    then nothing that is wanted can refer to pictures before the key frame, in an open group either.
    """
    for index in range(samples.sync_before(first) - 1, -1, -1):
        sample = samples.sync_at(index)
        if shown[sample] <= first_shown:
            return sample
    raise CannotCopy("the source has no key frame at or before the cut")


def _is_open(samples: SampleTable, shown: Ints, first: int, stop: int) -> bool:
    """Tell whether pictures that follow the key frame `first`, in its own group, are shown before it."""
    index = samples.sync_before(first)
    group_stop = stop
    if samples.sync is None or index < len(samples.sync):
        group_stop = min(stop, samples.sync_at(index))
    return bool((shown[first:group_stop] < shown[first]).any())


def select_audio(movie: Movie, track: Track, cut: Cut, piece: int) -> Run | None:
    """Return the sound of a cut, with frames before it, or None when there is none."""
    samples, timescale = track.samples, track.timescale
    zero, shown_from, shown_until = shown_window(track, movie.timescale, timescale)
    start, end = (zero + round(ms * timescale / 1000) for ms in (cut.start_ms, cut.end_ms))
    decode = samples.decode_ticks
    stop = int(np.searchsorted(decode, min(end, shown_until), "left"))
    sounding = int(np.searchsorted(decode, max(start, shown_from), "right")) - 1
    if stop <= max(sounding, 0) or max(start, shown_from) >= track.media_ticks:
        return None
    first = max(0, sounding - PREROLL_FRAMES)
    after = int(decode[stop]) if stop < len(samples) else track.media_ticks
    chosen = decode[first:stop]
    return Run(piece, samples, first, stop, start, end, chosen, chosen, after - int(chosen[-1]))


def shown_window(track: Track, movie_timescale: int, timescale: int) -> tuple[int, int, int]:
    """Return where the presentation's zero lies, and what [from, until) the source's edit list shows.

    In ticks of `timescale` on the media's own line. At most one edit shows something; `edits` divides a cut
    of a source that has more.
    """
    lead_ticks = 0
    for edit in track.edits:
        if edit.media_ticks is None:
            lead_ticks += edit.duration_ticks
            continue
        start = edit.media_ticks * timescale // track.timescale
        length = round(edit.duration_ticks * timescale / movie_timescale) or _MAX_SPAN_TICKS
        zero = max(start - round(lead_ticks * timescale / movie_timescale), -_MAX_SPAN_TICKS)
        return zero, start, start + min(length, _MAX_SPAN_TICKS)
    return 0, 0, 0 if track.edits else _MAX_SPAN_TICKS
