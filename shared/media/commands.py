"""ffmpeg's command lines, as pure functions from values to arguments.

Every input names its demuxer (`-f` before `-i`) and its protocols, and no input may open anything but what
it is given: descriptor 0, or URLs of our own loopback. Output goes to descriptors from 4 on, or to one path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PROGRESS_FD = 3
FIRST_OUTPUT_FD = 4
THREADS = 2  # of one decoder or encoder; more cost memory and gain little beside other work
MAX_PIXELS = 8192 * 4352  # of one picture: the largest that H.264 and HEVC levels allow; more is a bomb

PREFIX = (
    *("-nostdin", "-hide_banner", "-nostats", "-loglevel", "error"),
    *("-progress", f"pipe:{PROGRESS_FD}", "-stats_period", "0.5"),
)

# A decode that proves something fails at the first thing wrong, instead of concealing it as a player does.
_STRICT = ("-xerror", "-err_detect", "explode+crccheck+bitstream+buffer")


def output_pipe(index: int) -> str:
    """Return the name by which ffmpeg writes to output pipe `index`."""
    return f"pipe:{FIRST_OUTPUT_FD + index}"


@dataclass(frozen=True, slots=True)
class Input:
    """One thing to read: a URL or descriptor, its demuxer, and the only protocols it may use."""

    url: str
    demuxer: str
    protocols: str
    options: tuple[str, ...] = ()

    def arguments(self) -> tuple[str, ...]:
        """Return the options of this input, up to and including `-i`."""
        pinned = ("-f", self.demuxer, "-format_whitelist", self.demuxer)
        bounded = ("-protocol_whitelist", self.protocols, "-max_pixels", str(MAX_PIXELS))
        return (*pinned, *bounded, "-threads", str(THREADS), *self.options, "-i", self.url)


def piped(demuxer: str, *options: str) -> Input:
    """Describe bytes that come through a pipe on descriptor 0, from first to last."""
    return Input("pipe:0", demuxer, "pipe", options)


def opened(demuxer: str, *options: str) -> Input:
    """Describe a file that is open on descriptor 0, in which ffmpeg may seek."""
    return Input("fd:", demuxer, "fd", options)


def served(url: str, demuxer: str, *options: str) -> Input:
    """Describe an object that `loopback` serves."""
    assert url.startswith("http://127.0.0.1:")  # no other socket is ever named
    return Input(url, demuxer, "http,tcp", options)


def decode_h264() -> tuple[str, ...]:
    """Decode Annex B from descriptor 0 and fail at the first error; the report of progress counts frames."""
    source = piped("h264", *_STRICT[1:])
    return (_STRICT[0], *source.arguments(), "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "null", "-")


def decode_mp4() -> tuple[str, ...]:
    """Decode every picture and sound of an MP4 open on descriptor 0; a frame log on output pipe 0."""
    source = opened("mov", *_STRICT[1:])
    maps = ("-map", "0:v:0?", "-map", "0:a:0?", "-fps_mode", "passthrough")
    # The log needs counts, not pixels: no picture is copied or converted.
    codecs = ("-c:v", "wrapped_avframe", "-c:a", "pcm_s16le")
    return (_STRICT[0], *source.arguments(), *maps, *codecs, "-f", "framecrc", output_pipe(0))


def draw_pictures(frame_index: int, widths: Sequence[int]) -> tuple[str, ...]:
    """Decode Annex B from descriptor 0 once, and write frame `frame_index` as a JPEG to a pipe per width.

    Frames count from 0 in the order they are shown. A picture is never made larger than it is.
    """
    branches = [f"[b{index}]" for index in range(len(widths))]
    chosen = f"[0:v:0]select=eq(n\\,{frame_index}),split={len(widths)}{''.join(branches)}"
    graph = [chosen, *(_draw(index, width) for index, width in enumerate(widths))]
    arguments = [*piped("h264").arguments(), "-filter_complex", ";".join(graph)]
    for index in range(len(widths)):
        arguments += ["-map", f"[p{index}]", "-frames:v", "1", "-fps_mode", "passthrough"]
        # qscale 3 is visually lossless for a thumbnail; optimal Huffman tables save a tenth of the bytes.
        arguments += ["-c:v", "mjpeg", "-q:v", "3", "-huffman", "optimal", "-bitexact"]
        arguments += ["-f", "image2pipe", output_pipe(index)]
    return tuple(arguments)


def _draw(index: int, width: int) -> str:
    # JPEG is full range, and -1 keeps the aspect without asking for an even height.
    size = f"scale=w=min({width}\\,iw):h=-1:flags=lanczos:out_range=full"
    return f"[b{index}]{size},setsar=1,format=yuv420p[p{index}]"
