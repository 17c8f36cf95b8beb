"""Decode a whole clip that was encoded anew, from the store, and compare it with its sources, cut by cut."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import accumulate

from shared.kernel.errors import Conflict, Corrupt, NotFound, Transient
from shared.media.commands import SAMPLES_PER_MS
from shared.media.decode import decode_each
from shared.media.ffmpeg import Ffmpeg
from shared.media.framecrc import Entry
from shared.media.loopback import Loopback
from shared.media.port import SourceBroken
from shared.media.survey import Content
from shared.media.ticks import TICKS_PER_MS
from shared.media.transcode import Transcoded
from shared.storage.port import Storage, StoredObject

_AUDIO_TOLERANCE_SAMPLES = 1024  # one AAC frame


async def recount(ffmpeg: Ffmpeg, storage: Storage, stored: StoredObject, transcoded: Transcoded) -> int:
    """Return how many pictures a written clip shows: those of its sources' packets, and all its sound.

    Raises Corrupt when the clip is not what was to be encoded, SourceBroken naming the source when pictures
    of it are missing, what the store raises, Transient.
    """
    counted = _Counted(transcoded.contents)
    with _blaming(transcoded):
        await _decode(ffmpeg, storage, stored, counted)
        _compare_sound(transcoded, counted.samples)
    if transcoded.frame is not None:
        for content, frames in zip(transcoded.contents, counted.frames, strict=True):
            _compare(content, frames)
    return sum(counted.frames)


async def _decode(ffmpeg: Ffmpeg, storage: Storage, stored: StoredObject, counted: _Counted) -> None:
    async with Loopback(storage) as loopback:
        url = loopback.share(stored)
        try:
            await decode_each(ffmpeg, url, counted.take)
        finally:
            _raise_failure(loopback)


@contextmanager
def _blaming(transcoded: Transcoded) -> Iterator[None]:
    """Name the source of a clip that came out wrong, where there is only one that it can be from."""
    try:
        yield
    except Corrupt as error:
        keys = {content.source.key for content in transcoded.contents}
        if len(keys) > 1:
            raise
        (key,) = keys
        message = f"the source {key} is damaged: what was encoded of it is no clip: {error.message}"
        raise SourceBroken(key, message) from error


def _raise_failure(loopback: Loopback) -> None:
    """Raise what the store raised: to ffmpeg it looks like a clip that is broken."""
    try:
        loopback.raise_failure()
    except (Conflict, NotFound) as error:
        raise Transient("the clip was replaced while it was proven") from error


class _Counted:
    """What a clip shows, by the cut that it belongs to."""

    def __init__(self, contents: Sequence[Content]) -> None:
        durations_ms = [content.cut.duration_ms for content in contents]
        self._starts_ms = [0, *accumulate(durations_ms[:-1])]
        self.frames = [0] * len(contents)
        self.samples = 0

    def take(self, entry: Entry) -> None:
        if entry.stream.kind == "audio":
            self.samples += entry.duration
            return
        # A frame at the very start of a cut may be stored a tick before it.
        at_ms = entry.start_s * 1000 + Fraction(1, TICKS_PER_MS)
        self.frames[max(0, bisect_right(self._starts_ms, at_ms) - 1)] += 1


def _compare(content: Content, frames: int) -> None:
    """Raise unless a cut shows each of its pictures. Frames that VP8 hides may make it fewer."""
    key, wanted = content.source.key, content.frames if content.pictures else 1
    if frames == wanted or (0 < frames < wanted and not content.exact):
        return
    if wanted < frames <= wanted + content.untimed:
        return
    if frames > wanted:
        raise Corrupt(f"the encoded clip shows {frames} frames of {key}, where {wanted} were asked for")
    raise SourceBroken(key, f"{wanted - frames} of {wanted} pictures of the source {key} cannot be decoded")


def _compare_sound(transcoded: Transcoded, samples: int) -> None:
    """Raise Corrupt unless there is as much sound as there was to be."""
    duration_ms = transcoded.duration_ms
    wanted = duration_ms * SAMPLES_PER_MS if transcoded.sound else 0
    if abs(samples - wanted) > _AUDIO_TOLERANCE_SAMPLES:
        raise Corrupt(f"it has {samples} samples of sound for {duration_ms} ms")
