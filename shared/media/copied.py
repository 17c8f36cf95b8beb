"""The way to a clip without loss: the sources' own samples under a new index.

Where nothing may be hidden in the clip, the pictures of the groups at its ends are encoded anew, no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import chain

from shared.kernel.errors import Bug, Corrupt
from shared.media.boundary import bare, settings_of_both
from shared.media.ffmpeg import Ffmpeg
from shared.media.mp4.edits import divide
from shared.media.mp4.groups import is_idr
from shared.media.mp4.index import SourceIndex
from shared.media.mp4.layout import Fetch
from shared.media.mp4.movie import MoviePlan, Pictures, plan_movie, select_pictures
from shared.media.mp4.obstacles import lossless_obstacle
from shared.media.mp4.parameter_sets import Encoded
from shared.media.mp4.ranges import RangeReader, blaming
from shared.media.mp4.selection import CannotCopy, Run
from shared.media.mp4.streaming import copied_steps, is_copied, read_wanted, strides
from shared.media.mp4.tracks import Movie, Track
from shared.media.mp4.widening import widen
from shared.media.port import Cut, Precision, Progress, SourceBroken
from shared.media.probe import Proof, prove_copied
from shared.storage.port import Storage, StoredObject, WriteOptions, Writer


class CopiedClip:
    """Writes a planned clip, and proves it."""

    def __init__(
        self,
        storage: Storage,
        ffmpeg: Ffmpeg,
        indexes: Sequence[SourceIndex],
        cuts: Sequence[Cut],
        *,
        key: str,
        progress: Progress | None,
    ) -> None:
        """Take the cuts, and the index of each one's source; `prepare` comes before anything else."""
        self._storage = storage
        self._ffmpeg = ffmpeg
        self._indexes = indexes
        self._key = key
        self._progress = progress
        self._planned: MoviePlan | None = None
        self._cuts = cuts  # as they were asked for, then divided by the edits of their sources, and widened
        self._written_bytes = 0
        self.earlier_ms = 0  # than asked for the clip begins
        self.later_ms = 0
        self.bytes_read = 0
        self.bytes_copied = 0  # inside of the store

    @property
    def reencoded_ms(self) -> tuple[tuple[int, int], ...]:
        """Which parts of the clip, [start, end), are not the sources' own samples."""
        return self._plan.reencoded_ms

    async def prepare(self, precision: Precision) -> None:
        """Plan the clip; where nothing may be hidden in it, encode the pictures around its ends anew.

        Raises CannotCopy with the reason when all samples have to be encoded, SourceBroken or Transient.
        """
        self._indexes, self._cuts = divide_pieces(self._indexes, self._cuts)
        obstacle = lossless_obstacle(self._indexes)
        if obstacle is not None:
            raise CannotCopy(obstacle)
        movies = [index.movie for index in self._indexes if index.movie is not None]
        if precision is Precision.KEYFRAME:
            widened = widen(movies, self._cuts)
            self.earlier_ms = self._cuts[0].start_ms - widened[0].start_ms
            self.later_ms = widened[-1].end_ms - self._cuts[-1].end_ms
            self._cuts = widened
        # Hours of samples take a noticeable moment, in which leases are to be kept.
        pictures = await asyncio.to_thread(select_pictures, movies, self._cuts)
        if pictures is not None:
            pictures = await self._checked(movies, pictures, hiding=precision is not Precision.SMART)
        self._planned = await asyncio.to_thread(plan_movie, movies, self._cuts, pictures)

    async def write(self, options: WriteOptions) -> StoredObject:
        self._written_bytes = self.bytes_copied = 0
        async with self._storage.writer(self._key, options) as writer:
            await writer.write(self._plan.header)
            for fetch in self._plan.layout.fetches:
                if fetch.held is not None:
                    await writer.write(fetch.held)
                    self._report(len(fetch.held))
                    continue
                for stride in strides(fetch):
                    await (self._copy if is_copied(stride) else self._sift)(writer, stride)
        return writer.stored

    async def prove(self, stored: StoredObject) -> Proof:
        return await prove_copied(self._storage, self._ffmpeg, stored, self._plan, self._cuts)

    async def _checked(self, movies: Sequence[Movie], pictures: Pictures, *, hiding: bool) -> Pictures:
        """Return pictures that can be decoded from their beginning, and none to be hidden unless `hiding`."""
        pieces: list[tuple[Run, ...]] = list(pictures.pieces)
        encoded: list[Encoded] = []
        for run in chain.from_iterable(pictures.pieces):
            reader, track = (
                RangeReader(self._storage, self._indexes[run.piece].stored),
                movies[run.piece].video,
            )
            assert track is not None  # it has pictures
            if not await is_idr(reader, track, run.first):
                raise CannotCopy("a key frame of the source is not one that can be decoded alone")
            if not hiding:
                pieces[run.piece], parts = await self._bare(reader, track, run)
                encoded += parts
            self._count(reader.bytes_read)
        return replace(pictures, track=settings_of_both(pictures.track, encoded), pieces=tuple(pieces))

    async def _bare(
        self, reader: RangeReader, track: Track, run: Run
    ) -> tuple[tuple[Run, ...], tuple[Encoded, ...]]:
        key = reader.stored.key
        try:
            return await bare(self._ffmpeg, reader, track, run)
        except SourceBroken:
            raise
        except Corrupt as error:
            raise SourceBroken(key, f"the source {key} does not decode: {error.message}") from error

    @property
    def _plan(self) -> MoviePlan:
        if self._planned is None:
            raise Bug("a clip is prepared before it is written")
        return self._planned

    async def _copy(self, writer: Writer, stride: Fetch) -> None:
        """Append bytes that are all wanted, which never come here when the store can copy them."""
        source = self._indexes[stride.piece].stored
        for start, end in copied_steps(stride):
            with blaming(source.key):
                copied_bytes = await writer.copy(source, start, end)
            self.bytes_copied += copied_bytes
            self._count(end - start - copied_bytes)
            self._report(end - start)

    async def _sift(self, writer: Writer, stride: Fetch) -> None:
        """Append the wanted ones of bytes that are read together."""
        source = self._indexes[stride.piece].stored
        parts = read_wanted(self._storage, source, stride, on_read=self._count)
        async with aclosing(parts):
            async for part in parts:
                await writer.write(part)
                self._report(len(part))

    def _count(self, size_bytes: int) -> None:
        self.bytes_read += size_bytes

    def _report(self, size_bytes: int) -> None:
        self._written_bytes += size_bytes
        if self._progress is not None:
            duration_ms = self._plan.duration_ms
            self._progress(duration_ms * self._written_bytes // self._plan.layout.media_bytes, duration_ms)


def divide_pieces(indexes: Sequence[SourceIndex], cuts: Sequence[Cut]) -> tuple[list[SourceIndex], list[Cut]]:
    """Divide the cuts of sources that several edits show: a piece for each edit. Raises CannotCopy."""
    pieces = [
        (replace(index, movie=movie), piece)
        for index, cut in zip(indexes, cuts, strict=True)
        for movie, piece in ([(None, cut)] if index.movie is None else divide(index.movie, cut))
    ]
    return [index for index, _ in pieces], [piece for _, piece in pieces]
