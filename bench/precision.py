"""Clips of three lengths out of a short and a long recording: Spool's precisions beside the usual tools.

The usual way downloads the source, decodes it from its start and encodes the clip anew. `ffmpeg -c copy`
seeks in the source by HTTP and takes what it finds, without encoding. `smartcut` (PyPI) encodes the groups at
the ends, out of a download. All put their clip back into the same store: the S3 server at SPOOL_TEST_S3, or a
directory. Each case runs in a process of its own.

    python -m bench.precision [--quick] [--check]
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import imageio_ffmpeg

from bench.clip import CASE_LIMIT_S, Case, frames, in_the_usual_way
from bench.footage import FRAME_RATE, download, numbers_of, opened, repeated, stocked, take_footage, upload
from bench.report import Goal, Options, Report, read_options
from bench.usage import cpu_s
from shared.media.engine import MediaEngine
from shared.media.ffmpeg import Ffmpeg
from shared.media.port import Cut, Precision
from shared.storage.port import Storage, WriteOptions
from spool.camera import Recording

ROUNDS = 3  # of what takes tenths of a second; the usual way has one
URL_S = 600
USUAL, COPY, SMARTCUT = "usual", "ffmpeg -c copy", "smartcut"
EDIT_LIST, KEPT, SMART = "edit list", "edit list, index kept", "smart"
TOOLS = (USUAL, COPY, SMARTCUT)


@dataclass(frozen=True, slots=True)
class Size:
    """What is cut out of what. The recording repeats its footage."""

    footage_ms: int
    source_copies: int
    long_copies: int
    start_ms: int
    lengths_ms: tuple[int, ...]
    relief: float = 1  # how much more Spool may take in a short run, where a start weighs more


FULL = Size(75_000, 8, 96, 226_234, (20_000, 60_000, 300_000))
QUICK = Size(24_000, 5, 50, 50_234, (20_000,), relief=6)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one case took. Of several rounds the median."""

    wall_s: float
    cpu_s: float
    source_bytes: int
    clip_bytes: int


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--case"]:
        print(json.dumps(asdict(asyncio.run(run_case(Case(**json.loads(arguments[1])))))))
        return 0
    options = read_options(__doc__ or "", arguments)
    return asyncio.run(run_bench(options)).finish(options)


async def run_bench(options: Options) -> Report:
    """Make the sources, run every case, and look at the clips."""
    size = QUICK if options.quick else FULL
    footage = await take_footage(size.footage_ms)
    copies = (size.source_copies, size.long_copies)
    files = {f"{number}.mp4": await repeated(footage, number) for number in copies}
    async with stocked(files) as (store, address):
        return await compare(size, footage, store, address)


async def compare(size: Size, footage: Recording, store: Storage, address: str) -> Report:
    report = Report("precision", notes=notes())
    # Decoding two hours to find a clip in them says nothing new.
    ways = {size.source_copies: list(WAYS), size.long_copies: [way for way in WAYS if way != USUAL]}
    for copies, length_ms in product(ways, size.lengths_ms):
        clip = f"{length_ms // 1000} s of {copies * size.footage_ms // 60_000} min"
        case = Case("", address, f"{copies}.mp4", "", size.start_ms, size.start_ms + length_ms)
        wanted = expected(size, length_ms, len(footage.frames))
        found = {}
        for way in ways[copies]:
            case = replace(case, way=way, into=f"clips/{way.replace(' ', '-')}.mp4")
            found[way] = measure(case)
            shown = await numbers_of(store, case.into)
            report.rows.append(row(clip, way, found[way], frames(shown, wanted)))
            if way not in TOOLS:
                report.facts[f"{clip}, {way}: shows the frames of its time"] = shown == wanted
        report.goals += goals(clip, found, size.relief, length_ms)
    return report


def notes() -> list[str]:
    said_of_cpu = "CPU is user and system time of the process and of its children, without the server's"
    how_often = f"Spool's is the median of {ROUNDS} clips, each with its proof"
    return [f"{said_of_cpu}; {how_often}, with no index known before unless it is kept"]


def goals(clip: str, found: Mapping[str, Measured], relief: float, length_ms: int) -> list[Goal]:
    """Return what is promised of one clip, as ratios within this run."""
    edit, smart, kept = found[EDIT_LIST], found[SMART], found[KEPT]
    promised = [
        Goal(f"{clip}: CPU of the edit list to ffmpeg -c copy", kept.cpu_s / found[COPY].cpu_s, 2 * relief),
        Goal(f"{clip}: CPU of smart to smartcut", smart.cpu_s / found[SMARTCUT].cpu_s, relief / 3),
    ]
    if USUAL in found:
        usual_s = found[USUAL].cpu_s
        promised += [
            Goal(f"{clip}: CPU of the edit list to the usual way", edit.cpu_s / usual_s, relief / 300),
            Goal(f"{clip}: CPU of smart to the usual way", smart.cpu_s / usual_s, relief / 40),
        ]
    if length_ms >= 60_000:
        promised.append(
            Goal(f"{clip}: read / clip with the index kept", kept.source_bytes / kept.clip_bytes, 1.01)
        )
        if USUAL in found:
            promised.append(Goal(f"{clip}: read / clip", edit.source_bytes / edit.clip_bytes, 1.05))
    return promised


def row(clip: str, way: str, measured: Measured, verdict: str) -> dict[str, str | float]:
    return {
        "clip": clip,
        "way": way,
        "wall s": measured.wall_s,
        "CPU s": measured.cpu_s,
        "MB read": measured.source_bytes / 1e6 if measured.source_bytes else "not counted",
        "MB of the clip": measured.clip_bytes / 1e6,
        "frames": verdict,
    }


def expected(size: Size, length_ms: int, footage_frames: int) -> list[int]:
    """Return the numbers in the frames shown: they begin again with each copy."""
    span = (size.start_ms, size.start_ms + length_ms)
    low, high = (-(-moment_ms * FRAME_RATE // 1000) for moment_ms in span)
    return [number % footage_frames for number in range(low, high)]


def measure(case: Case) -> Measured:
    """Run a case in a process of its own."""
    command = [sys.executable, "-m", "bench.precision", "--case", json.dumps(asdict(case))]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=CASE_LIMIT_S)  # noqa: S603  # ourselves
    return Measured(**json.loads(ended.stdout))


async def run_case(case: Case) -> Measured:
    """Warm up with a clip of a second, then measure: what a first clip imports is in no figure."""
    way = WAYS[case.way]
    async with opened(case.store) as store:
        if case.way not in TOOLS:
            await way(store, Case(case.way, case.store, case.source, case.into, 0, 1000))
        measured = []
        for _ in range(1 if case.way == USUAL else ROUNDS):
            began_s, before_s = time.monotonic(), cpu_s()
            sizes = await way(store, case)
            measured.append((time.monotonic() - began_s, cpu_s() - before_s, sizes))
    source_bytes, clip_bytes = measured[-1][2]
    return Measured(
        wall_s=statistics.median(wall_s for wall_s, _, _ in measured),
        cpu_s=statistics.median(used_s for _, used_s, _ in measured),
        source_bytes=source_bytes,
        clip_bytes=clip_bytes,
    )


async def by_edit_list(store: Storage, case: Case) -> tuple[int, int]:
    return await _by_spool(_engine(store), store, case, Precision.EDIT_LIST)


async def by_smart(store: Storage, case: Case) -> tuple[int, int]:
    return await _by_spool(_engine(store), store, case, Precision.SMART)


class KeptIndex:
    """A clipper that has cut a clip of this source before."""

    def __init__(self) -> None:
        self._engine: MediaEngine | None = None

    async def __call__(self, store: Storage, case: Case) -> tuple[int, int]:
        self._engine = self._engine or _engine(store)
        return await _by_spool(self._engine, store, case, Precision.EDIT_LIST)


async def by_usual_way(store: Storage, case: Case) -> tuple[int, int]:
    sizes = await in_the_usual_way(store, case)
    return sizes["source_bytes"], sizes["clip_bytes"]


async def by_ffmpeg_copy(store: Storage, case: Case) -> tuple[int, int]:
    """Seek in the source by HTTP, copy packets, upload."""
    span = ["-ss", f"{case.start_ms / 1000:.3f}", "-t", f"{(case.end_ms - case.start_ms) / 1000:.3f}"]
    with tempfile.TemporaryDirectory(prefix="spool-bench-") as directory:
        clip = Path(directory) / "out.mp4"
        source = case.store.removeprefix("file://") + f"/{case.source}"
        if case.store.startswith("s3:"):
            source = await store.presign(case.source, expires_s=URL_S)
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y", *span, "-i", source]
        await _run([*command, "-c", "copy", "-movflags", "+faststart", str(clip)])
        await upload(store, clip, case.into)
        return 0, clip.stat().st_size


async def by_smartcut(store: Storage, case: Case) -> tuple[int, int]:
    """Download, let smartcut encode the ends, upload."""
    with tempfile.TemporaryDirectory(prefix="spool-bench-") as directory:
        source, clip = Path(directory) / "in.mp4", Path(directory) / "out.mp4"
        await download(store, case.source, source)
        keep = f"{case.start_ms / 1000:.3f},{case.end_ms / 1000:.3f}"
        await _run([sys.executable, "-m", "smartcut", str(source), str(clip), "--keep", keep])
        await upload(store, clip, case.into)
        return source.stat().st_size, clip.stat().st_size


async def _run(command: Sequence[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0


def _engine(store: Storage) -> MediaEngine:
    ffmpeg = Ffmpeg(Path(imageio_ffmpeg.get_ffmpeg_exe()))
    return MediaEngine(store, ffmpeg)


async def _by_spool(engine: MediaEngine, store: Storage, case: Case, precision: Precision) -> tuple[int, int]:
    """Cut and prove, as the clipper does."""
    await store.delete(case.into)  # of the round before: it would be adopted
    clip = await engine.cut(
        [Cut(case.source, case.start_ms, case.end_ms)],
        into=case.into,
        options=WriteOptions(content_type="video/mp4", if_absent=True),
        precision=precision,
    )
    assert clip.reencoded_because is None, clip.reencoded_because
    return clip.source_bytes_read, clip.stored.size_bytes


WAYS: dict[str, Callable[[Storage, Case], Awaitable[tuple[int, int]]]] = {
    USUAL: by_usual_way,
    COPY: by_ffmpeg_copy,
    SMARTCUT: by_smartcut,
    EDIT_LIST: by_edit_list,
    KEPT: KeptIndex(),
    SMART: by_smart,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
