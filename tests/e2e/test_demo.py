"""`spool demo` as a user runs it: what it says, what it leaves, and that a wrong result would fail it."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from spool.camera import Camera, frame_numbers, record

# Recording, cutting, decoding and two starts of Python, on a machine that may do other things meanwhile.
pytestmark = pytest.mark.limit(180)


def _demo(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spool", "demo", *options]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=150)


def _clip(said: str) -> Path:
    found = re.search(r"^  clip +(\S+)$", said, re.MULTILINE)
    assert found is not None, said
    return Path(found.group(1))


def test_two_runs_each_leave_an_exact_clip_across_the_joint(tmp_path: Path) -> None:
    runs = [_demo(tmp_path) for _ in range(2)]

    for run in runs:
        assert run.returncode == 0, run.stdout + run.stderr
        assert "Traceback" not in run.stderr
        assert "✗" not in run.stdout
        assert [run.stdout.count(f"{name}  ") for name in ("source_available", "clip_available  ")] == [2, 1]
    clips = [tmp_path / _clip(run.stdout) for run in runs]
    assert len(set(clips)) == 2
    for clip in clips:
        numbers = asyncio.run(frame_numbers(clip))
        assert numbers == list(range(531, 1131))
        assert len(list(clip.parent.glob("*.jpg"))) == 3
    assert not (tmp_path / "spool-demo" / "running.json").exists()


@pytest.mark.parametrize(
    ("name", "codec", "words"),
    [
        pytest.param("my film.mp4", "libx264", "pixel for pixel", id="copied"),
        pytest.param("my film.mkv", "mpeg4", "re-encoded, because", id="encoded-anew"),
    ],
)
def test_the_demo_takes_a_recording_of_ones_own(tmp_path: Path, name: str, codec: str, words: str) -> None:
    # Without sound it lasts nine seconds to the millisecond, in every container.
    camera = Camera(width=160, height=90, video_codec=codec, sound=False)
    own = asyncio.run(record(tmp_path / name, start_ms=0, duration_ms=9_000, camera=camera)).path
    before = own.read_bytes()

    run = _demo(tmp_path, "--file", str(own), "--data", "elsewhere")

    assert run.returncode == 0, run.stdout + run.stderr
    assert words in run.stdout
    assert asyncio.run(frame_numbers(tmp_path / _clip(run.stdout))) == list(range(90, 180))
    assert own.read_bytes() == before


def test_what_is_no_recording_ends_the_demo_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("not a film\n" * 100)

    run = _demo(tmp_path, "--file", "notes.mp4")

    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (1, "", 1)
    assert "notes.mp4" in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.mp4"]
