"""Widen a cut to the key frames around it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from shared.media.mp4.boxes import Ints
from shared.media.mp4.selection import shown_window
from shared.media.mp4.tracks import Movie, shown_ms
from shared.media.port import Cut


def widen(movies: Sequence[Movie], cuts: Sequence[Cut]) -> list[Cut]:
    """Let the first cut begin at a key frame and the last one end before one, or with its source.

    `movies` has the index of each cut's source; where one has no pictures, its cut stays as it is.
    """
    widened = list(cuts)
    widened[0] = replace(cuts[0], start_ms=_start_ms(movies[0], cuts[0].start_ms))
    widened[-1] = replace(widened[-1], end_ms=_end_ms(movies[-1], cuts[-1].end_ms))
    return widened


def _start_ms(movie: Movie, start_ms: int) -> int:
    keys_ms = _key_frames_ms(movie)
    before = keys_ms[keys_ms <= start_ms]
    return int(before[-1]) if len(before) else start_ms


def _end_ms(movie: Movie, end_ms: int) -> int:
    if movie.video is None:
        return end_ms
    keys_ms = _key_frames_ms(movie)
    after = keys_ms[keys_ms >= end_ms]
    return int(after[0]) if len(after) else max(end_ms, shown_ms(movie.video, movie.timescale)[1])


def _key_frames_ms(movie: Movie) -> Ints:
    """Return the milliseconds in which key frames begin before which nothing is shown that comes after."""
    track = movie.video
    if track is None:
        return np.zeros(0, np.int64)
    zero, shown_from, shown_until = shown_window(track, movie.timescale, track.timescale)
    ticks, sync = track.samples.shown_ticks, track.samples.sync
    earliest_after = np.minimum.accumulate(ticks[::-1])[::-1]
    keys = (
        ticks[ticks == earliest_after] if sync is None else ticks[sync][ticks[sync] == earliest_after[sync]]
    )
    keys = keys[(keys >= max(zero, shown_from)) & (keys < shown_until)]
    begin_ms: Ints = (keys - zero) * 1000 // track.timescale
    return begin_ms
