"""A room to cut clips in: a file store, an engine, and ears for what a clip sounds like."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from shared.media.engine import MediaEngine
from shared.media.ffmpeg import Ffmpeg
from shared.media.port import ClipFile, Cut, Precision
from shared.storage.local import FileStorage
from shared.storage.port import WriteOptions
from spool.camera import SAMPLE_RATE_HZ

BEEP_HZ = 880.0  # of the camera's sound: each second, on the second, over a tone of 220 Hz
_STEP = 48  # samples: the onset of a beep is found to the millisecond
_WINDOW = 240
_LOUD = 0.3  # of the loudest beep: it rises within a window


class FixedClock:
    """A clock that stands still."""

    def now_ms(self) -> int:
        return 1_700_000_000_000

    def monotonic_ms(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Studio:
    """A store with recordings in it, and the engine that cuts them."""

    directory: Path
    storage: FileStorage
    ffmpeg: Ffmpeg
    engine: MediaEngine

    def path(self, key: str) -> Path:
        return self.directory / key

    def add(self, recording: Path, key: str | None = None) -> str:
        """Put a recording into the store."""
        key = key or recording.name
        os.link(recording, self.path(key))
        return key

    async def cut(
        self, *cuts: Cut, into: str = "clip.mp4", precision: Precision = Precision.EDIT_LIST
    ) -> ClipFile:
        options = WriteOptions(if_absent=True)
        return await self.engine.cut(cuts, into=into, options=options, precision=precision)


async def open_studio(directory: Path) -> Studio:
    storage = await FileStorage.open(
        directory, public_url="http://127.0.0.1", signing_key=b"k" * 32, clock=FixedClock()
    )
    ffmpeg = Ffmpeg(Path(imageio_ffmpeg.get_ffmpeg_exe()))
    return Studio(directory, storage, ffmpeg, MediaEngine(storage, ffmpeg))


def frames_between(start_ms: int, end_ms: int, rate: Fraction, *, first: int = 0) -> list[int]:
    """Return the numbers of the frames with presentation time in [start_ms, end_ms)."""
    low, high = (-int(-moment_ms * rate // 1000) for moment_ms in (start_ms, end_ms))
    return list(range(first + low, first + high))


async def remux(source: Path, flags: str, out: Path, *more: str) -> None:
    """Write a recording's samples into another MP4."""
    process = await asyncio.create_subprocess_exec(
        imageio_ffmpeg.get_ffmpeg_exe(),
        *(
            "-v",
            "error",
            "-y",
            "-i",
            f"file:{source}",
            "-c",
            "copy",
            "-movflags",
            flags,
            *more,
            f"file:{out}",
        ),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()


async def sound(path: Path) -> NDArray[np.float64]:
    """Decode what a player plays, as one channel at the camera's rate."""
    process = await asyncio.create_subprocess_exec(
        imageio_ffmpeg.get_ffmpeg_exe(),
        *("-v", "error", "-i", f"file:{path}", "-map", "0:a:0", "-ac", "1"),
        *("-ar", str(SAMPLE_RATE_HZ), "-f", "s16le", "pipe:1"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    pcm, said = await process.communicate()
    assert not said, said.decode()
    return np.frombuffer(pcm, np.int16).astype(np.float64)


def beep_onsets_ms(samples: NDArray[np.float64]) -> list[int]:
    """Return when each beep begins, to about a millisecond; one that is on at the very start is left out."""
    times = np.arange(len(samples)) / SAMPLE_RATE_HZ
    carrier = samples * np.exp(-2j * np.pi * BEEP_HZ * times)
    sums = np.concatenate([[0], np.cumsum(carrier)])
    starts = np.arange(0, len(samples) - _WINDOW, _STEP)
    level = np.abs(sums[starts + _WINDOW] - sums[starts])
    loud = level > _LOUD * level.max()
    onsets = np.flatnonzero(loud[1:] & ~loud[:-1]) + 1
    return [int(starts[onset] * 1000 // SAMPLE_RATE_HZ) for onset in onsets]


def seconds_between(start_ms: int, end_ms: int) -> Sequence[int]:
    """Return the whole seconds in a range, in milliseconds from its start."""
    return [second_ms - start_ms for second_ms in range(-(-start_ms // 1000) * 1000, end_ms, 1000)]
