"""Encode a clip as the engine does when samples cannot be copied, also of sources that could be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.media.encoded import EncodedClip
from shared.media.port import Cut, Progress
from shared.storage.port import Storage, WriteOptions
from tests.media.studio import Studio

KEY = "encoded.mp4"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A finished clip in the studio, proven: it decodes without an error and has exactly these frames."""

    path: Path
    duration_ms: int
    video_frames: int
    width: int  # 0 when there is no picture
    height: int
    sound: bool


async def encode(
    studio: Studio,
    cuts: Sequence[Cut],
    *,
    storage: Storage | None = None,
    progress: Progress | None = None,
) -> Encoded:
    """Encode, write and prove a clip. Raises what writing and proving raise."""
    store = storage or studio.storage
    clip = EncodedClip(store, studio.ffmpeg, key=KEY, cuts=cuts, progress=progress)
    stored = await clip.write(WriteOptions(content_type="video/mp4"))
    proof = await clip.prove(stored)
    return Encoded(
        path=studio.path(KEY),
        duration_ms=proof.duration_ms,
        video_frames=proof.video_frames,
        width=proof.width,
        height=proof.height,
        sound=proof.index.movie is not None and proof.index.movie.audio is not None,
    )
