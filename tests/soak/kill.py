"""kill -9 everywhere: at every call of every port, and at random among many clips. Writes a report.

    make soak kill                          all of it, an hour on two cores
    make soak kill ARGS="--part random"     one part
    make soak kill ARGS="--stride 10 --clips 20 --no-report"

Needs SPOOL_TEST_AMQP, SPOOL_TEST_POSTGRES and SPOOL_TEST_S3: eval "$(.ci/servers start)".
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg

from tests.anomaly.installation import Addresses, Installation, open_installation
from tests.anomaly.killing import PORTS
from tests.anomaly.nursery import Nursery, nursery_process, open_nursery
from tests.anomaly.recordings import LARGE, SMALL, Footage, record_footage
from tests.anomaly.sweeping import Sweep, open_copies, sweep_calls
from tests.soak.random_kills import Numbers, kill_at_random

REPORTS = Path(__file__).parents[2] / "docs/reports"
CHECKED = """\
After each death another process finished the work, the request was made again twice (the same event, and a
new one for the same clip), and from outside it was checked that there are exactly one clip object and its
three thumbnails, with exactly the frames asked for and the announced digest; that every announcement bears
the same event id; that no work is unfinished or dead, no event unsent, nothing in the queues; that there is
no unfinished upload, no row in the journal of uploads, no temporary file, and no ffmpeg alive.
"""
LANES = 2  # embedded installations that are swept at once: one a core


@dataclass(frozen=True, slots=True)
class Place:
    """A kind of installation, and the variables of the servers that it needs."""

    name: str
    bus: str | None = None
    database: str | None = None
    storage: str | None = None


AMQP, POSTGRES, S3 = "SPOOL_TEST_AMQP", "SPOOL_TEST_POSTGRES", "SPOOL_TEST_S3"
PLACES = (
    Place("local bus, SQLite, files"),
    Place("RabbitMQ, PostgreSQL, S3", bus=AMQP, database=POSTGRES, storage=S3),
    Place("RabbitMQ, SQLite, files", bus=AMQP),
    Place("local bus, PostgreSQL, S3", database=POSTGRES, storage=S3),
)


@dataclass(slots=True)
class Findings:
    """What the report tells."""

    sweeps: list[tuple[str, Sweep, float]] = field(default_factory=list)
    random: list[tuple[str, Numbers, float]] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        swept = [
            f"{place}, {point}: {fault}"
            for place, sweep, _ in self.sweeps
            for point, faults in sweep.wrong.items()
            for fault in faults
        ]
        return swept + [f"{place}: {fault}" for place, numbers, _ in self.random for fault in numbers.wrong]


def main() -> None:
    """Run what was asked for. Exits with 1 when anything was wrong."""
    parser = argparse.ArgumentParser(prog="make soak kill")
    parser.add_argument("--part", choices=("calls", "random", "all"), default="all")
    parser.add_argument("--stride", type=int, default=1, help="visit every n-th call only")
    parser.add_argument("--clips", type=int, default=200, help="of a random run")
    parser.add_argument("--no-report", action="store_true", help="print only")
    options = parser.parse_args()
    findings = Findings()
    started_s = time.monotonic()
    asyncio.run(_run(options, findings))
    report = _report(findings, seconds=time.monotonic() - started_s)
    print(report)
    if not options.no_report:
        REPORTS.mkdir(parents=True, exist_ok=True)
        name = "kill" if options.part == "all" else f"kill-{options.part}"
        (REPORTS / f"{datetime.now(UTC):%Y-%m-%d}-{name}.md").write_text(report)
    sys.exit(1 if findings.wrong else 0)


async def _run(options: argparse.Namespace, findings: Findings) -> None:
    with tempfile.TemporaryDirectory(prefix="spool-soak-") as temporary:
        root = Path(temporary)
        small, large = root / "small", root / "large"
        for directory in (small, large):
            directory.mkdir()
        footages = [await record_footage(small, SMALL), await record_footage(large, LARGE)]
        with nursery_process() as socket:
            async with open_nursery(socket) as nursery:
                for number, place in enumerate(PLACES):
                    footage = footages[place.storage is not None]
                    async with _installation(root / f"place-{number}", place, footage) as installation:
                        await installation.announce_sources(nursery)
                        if options.part != "random":
                            await _sweep(place, installation, nursery, options.stride, findings)
                        if options.part != "calls" and number < 2:
                            with _timed() as clock:
                                numbers = await kill_at_random(installation, nursery, clips=options.clips)
                            findings.random.append((place.name, numbers, clock.seconds))
                            print(f"{place.name}, at random: {numbers}", flush=True)


async def _sweep(
    place: Place, installation: Installation, nursery: Nursery, stride: int, findings: Findings
) -> None:
    for port in PORTS:
        if port == "s3" and place.storage is None:
            continue
        with _timed() as clock:
            async with AsyncExitStack() as stack:
                lanes = [installation]
                if not (place.bus or place.database):
                    lanes = await open_copies(stack, installation, LANES, name=port)
                sweep = await sweep_calls(lanes, nursery, port, stride=stride)
        findings.sweeps.append((place.name, sweep, clock.seconds))
        print(f"{place.name}, {port}: {sweep.deaths} deaths, {len(sweep.wrong)} wrong", flush=True)


@dataclass(slots=True)
class _Clock:
    seconds: float = 0


@contextmanager
def _timed() -> Iterator[_Clock]:
    clock = _Clock()
    started_s = time.monotonic()
    yield clock
    clock.seconds = time.monotonic() - started_s


@asynccontextmanager
async def _installation(directory: Path, place: Place, footage: Footage) -> AsyncIterator[Installation]:
    """Open an installation with a database and a prefix of its own."""
    name = f"spool_soak_{uuid4().hex}"
    server = os.environ[place.database] if place.database else None
    storage = urlsplit(os.environ[place.storage]) if place.storage else None
    addresses = Addresses(
        bus=os.environ[place.bus] if place.bus else None,
        database=urlsplit(server)._replace(path=f"/{name}").geturl() if server else None,
        storage=storage._replace(path=f"/{name}").geturl() if storage else None,
    )
    if server:
        await _execute(server, f"CREATE DATABASE {name}")
    try:
        async with open_installation(directory, addresses, footage) as installation:
            yield installation
    finally:
        if server:
            await _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(address: str, statement: str) -> None:
    connection = await asyncpg.connect(address)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _report(findings: Findings, *, seconds: float) -> str:
    """Write down what was done, and what was found."""
    command = f"make soak kill {'ARGS=' + shlex.quote(shlex.join(sys.argv[1:])) if sys.argv[1:] else ''}"
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}"
    lines = [
        "# kill -9 everywhere",
        "",
        f"- command: `{command.strip()}`",
        f"- date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {seconds / 60:.0f} minutes",
        f"- machine: {machine}, Python {platform.python_version()}",
        f"- verdict: {f'{len(findings.wrong)} faults' if findings.wrong else 'nothing was wrong'}",
        "",
        *CHECKED.splitlines(),
    ]
    if findings.sweeps:
        lines += ["", "## At the n-th call of each port, n = 1, 2, 3 … until the process got through", ""]
        lines += ["| installation | port | deaths | wrong | minutes |", "| --- | --- | --- | --- | --- |"]
        lines += [
            f"| {place} | {sweep.port} | {sweep.deaths} | {len(sweep.wrong)} | {taken_s / 60:.1f} |"
            for place, sweep, taken_s in findings.sweeps
        ]
    for place, numbers, taken_s in findings.random:
        lines += ["", f"## At random: {place}", "", *numbers.lines(), f"- minutes: {taken_s / 60:.1f}"]
    if findings.wrong:
        lines += ["", "## Faults", "", *(f"- {fault}" for fault in findings.wrong)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
