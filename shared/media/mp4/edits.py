"""What the edit lists of a source say, taken apart: which media is shown at which moment. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

from shared.media.mp4.selection import CannotCopy
from shared.media.mp4.tables import MAX_TICKS
from shared.media.mp4.tracks import Edit, Movie, Span, Track
from shared.media.packets import RUN_UP_S
from shared.media.port import Cut

MAX_PIECES = 64  # of one cut: an editor's export has a dozen


@dataclass(frozen=True, slots=True)
class _Shown:
    """An edit with its place: from `start_ticks` to `end_ticks` of the movie; None: to the end."""

    start_ticks: int
    end_ticks: int | None
    edit: Edit


def _placed(track: Track) -> Iterator[_Shown]:
    elapsed = 0
    for number, edit in enumerate(track.edits, start=1):
        if not edit.duration_ticks:
            # Only the last can reach to the end of the media; others of no length show nothing.
            if number == len(track.edits):
                yield _Shown(elapsed, None, edit)
            continue
        yield _Shown(elapsed, elapsed + edit.duration_ticks, edit)
        elapsed += edit.duration_ticks


def _showing(track: Track) -> Iterator[_Shown]:
    return (shown for shown in _placed(track) if shown.edit.media_ticks is not None)


def is_simple(track: Track) -> bool:
    """Tell whether a track is shown by one edit at most, perhaps after an empty one."""
    kinds = [edit.media_ticks is not None for edit in track.edits]
    return not kinds or (kinds.count(True) == 1 and kinds[-1])


def divide(movie: Movie, cut: Cut) -> list[tuple[Movie, Cut]]:
    """Divide a cut where an edit of its source ends, so that each piece is shown by one edit of each track.

    Each piece comes with the movie as it would be with that edit alone, in its place: behind one that shows
    nothing, where there is one. Raises CannotCopy when an edit ends between two milliseconds, and when there
    are too many.
    """
    if all(is_simple(track) for track in movie.tracks):
        return [(movie, cut)]
    moments = {cut.start_ms, cut.end_ms}
    for track in movie.tracks:
        for shown in _showing(track):
            ticks = cut.end_ms * movie.timescale // 1000 if shown.end_ticks is None else shown.end_ticks
            if cut.start_ms * movie.timescale < ticks * 1000 < cut.end_ms * movie.timescale:
                if ticks * 1000 % movie.timescale:
                    raise CannotCopy("an edit of the source ends between two milliseconds")
                moments.add(ticks * 1000 // movie.timescale)
    if len(moments) > MAX_PIECES:
        raise CannotCopy("the source is shown in too many edits")
    ordered = sorted(moments)
    return [
        (_alone(movie, start_ms), replace(cut, start_ms=start_ms, end_ms=end_ms))
        for start_ms, end_ms in pairwise(ordered)
    ]


def _alone(movie: Movie, at_ms: int) -> Movie:
    def alone(track: Track | None) -> Track | None:
        return (
            track
            if track is None or is_simple(track)
            else replace(track, edits=_edits_at(movie, track, at_ms))
        )

    return replace(movie, video=alone(movie.video), audio=alone(movie.audio))


def _edits_at(movie: Movie, track: Track, at_ms: int) -> tuple[Edit, ...]:
    at = at_ms * movie.timescale
    for shown in _showing(track):
        if shown.end_ticks is None or at < shown.end_ticks * 1000:
            lead = (Edit(shown.start_ticks, None),) if shown.start_ticks else ()
            return (*lead, shown.edit)
    return (Edit(at_ms, None),)  # nothing is shown any more


def media_span(track: Track, movie_timescale: int, span_ms: Span) -> tuple[int, int]:
    """Return which media [from, until) of a track a span of the presentation shows, in the track's ticks."""
    start, end = (ms * track.timescale // 1000 for ms in span_ms)
    if not track.edits:
        return start, end
    found = []
    for shown in _placed(track):
        if shown.edit.media_ticks is None:
            continue
        shift = shown.edit.media_ticks - shown.start_ticks * track.timescale // movie_timescale
        until = MAX_TICKS if shown.end_ticks is None else shown.end_ticks * track.timescale // movie_timescale
        low, high = max(start + shift, shown.edit.media_ticks), min(end, until) + shift
        if low < high:
            found.append((low, high))
    return (min(low for low, _ in found), max(high for _, high in found)) if found else (start, start)


def from_late_start(movie: Movie, first_shown: Mapping[int, int], *, late_s: int) -> Movie:
    """Set the clock of a movie to its own start when what it shows first comes `late_s` or more late.

    `first_shown` has when the first sample of each track is shown, by the track's number, in its ticks.
    """
    tracks = [track for track in movie.tracks if track.number in first_shown]
    if not tracks or any(len(track.edits) > 1 for track in movie.tracks):
        return movie
    starts = [Fraction(first_shown[track.number] - _media_start(track), track.timescale) for track in tracks]
    # The picture's, which is first of the tracks, where the sound is only an encoder's run-up ahead of it.
    start = starts[0] if starts[0] - min(starts) < RUN_UP_S else min(starts)
    if start < late_s:
        return movie

    def shifted(track: Track | None) -> Track | None:
        if track is None:
            return None
        media_ticks = _media_start(track) + round(start * track.timescale)
        edit = Edit(track.edits[0].duration_ticks if track.edits else 0, media_ticks)
        return replace(track, edits=(edit,))

    return replace(movie, video=shifted(movie.video), audio=shifted(movie.audio))


def _media_start(track: Track) -> int:
    return (track.edits[0].media_ticks or 0) if track.edits else 0
