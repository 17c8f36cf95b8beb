"""Recordings in every container that Spool reads, damaged, and clips of them."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from pathlib import Path
from random import Random

import imageio_ffmpeg

from shared.kernel.errors import SpoolError
from shared.media.port import Cut, Precision, SourceBroken
from spool.camera import Camera, record
from tests.media.studio import Studio

DURATION_MS = 2000
CUT_MS = (150, 1850)
CAMERA = Camera(width=128, height=72, gop_frames=10)
LONGEST_S = 60.0  # for one clip, beside other work: far more than any needs

_SOUND = ("-vn",)
_WEBM = ("-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libopus")
_MADE: Mapping[str, tuple[str, ...]] = {
    "mp4": ("-c", "copy"),
    "fragmented.mp4": ("-c", "copy", "-movflags", "frag_keyframe+empty_moov"),
    "mov": ("-c", "copy"),
    "mkv": ("-c", "copy"),
    "webm": _WEBM,
    "ts": ("-c", "copy"),
    "mpg": ("-c:v", "mpeg2video", "-c:a", "mp2", "-f", "vob"),
    "flv": ("-c", "copy"),
    "avi": ("-c:v", "mpeg4", "-c:a", "mp3"),
    "wav": (*_SOUND, "-c:a", "pcm_mulaw", "-ar", "8000"),
    "mp3": (*_SOUND, "-c:a", "libmp3lame"),
    "ogg": (*_SOUND, "-c:a", "libopus"),
    "flac": (*_SOUND, "-c:a", "flac"),
    "aac": (*_SOUND, "-c:a", "copy", "-f", "adts"),
}
CONTAINERS = tuple(_MADE)
_NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)
_HEAD_BYTES = 1500  # where a file says what it is


async def record_containers(directory: Path) -> dict[str, bytes]:
    """Record two seconds, and return them in each container."""
    source = directory / "source.mp4"
    await record(source, start_ms=0, duration_ms=DURATION_MS, camera=CAMERA)
    made = {}
    for suffix, options in _MADE.items():
        out = directory / f"made.{suffix}"
        process = await asyncio.create_subprocess_exec(
            imageio_ffmpeg.get_ffmpeg_exe(), *("-v", "error", "-y", "-i", str(source), *options, str(out))
        )
        assert await process.wait() == 0, suffix
        made[suffix] = out.read_bytes()
    return made


def damage(whole: bytes, dice: Random) -> bytes:
    """Return the recording with one to four damages, half of them in its head."""
    changed = bytearray(whole)
    for _ in range(dice.choice((1, 1, 2, 4))):
        room = len(changed) if dice.random() < 0.5 else min(len(changed), _HEAD_BYTES)
        at, size_bytes = dice.randrange(max(1, room)), dice.randint(1, 400)
        match dice.randrange(7):
            case 0:
                changed[at : at + 1] = dice.randbytes(1)
            case 1:
                changed[at : at + 4] = struct.pack(dice.choice("<>") + "I", dice.choice(_NUMBERS))
            case 2:
                changed[at : at + size_bytes] = bytes(size_bytes)
            case 3:
                changed[at : at + size_bytes] = dice.randbytes(size_bytes)
            case 4:
                del changed[at : at + size_bytes]
            case 5:
                changed[at:at] = changed[at : at + size_bytes]
            case _:
                del changed[1 + dice.randrange(len(changed)) :]
    return bytes(changed)


async def cut_damaged(studio: Studio, name: str, whole: bytes, precision: Precision) -> str:
    """Cut a clip of what may be damaged, and return what came of it: `clip`, or the kind of refusal.

    Raises AssertionError for everything that must not happen: an error that does not name the source, or one
    that would be tried again for ever; an upload that is left; a clip that is not what it says.
    """
    source, into = f"damaged-{name}", f"clip-{name}.mp4"
    studio.path(source).write_bytes(whole)
    try:
        async with asyncio.timeout(LONGEST_S):
            clip = await studio.cut(Cut(source, *CUT_MS), into=into, precision=precision)
        info = await studio.engine.describe(into)
        assert info.duration_ms == clip.duration_ms
        assert info.size_bytes == clip.stored.size_bytes == studio.path(into).stat().st_size
        assert clip.duration_ms >= CUT_MS[1] - CUT_MS[0]
        return "clip"
    except SpoolError as error:
        refusal = error
    finally:
        there = studio.path(into).exists()
        for key in (source, into):
            studio.path(key).unlink(missing_ok=True)
    assert isinstance(refusal, SourceBroken), repr(refusal)
    assert refusal.source_key == source
    assert not there
    assert not await studio.storage.unfinished(into)
    return type(refusal).__name__
