"""What a player shows of a track: which sample at which millisecond, and how many in all. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shared.media.mp4.boxes import Ints
from shared.media.mp4.tracks import Track


def shown_samples(track: Track, movie_timescale: int) -> int:
    """Count the samples that the track's edits show."""
    shown = track.samples.shown_ticks
    return sum(
        int(((shown >= start) & (shown < end)).sum()) for _, start, end in _windows(track, movie_timescale)
    )


def sample_at(track: Track, movie_timescale: int, at_ms: int) -> int:
    """Return the number of the sample shown at `at_ms`: the last that has come, or else the first that comes.

    A moment after the end has the last sample shown. The track has samples.
    """
    shown, best = track.samples.shown_ticks, None
    for lead, start, end in _windows(track, movie_timescale):
        inside = np.flatnonzero((shown >= start) & (shown < end))
        if not len(inside):
            continue
        moment = start + (at_ms * movie_timescale // 1000 - lead) * track.timescale // movie_timescale
        come = inside[shown[inside] <= moment]
        if best is not None and not len(come):
            break  # the edit is still to come: what the one before showed last stays
        best = _latest(come, shown) if len(come) else int(inside[np.argmin(shown[inside])])
    return 0 if best is None else best


def _latest(samples: Ints, shown: Ints) -> int:
    return int(samples[np.argmax(shown[samples])])


def _windows(track: Track, movie_timescale: int) -> Iterator[tuple[int, int, int]]:
    """Yield for each edit that shows something: when it starts in the movie, and its media [start, end)."""
    if not track.edits:
        yield 0, 0, int(track.samples.shown_ticks.max(initial=0)) + 1
        return
    elapsed = 0
    for edit in track.edits:
        if edit.media_ticks is not None:
            length = edit.duration_ticks * track.timescale // movie_timescale or track.media_ticks
            # Ticks that no sample reaches are cut off, so that they stay within 64 bits.
            end = min(edit.media_ticks + length, 1 << 60)
            yield elapsed, edit.media_ticks, end
        elapsed += edit.duration_ticks
