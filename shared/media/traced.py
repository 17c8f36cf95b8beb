"""A media engine whose work shows in traces. Put before the engine only where spans are collected."""

from __future__ import annotations

from collections.abc import Sequence

from shared.media.port import ClipFile, Cut, Media, MediaInfo, Picture, Precision, Progress
from shared.observability.tracing import stage
from shared.storage.port import WriteOptions


class TracedMedia:
    """Does what its engine does, each call as a stage of the hop that it is made in."""

    def __init__(self, media: Media) -> None:
        self._media = media

    async def describe(self, key: str) -> MediaInfo:
        with stage("media describe", key=key):
            return await self._media.describe(key)

    async def cut(
        self,
        cuts: Sequence[Cut],
        *,
        into: str,
        options: WriteOptions,
        precision: Precision = Precision.EDIT_LIST,
        progress: Progress | None = None,
    ) -> ClipFile:
        with stage("media cut", key=into, pieces=len(cuts), precision=precision) as span:
            clip = await self._media.cut(
                cuts, into=into, options=options, precision=precision, progress=progress
            )
            span.note(duration_ms=clip.duration_ms, size_bytes=clip.stored.size_bytes)
            return clip

    async def thumbnails(self, key: str, *, at_ms: int, widths: Sequence[int]) -> tuple[Picture, ...]:
        with stage("media thumbnails", key=key, pieces=len(widths)):
            return await self._media.thumbnails(key, at_ms=at_ms, widths=widths)
