"""The other way to a clip: ffmpeg encodes it anew, honestly said so in the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shared.media.ffmpeg import Ffmpeg
from shared.media.port import Cut, Progress
from shared.media.probe import Proof, prove_encoded
from shared.media.recount import recount
from shared.media.transcode import Transcoded, transcode
from shared.storage.port import Storage, StoredObject, WriteOptions


class EncodedClip:
    """Encodes a clip into the store, and proves it."""

    def __init__(
        self,
        storage: Storage,
        ffmpeg: Ffmpeg,
        *,
        key: str,
        cuts: Sequence[Cut],
        progress: Progress | None,
    ) -> None:
        """Prepare to write under `key`."""
        self._storage = storage
        self._ffmpeg = ffmpeg
        self._key = key
        self._cuts = cuts
        self._progress = progress
        self._written: tuple[StoredObject, Transcoded] | None = None
        self.bytes_read = 0

    async def write(self, options: WriteOptions) -> StoredObject:
        before_bytes = self._storage.bytes_read
        async with self._storage.writer(self._key, replace(options, head_last=True)) as writer:
            transcoded = await transcode(
                self._ffmpeg, self._storage, self._cuts, into=writer, progress=self._progress
            )
        # The store's own count: what others read at the same time is in it, and is little beside this.
        self.bytes_read += self._storage.bytes_read - before_bytes
        self._written = writer.stored, transcoded
        return writer.stored

    async def prove(self, stored: StoredObject) -> Proof:
        """Compare an object with the sources; of one that was not written here, decode all pictures."""
        duration_ms = sum(cut.duration_ms for cut in self._cuts)
        frames = None
        if self._written is not None and self._written[0] == stored:
            frames = await recount(self._ffmpeg, self._storage, stored, self._written[1])
        proof = await prove_encoded(
            self._storage, self._ffmpeg, stored, duration_ms=duration_ms, video_frames=frames
        )
        if frames is None:
            return proof
        return replace(proof, bytes_read=proof.bytes_read + stored.size_bytes)
