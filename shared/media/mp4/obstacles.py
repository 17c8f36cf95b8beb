"""Say why the samples of some sources cannot simply be copied into one file. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shared.media.mp4.index import SourceIndex
from shared.media.mp4.tracks import Movie, Track


def lossless_obstacle(indexes: Sequence[SourceIndex]) -> str | None:
    """Return why these sources have to be encoded anew, or None when their samples can be copied."""
    for index in indexes:
        reason = _obstacle_in(index)
        if reason is not None:
            return reason
    movies = [index.movie for index in indexes if index.movie is not None]
    return _video_difference(movies) or _audio_difference(movies)


def _obstacle_in(index: SourceIndex) -> str | None:
    movie = index.movie
    if movie is None:
        return f"the container is {index.container.name}, not mp4"
    if not movie.tracks:
        return "the source has neither pictures nor sound that an MP4 reader finds"
    for track in movie.tracks:
        reason = _obstacle_in_track(track, fragmented=movie.fragmented)
        if reason is not None:
            return reason
    return None


def _obstacle_in_track(track: Track, *, fragmented: bool) -> str | None:
    what = "video" if track.handler == b"vide" else "audio"
    if len(track.entries) > 1:
        return f"the {what} changes its settings inside of the source"
    if track.entry.kind in (b"encv", b"enca"):
        return f"the {what} is encrypted"
    # Of a fragmented source the samples around the cut are known, and there a track may have none.
    if not len(track.samples) and not fragmented:
        return f"the {what} has no samples in the index"
    codec = _obstacle_in_video(track) if what == "video" else _obstacle_in_audio(track)
    return codec or _obstacle_in_times(track, what)


def _obstacle_in_video(track: Track) -> str | None:
    if track.entry.nal is None or not track.entry.nal.parameter_sets:
        return f"the video is {track.entry.codec}, not H.264 or HEVC with its parameters in the index"
    if track.samples.sync is not None and not len(track.samples.sync):
        return "the index names no key frame"
    return None


def _obstacle_in_audio(track: Track) -> str | None:
    return None if track.entry.aac else f"the audio is {track.entry.codec}, not AAC"


def _obstacle_in_times(track: Track, what: str) -> str | None:
    if any(not edit.at_normal_rate for edit in track.edits if edit.media_ticks is not None):
        return f"the {what} is shown at another speed"
    if (np.diff(track.samples.decode_ticks) < 0).any():
        return f"the decode times of the {what} jump back"
    return None


def _video_difference(movies: Sequence[Movie]) -> str | None:
    tracks = [movie.video for movie in movies if movie.video is not None]
    if tracks and len(tracks) < len(movies):
        return "some of the sources have no picture"
    if len({track.entry.identity for track in tracks}) > 1:
        return "the sources differ in their video settings"
    if len({(movie.matrix, track.matrix) for movie, track in zip(movies, tracks, strict=False)}) > 1:
        return "the sources are turned differently"
    return None


def _audio_difference(movies: Sequence[Movie]) -> str | None:
    tracks = [movie.audio for movie in movies if movie.audio is not None]
    if len({(track.entry.identity, track.timescale) for track in tracks}) > 1:
        return "the sources differ in their audio settings"
    return None
