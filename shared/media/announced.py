"""Compare a source with what was announced of it, and with what a cut needs. Pure."""

from __future__ import annotations

from shared.media.mp4.index import SourceIndex
from shared.media.mp4.tracks import Movie, shown_ms
from shared.media.port import Cut, SourceBroken, SourceEndsEarly

SHORT_TOLERANCE_MS = 100  # a camera's last frame and its last AAC frame end when they end
LONG_TOLERANCE_MS = 1000  # more is another recording than the announced one


def check_announced(index: SourceIndex, cut: Cut) -> None:
    """Raise SourceBroken when the source is not what was announced, or ends before the cut does."""
    key, size_bytes = cut.source_key, index.stored.size_bytes
    if cut.declared_bytes is not None and not _may_have(size_bytes, cut.declared_bytes, index.movie):
        how = "truncated" if size_bytes < cut.declared_bytes else "larger than announced"
        raise SourceBroken(key, f"the source {key} is {how}: {size_bytes} of {cut.declared_bytes} bytes")
    # Other containers say how long they are only when they are decoded.
    if index.movie is not None:
        _check_duration(index.movie, cut)


def _may_have(size_bytes: int, declared_bytes: int, movie: Movie | None) -> bool:
    """Tell whether an object of this size can be the announced one, or what was saved of it.

    Only an MP4 with its index in one place is nothing without its end.
    """
    if size_bytes < declared_bytes:
        return movie is None or movie.fragmented
    return size_bytes == declared_bytes


def _check_duration(movie: Movie, cut: Cut) -> None:
    key = cut.source_key
    shown = [shown_ms(track, movie.timescale) for track in movie.tracks if track.handler == b"vide"]
    end_ms = shown[0][1] if shown else movie.duration_ms
    if end_ms + _short_tolerance_ms(movie) < cut.end_ms:
        why = "; its last fragment is incomplete" if movie.truncated else ""
        early = f"ends early: at {end_ms} ms, the cut needs {cut.end_ms} ms"
        raise SourceEndsEarly(key, f"the source {key} {early}{why}", playable_ms=end_ms)
    if cut.declared_ms is not None and movie.duration_ms > cut.declared_ms + LONG_TOLERANCE_MS:
        was = f"it was announced as {cut.declared_ms} ms, and lasts {movie.duration_ms} ms"
        raise SourceBroken(key, f"the source {key} is not the announced one: {was}")


def _short_tolerance_ms(movie: Movie) -> int:
    """Allow a frame, where frames are longer than the tolerance: time-lapse cameras have one a second."""
    if movie.video is None:
        return SHORT_TOLERANCE_MS
    frame_ms = -(-movie.video.samples.last_ticks * 1000 // movie.video.timescale)
    return max(SHORT_TOLERANCE_MS, min(frame_ms, LONG_TOLERANCE_MS))
