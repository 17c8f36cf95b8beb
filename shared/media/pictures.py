"""Make JPEGs of one frame, in several widths, from one decode."""

from __future__ import annotations

from collections.abc import Sequence

from shared.kernel.errors import Corrupt, Refused
from shared.media import commands
from shared.media.decode import GROUP_LIMITS
from shared.media.diagnosis import diagnose
from shared.media.ffmpeg import Ffmpeg, Limits
from shared.media.port import Picture

MAX_WIDTHS = 16  # of one decode: each is a pipe and a scaler
MAX_JPEG_BYTES = 32 * 1024 * 1024  # of one picture: 8192x4352 at high quality has about 12 MB
_JPEG_START = b"\xff\xd8"
# Start of frame, in any coding; 0xC4, 0xC8 and 0xCC between them are tables.
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN = 0xDA


class Collected:
    """A sink that keeps what arrives, up to a limit."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._data = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes. Raises Corrupt beyond the limit."""
        self._data += chunk
        if len(self._data) > self._limit_bytes:
            raise Corrupt(f"a picture has more than {self._limit_bytes} bytes")

    def __bytes__(self) -> bytes:
        return bytes(self._data)


async def render(
    ffmpeg: Ffmpeg,
    codec: str,
    annexb: bytes,
    frame_index: int,
    widths: Sequence[int],
    *,
    limits: Limits = GROUP_LIMITS,
) -> tuple[Picture, ...]:
    """Decode H.264 or HEVC in Annex B form once and return frame `frame_index` in each of `widths`, in order.

    Frames count from 0 in the order in which they are shown. The aspect is kept; a width beyond the
    picture's own gives the picture's own, so several widths may give the same. Pixels that are not square
    and a rotation noted in the container are not applied.
    Raises Corrupt when there is no such frame, Refused for a width below 1, Transient when a limit was hit.
    """
    if not widths:
        return ()
    if min(widths) < 1 or len(widths) > MAX_WIDTHS:
        raise Refused(f"a picture has 1 to {MAX_WIDTHS} widths of at least 1 pixel", field="widths")
    wanted = sorted(set(widths))
    sinks = [Collected(MAX_JPEG_BYTES) for _ in wanted]
    arguments = commands.draw_pictures(codec, frame_index, wanted)
    ended = await ffmpeg.run("pictures", arguments, limits=limits, stdin=annexb, sinks=sinks)

    jpegs = [bytes(sink) for sink in sinks]
    # Asked for a frame that is not there, ffmpeg fails with words about the encoder.
    if ended.frames == 0 and not any(jpegs) and not ended.timed_out and ended.code >= 0:
        raise Corrupt(f"there is no frame {frame_index} to make a picture of")
    if error := diagnose(ended, what="Drawing pictures"):
        raise error
    drawn = {width: _picture(jpeg) for width, jpeg in zip(wanted, jpegs, strict=True)}
    return tuple(drawn[width] for width in widths)


def _picture(jpeg: bytes) -> Picture:
    """Read the true width and height from the frame header. Raises Corrupt."""
    if not jpeg.startswith(_JPEG_START):
        raise Corrupt("ffmpeg drew something that is not a JPEG")
    position = len(_JPEG_START)
    while position + 9 <= len(jpeg) and jpeg[position] == 0xFF and jpeg[position + 1] != _SCAN:
        if jpeg[position + 1] in _FRAME_HEADERS:
            height = int.from_bytes(jpeg[position + 5 : position + 7], "big")
            width = int.from_bytes(jpeg[position + 7 : position + 9], "big")
            return Picture(width, height, jpeg)
        position += 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
    raise Corrupt("ffmpeg drew a JPEG without a frame header")
