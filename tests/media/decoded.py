"""What comes out of a whole file when it is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shared.media.decode import decode_each
from shared.media.ffmpeg import Ffmpeg
from shared.media.framecrc import Entry


@dataclass(frozen=True, slots=True)
class DecodedCounts:
    """What came out of the decoders, as a player shows it: edit lists are honoured."""

    video_frames: int
    audio_samples: int  # per channel, at the rate of the track


async def decode_file(ffmpeg: Ffmpeg, path: Path) -> DecodedCounts:
    """Decode a whole local MP4 and return what it holds. Raises Corrupt and Transient."""
    counts = {"video": 0, "audio": 0}

    def count(entry: Entry) -> None:
        counts[entry.stream.kind] += 1 if entry.stream.kind == "video" else entry.duration

    with path.open("rb") as file:
        await decode_each(ffmpeg, file, count)
    return DecodedCounts(video_frames=counts["video"], audio_samples=counts["audio"])


async def picture_times_ms(ffmpeg: Ffmpeg, path: Path) -> list[float]:
    """Return when each picture of a local MP4 is shown, as ffmpeg plays it."""
    times_ms: list[float] = []

    def note(entry: Entry) -> None:
        if entry.stream.kind == "video":
            times_ms.append(float(entry.start_s * 1000))

    with path.open("rb") as file:
        await decode_each(ffmpeg, file, note)
    return times_ms
