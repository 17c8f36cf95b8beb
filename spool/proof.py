"""Check by what a decoder sees that a clip shows what was asked for. Nothing of the engine is used."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import imageio_ffmpeg

from shared.kernel.errors import Corrupt
from spool.camera import frame_hashes, frame_numbers
from spool.times import parse_time

MARGIN_MS = 2000  # decoded around the range, so that a frame of its neighbourhood can be told from its own
MAX_DECODING_S = 120
_STATED = re.compile(
    r"Input #0, (?P<format>[\w,]+), from .*Duration: (?P<length>[\d:.]+)(?:, start: (?P<start>-?[\d.]+))?",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, and whether it is as it should be."""

    passed: bool
    text: str


async def check_numbers(clip: Path, expected: range) -> tuple[Check, ...]:
    """Compare the numbers in a clip's pictures with those that were asked for."""
    try:
        found = await frame_numbers(clip)
    except ValueError as error:
        return (Check(passed=False, text=f"a frame's number cannot be read: {error}"),)
    return compare_numbers(found, expected)


def compare_numbers(found: Sequence[int], expected: range) -> tuple[Check, ...]:
    """Say of first, last and all between whether they are the expected ones."""
    if not found:
        return (Check(passed=False, text="the clip shows no frame at all"),)
    steps = sum(after != before + 1 for before, after in pairwise(found))
    return (
        _same("first frame", found[0], expected[0]),
        _same("last frame", found[-1], expected[-1]),
        Check(
            steps == 0,
            f"all {len(found)} frames follow one another" + (f", but for {steps}" if steps else ""),
        ),
    )


def _same(what: str, found: int, expected: int) -> Check:
    if found == expected:
        return Check(passed=True, text=f"{what}: number {found}, as asked for")
    return Check(passed=False, text=f"{what}: number {found}, but {expected} was asked for")


async def check_pixels(clip: Path, source: Path, *, start_ms: int, end_ms: int) -> tuple[Check, ...]:
    """Compare every decoded frame of a clip with those of its source in [start_ms, end_ms)."""
    expected = await shown_hashes(source, start_ms=start_ms, end_ms=end_ms)
    found = await frame_hashes(clip)
    return compare_hashes(found, expected)


def compare_hashes(found: Sequence[str], expected: Sequence[str]) -> tuple[Check, ...]:
    """Say of first, last and the whole run whether the pixels are the source's."""
    if not found or not expected:
        return (Check(passed=False, text=f"{len(found)} frames, {len(expected)} in the source's range"),)
    equal = sum(one == other for one, other in zip(found, expected, strict=False))
    return (
        Check(found[0] == expected[0], "first frame: pixel for pixel the source's first of the range"),
        Check(found[-1] == expected[-1], "last frame: pixel for pixel the source's last of the range"),
        Check(
            list(found) == list(expected),
            f"{equal} of {len(expected)} frames are the source's, {len(found)} found",
        ),
    )


async def check_length(
    clip: Path, source: Path, *, start_ms: int, end_ms: int, duration_ms: int
) -> tuple[Check, ...]:
    """Compare a clip that was encoded anew: its pixels are its own, its frames and its length are not."""
    expected = len(await shown_hashes(source, start_ms=start_ms, end_ms=end_ms))
    found = len(await frame_hashes(clip))
    asked_ms = end_ms - start_ms
    frame_ms = asked_ms / max(expected, 1)
    return (
        Check(found == expected, f"{found} frames, {expected} in the source's range"),
        Check(
            abs(duration_ms - asked_ms) <= frame_ms, f"{duration_ms} ms long for {asked_ms} ms, to a frame"
        ),
    )


def check_digest(path: Path, announced: str) -> Check:
    """Compare a file on the disk with the digest that its event told."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return Check(found == announced, "the file's SHA-256 is the announced one")


def check_thumbnails(paths: Sequence[Path]) -> Check:
    """Look whether the thumbnails are there and are whole."""
    broken = [path.name for path in paths if not _is_whole_jpeg(path)]
    if broken:
        return Check(passed=False, text=f"broken or missing: {', '.join(broken)}")
    return Check(passed=True, text=f"{len(paths)} thumbnails, each a whole JPEG")


def _is_whole_jpeg(path: Path) -> bool:
    content = path.read_bytes() if path.is_file() else b""
    return content.startswith(b"\xff\xd8\xff") and content.endswith(b"\xff\xd9")


async def shown_hashes(source: Path, *, start_ms: int, end_ms: int) -> list[str]:
    """Decode around a range and return the MD5 of the pixels of each frame whose time lies in it, in order.

    Times count from the source's own start. Raises Corrupt when the source does not decode.
    """
    origin_ms = await _origin_ms(source)
    # Timestamps stay the source's own: ffmpeg would move them by what it takes for the start.
    argv = ["-ss", f"{max(0, start_ms - MARGIN_MS) / 1000:.3f}", "-copyts", "-i", f"file:{source}"]
    argv += ["-to", f"{float(origin_ms + end_ms + MARGIN_MS) / 1000:.3f}", "-map", "0:v:0"]
    # The source's own ticks: those of a frame rate would round the time of a frame at either end.
    argv += [
        "-fps_mode",
        "passthrough",
        "-enc_time_base",
        "demux",
        "-f",
        "framehash",
        "-hash",
        "md5",
        "pipe:1",
    ]
    text = await _run_ffmpeg(argv)
    return hashes_between(text, start_ms=origin_ms + start_ms, end_ms=origin_ms + end_ms)


async def _origin_ms(source: Path) -> Fraction:
    """Return the timestamp at which a source starts: of an MP4 always 0, of a transport stream anything."""
    stated = await _stated(source)
    if "mp4" in stated["format"].split(","):
        return Fraction(0)
    return 1000 * Fraction(stated["start"] or "0")


def hashes_between(framehash: str, *, start_ms: Fraction | int, end_ms: Fraction | int) -> list[str]:
    """Pick from ffmpeg's framehash output the frames shown in [start_ms, end_ms)."""
    tick_ms = Fraction(1)
    picked: list[str] = []
    for line in framehash.splitlines():
        if line.startswith("#tb 0:"):
            tick_ms = 1000 * Fraction(line.removeprefix("#tb 0:").strip())
        if line.startswith("#") or not line.strip():
            continue
        _stream, _dts, pts, _duration, _size, digest = (field.strip() for field in line.split(","))
        if start_ms <= int(pts) * tick_ms < end_ms:
            picked.append(digest)
    return picked


async def stated_length_ms(path: Path) -> int:
    """Return how long a file says it lasts. Raises Corrupt when it does not say."""
    return parse_time((await _stated(path))["length"])


async def _stated(path: Path) -> dict[str, str]:
    """Return what ffmpeg says of its input, before it finds that it has no output."""
    _, _, said = await _ffmpeg(["-i", f"file:{path}"])
    stated = _STATED.search(said)
    if stated is None:
        raise Corrupt(f"{path} does not say how long it lasts", hint="give an MP4")
    return stated.groupdict()


async def _run_ffmpeg(argv: list[str]) -> str:
    code, out, complaint = await _ffmpeg(["-v", "error", *argv])
    if code:
        raise Corrupt(f"ffmpeg cannot decode the source: {complaint.strip()[-500:]}")
    return out


async def _ffmpeg(argv: list[str]) -> tuple[int, str, str]:
    """Run ffmpeg to its end and return its exit code, its output and what it said besides."""
    process = await asyncio.create_subprocess_exec(
        imageio_ffmpeg.get_ffmpeg_exe(),
        *("-hide_banner", "-nostdin", "-protocol_whitelist", "file,pipe", *argv),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(MAX_DECODING_S):
            out, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode("ascii", "replace"), complaint.decode(errors="replace")
