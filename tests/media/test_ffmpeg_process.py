"""An ffmpeg ends: by itself, at each of its limits, with whoever waits for it, and with its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg
import pytest
from prometheus_client import CollectorRegistry

from shared.kernel.errors import Corrupt, Transient
from shared.media.commands import output_pipe
from shared.media.diagnosis import diagnose
from shared.media.ffmpeg import STDERR_TAIL_BYTES, Ffmpeg, Limits, Report
from shared.observability.media_metrics import FfmpegMetrics
from tests.children import children_of

MIB = 1024 * 1024
BINARY = Path(imageio_ffmpeg.get_ffmpeg_exe())
ROOMY = Limits(cpu_s=30, memory_bytes=2048 * MIB, file_bytes=64 * MIB, wall_s=30)
BRIEF = ("-f", "lavfi", "-i", "testsrc2=duration=1.5", "-f", "null", "-")
ENDLESS = ("-f", "lavfi", "-i", "testsrc2=size=64x36", "-f", "null", "-")

# A parent that starts an endless ffmpeg, says so, and waits.
PARENT = """
import asyncio, sys
from pathlib import Path
from shared.media.ffmpeg import Ffmpeg, Limits

async def main():
    limits = Limits(cpu_s=50, memory_bytes=1 << 31, file_bytes=1 << 20, wall_s=50)
    arguments = ("-f", "lavfi", "-i", "testsrc2=size=64x36", "-f", "null", "-")
    said = []
    def report(report):
        if not said:
            said.append(print("runs", flush=True))
    await Ffmpeg(Path(sys.argv[1])).run("test", arguments, limits=limits, on_report=report)

asyncio.run(main())
"""


class Collected:
    def __init__(self) -> None:
        self.data = b""

    def feed(self, chunk: bytes) -> None:
        self.data += chunk


class Refusing:
    def feed(self, chunk: bytes) -> None:
        raise Corrupt("enough")


AT_ONCE_S = 10.0  # the kernel does it; being scheduled takes a moment


@pytest.fixture
def ffmpeg() -> Ffmpeg:
    return Ffmpeg(BINARY)


async def gone(pid: int) -> None:
    """Return when a process has ended: a descriptor of it becomes readable then."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


async def start_endless(ffmpeg: Ffmpeg) -> tuple[asyncio.Task[object], int]:
    """Start an ffmpeg that does not end by itself, and return it when it runs."""
    before = children_of(os.getpid())
    running = asyncio.Event()

    def report(_: Report) -> None:
        running.set()

    task: asyncio.Task[object] = asyncio.create_task(
        ffmpeg.run("test", ENDLESS, limits=ROOMY, on_report=report)
    )
    await running.wait()
    pid = max(children_of(os.getpid()) - before)
    return task, pid


async def test_output_pipes_and_progress_are_read(ffmpeg: Ffmpeg) -> None:
    source = ("-f", "lavfi", "-i", "testsrc2=size=64x36:rate=10:duration=2", "-pix_fmt", "gray")
    first, second = Collected(), Collected()
    reports: list[Report] = []
    outputs = (*source, "-f", "rawvideo", output_pipe(0), *source[4:], "-f", "rawvideo", output_pipe(1))
    ended = await ffmpeg.run("test", outputs, limits=ROOMY, sinks=(first, second), on_report=reports.append)

    assert ended.code == 0
    assert ended.frames == 20
    assert ended.out_ms == 2000
    assert reports[-1] == Report(frames=20, out_ms=2000)
    assert len(first.data) == len(second.data) == 20 * 64 * 36


async def test_a_child_sees_no_secret(ffmpeg: Ffmpeg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:3128")
    task, pid = await start_endless(ffmpeg)
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    opened = {entry.readlink().as_posix().split(":")[0] for entry in Path(f"/proc/{pid}/fd").iterdir()}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert environment == b"LC_ALL=C\0AV_LOG_FORCE_NOCOLOR=1\0"
    assert opened == {"/dev/null", "pipe"}


async def test_cpu_time_ends(ffmpeg: Ffmpeg) -> None:
    limits = Limits(cpu_s=1, memory_bytes=2048 * MIB, file_bytes=MIB, wall_s=30)
    ended = await ffmpeg.run("test", ENDLESS, limits=limits)

    assert not ended.timed_out
    assert isinstance(diagnose(ended, what="It"), Transient)


async def test_memory_ends(ffmpeg: Ffmpeg) -> None:
    limits = Limits(cpu_s=30, memory_bytes=160 * MIB, file_bytes=MIB, wall_s=30)
    huge = ("-f", "lavfi", "-i", "color=size=7680x4320", "-c:v", "libx264", "-f", "null", "-")
    ended = await ffmpeg.run("test", huge, limits=limits)

    assert not ended.timed_out
    assert isinstance(diagnose(ended, what="It"), Transient)


async def test_a_file_ends(ffmpeg: Ffmpeg, tmp_path: Path) -> None:
    limits = Limits(cpu_s=30, memory_bytes=2048 * MIB, file_bytes=MIB, wall_s=30)
    out = tmp_path / "out.raw"
    raw = ("-f", "lavfi", "-i", "testsrc2", "-f", "rawvideo", f"file:{out}")
    ended = await ffmpeg.run("test", raw, limits=limits)

    assert ended.code == -signal.SIGXFSZ
    assert out.stat().st_size <= MIB
    assert isinstance(diagnose(ended, what="It"), Transient)


async def test_wall_time_ends(ffmpeg: Ffmpeg) -> None:
    limits = Limits(cpu_s=30, memory_bytes=2048 * MIB, file_bytes=MIB, wall_s=0.5)
    ended = await ffmpeg.run("test", ("-re", *ENDLESS), limits=limits)

    assert ended.timed_out
    assert isinstance(diagnose(ended, what="It"), Transient)


async def test_one_that_waits_for_its_input_for_ever_ends(ffmpeg: Ffmpeg) -> None:
    limits = Limits(cpu_s=30, memory_bytes=2048 * MIB, file_bytes=MIB, wall_s=0.5)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as silent:
        ended = await ffmpeg.run(
            "test", ("-f", "h264", "-i", "pipe:0", "-f", "null", "-"), limits=limits, stdin=silent
        )
    os.close(writing)

    assert ended.timed_out


async def test_complaints_are_kept_to_their_tail(ffmpeg: Ffmpeg) -> None:
    frames = ("-f", "lavfi", "-i", "testsrc2=size=64x36:duration=40", "-vf", "showinfo")
    talking = ("-loglevel", "info", *frames, "-f", "null", "-")
    ended = await ffmpeg.run("test", talking, limits=ROOMY)

    assert ended.code == 0
    assert len(ended.stderr) == STDERR_TAIL_BYTES


async def test_what_a_sink_refuses_ends_it(ffmpeg: Ffmpeg) -> None:
    before = children_of(os.getpid())
    endless = (*ENDLESS[:4], "-f", "rawvideo", output_pipe(0))
    with pytest.raises(Corrupt, match="enough"):
        await ffmpeg.run("test", endless, limits=ROOMY, sinks=(Refusing(),))

    assert children_of(os.getpid()) == before


async def test_cancelling_leaves_no_process(ffmpeg: Ffmpeg) -> None:
    task, pid = await start_endless(ffmpeg)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert pid not in children_of(os.getpid())
    assert not Path(f"/proc/{pid}").exists()


async def test_what_it_has_started_itself_ends_with_it(tmp_path: Path) -> None:
    binary, child = tmp_path / "ffmpeg", tmp_path / "ffmpeg.child"
    report = r"printf 'frame=1\nout_time_us=0\nprogress=continue\n' >&3"
    binary.write_text(f'#!/bin/sh\n/bin/sleep 600 &\necho $! > "$0.child"\n{report}\nwait\n')
    binary.chmod(0o700)
    runs = asyncio.Event()
    run = Ffmpeg(binary).run("test", (), limits=ROOMY, on_report=lambda _: runs.set())
    task = asyncio.create_task(run)
    await runs.wait()
    task.cancel()

    async with asyncio.timeout(AT_ONCE_S):
        await asyncio.wait({task})
        await gone(int(child.read_text()))


async def test_a_killed_parent_takes_its_ffmpeg_along() -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(BINARY), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None  # asked for
    said = await parent.stdout.readline()
    (pid,) = children_of(parent.pid)
    parent.kill()
    async with asyncio.timeout(AT_ONCE_S):  # long before its own limits would end it
        await gone(pid)

    assert said == b"runs\n"
    assert await parent.wait() == -signal.SIGKILL


async def test_only_so_many_run_at_once() -> None:
    ffmpeg = Ffmpeg(BINARY, at_once=2)
    first, _ = await start_endless(ffmpeg)
    second, _ = await start_endless(ffmpeg)
    third = asyncio.create_task(start_endless(ffmpeg))
    # One that need not wait takes three times as long as any ffmpeg needs until its first report.
    await Ffmpeg(BINARY).run("test", ("-re", *BRIEF), limits=ROOMY)
    waited = not third.done()
    first.cancel()
    last, _ = await third
    for task in (second, last):
        task.cancel()
    await asyncio.gather(first, second, last, return_exceptions=True)

    assert waited


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        pytest.param(BRIEF, "done", id="done"),
        pytest.param(("-f", "lavfi", "-i", "nonsense", "-f", "null", "-"), "failed", id="failed"),
    ],
)
async def test_runs_are_counted(arguments: Sequence[str], status: str) -> None:
    registry = CollectorRegistry()
    ffmpeg = Ffmpeg(BINARY, metrics=FfmpegMetrics(registry))
    await ffmpeg.run("test", arguments, limits=ROOMY)

    assert registry.get_sample_value("spool_ffmpeg_runs_total", {"purpose": "test", "status": status}) == 1
    assert registry.get_sample_value("spool_ffmpeg_duration_seconds_count", {"purpose": "test"}) == 1
    assert registry.get_sample_value("spool_ffmpeg_running") == 0


async def test_a_binary_that_is_not_there_is_a_bug(tmp_path: Path) -> None:
    ended = await Ffmpeg(tmp_path / "ffmpeg").run("test", (), limits=ROOMY)

    assert "could not be started" in str(diagnose(ended, what="It"))
