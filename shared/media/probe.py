"""Prove a written clip: read it back from the store and compare it with the plan.

The index is read by the same reader as any source's; the first and the last group of pictures of each piece
are decoded. Nothing of what was in memory while the clip was written is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.kernel.errors import Corrupt
from shared.media.decode import decode_pictures
from shared.media.ffmpeg import Ffmpeg
from shared.media.mp4.groups import Group, idr_before, read_group
from shared.media.mp4.index import SourceIndex, read_index
from shared.media.mp4.movie import MoviePlan
from shared.media.mp4.presentation import shown_samples
from shared.media.mp4.ranges import RangeReader
from shared.media.mp4.selection import Run
from shared.media.mp4.timeline import TrackPlan
from shared.media.mp4.tracks import Movie, Track, shown_ms
from shared.media.port import Cut, SourceBroken
from shared.storage.port import Storage, StoredObject

# An encoder ends on whole frames of picture and sound; a clip of ours that was copied is exact.
ENCODED_TOLERANCE_MS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """What was measured of a clip that is what it should be."""

    index: SourceIndex
    duration_ms: int
    video_frames: int
    width: int
    height: int
    bytes_read: int


async def prove_copied(
    storage: Storage, ffmpeg: Ffmpeg, stored: StoredObject, plan: MoviePlan, cuts: Sequence[Cut]
) -> Proof:
    """Prove a clip whose samples were copied.

    Raises Corrupt when the object is not what was planned, SourceBroken when it is and a source's pictures
    do not decode, Transient.
    """
    if stored.size_bytes != plan.size_bytes:
        raise Corrupt(f"the clip {stored.key} has {stored.size_bytes} bytes instead of {plan.size_bytes}")
    index, movie = await _read_back(storage, stored)
    for planned, found in ((plan.video, movie.video), (plan.audio, movie.audio)):
        _compare(stored.key, planned, found)
    _compare_durations(stored.key, movie, plan.duration_ms, tolerance_ms=0)
    reader = RangeReader(storage, stored)
    if plan.video is not None and movie.video is not None:
        await _decode_ends(reader, ffmpeg, movie.video, plan.video.runs, cuts)
    return _proof(index, movie, reader.bytes_read)


async def prove_encoded(
    storage: Storage, ffmpeg: Ffmpeg, stored: StoredObject, *, duration_ms: int, video_frames: int | None
) -> Proof:
    """Prove a clip that was encoded anew.

    Its pictures are all decoded, unless `video_frames` says how many were when the same bytes lay on this
    machine: then the first and the last group are. Raises Corrupt when the object is not what was wanted,
    Transient.
    """
    index, movie = await _read_back(storage, stored)
    _compare_durations(stored.key, movie, duration_ms, tolerance_ms=ENCODED_TOLERANCE_MS)
    reader = RangeReader(storage, stored)
    if movie.video is not None and video_frames is None:
        await _decode_all(reader, ffmpeg, movie.video)
    elif movie.video is not None:
        await _decode(ffmpeg, await _read_ends(reader, movie.video, 0, len(movie.video.samples)))
    proof = _proof(index, movie, reader.bytes_read)
    if video_frames is not None and proof.video_frames != video_frames:
        raise Corrupt(f"the clip {stored.key} shows {proof.video_frames} pictures instead of {video_frames}")
    return proof


async def _read_back(storage: Storage, stored: StoredObject) -> tuple[SourceIndex, Movie]:
    try:
        index = await read_index(storage, stored)
    except SourceBroken as error:
        raise Corrupt(f"the clip {stored.key} cannot be read back: {error.message}") from error
    if index.movie is None or index.movie.fragmented or not index.movie.tracks:
        raise Corrupt(f"the clip {stored.key} is not a progressive MP4")
    return index, index.movie


def _proof(index: SourceIndex, movie: Movie, group_bytes: int) -> Proof:
    video = movie.video
    return Proof(
        index=index,
        duration_ms=movie.declared_ms,
        video_frames=0 if video is None else shown_samples(video, movie.timescale),
        width=0 if video is None else video.entry.width,
        height=0 if video is None else video.entry.height,
        bytes_read=index.bytes_read + group_bytes,
    )


def _compare(key: str, planned: TrackPlan | None, found: Track | None) -> None:
    if (planned is None) != (found is None):
        raise Corrupt(f"the clip {key} has other tracks than planned")
    if planned is None or found is None:
        return
    samples = found.samples
    same = (
        found.entry.raw == planned.track.entry.raw,
        found.timescale == planned.timescale,
        found.edits == planned.edits,
        np.array_equal(samples.sizes, planned.sizes),
        np.array_equal(samples.decode_ticks, planned.decode),
        np.array_equal(samples.shown_ticks, planned.shown),
        np.array_equal(np.arange(len(planned)) if samples.sync is None else samples.sync, planned.sync),
    )
    if not all(same):
        raise Corrupt(f"the index of the clip {key} is not the planned one")


def _compare_durations(key: str, movie: Movie, duration_ms: int, *, tolerance_ms: int) -> None:
    if abs(movie.declared_ms - duration_ms) > tolerance_ms:
        raise Corrupt(f"the clip {key} lasts {movie.declared_ms} ms instead of {duration_ms} ms")
    for track in movie.tracks:
        _, end_ms = shown_ms(track, movie.timescale)
        # A last frame may end before the clip does, or later: then the edit cuts it off.
        if end_ms > duration_ms + tolerance_ms:
            raise Corrupt(f"a track of the clip {key} lasts {end_ms} ms instead of {duration_ms} ms")


async def _decode_ends(
    reader: RangeReader, ffmpeg: Ffmpeg, track: Track, runs: Sequence[Run], cuts: Sequence[Cut]
) -> None:
    """Decode the first and the last group of each piece. What does not decode came from its source."""
    start = 0
    for run in runs:
        stop, key = start + len(run), cuts[run.piece].source_key
        try:
            groups = await _read_ends(reader, track, start, stop)
            await _decode(ffmpeg, groups)
        except Corrupt as error:
            raise SourceBroken(key, f"the source {key} does not decode: {error.message}") from error
        start = stop


async def _read_ends(reader: RangeReader, track: Track, start: int, stop: int) -> list[Group]:
    index = track.samples.sync_before(start)
    syncs = len(track.samples) if track.samples.sync is None else len(track.samples.sync)
    first_stop = min(stop, track.samples.sync_at(index)) if index < syncs else stop
    groups = [await read_group(reader, track, start, first_stop)]
    if first_stop < stop:
        last = await idr_before(reader, track, stop - 1, not_before=start)
        # When no later IDR is found, the piece is decoded from its beginning as far as it may be held.
        groups = groups if last > start else []
        groups.append(await read_group(reader, track, last, stop))
    return groups


async def _decode(ffmpeg: Ffmpeg, groups: Sequence[Group]) -> None:
    """Decode groups, each of which starts with an IDR, in one go."""
    frames = await decode_pictures(ffmpeg, groups[0].config.codec, b"".join(group.annexb for group in groups))
    wanted = sum(len(group) for group in groups)
    if frames != wanted:
        raise Corrupt(f"{frames} of {wanted} pictures were decoded")


async def _decode_all(reader: RangeReader, ffmpeg: Ffmpeg, track: Track) -> None:
    """Decode every picture of a track, as many groups at once as may be held."""
    first, samples = 0, len(track.samples)
    while first < samples:
        group = await read_group(reader, track, first, samples)
        if group.stop < samples:
            # Each batch ends where the next can start.
            stop = track.samples.sync_at(track.samples.sync_before(group.stop) - 1)
            if stop <= first:
                raise Corrupt("a group of pictures is too large to be decoded")
            group = await read_group(reader, track, first, stop)
        await _decode(ffmpeg, [group])
        first = group.stop
