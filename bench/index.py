"""Measure how long the index of a long recording takes to read, against ffmpeg's demuxer and plain Python.

The recording is twelve hours of small pictures at 30 a second, with sound: 1.3 and 2 million samples. ffmpeg
opens the same file and copies its first picture; what it takes with a short recording is taken off. Plain
Python expands the same tables sample by sample, as most scripts do. Of the same recording in fragments the
part for a clip of twenty seconds is read, with and without something that lists the fragments.

    python -m bench.index [--quick] [--check]
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import imageio_ffmpeg

from bench.footage import made_once, repeated, take_footage
from bench.report import Goal, Options, Report, read_options
from shared.media.mp4.boxes import walk
from shared.media.mp4.index import Indexes, SourceIndex
from shared.runtime.clock import SystemClock
from shared.storage.local import FileStorage
from spool.camera import Camera

CAMERA = Camera(
    width=128, height=72, gop_frames=60, encoder_options=("-b:v", "24k", "-b:a", "24k", "-ac", "1")
)
FOOTAGE_MS = 60_000
FULL_HOURS, QUICK_HOURS = 12, 1
CLIP_MS = 20_000
ROUNDS = 5
FRAGMENTED = "frag_keyframe+empty_moov+delay_moov+default_base_moof"

MOST_CPU_S = 1.0  # for twelve hours
TO_FFMPEG = 1.0
TO_PLAIN_PYTHON = 1 / 10
CLIP_READS = 30  # of a fragmented recording that says where its fragments lie
NESTED = frozenset((b"moov", b"trak", b"mdia", b"minf", b"stbl"))


@dataclass(frozen=True, slots=True)
class Measured:
    """What reading an index took, and how many samples it then has."""

    cpu_s: float
    reads: int
    read_bytes: int
    samples: int

    def row(self, way: str) -> dict[str, str | float]:
        return {
            "way": way,
            "CPU s": self.cpu_s,
            "samples": self.samples,
            "reads": self.reads,
            "MB read": self.read_bytes / 1e6,
        }


class CountedStorage(FileStorage):
    """A directory that counts how often it is read."""

    reads = 0

    @asynccontextmanager
    async def read(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        self.reads += 1
        async with super().read(key, start=start, end=end, if_match=if_match) as chunks:
            yield chunks


def main(arguments: list[str]) -> int:
    options = read_options(__doc__ or "", arguments)
    return asyncio.run(run_bench(options)).finish(options)


async def run_bench(options: Options) -> Report:
    hours = QUICK_HOURS if options.quick else FULL_HOURS
    footage = await take_footage(FOOTAGE_MS, CAMERA, "index")
    progressive = await repeated(footage, hours * 3_600_000 // FOOTAGE_MS)
    listed = await fragmented(progressive, FRAGMENTED + "+global_sidx", "sidx")
    unlisted = await fragmented(progressive, FRAGMENTED + "+skip_trailer", "walk")
    middle_ms = hours * 1_800_000 + 1_234
    span = (middle_ms, middle_ms + CLIP_MS)

    spool = await measure(progressive, None)
    ffmpeg_s = opened_by_ffmpeg_s(progressive) - opened_by_ffmpeg_s(footage.path)
    plain_s, plain_samples = measure_plain_python(progressive)
    clip, walked = await measure(listed, span), await measure(unlisted, span)

    report = Report(f"index of {hours} h", notes=notes())
    report.rows = [
        spool.row("Spool, progressive"),
        Measured(ffmpeg_s, 0, 0, spool.samples).row("ffmpeg's demuxer, progressive"),
        Measured(plain_s, 0, 0, plain_samples).row("plain Python, progressive"),
        clip.row("Spool, 20 s of fragments, sidx"),
        walked.row("Spool, 20 s of fragments, nothing listed"),
    ]
    report.facts["plain Python finds the same number of samples"] = plain_samples == spool.samples
    report.goals = [
        Goal("CPU to that of ffmpeg's demuxer", spool.cpu_s / ffmpeg_s, TO_FFMPEG),
        Goal("CPU to that of plain Python", spool.cpu_s / plain_s, TO_PLAIN_PYTHON),
        Goal(f"CPU for {hours} h", spool.cpu_s, MOST_CPU_S * hours / FULL_HOURS, " s"),
        Goal("reads for 20 s of fragments with sidx", clip.reads, CLIP_READS),
    ]
    return report


def notes() -> list[str]:
    return [
        f"CPU is user and system time; Spool's is the median of {ROUNDS} readings with no index known before",
        "Spool's includes reading the bytes out of a directory, plain Python's does not",
        "reads and bytes are of the index alone, not of the clip's media",
    ]


async def measure(path: Path, span_ms: tuple[int, int] | None) -> Measured:
    storage = CountedStorage(path.parent, public_url="", signing_key=b"", clock=SystemClock())
    taken: list[float] = []
    index: SourceIndex | None = None
    for _ in range(ROUNDS):
        storage.reads, began_s = 0, time.process_time()
        index = await Indexes(storage).load(path.name, span_ms)
        taken.append(time.process_time() - began_s)
    await storage.close()
    assert index is not None
    assert index.movie is not None
    samples = sum(len(track.samples) for track in index.movie.tracks)
    return Measured(statistics.median(taken), storage.reads, index.bytes_read, samples)


def opened_by_ffmpeg_s(path: Path) -> float:
    """Return what ffmpeg takes to open a file and to copy its first picture, as the median of some times."""
    return statistics.median(
        _children_s(
            lambda: _ffmpeg("-i", str(path), "-map", "0:v", "-c", "copy", "-frames:v", "1", "-f", "null", "-")
        )
        for _ in range(ROUNDS)
    )


def _children_s(run: Callable[[], None]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _ffmpeg(*arguments: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y", *arguments]
    subprocess.run(command, check=True)  # noqa: S603  # our own arguments


def measure_plain_python(path: Path) -> tuple[float, int]:
    """Return the CPU seconds that expanding the tables one sample at a time takes, and how many there are."""
    with path.open("rb") as file:
        moov = read_moov(file.read)
    began_s, samples = time.process_time(), 0
    for stbl in tables(moov):
        samples += len(expand(stbl))
    return time.process_time() - began_s, samples


def read_moov(read: Callable[[int], bytes]) -> bytes:
    while header := read(8):
        size, kind = struct.unpack(">I4s", header)
        if size == 1:
            size = struct.unpack(">Q", read(8))[0] - 8
        if kind == b"moov":
            return read(size - 8)
        for _ in range(size - 8 >> 20):
            read(1 << 20)
        read((size - 8) % (1 << 20))
    raise ValueError("no moov")


def tables(moov: bytes) -> list[dict[bytes, bytes]]:
    found, waiting = [], [memoryview(moov)]
    while waiting:
        inner = list(walk(waiting.pop()))
        if any(one.kind == b"stsz" for one in inner):
            found.append({one.kind: bytes(one.payload) for one in inner})
        waiting += [one.payload for one in inner if one.kind in NESTED]
    return found


def expand(stbl: dict[bytes, bytes]) -> list[tuple[int, int, int, int]]:
    """Return (decode time, composition, size, offset) of each sample."""
    sizes = [size for (size,) in struct.iter_unpack(">I", stbl[b"stsz"][12:])]
    times, now = [], 0
    for count, delta in struct.iter_unpack(">II", stbl[b"stts"][8:]):
        for _ in range(count):
            times.append(now)
            now += delta
    composition = [0] * len(sizes)
    if b"ctts" in stbl:
        at = 0
        for count, ticks in struct.iter_unpack(">Ii", stbl[b"ctts"][8:]):
            for _ in range(count):
                composition[at] = ticks
                at += 1
    code, kind = (">Q", b"co64") if b"co64" in stbl else (">I", b"stco")
    chunks = [offset for (offset,) in struct.iter_unpack(code, stbl[kind][8:])]
    runs = [*struct.iter_unpack(">III", stbl[b"stsc"][8:]), (len(chunks) + 1, 0, 0)]
    offsets: list[int] = []
    for (first, per_chunk, _), (after, _, _) in pairwise(runs):
        for chunk in range(first - 1, after - 1):
            offset = chunks[chunk]
            for _ in range(per_chunk):
                offsets.append(offset)
                offset += sizes[len(offsets) - 1]
    return list(zip(times, composition, sizes, offsets, strict=True))


async def fragmented(progressive: Path, flags: str, name: str) -> Path:
    async def divide(made: Path) -> None:
        _ffmpeg("-i", str(progressive), "-c", "copy", "-movflags", flags, str(made))

    return await made_once(f"{progressive.stem}-{name}", divide)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
