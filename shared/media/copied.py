"""The lossless way to a clip: the sources' own samples under a new index."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from shared.media.ffmpeg import Ffmpeg
from shared.media.mp4.groups import is_idr
from shared.media.mp4.index import SourceIndex
from shared.media.mp4.movie import MoviePlan, plan_movie
from shared.media.mp4.obstacles import lossless_obstacle
from shared.media.mp4.ranges import RangeReader
from shared.media.mp4.selection import CannotCopy
from shared.media.mp4.streaming import read_wanted
from shared.media.port import Cut, Progress
from shared.media.probe import Proof, prove_copied
from shared.storage.port import Storage, StoredObject, WriteOptions


async def plan_copy(
    storage: Storage, indexes: Sequence[SourceIndex], cuts: Sequence[Cut]
) -> tuple[MoviePlan, int]:
    """Plan a clip from the cuts' sources; returns the bytes that were read for it, too.

    Raises CannotCopy with the reason when the samples have to be encoded anew, SourceBroken or Transient.
    """
    obstacle = lossless_obstacle(indexes)
    if obstacle is not None:
        raise CannotCopy(obstacle)
    movies = [index.movie for index in indexes if index.movie is not None]
    # Hours of samples take a noticeable moment, in which leases are to be kept.
    plan = await asyncio.to_thread(plan_movie, movies, cuts)
    bytes_read = 0
    for run in plan.video.runs if plan.video is not None else ():
        reader, track = RangeReader(storage, indexes[run.piece].stored), movies[run.piece].video
        if track is not None and not await is_idr(reader, track, run.first):
            raise CannotCopy("a key frame of the source is not one that can be decoded alone")
        bytes_read += reader.bytes_read
    return plan, bytes_read


class CopiedClip:
    """Writes a planned clip, and proves it."""

    def __init__(
        self,
        storage: Storage,
        ffmpeg: Ffmpeg,
        plan: MoviePlan,
        *,
        key: str,
        sources: Sequence[StoredObject],
        cuts: Sequence[Cut],
        progress: Progress | None,
    ) -> None:
        """Prepare to write `plan` under `key`; `sources` has the object of each cut."""
        self._storage = storage
        self._ffmpeg = ffmpeg
        self._plan = plan
        self._key = key
        self._sources = sources
        self._cuts = cuts
        self._progress = progress
        self.bytes_read = 0

    async def write(self, options: WriteOptions) -> StoredObject:
        written_bytes = 0
        async with self._storage.writer(self._key, options) as writer:
            await writer.write(self._plan.header)
            for fetch in self._plan.layout.fetches:
                parts = read_wanted(self._storage, self._sources[fetch.piece], fetch, on_read=self._count)
                async with aclosing(parts):
                    async for part in parts:
                        await writer.write(part)
                        written_bytes += len(part)
                        self._report(written_bytes)
        return writer.stored

    async def prove(self, stored: StoredObject) -> Proof:
        return await prove_copied(self._storage, self._ffmpeg, stored, self._plan, self._cuts)

    def _count(self, size_bytes: int) -> None:
        self.bytes_read += size_bytes

    def _report(self, written_bytes: int) -> None:
        if self._progress is not None:
            duration_ms = self._plan.duration_ms
            self._progress(duration_ms * written_bytes // self._plan.layout.media_bytes, duration_ms)
