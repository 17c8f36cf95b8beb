"""Prove that media decodes: every picture and every sound, with no error at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

from shared.kernel.errors import Corrupt
from shared.media import commands
from shared.media.diagnosis import diagnose
from shared.media.ffmpeg import Ffmpeg, Limits
from shared.media.framecrc import Entry, FrameLog

MIB = 1024 * 1024
DECODE_MEMORY_BYTES = 1536 * MIB  # 16 reference pictures of 8192x4352 are 860 MiB
NO_FILE_BYTES = (
    1 * MIB
)  # of files that a decode writes: none, but a limit of 0 would stop pipes on some kernels

# One or two groups of pictures; even 4K on a busy core is done in a fraction of this.
GROUP_LIMITS = Limits(cpu_s=60, memory_bytes=DECODE_MEMORY_BYTES, file_bytes=NO_FILE_BYTES, wall_s=120)
# A whole clip that was encoded anew: decoding takes about a tenth of the encoding.
WHOLE_LIMITS = Limits(cpu_s=1800, memory_bytes=DECODE_MEMORY_BYTES, file_bytes=NO_FILE_BYTES, wall_s=1800)


async def decode_pictures(ffmpeg: Ffmpeg, codec: str, annexb: bytes, *, limits: Limits = GROUP_LIMITS) -> int:
    """Decode H.264 or HEVC (`codec`: h264, hevc) in Annex B form and return the number of frames.

    Raises Corrupt at the first thing that is wrong with it, Transient when a limit was hit.
    """
    what = "Decoding pictures"
    if not annexb:
        raise Corrupt(f"{what}: there is nothing to decode")
    ended = await ffmpeg.run("decode", commands.decode_pictures(codec), limits=limits, stdin=annexb)
    if error := diagnose(ended, what=what):
        raise error
    if ended.frames == 0:
        raise Corrupt(f"{what} gave no frame")
    return ended.frames


async def decode_each(ffmpeg: Ffmpeg, source: str | IO[bytes], on_entry: Callable[[Entry], None]) -> None:
    """Decode a whole MP4; `on_entry` takes each frame and block of sound.

    The source is an open file, or a URL of a `Loopback`, whose failure comes before the error from here.
    Raises Corrupt and Transient as above.
    """
    log = FrameLog(on_entry)
    url, file = (source, None) if isinstance(source, str) else (None, source)
    arguments = commands.decode_mp4(url)
    ended = await ffmpeg.run("decode", arguments, limits=WHOLE_LIMITS, stdin=file, sinks=(log,))
    if error := diagnose(ended, what="Decoding the result"):
        raise error
