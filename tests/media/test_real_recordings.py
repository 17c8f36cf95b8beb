"""The lossless clip of real recordings: its frames are the source's frames, by the hash of their pixels.

A recording that is made here always takes part; the ones beside the repository do where they are present.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from shared.media.port import Cut
from spool.camera import frame_hashes
from tests.media.conftest import Library
from tests.media.studio import Studio, frames_between

FOOTAGE = Path(__file__).resolve().parents[3] / "shared" / "media"
# (file, frames a second, [start_ms, end_ms)): inside of groups, and up to the end.
SPANS = [
    ("car-detection.mp4", Fraction(25, 2), 3210, 9876),
    ("car-detection.mp4", Fraction(25, 2), 20_000, 29_000),
    ("bottle-detection.mp4", Fraction(179, 6), 12_345, 23_456),
    ("bigbuckbunny.mp4", Fraction(25), 1010, 4990),
]
PRESENT = [
    pytest.param(FOOTAGE / name, rate, (start_ms, end_ms), id=f"{name} from {start_ms} ms")
    for name, rate, start_ms, end_ms in SPANS
    if (FOOTAGE / name).exists()
]


@pytest.mark.parametrize(
    ("path", "rate", "span"), [pytest.param(None, Fraction(30), (1111, 7777), id="made here"), *PRESENT]
)
async def test_the_frames_of_a_clip_are_the_sources_frames(
    studio: Studio, library: Library, path: Path | None, rate: Fraction, span: tuple[int, int]
) -> None:
    if path is None:
        path = (await library.pair())[0].path
    studio.path("source.mp4").write_bytes(path.read_bytes())

    clip = await studio.cut(Cut("source.mp4", *span))

    hashes, all_hashes = await frame_hashes(studio.path("clip.mp4")), await frame_hashes(path)
    frames = frames_between(*span, rate)
    assert hashes == all_hashes[frames[0] : frames[-1] + 1]
    assert clip.reencoded_because is None
    assert clip.duration_ms == span[1] - span[0]
