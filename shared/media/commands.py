"""ffmpeg's command lines, as pure functions from values to arguments.

Every input names its demuxer (`-f` before `-i`) and its protocols, and no input may open anything but what
it is given: descriptor 0, or URLs of our own loopback. Output goes to descriptors from 4 on, or to one path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from shared.media.ticks import TICKS_PER_S

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
# Packets as they are stored, from wherever the reading starts. V is a picture that moves: no cover art.
_PACKETS = ("-map", "0:V:0?", "-map", "0:a:0?", "-c", "copy", "-copyinkf", "-copypriorss", "1")
SQUARE_PIXELS = "scale=iw*sar:ih,setsar=1"


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


def window(from_s: Fraction | None, length_s: Fraction) -> tuple[str, ...]:
    """Return the input options that read [from_s, from_s + length_s) of a source, and what leads to it.

    Times count from the source's first packet, wherever reading starts: at a key frame before `from_s`, as
    the demuxer finds one. None reads from the beginning.
    """
    # Without -start_at_zero, -t ends the reading at once where a container (WAV) knows of no start.
    times = ("-copyts", "-start_at_zero")
    if from_s is None:
        return (*times, "-t", seconds(length_s))
    return (*times, "-noaccurate_seek", "-ss", seconds(from_s), "-t", seconds(length_s))


def seconds(value: Fraction) -> str:
    """Write seconds with microseconds, the finest that ffmpeg's options take."""
    return f"{float(value):.6f}"


def decode_pictures(codec: str) -> tuple[str, ...]:
    """Decode Annex B from descriptor 0 and fail at the first error; the report of progress counts frames."""
    # Nobody looks at these pictures: smoothing the edges of their blocks takes a fourth of the time and finds
    # no error that reading them does not.
    source = piped(codec, *_STRICT[1:], "-skip_loop_filter", "all")
    return (_STRICT[0], *source.arguments(), "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "null", "-")


def decode_mp4(url: str | None = None) -> tuple[str, ...]:
    """Decode every picture and sound of an MP4; a frame log on output pipe 0.

    It is one that `loopback` serves, or without a URL a file that is open on descriptor 0.
    """
    source = opened("mov", *_STRICT[1:]) if url is None else served(url, "mov", *_STRICT[1:])
    maps = ("-map", "0:v:0?", "-map", "0:a:0?", "-fps_mode", "passthrough")
    # The log needs counts, not pixels: no picture is copied or converted.
    codecs = ("-c:v", "wrapped_avframe", "-enc_time_base:v", "demux", "-c:a", "pcm_s16le")
    return (_STRICT[0], *source.arguments(), *maps, *codecs, "-f", "framecrc", output_pipe(0))


def list_packets(source: Input, *, describe: bool = False) -> tuple[str, ...]:
    """List every packet of a source's picture and sound on output pipe 0, without decoding any.

    `describe` also writes what the container says of its duration to stderr.
    """
    loudness = ("-loglevel", "info") if describe else ()
    return (*loudness, *source.arguments(), *_PACKETS, "-f", "framecrc", output_pipe(0))


def measure_picture(source: Input) -> tuple[str, ...]:
    """Decode one picture; its size as it is shown (rotated, square pixels) is on output pipe 0."""
    shown = ("-map", "0:V:0", "-frames:v", "1", "-vf", SQUARE_PIXELS)
    return (*source.arguments(), *shown, "-c:v", "wrapped_avframe", "-f", "framecrc", output_pipe(0))


def draw_pictures(codec: str, frame_index: int, widths: Sequence[int]) -> tuple[str, ...]:
    """Decode Annex B from descriptor 0 once, and write frame `frame_index` as a JPEG to a pipe per width.

    Frames count from 0 in the order they are shown. A picture is never made larger than it is.
    """
    branches = [f"[b{index}]" for index in range(len(widths))]
    chosen = f"[0:v:0]select=eq(n\\,{frame_index}),split={len(widths)}{''.join(branches)}"
    graph = [chosen, *(_draw(index, width) for index, width in enumerate(widths))]
    arguments = [*piped(codec).arguments(), "-filter_complex", ";".join(graph)]
    for index in range(len(widths)):
        arguments += ["-map", f"[p{index}]", "-frames:v", "1", "-fps_mode", "passthrough"]
        # qscale 3 is visually lossless for a thumbnail; optimal Huffman tables save a tenth of the bytes.
        arguments += ["-c:v", "mjpeg", "-q:v", "3", "-huffman", "optimal", "-bitexact"]
        arguments += ["-f", "image2pipe", output_pipe(index)]
    return tuple(arguments)


def encode_pictures(first: int, stop: int, *, number: int, profile: str) -> tuple[str, ...]:
    """Decode Annex B from descriptor 0 and encode some of its pictures anew, as Annex B on output pipe 0.

    They are pictures [first, stop), counted from 0 in the order they are shown, which is the order in which
    they are written: each after an access unit delimiter, the first of them alone a key frame. `number` is
    that of the new parameter sets.
    """
    # Strict: else the decoder guesses how far pictures are reordered, and is wrong at the beginning.
    source = piped("h264", *_STRICT[1:], "-strict", "strict")
    chosen = f"select=between(n\\,{first}\\,{stop - 1})"
    pictures = ("-map", "0:v:0", "-vf", chosen, "-fps_mode", "passthrough")
    coding = ("-c:v", "libx264", "-preset", "superfast", "-crf", "17", "-profile:v", profile, "-bf", "0")
    groups = ("-g", "100000", "-sc_threshold", "0", "-threads", str(THREADS))
    named = ("-x264-params", f"sps-id={number}:aud=1")
    return (
        _STRICT[0],
        *source.arguments(),
        *pictures,
        *coding,
        *groups,
        *named,
        "-f",
        "h264",
        output_pipe(0),
    )


def _draw(index: int, width: int) -> str:
    # JPEG is full range, and -1 keeps the aspect without asking for an even height.
    size = f"scale=w=min({width}\\,iw):h=-1:flags=lanczos:out_range=full"
    return f"[b{index}]{size},setsar=1,format=yuv420p[p{index}]"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the output of `encode`: what of which input is shown, in the input's own time."""

    source: Input
    start_s: Fraction
    duration_ms: int
    pictures: bool
    sound: bool


@dataclass(frozen=True, slots=True)
class Frame:
    """The picture size of a whole clip, both even. Smaller and differently shaped pictures get black bars."""

    width: int
    height: int


SAMPLES_PER_MS = 48  # of the clip's sound
# Times are compared with this much mercy: start times are known to a microsecond, and two different
# presentation times are further apart in every usual time base.
_MERCY_S = Fraction(1, 1_000_000)
# `concat` guesses when the pictures of a piece end, from their mean duration, and would delay what follows
# when its guess is later than the end of the sound. So pictures come to it as long before zero as no clip
# lasts; the end of the sound, which is exact to the sample, decides; and afterwards they are put back.
_ASIDE_S = 1_000_000


def encode(pieces: Sequence[Piece], frame: Frame | None, *, sound: bool) -> tuple[str, ...]:
    """Join pieces into an MP4 of H.264 (if there is a `frame`) and AAC (if there is `sound`).

    It comes in fragments from output pipe 0, since nothing can be written over in a pipe.

    Every frame whose presentation time lies in its piece is kept with its own time, none is added or
    dropped. A piece without pictures is one black frame, one without sound is silent.
    """
    assert frame is not None or sound  # else there is nothing to make
    arguments = [word for piece in pieces for word in (*_ONE_GRAPH, *piece.source.arguments())]
    arguments += [
        "-filter_complex_threads",
        str(THREADS),
        "-filter_complex",
        _graph(pieces, frame, sound=sound),
    ]
    if frame is not None:
        arguments += ["-map", "[v]", *_H264]
    if sound:
        arguments += ["-map", "[a]", *_AAC]
    # Nothing of what the sources say of themselves is passed on.
    anonymous = ("-map_metadata", "-1", "-map_chapters", "-1")
    return (*arguments, *anonymous, *_FRAGMENTS, "-f", "mp4", output_pipe(0))


_H264 = (
    # Passthrough and a time base of our own: no frame is repeated or dropped to please a frame rate.
    *("-fps_mode", "passthrough", "-enc_time_base:v", f"1:{TICKS_PER_S}"),
    *("-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-threads", str(THREADS)),
    # A key frame each two seconds of time: a player seeks there, and the next clip is cut there.
    *("-force_key_frames", "expr:gte(t,n_forced*2)", "-forced-idr", "1"),
    *("-video_track_timescale", str(TICKS_PER_S)),
)
_AAC = ("-c:a", "aac", "-b:a", "160k")
# Sound may be this far from its time before silence is filled in, or sound left out. A lost packet is longer.
_DRIFT_S = 0.015
# Pictures that change their size inside of a source (a caller turns a phone, a call falls back to a smaller
# picture) go through the same graph, whose filters look at each picture: made anew, it would forget the rest.
_ONE_GRAPH = ("-reinit_filter:v", "0")
# The index waits for the first packets, else it does not know what of the media is to be hidden. In half a
# second picture and sound lie so close together that a reader of the clip need not go back and forth.
# Its edits say when the first picture is shown, in ticks of the pictures: a millisecond would be too coarse.
_FRAGMENTS = (
    *("-movflags", "+delay_moov+default_base_moof+skip_trailer", "-frag_duration", "500000"),
    *("-movie_timescale", str(TICKS_PER_S)),
)


def _graph(pieces: Sequence[Piece], frame: Frame | None, *, sound: bool) -> str:
    chains, labels = [], ""
    for index, piece in enumerate(pieces):
        if frame is not None:
            chains.append(_pictures(index, piece, frame) + f"[v{index}]")
            labels += f"[v{index}]"
        chains.append(_sound(index, piece) + f"[a{index}]")
        labels += f"[a{index}]"
    outputs = "[va][aa]" if frame is not None else "[aa]"
    chains.append(f"{labels}concat=n={len(pieces)}:v={int(frame is not None)}:a=1{outputs}")
    if frame is not None:
        chains.append(f"[va]settb=AVTB,setpts=PTS+{_ASIDE_S * 1_000_000}[v]")
    # Even a clip without sound is timed by its silence.
    chains.append("[aa]anull[a]" if sound else "[aa]anullsink")
    return ";".join(chains)


def _pictures(index: int, piece: Piece, frame: Frame) -> str:
    time_base = f"settb=1/{TICKS_PER_S}"
    aside = _ASIDE_S * TICKS_PER_S
    if not piece.pictures:
        black = f"color=black:size={frame.width}x{frame.height}:rate=1,trim=end_frame=1"
        return f"{black},{time_base},setpts=PTS-{aside},format=yuv420p,setsar=1"
    start = piece.start_s - _MERCY_S
    end = start + Fraction(piece.duration_ms, 1000)
    chosen = f"select='gte(t,{float(start):.7f})*lt(t,{float(end):.7f})'"
    zero = round(piece.start_s * TICKS_PER_S) + aside
    return f"[{index}:V:0]{time_base},{chosen},setpts=PTS-{zero},{_fitted(frame)}"


def _fitted(frame: Frame) -> str:
    """Scale into the frame, keep the shape of things, centre between black bars."""
    inside = "force_original_aspect_ratio=decrease:force_divisible_by=2:reset_sar=1"
    scaled = f"scale={frame.width}:{frame.height}:{inside}:out_range=limited"
    return f"{scaled},pad={frame.width}:{frame.height}:-1:-1:eval=frame,format=yuv420p,setsar=1"


def _sound(index: int, piece: Piece) -> str:
    rate_hz = SAMPLES_PER_MS * 1000
    samples = piece.duration_ms * SAMPLES_PER_MS
    if not piece.sound:
        return f"anullsrc=r={rate_hz}:cl=stereo,aformat=sample_fmts=fltp,atrim=end_sample={samples}"
    in_time = f"aresample={rate_hz}:async=1:min_hard_comp={_DRIFT_S}"
    stereo = f"{in_time},aformat=sample_fmts=fltp:channel_layouts=stereo"
    # Sound before the piece is cut off, then gaps at its start and its end are filled with silence.
    first = round(piece.start_s * rate_hz)
    cut = f"atrim=start_pts={first}:end_pts={first + samples},asetpts=PTS-{first}"
    filled = f"aresample=async=1:first_pts=0,apad=whole_len={samples},atrim=end_sample={samples}"
    return f"[{index}:a:0]{stereo},{cut},{filled}"
