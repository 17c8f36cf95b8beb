"""The other way to a clip: ffmpeg encodes it anew, honestly said so in the result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from shared.kernel.errors import Conflict, NotFound, Transient
from shared.media.ffmpeg import Ffmpeg
from shared.media.port import Cut, Progress
from shared.media.probe import Proof, prove_encoded
from shared.media.transcode import Transcoded, transcode
from shared.storage.port import Storage, StoredObject, WriteOptions

_CHUNK_BYTES = 1 << 20


class EncodedClip:
    """Encodes a clip into a temporary file, streams it into the store, and proves it."""

    def __init__(
        self,
        storage: Storage,
        ffmpeg: Ffmpeg,
        *,
        key: str,
        cuts: Sequence[Cut],
        directory: Path,
        progress: Progress | None,
    ) -> None:
        """Prepare to write under `key`; the temporary file lives in `directory`."""
        self._storage = storage
        self._ffmpeg = ffmpeg
        self._key = key
        self._cuts = cuts
        self._directory = directory
        self._progress = progress
        self._video_frames: int | None = None  # of what was written here, as decoded on this machine
        self.bytes_read = 0

    async def write(self, options: WriteOptions) -> StoredObject:
        before_bytes = self._storage.bytes_read
        async with self._encode() as encoded:
            # The store's own count: what others read at the same time is in it, and is little beside this.
            self.bytes_read += self._storage.bytes_read - before_bytes
            async with self._storage.writer(self._key, options) as writer:
                with encoded.path.open("rb") as file:
                    while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                        await writer.write(chunk)
            self._video_frames = encoded.video_frames
        return writer.stored

    async def prove(self, stored: StoredObject) -> Proof:
        return await prove_encoded(
            self._storage,
            self._ffmpeg,
            stored,
            duration_ms=sum(cut.duration_ms for cut in self._cuts),
            video_frames=self._video_frames,
        )

    @asynccontextmanager
    async def _encode(self) -> AsyncIterator[Transcoded]:
        async with AsyncExitStack() as stack:
            encoding = transcode(
                self._ffmpeg, self._storage, self._cuts, directory=self._directory, progress=self._progress
            )
            try:
                encoded = await stack.enter_async_context(encoding)
            except (Conflict, NotFound) as error:
                # To the writing of the clip, a conflict would mean that the clip itself is there.
                raise Transient("a source was replaced while it was read") from error
            yield encoded
