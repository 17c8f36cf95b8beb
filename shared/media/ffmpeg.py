"""The one place that starts ffmpeg: with limits, a clean environment, and an end in every case.

Each ffmpeg is a process group of its own, started through `launcher.py`, which sets the limits of the
kernel and ties its life to ours. Whoever awaits `run` owns the process: when the await ends, by a result,
an error or a cancellation, the process is gone and waited for.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from shared.kernel.errors import SpoolError
from shared.media.commands import PREFIX
from shared.observability.media_metrics import FfmpegMetrics

AT_ONCE = 4  # ffmpegs of one process: each takes about a core
STDERR_TAIL_BYTES = 64 * 1024  # the last words say why; a broken file can complain for megabytes
STDIN_CHUNK_BYTES = 256 * 1024
READ_BYTES = 64 * 1024  # what a Linux pipe holds
TERMINATE_S = 2.0  # between asking and killing

_LAUNCHER = Path(__file__).with_name("launcher.py")
# Nothing of ours goes in: no credentials, no http_proxy, no HOME with a file of presets.
_ENVIRONMENT = {"LC_ALL": "C", "AV_LOG_FORCE_NOCOLOR": "1"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one ffmpeg may use. CPU, memory and file size are kept by the kernel, wall time by us."""

    cpu_s: int
    memory_bytes: int
    file_bytes: int  # of any one file it writes
    wall_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """One report of progress: frames and milliseconds of the output so far."""

    frames: int
    out_ms: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How an ffmpeg ended. An exit code of zero proves nothing: check what it made."""

    code: int  # negative: the signal that killed it
    stderr: str  # the tail
    timed_out: bool  # it was ended by us, at its wall limit
    frames: int  # of the first video output, from the last report of progress
    out_ms: int


class Sink(Protocol):
    """Takes what arrives at one output pipe. A SpoolError that it raises ends the ffmpeg."""

    def feed(self, chunk: bytes) -> Awaitable[None] | None:
        """Take the next bytes. What is returned is waited for before more is read."""
        ...


class Ffmpeg:
    """Starts ffmpegs, a bounded number at once. Belongs to one event loop."""

    def __init__(self, binary: Path, *, at_once: int = AT_ONCE, metrics: FfmpegMetrics | None = None) -> None:
        """Use this binary. More than `at_once` calls wait for their turn."""
        self._binary = binary
        self._slots = asyncio.Semaphore(at_once)
        self._metrics = metrics

    async def run(
        self,
        purpose: str,
        arguments: Sequence[str],
        *,
        limits: Limits,
        stdin: bytes | IO[bytes] | None = None,
        sinks: Sequence[Sink] = (),
        on_report: Callable[[Report], None] | None = None,
    ) -> Ended:
        """Run one ffmpeg to its end and say how it ended; its output pipes feed the sinks.

        `arguments` come from `commands`: what it writes to descriptor `FIRST_OUTPUT_FD + n` goes to sink n.
        `stdin` is bytes that are piped, or an open file that becomes descriptor 0, in which ffmpeg can seek.
        Raises what a sink raises. That ffmpeg failed is not an error here: ask `diagnosis.diagnose`.
        """
        async with self._slots:
            with self._measured(purpose) as measured:
                process = _Process(sinks, on_report)
                argv = (str(self._binary), *PREFIX, *arguments)
                ended = await process.live(argv, limits, stdin)
                measured.status = "timeout" if ended.timed_out else "failed" if ended.code else "done"
                return ended

    @contextmanager
    def _measured(self, purpose: str) -> Iterator[_Measured]:
        measured = _Measured()
        if self._metrics is None:
            yield measured
            return
        started = time.monotonic()
        try:
            with self._metrics.running.track_inprogress():
                yield measured
        finally:
            self._metrics.runs.labels(purpose, measured.status).inc()
            self._metrics.seconds.labels(purpose).observe(time.monotonic() - started)


@dataclass(slots=True)
class _Measured:
    status: str = "aborted"  # by a cancellation or a sink, when nobody says otherwise


class _Process:
    """One process, and the tasks that read from it and write to it."""

    def __init__(self, sinks: Sequence[Sink], on_report: Callable[[Report], None] | None) -> None:
        self._sinks = sinks
        self._progress = _Progress(on_report)
        self._stderr = bytearray()
        self._refusal: SpoolError | None = None

    async def live(self, argv: Sequence[str], limits: Limits, stdin: bytes | IO[bytes] | None) -> Ended:
        async with _output_pipes(1 + len(self._sinks)) as (readers, writers):
            process = await _start(argv, limits, stdin, writers)
            _close(writers)  # else the readers would never see the end
            tasks = [asyncio.create_task(task) for task in self._tasks(process, readers, stdin)]
            try:
                timed_out = await _wait(process, limits.wall_s)
            finally:
                await _kill(process)
                await asyncio.gather(*tasks)
        if self._refusal is not None:
            raise self._refusal
        code = process.returncode
        assert code is not None  # it was waited for
        report = self._progress.report
        return Ended(code, self._stderr.decode("utf-8", "replace"), timed_out, report.frames, report.out_ms)

    def _tasks(
        self,
        process: asyncio.subprocess.Process,
        readers: Sequence[asyncio.StreamReader],
        stdin: bytes | IO[bytes] | None,
    ) -> Iterator[Coroutine[None, None, None]]:
        assert process.stderr is not None  # asked for
        yield self._keep_tail(process.stderr)
        for reader, sink in zip(readers, (self._progress, *self._sinks), strict=True):
            yield self._drain(process, reader, sink)
        if isinstance(stdin, bytes):
            yield _feed(process, stdin)

    async def _keep_tail(self, stderr: asyncio.StreamReader) -> None:
        while chunk := await stderr.read(READ_BYTES):
            self._stderr += chunk
            del self._stderr[:-STDERR_TAIL_BYTES]

    async def _drain(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, sink: Sink
    ) -> None:
        """Feed a sink until the pipe ends. After its refusal the rest is read and dropped."""
        while chunk := await reader.read(READ_BYTES):
            if self._refusal is not None:
                continue
            try:
                if (taking := sink.feed(chunk)) is not None:
                    await taking
            except SpoolError as refusal:
                self._refusal = refusal
                _signal(process, signal.SIGKILL)


class _Progress:
    """Reads `key=value` lines of `-progress`; each block ends with the key `progress`."""

    def __init__(self, on_report: Callable[[Report], None] | None) -> None:
        self.report = Report(0, 0)
        self._on_report = on_report
        self._rest = b""
        self._values: dict[bytes, bytes] = {}

    def feed(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            key, _, value = line.partition(b"=")
            self._values[key] = value.strip()
            if key == b"progress":
                self._take()

    def _take(self) -> None:
        frames, out_us = self._number(b"frame"), self._number(b"out_time_us")
        self.report = Report(
            self.report.frames if frames is None else frames,
            self.report.out_ms if out_us is None else max(0, out_us // 1000),
        )
        if self._on_report is not None:
            self._on_report(self.report)

    def _number(self, key: bytes) -> int | None:
        """Return a value, or None where ffmpeg says `N/A`."""
        value = self._values.get(key, b"")
        return int(value) if value.lstrip(b"-").isdigit() else None


@asynccontextmanager
async def _output_pipes(count: int) -> AsyncIterator[tuple[list[asyncio.StreamReader], list[int]]]:
    """Make pipes: streams to read from, and descriptors for the child, which the caller closes."""
    readers: list[asyncio.StreamReader] = []
    transports: list[asyncio.ReadTransport] = []
    writers: list[int] = []
    try:
        for _ in range(count):
            fd, writer = os.pipe()
            writers.append(writer)
            readers.append(asyncio.StreamReader(READ_BYTES))
            transports.append(await _connect(fd, readers[-1]))
        yield readers, writers
    finally:
        _close(writers)
        for transport in transports:
            transport.close()


async def _connect(fd: int, reader: asyncio.StreamReader) -> asyncio.ReadTransport:
    """Let what arrives at a descriptor flow into a reader. The transport owns the descriptor."""

    def protocol() -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(reader)

    file = os.fdopen(fd, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(protocol, file)
    return transport


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


async def _start(
    argv: Sequence[str], limits: Limits, stdin: bytes | IO[bytes] | None, writers: Sequence[int]
) -> asyncio.subprocess.Process:
    # -I and -S: no variables, no site-packages; the interpreter is up in some ten milliseconds.
    launcher = (sys.executable, "-I", "-S", str(_LAUNCHER))
    numbers = (os.getpid(), limits.cpu_s, limits.memory_bytes, limits.file_bytes)
    return await asyncio.create_subprocess_exec(
        *(*launcher, *map(str, numbers), ",".join(map(str, writers)), *argv),
        stdin=asyncio.subprocess.PIPE if isinstance(stdin, bytes) else stdin or asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=tuple(writers),
        start_new_session=True,  # a process group of its own, which is ended as a whole
        env=_ENVIRONMENT,
        cwd="/",
    )


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    """Write the standard input. That ffmpeg stops reading is its right: it may have seen enough."""
    assert process.stdin is not None  # asked for
    with suppress(BrokenPipeError, ConnectionResetError):
        for start in range(0, len(data), STDIN_CHUNK_BYTES):
            process.stdin.write(data[start : start + STDIN_CHUNK_BYTES])
            await process.stdin.drain()
        process.stdin.close()
        await process.stdin.wait_closed()


async def _wait(process: asyncio.subprocess.Process, wall_s: float) -> bool:
    """Wait for the end; at the wall limit ask, wait and leave the killing to the caller. True: timed out."""
    try:
        async with asyncio.timeout(wall_s):
            await process.wait()
    except TimeoutError:
        _signal(process, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(TERMINATE_S):
                await process.wait()
        return True
    return False


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End the whole group, unless it has ended, and wait until it is gone: a killed process is a zombie."""
    _signal(process, signal.SIGKILL)
    await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
