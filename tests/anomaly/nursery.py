"""Ask for victims, wait for their deaths, and look whether they left anybody behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.anomaly.killing import KillPoint

ROOT = Path(__file__).parents[2]
ORPHANS_S = 5.0  # the kernel kills them with their parent; being scheduled takes them a moment
START_S = 30.0  # for importing everything
SPARED = {"PATH", "HOME", "TMPDIR", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


@dataclass(frozen=True, slots=True)
class Victim:
    """A process of Spool that runs or has died. `log` is what it said."""

    pid: int
    log: Path
    ended: asyncio.Future[int]

    def has_ended(self) -> bool:
        return self.ended.done()

    def send(self, number: signal.Signals) -> None:
        if not self.has_ended():
            os.kill(self.pid, number)

    async def end(self) -> int:
        """Wait for the end. Returns the exit code; of one that was killed, minus the signal."""
        return await asyncio.shield(self.ended)


@dataclass(slots=True)
class Nursery:
    """The process that victims are forked from. Open it with `open_nursery`."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    answers: asyncio.Queue[dict[str, object]] = field(default_factory=asyncio.Queue)
    births: asyncio.Queue[asyncio.Future[int]] = field(default_factory=asyncio.Queue)
    living: dict[int, asyncio.Future[int]] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def bear(
        self, environment: Mapping[str, str], directory: Path, *, point: KillPoint | None = None
    ) -> Victim:
        """Start a process with these settings in this directory."""
        log = directory / "victim.log"
        given = [point.name, point.nth, point.what] if point else None
        answer = await self._ask(
            do="bear",
            environment=dict(environment),
            directory=str(directory),
            log=str(log),
            point=given,
        )
        pid = int(str(answer["born"]))
        return Victim(pid, log, self.births.get_nowait())

    async def orphans(self) -> list[str]:
        """Return the command lines of what dead victims left, once it had time to go."""
        left: list[str] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(ORPHANS_S):
                # The death of a grandchild has no event that could be awaited here.
                while left := [str(command) for command in await self._ask_orphans()]:  # noqa: ASYNC110  # see above
                    await asyncio.sleep(0.05)
        return left

    async def kill_all(self) -> None:
        """End every victim that still lives."""
        for pid, ended in list(self.living.items()):
            os.kill(pid, signal.SIGKILL)
            await asyncio.shield(ended)

    async def listen(self) -> None:
        """Take the answers in until the connection ends."""
        async for line in self.reader:
            answer = json.loads(line)
            if "died" in answer:
                self.living.pop(answer["died"]).set_result(answer["code"])
                continue
            if "born" in answer:
                # Not where it is asked for: its death may be the next line. A process id comes again.
                ended = self.living[answer["born"]] = asyncio.get_running_loop().create_future()
                self.births.put_nowait(ended)
            self.answers.put_nowait(answer)

    async def _ask_orphans(self) -> list[object]:
        answer = await self._ask(do="orphans")
        found = answer["orphans"]
        assert isinstance(found, list)
        return found

    async def _ask(self, **order: object) -> dict[str, object]:
        async with self.turn:
            self.writer.write(json.dumps(order).encode() + b"\n")
            await self.writer.drain()
            return await self.answers.get()


@contextmanager
def nursery_process() -> Iterator[Path]:
    """Start the process, and yield the socket where it takes orders."""
    environment = {name: value for name, value in os.environ.items() if name in SPARED}
    # Threads of a library would not live on in the forks.
    environment["OPENBLAS_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="nursery-") as directory:  # short: a socket's path has to be
        path = Path(directory) / "socket"
        command = [sys.executable, "-m", "tests.anomaly.victim", str(path)]
        with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
            try:
                yield path
            finally:
                process.kill()


@asynccontextmanager
async def open_nursery(path: Path) -> AsyncIterator[Nursery]:
    """Connect to the process; at the end all victims of this connection end."""
    reader, writer = await _connect(path)
    nursery = Nursery(reader, writer)
    listening = asyncio.create_task(nursery.listen())
    try:
        yield nursery
    finally:
        await nursery.kill_all()
        writer.close()
        await listening


async def _connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Wait until the process has imported everything and listens."""
    async with asyncio.timeout(START_S):
        while True:
            with suppress(FileNotFoundError, ConnectionRefusedError):
                return await asyncio.open_unix_connection(path)
            await asyncio.sleep(0.05)
