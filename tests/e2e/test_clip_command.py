"""`spool clip` from the outside: clips compared frame by frame, and every mistake in one line."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.kernel.errors import Conflict, NotFound
from shared.media.port import Precision
from shared.storage.port import WriteOptions
from spool.camera import Camera, Recording, frame_numbers, record
from spool.cli.app import run_command
from spool.clip_file import Order, clip_file
from spool.opening import open_bucket
from spool.place import S3Place, read_place

SMALL = Camera(width=160, height=90)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Six seconds at 30 frames a second: frame n is shown at n / 30 s."""
    path = tmp_path_factory.mktemp("camera") / "my film.mp4"
    return asyncio.run(record(path, start_ms=0, duration_ms=6_000, camera=SMALL))


@contextmanager
def _untouched(*paths: Path) -> Iterator[None]:
    before = [path.read_bytes() for path in paths]
    yield
    assert [path.read_bytes() for path in paths] == before


def test_a_clip_shows_exactly_the_frames_that_were_asked_for(
    recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, picture = tmp_path / "out.mp4", tmp_path / "out.jpg"

    with _untouched(recording.path):
        code = run_command(
            [
                "clip",
                str(recording.path),
                "--from",
                "00:01.5",
                "--to",
                "4",
                "-o",
                str(out),
                "--thumbnail",
                str(picture),
            ]
        )

    said = capsys.readouterr()
    assert code == 0, said.err
    assert asyncio.run(frame_numbers(out)) == list(range(45, 120))
    assert "75 frames, 00:00:02.500" in said.out
    assert "lossless" in said.out
    assert said.out.count("\n") == 1
    assert picture.read_bytes().startswith(b"\xff\xd8\xff")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jpg", "out.mp4"]


def test_without_from_and_to_a_clip_is_the_whole_recording(recording: Recording, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"

    code = run_command(["clip", str(recording.path), "-o", str(out)])

    assert code == 0
    assert asyncio.run(frame_numbers(out)) == list(recording.frames)


def test_what_cannot_be_copied_is_encoded_anew_and_said_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = Camera(width=160, height=90, video_codec="mpeg4")
    other = asyncio.run(record(tmp_path / "in.mkv", start_ms=0, duration_ms=2_000, camera=camera))

    code = run_command(
        ["clip", str(other.path), "--from", "0.5", "--to", "1.5", "-o", str(tmp_path / "out.mp4")]
    )

    said = capsys.readouterr()
    assert code == 0, said.err
    assert "re-encoded because" in said.out
    assert asyncio.run(frame_numbers(tmp_path / "out.mp4")) == list(range(15, 45))


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("text.mp4", b"hello, this is no film\n" * 100, id="text"),
        pytest.param("list.mp4", PLAYLIST.encode(), id="playlist"),
        pytest.param("empty.mp4", b"", id="empty"),
        pytest.param("concat.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n", id="list-for-ffmpeg"),
    ],
)
def test_what_is_no_recording_is_told_in_one_line(
    name: str, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / name
    source.write_bytes(content)

    code = run_command(["clip", str(source), "--from", "0", "--to", "1", "-o", str(tmp_path / "out.mp4")])

    said = capsys.readouterr().err
    assert code == 1
    assert name in said
    assert said.count("spool: ") == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_truncated_recording_is_told_and_leaves_nothing(
    recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_off = tmp_path / "in.mp4"
    cut_off.write_bytes(recording.path.read_bytes()[:40_000])

    code = run_command(["clip", str(cut_off), "--to", "1", "-o", str(tmp_path / "out.mp4")])

    assert code == 1
    assert str(cut_off) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(
            ["--from", "4", "--to", "2", "-o", "out.mp4"], "--to 00:00:02.000 is not after", id="end-first"
        ),
        pytest.param(["--from", "4", "--to", "4", "-o", "out.mp4"], "is not after", id="nothing"),
        pytest.param(
            ["--from", "7", "-o", "out.mp4"],
            "--from 00:00:07.000 is beyond the end",
            id="starts-after-the-end",
        ),
        pytest.param(
            ["--to", "7", "-o", "out.mp4"], "--to 00:00:07.000 is beyond the end", id="ends-after-the-end"
        ),
        pytest.param(["-o", "nowhere/out.mp4"], "the directory nowhere does not exist", id="no-directory"),
        pytest.param(["-o", "."], "is a directory", id="directory"),
        pytest.param(["-o", "taken.mp4"], "already exists", id="taken"),
        pytest.param(
            ["-o", "out.mp4", "--thumbnail", "taken.mp4"], "already exists", id="taken-by-the-picture"
        ),
        pytest.param(["-o", "out.mp4", "--thumbnail", "out.mp4"], "the same file", id="one-name-for-both"),
        pytest.param(["-o", "link.mp4", "--force"], "is the source itself", id="onto-the-source"),
        pytest.param(
            ["-o", "out.mp4", "--thumbnail", "link.mp4", "--force"],
            "is the source itself",
            id="picture-onto-it",
        ),
        pytest.param(["-o", "/proc/out.mp4"], "/proc/out.mp4", id="no-permission"),
        pytest.param(["-o", "-"], "cannot be piped", id="pipe"),
        pytest.param(["-o", "s3://bucket"], "names no object", id="bucket-without-a-key"),
    ],
)
def test_a_wrong_order_is_told_in_one_line_and_touches_nothing(
    *,
    options: list[str],
    words: str,
    recording: Recording,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken.mp4").write_bytes(b"mine")
    Path("link.mp4").symlink_to(recording.path)

    with _untouched(recording.path, Path("taken.mp4")):
        code = run_command(["clip", str(recording.path), *options])

    said = capsys.readouterr().err
    assert code == 1
    assert words in said
    assert said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.mp4", "taken.mp4"]


def test_force_replaces_the_output_and_a_link_stays_a_link(recording: Recording, tmp_path: Path) -> None:
    (tmp_path / "real.mp4").write_bytes(b"old")
    (tmp_path / "out.mp4").symlink_to("real.mp4")

    code = run_command(["clip", str(recording.path), "--to", "1", "-o", str(tmp_path / "out.mp4"), "--force"])

    assert code == 0
    assert (tmp_path / "out.mp4").is_symlink()
    assert asyncio.run(frame_numbers(tmp_path / "real.mp4")) == list(range(30))


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [pytest.param(signal.SIGINT, 130, id="ctrl-c"), pytest.param(signal.SIGTERM, 143, id="sigterm")],
)
def test_an_interrupted_clip_leaves_nothing(number: signal.Signals, exit_code: int, tmp_path: Path) -> None:
    camera = Camera(width=1280, height=720, video_codec="mpeg4")
    # long enough that it still encodes when a busy machine brings the signal late
    recording = asyncio.run(record(tmp_path / "in.mkv", start_ms=0, duration_ms=40_000, camera=camera))
    command = [sys.executable, "-m", "spool", "clip", str(recording.path), "-o", str(tmp_path / "out.mp4")]

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()  # the first line of progress: it encodes
        process.send_signal(number)
        rest = process.stderr.read()

    assert first.startswith("cutting: ")
    assert process.returncode == exit_code
    assert "Traceback" not in rest
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


@pytest.fixture
async def bucket(s3_url: str, recording: Recording) -> S3Place:
    """Store the recording as an object and return its place."""
    place = read_place(_in(s3_url, "in put.mp4"))
    assert isinstance(place, S3Place)
    async with open_bucket(place) as store, store.writer(place.key, WriteOptions()) as writer:
        await writer.write(recording.path.read_bytes())
    return place


def _in(s3_url: str, name: str) -> str:
    address, _, query = s3_url.partition("?")
    return f"{address}/{name}?{query}"


async def test_an_object_is_cut_into_a_file(bucket: S3Place, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"

    made = await clip_file(Order(bucket, out, 1_500, 4_000))

    assert await frame_numbers(out) == list(range(45, 120))
    assert made.reencoded_because is None


@pytest.mark.parametrize(
    ("precision", "frames"),
    [
        pytest.param(Precision.SMART, range(45, 120), id="smart"),
        pytest.param(Precision.KEYFRAME, range(120), id="key frames"),
    ],
)
async def test_a_clip_that_hides_nothing(
    recording: Recording, tmp_path: Path, precision: Precision, frames: range
) -> None:
    out = tmp_path / "out.mp4"

    made = await clip_file(Order(recording.path, out, 1_500, 4_000, precision=precision))

    assert await frame_numbers(out, hidden=True) == list(frames)
    assert made.reencoded_because is None


async def test_a_file_is_cut_into_an_object_that_is_not_replaced_unasked(
    s3_url: str, recording: Recording, tmp_path: Path
) -> None:
    place = read_place(_in(s3_url, "out.mp4"))
    assert isinstance(place, S3Place)

    await clip_file(Order(recording.path, place, 1_500, 4_000))
    with pytest.raises(Conflict, match="--force"):
        await clip_file(Order(recording.path, place, 0, 1_000))
    await clip_file(Order(recording.path, place, 0, 2_000, force=True))

    back = tmp_path / "back.mp4"
    await clip_file(Order(place, back, 0, None))
    assert await frame_numbers(back) == list(range(60))


async def test_a_missing_object_and_a_missing_bucket_are_told(s3_url: str, tmp_path: Path) -> None:
    nothing = read_place(_in(s3_url, "nothing.mp4"))
    query = s3_url.partition("?")[2]
    no_bucket = read_place(f"s3://no-such-bucket-{os.getpid()}/x.mp4?{query}")

    for place in (nothing, no_bucket):
        with pytest.raises(NotFound, match="does not exist"):
            await clip_file(Order(place, tmp_path / "out.mp4", 0, 1_000))

    assert list(tmp_path.iterdir()) == []
