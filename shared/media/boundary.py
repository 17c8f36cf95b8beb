"""Encode the pictures at both ends of a cut anew, so that none that is not wanted has to be in the file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from shared.kernel.errors import Corrupt
from shared.media import commands
from shared.media.decode import DECODE_MEMORY_BYTES, MIB, NO_FILE_BYTES
from shared.media.diagnosis import diagnose
from shared.media.ffmpeg import Ffmpeg, Limits
from shared.media.mp4.entries import NalConfig
from shared.media.mp4.groups import is_idr, read_group
from shared.media.mp4.parameter_sets import Encoded, free_number, take_apart, with_sets
from shared.media.mp4.ranges import RangeReader
from shared.media.mp4.selection import CannotCopy, Run
from shared.media.mp4.splitting import Boundary, Split, first_late, hidden_lead, split
from shared.media.mp4.tracks import Track
from shared.media.pictures import Collected

# A group of ten seconds in 4K takes about a hundred seconds of CPU.
BOUNDARY_LIMITS = Limits(
    cpu_s=600, memory_bytes=DECODE_MEMORY_BYTES + 512 * MIB, file_bytes=NO_FILE_BYTES, wall_s=600
)
MAX_ENCODED_BYTES = 128 * MIB  # four times what a group may hold: somebody thriftier had encoded it
MAX_KEY_FRAMES = 64  # that are looked at in search of one that needs nothing before it
_PROFILES = {66: "baseline", 77: "main", 100: "high", 110: "high10", 122: "high422", 244: "high444"}


async def bare(
    ffmpeg: Ffmpeg, reader: RangeReader, track: Track, run: Run
) -> tuple[tuple[Run, ...], tuple[Encoded, ...]]:
    """Return a run without what it would hide, as runs that follow one another, and what was encoded for it.

    Raises CannotCopy when the source's kind of H.264 cannot be joined, Corrupt when its pictures do not
    decode, Transient.
    """
    parts = await _split(reader, track, run)
    runs: list[Run] = []
    encoded: list[Encoded] = []
    for part in (parts.before, parts.copied, parts.after):
        if isinstance(part, Boundary):
            encoded.append(await _encode(ffmpeg, reader, track, part))
            runs.append(part.encoded(encoded[-1].samples))
        elif part is not None:
            runs.append(part)
    return tuple(runs), tuple(encoded)


def settings_of_both(track: Track, encoded: Iterable[Encoded]) -> Track:
    """Return the track with settings by which its own pictures and the encoded ones are read.

    Raises CannotCopy when not all were encoded in one way, or the settings do not fit together.
    """
    ways = {(one.sps, one.pps): one for one in encoded}
    if len(ways) > 1:
        raise CannotCopy("the pictures at the ends of the cuts were encoded in different ways")
    entries = tuple(with_sets(track.entry, one) for one in ways.values())
    return replace(track, entries=entries or track.entries)


async def _split(reader: RangeReader, track: Track, run: Run) -> Split:
    """Find the key frames between which the run can be copied; they need nothing before them."""
    keys = run.sync + run.first
    copied_first: int | None = run.first
    if hidden_lead(run):
        ahead = [key for key in keys.tolist() if run.shown[key - run.first] >= run.start]
        copied_first = await _first_idr(reader, track, ahead)
    if copied_first is None:
        return split(run, None, None)
    late = first_late(run, copied_first)
    if late is None:
        return split(run, copied_first, None)
    back = [key for key in reversed(keys.tolist()) if copied_first < key <= late]
    return split(run, copied_first, await _first_idr(reader, track, back) or copied_first)


async def _first_idr(reader: RangeReader, track: Track, samples: Iterable[int]) -> int | None:
    for looked_at, sample in enumerate(samples):
        if looked_at == MAX_KEY_FRAMES:
            raise CannotCopy("the source has no key frame near the cut that can be decoded alone")
        if await is_idr(reader, track, sample):
            return sample
    return None


async def _encode(ffmpeg: Ffmpeg, reader: RangeReader, track: Track, boundary: Boundary) -> Encoded:
    group = await read_group(reader, track, boundary.first, boundary.stop)
    if len(group) < boundary.stop - boundary.first:
        raise CannotCopy("the group of pictures at a cut is too large to be encoded anew")
    config = track.entry.nal
    assert config is not None  # its group was read
    return await encode_pictures(ffmpeg, group.annexb, config, first=boundary.skipped, count=boundary.count)


async def encode_pictures(
    ffmpeg: Ffmpeg, annexb: bytes, config: NalConfig, *, first: int, count: int
) -> Encoded:
    """Decode H.264 and encode `count` of its pictures, from `first` on in the order they are shown.

    Raises CannotCopy when the source's kind of H.264 cannot be written, Corrupt when the pictures do not
    decode, Transient when a limit was hit.
    """
    if config.codec != "h264":
        raise CannotCopy(f"pictures of {config.codec} cannot be encoded anew beside the source's own")
    if config.profile not in _PROFILES:
        raise CannotCopy(f"pictures of the H.264 profile {config.profile} cannot be encoded anew")
    stream = Collected(MAX_ENCODED_BYTES)
    arguments = commands.encode_pictures(
        first, first + count, number=free_number(config), profile=_PROFILES[config.profile]
    )
    ended = await ffmpeg.run("boundary", arguments, limits=BOUNDARY_LIMITS, stdin=annexb, sinks=(stream,))
    if error := diagnose(ended, what="Encoding the pictures at the end of a cut"):
        raise error
    encoded = take_apart(bytes(stream), config.length_bytes)
    if len(encoded.samples) != count:
        raise Corrupt(f"{len(encoded.samples)} of {count} pictures at the end of a cut were encoded")
    return encoded
