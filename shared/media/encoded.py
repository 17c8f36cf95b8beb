"""The other way to a clip: ffmpeg encodes it anew, honestly said so in the result."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from shared.media.ffmpeg import Ffmpeg
from shared.media.port import Cut, Progress
from shared.media.probe import Proof, prove_encoded
from shared.media.transcode import transcode
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
        self.bytes_read = 0

    async def write(self, options: WriteOptions) -> StoredObject:
        async with transcode(
            self._ffmpeg, self._storage, self._cuts, directory=self._directory, progress=self._progress
        ) as encoded:
            async with self._storage.writer(self._key, options) as writer:
                with encoded.path.open("rb") as file:
                    while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                        await writer.write(chunk)
        return writer.stored

    async def prove(self, stored: StoredObject) -> Proof:
        duration_ms = sum(cut.duration_ms for cut in self._cuts)
        return await prove_encoded(self._storage, self._ffmpeg, stored, duration_ms=duration_ms)
