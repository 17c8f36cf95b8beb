"""A clip out of a long recording, by Spool and the way it is usually done, in one run.

The usual way downloads the whole source, lets ffmpeg decode it from its start and encode the clip anew, and
uploads that. Both work on the same store: the S3 server at SPOOL_TEST_S3, or else a directory. Each case runs
in a process of its own, so that neither its memory nor its processor time is mixed with another's.

    python -m bench.clip [--quick] [--check]
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from uuid import uuid4

import imageio_ffmpeg

from bench.footage import FRAME_RATE, download, numbers_of, opened, repeated, stocked, take_footage, upload
from bench.report import Goal, Options, Report, read_options
from bench.usage import cpu_s, forget_peak, memory_now_mib, peak_mib, peak_of_children_mib
from shared.media.engine import MediaEngine
from shared.media.ffmpeg import Ffmpeg
from shared.media.port import Cut
from shared.storage.port import Storage, WriteOptions
from spool.camera import Recording

WARM_UP_KEY = "warm-up.mp4"
WARM_UP_MS = (1_000, 3_000)
ROUNDS = 3  # of Spool: a few tenths of a second each, so that one interruption does not decide
CASE_LIMIT_S = 900


@dataclass(frozen=True, slots=True)
class Size:
    """How long the pieces are, and what is promised of them."""

    footage_ms: int  # recorded; longer sources repeat it
    source_copies: int
    long_copies: int
    start_ms: int
    length_ms: int
    cpu_ratio: float
    inside_ms: int  # of a longer clip, most of which never leaves S3
    moved_ratio: float


# 60 s out of 10 minutes and out of 2 hours, inside of one copy: no number comes twice. And 300 s.
FULL = Size(75_000, 8, 96, 226_234, 60_000, cpu_ratio=1 / 100, inside_ms=300_000, moved_ratio=0.2)
# 20 s out of 2 and of 20 minutes. What does not grow with the clip, as to start an ffmpeg, weighs more here,
# and so do the 5 MiB that a part of S3 has at least.
QUICK = Size(24_000, 5, 50, 50_234, 20_000, cpu_ratio=1 / 40, inside_ms=60_000, moved_ratio=0.95)
READ_RATIO = 1.15
MEMORY_MIB = 64


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement, as its process is told it."""

    way: str  # spool, or usual
    store: str
    source: str
    into: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What one case took. Of several rounds the median, of memory the most."""

    wall_s: float
    cpu_s: float
    source_bytes: int
    proof_bytes: int
    clip_bytes: int
    copied_bytes: int  # of the clip: inside of the store
    growth_mib: float  # of this process, beyond what it had after the warm-up
    children_mib: float  # the largest of its children
    children_growth_mib: float

    @property
    def moved_ratio(self) -> float:
        """What was read of the source and sent of the clip, to the clip."""
        return (self.source_bytes + self.clip_bytes - self.copied_bytes) / self.clip_bytes


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--case"]:
        measured = asyncio.run(run_case(Case(**json.loads(arguments[1]))))
        print(json.dumps(asdict(measured)))
        return 0
    options = read_options(__doc__ or "", arguments)
    return asyncio.run(run_bench(options)).finish(options)


async def run_bench(options: Options) -> Report:
    """Make the sources, run every case, and look at the clips."""
    size = QUICK if options.quick else FULL
    footage = await take_footage(size.footage_ms)
    copies = (size.source_copies, size.long_copies)
    files = {f"{number}.mp4": await repeated(footage, number) for number in copies}
    async with stocked({WARM_UP_KEY: footage.path, **files}) as (store, address):
        return await compare(size, footage, store, address)


async def compare(size: Size, footage: Recording, store: Storage, address: str) -> Report:
    source, long_source = (
        _length(copies * size.footage_ms) for copies in (size.source_copies, size.long_copies)
    )
    end_ms = size.start_ms + size.length_ms
    case = Case("spool", address, f"{size.source_copies}.mp4", "", size.start_ms, end_ms)
    cases = {
        f"usual way, {source} source": replace(case, way="usual", into="clips/usual.mp4"),
        f"Spool, {source} source": replace(case, into="clips/spool.mp4"),
        f"Spool, {long_source} source": replace(
            case, source=f"{size.long_copies}.mp4", into="clips/long.mp4"
        ),
        f"Spool, {_length(size.inside_ms)} of the {source} source": replace(
            case, end_ms=size.start_ms + size.inside_ms, into="clips/inside.mp4"
        ),
    }
    measured = {title: measure(case) for title, case in cases.items()}
    shown = {title: await numbers_of(store, case.into) for title, case in cases.items()}
    wanted = {title: expected_numbers(case, len(footage.frames)) for title, case in cases.items()}

    usual, spool, _, inside = measured.values()
    report = Report(f"clip: {_length(size.length_ms)} out of {source}", notes=notes(address))
    report.rows = [row(title, measured[title], frames(shown[title], wanted[title])) for title in cases]
    report.goals = [
        Goal("Spool's CPU to that of the usual way", spool.cpu_s / usual.cpu_s, size.cpu_ratio),
        Goal(
            "bytes read of the source to bytes of the clip", spool.source_bytes / spool.clip_bytes, READ_RATIO
        ),
    ]
    if address.startswith("s3:"):
        clip = f"{_length(size.inside_ms)} inside S3"
        report.goals.append(
            Goal(f"{clip}: bytes read and sent to bytes of the clip", inside.moved_ratio, size.moved_ratio)
        )
    for title in [title for title, case in cases.items() if case.way == "spool"]:
        found, numbers = measured[title], wanted[title]
        report.facts[f"{title}: shows frames {numbers[0]} to {numbers[-1]}, {len(numbers)} of them"] = (
            shown[title] == numbers
        )
        report.goals += [
            Goal(f"{title}: memory growth", found.growth_mib, MEMORY_MIB, " MiB"),
            Goal(f"{title}: memory growth of children", found.children_growth_mib, MEMORY_MIB, " MiB"),
        ]
    return report


def notes(address: str) -> list[str]:
    store = "a real S3 server" if address.startswith("s3:") else "a directory: SPOOL_TEST_S3 is not set"
    said_of_cpu = "CPU is user and system time of the process and of its children, without the server's"
    how_often = f"Spool's is the median of {ROUNDS} clips, each with its proof, with no index known before"
    return [
        f"the store is {store}",
        f"{said_of_cpu}; {how_often}",
        "memory growth is the most that the process held, beyond what it held after a clip of two seconds",
        "a child starts with the size of the process that starts it, so its memory is an upper bound",
    ]


def row(title: str, measured: Measured, verdict: str) -> dict[str, str | float]:
    return {
        "way": title,
        "wall s": measured.wall_s,
        "CPU s": measured.cpu_s,
        "MB read": measured.source_bytes / 1e6,
        "MB of the clip": measured.clip_bytes / 1e6,
        "MB copied inside": measured.copied_bytes / 1e6,
        "read / clip": measured.source_bytes / measured.clip_bytes,
        "read and sent / clip": measured.moved_ratio,
        "MB read back as proof": measured.proof_bytes / 1e6,
        "memory growth MiB": measured.growth_mib,
        "largest child MiB": measured.children_mib,
        "frames": verdict,
    }


def frames(shown: list[int], wanted: list[int]) -> str:
    if shown == wanted:
        return "exact"
    if not shown:
        return "none"
    return f"{shown[0]} to {shown[-1]} instead of {wanted[0]} to {wanted[-1]}, {len(shown)} of {len(wanted)}"


def expected_numbers(case: Case, footage_frames: int) -> list[int]:
    """Return the numbers in the frames shown in [start, end): they begin again with each copy."""
    low, high = (-(-moment_ms * FRAME_RATE // 1000) for moment_ms in (case.start_ms, case.end_ms))
    return [number % footage_frames for number in range(low, high)]


def measure(case: Case) -> Measured:
    """Run a case in a process of its own."""
    command = [sys.executable, "-m", "bench.clip", "--case", json.dumps(asdict(case))]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=CASE_LIMIT_S)  # noqa: S603  # ourselves
    return Measured(**json.loads(ended.stdout.splitlines()[-1]))  # what is logged stands before


async def run_case(case: Case) -> Measured:
    """Warm up with a small clip, then measure. What a first clip imports and allocates is in the baseline."""
    async with opened(case.store) as store:
        warm_up = replace(case, source=WARM_UP_KEY, into=f"warm-up-{uuid4().hex}.mp4")
        way, rounds = (by_spool, ROUNDS) if case.way == "spool" else (in_the_usual_way, 1)
        await way(store, replace(warm_up, start_ms=WARM_UP_MS[0], end_ms=WARM_UP_MS[1]))
        forget_peak()
        memory_mib, children_mib = memory_now_mib(), peak_of_children_mib()
        measured = []
        for _ in range(rounds):
            began_s, before_s = time.monotonic(), cpu_s()
            sizes = await way(store, case)
            measured.append((time.monotonic() - began_s, cpu_s() - before_s, sizes))
    return Measured(
        wall_s=statistics.median(wall_s for wall_s, _, _ in measured),
        cpu_s=statistics.median(used_s for _, used_s, _ in measured),
        **measured[0][2],
        growth_mib=peak_mib() - memory_mib,
        children_mib=peak_of_children_mib(),
        children_growth_mib=peak_of_children_mib() - children_mib,
    )


async def by_spool(store: Storage, case: Case) -> dict[str, int]:
    """Cut and prove, as the clipper does, with an engine that has seen no source yet."""
    engine = MediaEngine(store, Ffmpeg(Path(imageio_ffmpeg.get_ffmpeg_exe())))
    await store.delete(case.into)  # of the round before: it would be adopted
    options = WriteOptions(content_type="video/mp4", if_absent=True)
    clip = await engine.cut([Cut(case.source, case.start_ms, case.end_ms)], into=case.into, options=options)
    assert clip.reencoded_because is None, clip.reencoded_because
    return {
        "source_bytes": clip.source_bytes_read,
        "proof_bytes": clip.proof_bytes_read,
        "clip_bytes": clip.stored.size_bytes,
        "copied_bytes": clip.copied_bytes,
    }


async def in_the_usual_way(store: Storage, case: Case) -> dict[str, int]:
    """Download, trim with ffmpeg, upload: the command of the service that Spool replaces."""
    with tempfile.TemporaryDirectory(prefix="spool-bench-") as directory:
        source, clip = Path(directory) / "in.mp4", Path(directory) / "out.mp4"
        await download(store, case.source, source)
        trim = ["-ss", f"{case.start_ms / 1000:.3f}", "-to", f"{case.end_ms / 1000:.3f}"]
        encode = ["-vf", "format=yuv420p", "-c:v", "libx264", "-preset", "fast", "-movflags", "+faststart"]
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y", "-i", str(source)]
        process = await asyncio.create_subprocess_exec(*command, *trim, *encode, str(clip))
        assert await process.wait() == 0
        await upload(store, clip, case.into)
        return {
            "source_bytes": source.stat().st_size,
            "proof_bytes": 0,
            "clip_bytes": clip.stat().st_size,
            "copied_bytes": 0,
        }


def _length(duration_ms: int) -> str:
    seconds = duration_ms // 1000
    if seconds % 3600 == 0:
        return f"{seconds // 3600} h"
    return f"{seconds // 60} min" if seconds % 60 == 0 and seconds > 60 else f"{seconds} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
