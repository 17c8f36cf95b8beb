"""Fragments that an encoder writes into a pipe become a progressive MP4 with the same samples and times."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import imageio_ffmpeg
import pytest

from shared.media.mp4.boxes import Malformed
from shared.media.mp4.progressive import Progressive
from spool.camera import frame_hashes, frame_numbers
from tests.media.conftest import SMALL, Library
from tests.media.decoded import decode_file
from tests.media.studio import Studio

DURATION_MS = 4000
FRAGMENTED = ("-movflags", "+delay_moov+default_base_moof", "-frag_duration", "500000")


@pytest.fixture
async def fragmented(library: Library, tmp_path: Path) -> bytes:
    """Return the first seconds of a recording with B-frames, in fragments."""
    recording, _ = await library.pair(SMALL)
    path = tmp_path / "fragmented.mp4"
    cut = ("-t", str(DURATION_MS // 1000), "-c", "copy", *FRAGMENTED)
    process = await asyncio.create_subprocess_exec(
        imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(recording.path), *cut, str(path)
    )
    assert await process.wait() == 0
    return path.read_bytes()


def rewritten(stream: bytes, *, most_bytes: int = 1 << 30, seed: int = 0) -> bytes:
    """Feed a stream in pieces of random length, and return the whole new file."""
    progressive, media, at, dice = Progressive(), b"", 0, random.Random(seed)
    while at < len(stream):
        size_bytes = dice.randint(1, most_bytes)
        media += progressive.take(stream[at : at + size_bytes])
        at += size_bytes
    assert progressive.media_bytes == len(media)
    return progressive.head(DURATION_MS) + media


async def test_every_picture_and_sound_is_where_it_was(studio: Studio, fragmented: bytes) -> None:
    studio.path("fragmented.mp4").write_bytes(fragmented)
    studio.path("progressive.mp4").write_bytes(rewritten(fragmented))

    before, after = studio.path("fragmented.mp4"), studio.path("progressive.mp4")
    assert await frame_numbers(after) == list(range(120))
    # ffmpeg's copy goes on a little, to where the last group can be decoded.
    assert await frame_hashes(after) == (await frame_hashes(before))[:120]
    decoded = await decode_file(studio.ffmpeg, after)
    assert decoded.video_frames == 120
    assert decoded.audio_samples == pytest.approx(DURATION_MS * 48, abs=1024)
    info = await studio.engine.describe("progressive.mp4")
    assert info.duration_ms == DURATION_MS


@pytest.mark.parametrize("most_bytes", [1, 7, 4096, 100_000])
def test_it_does_not_matter_how_the_bytes_arrive(fragmented: bytes, most_bytes: int) -> None:
    assert rewritten(fragmented, most_bytes=most_bytes) == rewritten(fragmented)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9])
def test_what_ends_in_the_middle_is_no_clip(fragmented: bytes, share: float) -> None:
    with pytest.raises(Malformed, match=r"ends in the middle|holds nothing"):
        rewritten(fragmented[: int(len(fragmented) * share) + 1])


def test_samples_outside_of_their_media_are_refused(fragmented: bytes) -> None:
    at = fragmented.index(b"trun") + 4 + 4 + 4  # version and flags, count: then where the data lies
    broken = fragmented[:at] + (1 << 20).to_bytes(4, "big") + fragmented[at + 4 :]
    with pytest.raises(Malformed, match="outside of its media"):
        rewritten(broken)


def test_a_box_that_says_it_is_huge_is_not_waited_for() -> None:
    with pytest.raises(Malformed, match="has 4000000000 bytes"):
        Progressive().take((4_000_000_000).to_bytes(4, "big") + b"moov")


def test_damaged_fragments_are_refused_or_rewritten_and_nothing_else(fragmented: bytes) -> None:
    refused = 0
    for seed in range(300):
        dice = random.Random(seed)
        damaged = bytearray(fragmented)
        for _ in range(dice.randint(1, 20)):
            damaged[dice.randrange(4000)] = dice.randrange(256)
        try:
            rewritten(bytes(damaged), most_bytes=50_000, seed=seed)
        except Malformed:
            refused += 1

    assert 0 < refused < 300
