"""What decodes is counted to the frame, what does not is an error, pictures are of the frame asked for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from shared.kernel.errors import Corrupt, Refused
from shared.media.decode import decode_pictures
from shared.media.ffmpeg import Ffmpeg
from shared.media.pictures import render
from shared.media.port import Picture
from spool.camera import SAMPLE_RATE_HZ, read_frame_number
from tests.media.conftest import SECONDS, SMALL, Library
from tests.media.decoded import DecodedCounts, decode_file

BINARY = imageio_ffmpeg.get_ffmpeg_exe()
FRAMES = SECONDS * int(SMALL.frame_rate)


@pytest.fixture
def ffmpeg() -> Ffmpeg:
    return Ffmpeg(Path(BINARY))


def converted(source: bytes, *options: str) -> bytes:
    command = (BINARY, "-v", "error", *options, "pipe:1")
    return subprocess.run(command, input=source, capture_output=True, check=True).stdout


async def annexb(library: Library) -> bytes:
    recording, _ = await library.pair(faststart=True)
    return converted(recording.path.read_bytes(), "-i", "pipe:0", "-c:v", "copy", "-an", "-f", "h264")


def number_in(picture: Picture) -> int:
    """Read the number of the frame that a JPEG shows."""
    gray = converted(picture.jpeg, "-f", "mjpeg", "-i", "pipe:0", "-pix_fmt", "gray", "-f", "rawvideo")
    return read_frame_number(np.frombuffer(gray, np.uint8).reshape(picture.height, picture.width))


async def test_every_frame_is_counted(ffmpeg: Ffmpeg, library: Library) -> None:
    assert await decode_pictures(ffmpeg, "h264", await annexb(library)) == FRAMES


async def test_a_whole_file_is_counted(ffmpeg: Ffmpeg, library: Library) -> None:
    recording, _ = await library.pair()

    assert await decode_file(ffmpeg, recording.path) == DecodedCounts(FRAMES, SECONDS * SAMPLE_RATE_HZ)


async def test_one_damaged_spot_is_found(ffmpeg: Ffmpeg, library: Library) -> None:
    pictures = bytearray(await annexb(library))
    middle = len(pictures) // 2
    pictures[middle : middle + 64] = bytes(255 - byte for byte in pictures[middle : middle + 64])

    with pytest.raises(Corrupt, match="cannot be decoded"):
        await decode_pictures(ffmpeg, "h264", bytes(pictures))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"#EXTM3U\nhttp://127.0.0.1:9/a.ts\n", id="a playlist"),
        pytest.param(bytes(range(256)) * 64, id="other bytes"),
    ],
)
async def test_what_is_no_video_is_corrupt(ffmpeg: Ffmpeg, data: bytes) -> None:
    with pytest.raises(Corrupt):
        await decode_pictures(ffmpeg, "h264", data)


async def test_a_file_that_is_cut_off_is_corrupt(ffmpeg: Ffmpeg, library: Library, tmp_path: Path) -> None:
    recording, _ = await library.pair(faststart=True)
    whole = recording.path.read_bytes()
    short = tmp_path / "short.mp4"
    short.write_bytes(whole[: len(whole) * 2 // 3])

    with pytest.raises(Corrupt):
        await decode_file(ffmpeg, short)


@pytest.mark.parametrize("index", [pytest.param(0, id="first"), pytest.param(FRAMES - 1, id="last"), 61])
async def test_a_picture_is_of_the_frame_asked_for(ffmpeg: Ffmpeg, library: Library, index: int) -> None:
    (picture,) = await render(ffmpeg, "h264", await annexb(library), index, [320])

    assert number_in(picture) == index


async def test_each_width_keeps_the_aspect_and_none_is_enlarged(ffmpeg: Ffmpeg, library: Library) -> None:
    pictures = await render(ffmpeg, "h264", await annexb(library), 5, [640, 160, 161, 320, 160])

    assert [(p.width, p.height) for p in pictures] == [
        (320, 180),
        (160, 90),
        (161, 91),
        (320, 180),
        (160, 90),
    ]
    assert {number_in(picture) for picture in pictures} == {5}


async def test_no_widths_no_pictures(ffmpeg: Ffmpeg) -> None:
    assert await render(ffmpeg, "h264", b"", 0, []) == ()


async def test_a_frame_that_is_not_there_is_corrupt(ffmpeg: Ffmpeg, library: Library) -> None:
    with pytest.raises(Corrupt, match=f"no frame {FRAMES}"):
        await render(ffmpeg, "h264", await annexb(library), FRAMES, [160])


@pytest.mark.parametrize(
    "widths", [pytest.param([0], id="no width"), pytest.param(list(range(1, 30)), id="too many")]
)
async def test_widths_are_bounded(ffmpeg: Ffmpeg, widths: list[int]) -> None:
    with pytest.raises(Refused):
        await render(ffmpeg, "h264", b"", 0, widths)
