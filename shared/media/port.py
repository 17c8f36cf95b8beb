"""What the media engine promises to a handler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from shared.kernel.errors import Corrupt
from shared.storage.port import StoredObject, WriteOptions


class SourceBroken(Corrupt):
    """A source is not media that a clip can be cut from. `source_key` names it."""

    def __init__(self, source_key: str, message: str, *, hint: str | None = None) -> None:
        self.source_key = source_key
        super().__init__(message, hint=hint)


class SourceEndsEarly(SourceBroken):
    """A source ends before a cut of it does: it was cut off, or was never that long.

    What it shows before `playable_ms`, counted as in a Cut, can be cut.
    """

    def __init__(self, source_key: str, message: str, *, playable_ms: int) -> None:
        self.playable_ms = playable_ms
        super().__init__(source_key, message)


class Precision(StrEnum):
    """How a clip comes to its exact range where its ends lie between key frames."""

    EDIT_LIST = "edit-list"  # nothing is encoded anew; pictures before the start stay in the file, hidden
    SMART = "smart"  # the groups of pictures at its ends are encoded anew; nothing is hidden
    KEYFRAME = "keyframe"  # it is widened to key frames; nothing is encoded anew, nothing is hidden


@dataclass(frozen=True, slots=True)
class Cut:
    """Milliseconds [start_ms, end_ms) of a source, counted from the source's own presentation start.

    `declared_ms` is how long the source was announced to last, `declared_bytes` how large, where known.
    """

    source_key: str
    start_ms: int
    end_ms: int
    declared_ms: int | None = None
    declared_bytes: int | None = None

    @property
    def duration_ms(self) -> int:
        return self.end_ms - self.start_ms


@dataclass(frozen=True, slots=True)
class ClipFile:
    """A finished clip, as measured after it was written and compared with the plan."""

    stored: StoredObject
    sha256: str | None  # hex, of all bytes; None when the store copied some of them by itself
    crc32: str | None  # hex, of all bytes, where the store tells it
    duration_ms: int
    video_frames: int
    width: int  # 0 when there is no picture
    height: int
    source_bytes_read: int
    proof_bytes_read: int  # read back from the result to prove it
    adopted: bool  # an earlier attempt had finished the object
    reencoded_because: str | None = None  # why all of it was encoded anew
    reencoded_ms: tuple[
        tuple[int, int], ...
    ] = ()  # what of it, [start, end), is not the source's own samples
    earlier_ms: int = 0  # how much earlier than asked for it begins: at a key frame
    later_ms: int = 0  # and how much later it ends
    copied_bytes: int = 0  # of the clip: copied by the store itself, neither read nor sent


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded JPEG in memory."""

    width: int
    height: int
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a source holds, read from its index."""

    duration_ms: int
    container: str
    video_codec: str | None
    audio_codec: str | None
    width: int
    height: int
    size_bytes: int


Progress = Callable[[int, int], None]  # (done, of): milliseconds of the clip that are written


class Media(Protocol):
    """Cuts sources of one store into objects of the same store."""

    async def describe(self, key: str) -> MediaInfo:
        """Read a source's index. Raises SourceBroken, NotFound or Unavailable."""
        ...

    async def cut(
        self,
        cuts: Sequence[Cut],
        *,
        into: str,
        options: WriteOptions,
        precision: Precision = Precision.EDIT_LIST,
        progress: Progress | None = None,
    ) -> ClipFile:
        """Join the cuts, in order, into one progressive MP4 under the key `into`, and prove it.

        Frames whose presentation time lies in a cut are shown, and no others; where a cut is widened to key
        frames, the result says by how much. H.264, HEVC and AAC in MP4 keep their samples, but for those that
        `precision` asks to encode; anything else is encoded anew and the result says why. An object that
        is already there and is what the plan says is adopted; otherwise it is replaced.
        Raises SourceBroken (naming the source), Corrupt (the result does not match the plan), Transient.
        """
        ...

    async def thumbnails(self, key: str, *, at_ms: int, widths: Sequence[int]) -> tuple[Picture, ...]:
        """Decode the frame shown at `at_ms` of a clip of ours once, and return it in each width, in order.

        A width beyond the picture's own gives the picture's own. No picture, no thumbnails.
        """
        ...
