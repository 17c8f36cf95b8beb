"""A large object into S3 and out of it: Spool's streaming beside boto3's transfer manager and s5cmd.

Up goes to MinIO (SPOOL_TEST_S3_MINIO), down comes from versitygw (SPOOL_TEST_S3_VERSITYGW), from a file and
into one. Each case runs in a process of its own, the ways in turns. Then objects of two sizes are streamed up
and down with nothing beside them, to see that memory does not grow with them.

    python -m bench.transfer [--quick] [--check]
"""

from __future__ import annotations

import asyncio
import filecmp
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Literal
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import boto3
from botocore.config import Config

from bench.footage import MIB, download, opened, upload
from bench.report import Goal, Options, Report, read_options
from bench.servers import addresses
from bench.usage import cpu_s, forget_peak, memory_now_mib, peak_mib
from shared.storage.port import Storage, WriteOptions

SPOOL, BOTO3, S5CMD = "Spool", "boto3", "s5cmd"
WAYS = (SPOOL, BOTO3, S5CMD)
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
KEY, WARM_UP_KEY = "object", "small"
CASE_LIMIT_S = 900
GROWTH_MIB = 32
CHUNK = Random(1).randbytes(MIB)  # noqa: S311 - no secret, only nothing that compresses

Direction = Literal["up", "down"]
SERVERS: Mapping[Direction, str] = {"up": "SPOOL_TEST_S3_MINIO", "down": "SPOOL_TEST_S3_VERSITYGW"}


@dataclass(frozen=True, slots=True)
class Size:
    """How much is moved, and how often."""

    object_bytes: int
    rounds: int
    streamed_bytes: tuple[int, ...]


FULL = Size(1 << 30, 5, (100 * MIB, 10 << 30))
QUICK = Size(128 * MIB, 3, (50 * MIB, 250 * MIB))


@dataclass(frozen=True, slots=True)
class Case:
    """One object that is moved in one way. Without a `path` it is streamed from nowhere, or to nowhere."""

    way: str
    direction: Direction
    store: str
    key: str
    size_bytes: int
    path: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one case took."""

    wall_s: float
    cpu_s: float
    growth_mib: float  # of this process, beyond what it had after an object of a MiB


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--case"]:
        print(json.dumps(asdict(asyncio.run(run_case(Case(**json.loads(arguments[1])))))))
        return 0
    options = read_options(__doc__ or "", arguments)
    with addresses(*SERVERS.values(), *CREDENTIALS) as found:
        # The ways run in processes of their own, which find all of it in their environment.
        os.environ.update(zip((*SERVERS.values(), *CREDENTIALS), found, strict=True))
        return run_bench(options).finish(options)


def run_bench(options: Options) -> Report:
    size = QUICK if options.quick else FULL
    report = Report("transfer", notes=notes(size))
    stores = {direction: store_address(variable) for direction, variable in SERVERS.items()}
    for direction, store in stores.items():
        found, is_same = compare(direction, store, size)
        report.facts[f"{direction}: what Spool moved is the same, byte by byte"] = is_same
        report.rows += [row(direction, way, size, found[way]) for way in WAYS]
        report.goals += goals(direction, found)
    for direction in SERVERS:
        for size_bytes in size.streamed_bytes:
            grown = stream(direction, stores["up"], size_bytes).growth_mib
            name = f"{direction}, {_size(size_bytes)}: memory growth"
            report.goals.append(Goal(name, grown, GROWTH_MIB, " MiB"))
    return report


def notes(size: Size) -> list[str]:
    return [
        f"up into MinIO, down from versitygw; medians of {size.rounds} rounds, the ways in turns",
        "CPU is user and system time of the client and its children, for each GiB",
        "Spool makes a CRC32 and a SHA-256 of what it sends; boto3 a CRC32, s5cmd neither",
        "memory is looked at with MinIO: versitygw on ext4 cannot complete an upload of a thousand parts",
    ]


def store_address(variable: str) -> str:
    """Return a place of this run's own on the server."""
    return urlsplit(os.environ[variable])._replace(path=f"/bench-{uuid4().hex}").geturl()


def compare(direction: Direction, store: str, size: Size) -> tuple[dict[str, Measured], bool]:
    """Move the same object in every way, in turns. Returns the medians, and whether Spool's is the same."""
    with tempfile.TemporaryDirectory(prefix="spool-bench-") as directory:
        path, moved = Path(directory) / "object", Path(directory) / "moved"
        write_file(path, size.object_bytes)
        up = Case(SPOOL, "up", store, KEY, size.object_bytes, str(path))
        down = replace(up, direction="down", path=str(moved))
        measure(up)
        found: dict[str, list[Measured]] = {way: [] for way in WAYS}
        for _ in range(size.rounds):
            for way in reversed(WAYS):  # Spool's is the one that stays
                found[way].append(measure(replace(up if direction == "up" else down, way=way)))
        if direction == "up":
            measure(down)
        is_same = filecmp.cmp(path, moved, shallow=False)
        asyncio.run(remove(up))
    medians = {
        way: Measured(
            wall_s=statistics.median(each.wall_s for each in measured),
            cpu_s=statistics.median(each.cpu_s for each in measured),
            growth_mib=max(each.growth_mib for each in measured),
        )
        for way, measured in found.items()
    }
    return medians, is_same


def stream(direction: Direction, store: str, size_bytes: int) -> Measured:
    """Move an object of this size with nothing on a disk of ours."""
    up = Case(SPOOL, "up", store, KEY, size_bytes)
    measured = measure(up)
    if direction == "down":
        measured = measure(replace(up, direction="down"))
    asyncio.run(remove(up))
    return measured


async def remove(case: Case) -> None:
    async with opened(case.store) as store:
        for key in (case.key, WARM_UP_KEY):
            await store.delete(key)


def write_file(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        for _ in range(size_bytes // MIB):
            file.write(CHUNK)


def goals(direction: str, found: Mapping[str, Measured]) -> list[Goal]:
    """Return what is promised, as ratios within this run. What `--check` holds leaves room for noise."""
    spool, other, third = found[SPOOL], found[BOTO3], found[S5CMD]
    return [
        Goal(f"{direction}: speed to boto3", other.wall_s / spool.wall_s, at_least=1.0, floor=0.6),
        Goal(f"{direction}: speed to s5cmd", third.wall_s / spool.wall_s, at_least=0.8, floor=0.4),
        Goal(f"{direction}: CPU of boto3 to Spool's", other.cpu_s / spool.cpu_s, at_least=1.0, floor=0.6),
    ]


def row(direction: str, way: str, size: Size, measured: Measured) -> dict[str, str | float]:
    gib = size.object_bytes / (1 << 30)
    return {
        "direction": direction,
        "way": way,
        "wall s": measured.wall_s,
        "MiB/s": size.object_bytes / MIB / measured.wall_s,
        "CPU s per GiB": measured.cpu_s / gib,
        "memory growth MiB": measured.growth_mib if way != S5CMD else "not counted",
    }


def measure(case: Case) -> Measured:
    """Run a case in a process of its own."""
    command = [sys.executable, "-m", "bench.transfer", "--case", json.dumps(asdict(case))]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=CASE_LIMIT_S)  # noqa: S603  # ourselves
    return Measured(**json.loads(ended.stdout.splitlines()[-1]))


async def run_case(case: Case) -> Measured:
    """Warm up with an object of a MiB, then measure: what is imported and allocated once is in no figure."""
    async with MOVERS[case.way](case.store) as move:
        with tempfile.TemporaryDirectory(prefix="spool-bench-") as directory:
            small = Path(directory) / "small"
            write_file(small, MIB)
            for direction in SERVERS:
                await move(replace(case, direction=direction, key=WARM_UP_KEY, path=str(small)))
        forget_peak()
        memory_mib, began_s, before_s = memory_now_mib(), time.monotonic(), cpu_s()
        await move(case)
        return Measured(time.monotonic() - began_s, cpu_s() - before_s, peak_mib() - memory_mib)


Move = Callable[[Case], Awaitable[None]]


@asynccontextmanager
async def by_spool(address: str) -> AsyncIterator[Move]:
    async with opened(address) as store:

        async def move(case: Case) -> None:
            if not case.path:
                await stream_through(store, case)
            elif case.direction == "up":
                await upload(store, Path(case.path), case.key)
            else:
                await download(store, case.key, Path(case.path))

        yield move


async def stream_through(store: Storage, case: Case) -> None:
    if case.direction == "up":
        async with store.writer(case.key, WriteOptions()) as writer:
            for _ in range(case.size_bytes // MIB):
                await writer.write(CHUNK)
        return
    async with store.read(case.key, end=case.size_bytes) as chunks:
        came_bytes = sum([len(chunk) async for chunk in chunks])
    assert came_bytes == case.size_bytes


@asynccontextmanager
async def by_boto3(address: str) -> AsyncIterator[Move]:
    endpoint, bucket, prefix = taken_apart(address)
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", config=Config(s3={"addressing_style": "path"})
    )

    async def move(case: Case) -> None:
        if case.direction == "up":
            client.upload_file(case.path, bucket, f"{prefix}/{case.key}")
        else:
            client.download_file(bucket, f"{prefix}/{case.key}", case.path)

    yield move


@asynccontextmanager
async def by_s5cmd(address: str) -> AsyncIterator[Move]:
    endpoint, bucket, prefix = taken_apart(address)

    async def move(case: Case) -> None:
        there = f"s3://{bucket}/{prefix}/{case.key}"
        ends = (case.path, there) if case.direction == "up" else (there, case.path)
        program = Path(sysconfig.get_path("scripts")) / "s5cmd"
        process = await asyncio.create_subprocess_exec(
            program, "--endpoint-url", endpoint, "cp", *ends, stdout=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == 0

    yield move


MOVERS: Mapping[str, Callable[[str], AbstractAsyncContextManager[Move]]] = {
    SPOOL: by_spool,
    BOTO3: by_boto3,
    S5CMD: by_s5cmd,
}


def taken_apart(address: str) -> tuple[str, str, str]:
    """Return the endpoint of an S3 address, its bucket, and its prefix."""
    parts = urlsplit(address)
    return parse_qs(parts.query)["endpoint"][0], parts.netloc, parts.path.strip("/")


def _size(size_bytes: int) -> str:
    mib = size_bytes // MIB
    return f"{mib // 1024} GiB" if mib % 1024 == 0 else f"{mib} MiB"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
