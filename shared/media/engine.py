"""The media engine: what the clip needs is read, the best way to it is taken, the result is proven."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shared.kernel.errors import Bug, NotFound
from shared.media.announced import check_announced
from shared.media.copied import CopiedClip
from shared.media.encoded import EncodedClip
from shared.media.ffmpeg import Ffmpeg
from shared.media.mp4.groups import idr_before, read_group
from shared.media.mp4.index import Indexes, SourceIndex
from shared.media.mp4.presentation import sample_at
from shared.media.mp4.ranges import RangeReader
from shared.media.mp4.selection import CannotCopy
from shared.media.pictures import render
from shared.media.port import ClipFile, Cut, MediaInfo, Picture, Precision, Progress, SourceBroken
from shared.media.settling import Settled, settle
from shared.media.survey import describe
from shared.storage.port import Storage, WriteOptions


class MediaEngine:
    """Cuts sources of one store into objects of the same store. Belongs to one event loop."""

    def __init__(self, storage: Storage, ffmpeg: Ffmpeg) -> None:
        """Speak to this store."""
        self._storage = storage
        self._ffmpeg = ffmpeg
        self._indexes = Indexes(storage)

    async def describe(self, key: str) -> MediaInfo:
        index = await self._indexes.load(key)
        movie = index.movie
        if movie is None:
            return await describe(self._ffmpeg, self._storage, key)
        return MediaInfo(
            duration_ms=movie.duration_ms,
            container=index.container.name,
            video_codec=None if movie.video is None else movie.video.entry.codec,
            audio_codec=None if movie.audio is None else movie.audio.entry.codec,
            width=0 if movie.video is None else movie.video.entry.width,
            height=0 if movie.video is None else movie.video.entry.height,
            size_bytes=index.stored.size_bytes,
        )

    async def cut(
        self,
        cuts: Sequence[Cut],
        *,
        into: str,
        options: WriteOptions,
        precision: Precision = Precision.EDIT_LIST,
        progress: Progress | None = None,
    ) -> ClipFile:
        if not cuts or any(not 0 <= cut.start_ms < cut.end_ms for cut in cuts):
            raise Bug("a clip has cuts, and each of them ends after it starts")
        indexes = [await self._load(cut) for cut in cuts]
        for index, cut in zip(indexes, cuts, strict=True):
            check_announced(index, cut)
        index_bytes = sum(index.bytes_read for index in indexes)
        copied = CopiedClip(self._storage, self._ffmpeg, indexes, cuts, key=into, progress=progress)
        try:
            await copied.prepare(precision)
        except CannotCopy as obstacle:
            because = str(obstacle)
        else:
            settled = await settle(self._storage, into, options, copied)
            clip = self._finished(settled, source_bytes_read=index_bytes + copied.bytes_read)
            return replace(
                clip,
                copied_bytes=0 if settled.adopted else copied.bytes_copied,
                reencoded_ms=copied.reencoded_ms,
                earlier_ms=copied.earlier_ms,
                later_ms=copied.later_ms,
            )
        encoded = EncodedClip(self._storage, self._ffmpeg, key=into, cuts=cuts, progress=progress)
        settled = await settle(self._storage, into, options, encoded)
        clip = self._finished(settled, source_bytes_read=index_bytes + encoded.bytes_read)
        return replace(clip, reencoded_because=because, reencoded_ms=((0, clip.duration_ms),))

    async def thumbnails(self, key: str, *, at_ms: int, widths: Sequence[int]) -> tuple[Picture, ...]:
        index = await self._indexes.load(key)
        if index.movie is None or index.movie.fragmented:
            raise SourceBroken(key, f"{key} is not a clip of Spool")
        track = index.movie.video
        if track is None or not widths:
            return ()
        reader = RangeReader(self._storage, index.stored)
        wanted = sample_at(track, index.movie.timescale, at_ms)
        first = await idr_before(reader, track, wanted, not_before=0)
        group = await read_group(reader, track, first, wanted + 1)
        # Decoders give pictures in the order in which they are shown.
        shown = track.samples.shown_ticks[group.first : group.stop]
        earlier = int((shown < shown[min(wanted, group.stop - 1) - group.first]).sum())
        return await render(self._ffmpeg, group.config.codec, group.annexb, earlier, widths)

    async def _load(self, cut: Cut) -> SourceIndex:
        key = cut.source_key
        try:
            return await self._indexes.load(key, (cut.start_ms, cut.end_ms))
        except NotFound as error:
            raise SourceBroken(key, f"the source {key} is missing") from error

    def _finished(self, settled: Settled, *, source_bytes_read: int) -> ClipFile:
        proof = settled.proof
        self._indexes.keep(proof.index)  # thumbnails are wanted next
        return ClipFile(
            stored=settled.stored,
            sha256=settled.stored.sha256,
            crc32=settled.stored.crc32,
            duration_ms=proof.duration_ms,
            video_frames=proof.video_frames,
            width=proof.width,
            height=proof.height,
            source_bytes_read=source_bytes_read,
            proof_bytes_read=settled.bytes_read,
            adopted=settled.adopted,
        )
