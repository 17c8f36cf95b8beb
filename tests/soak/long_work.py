"""Work that runs longer than RabbitMQ waits for an acknowledgement. Writes a report.

    make soak long_work                     four minutes of work, on a broker that waits for one
    make soak long_work ARGS="--minutes 40"

The broker is one of our own, with `consumer_timeout` set to a minute (30 minutes is RabbitMQ's own). Beside
Spool a plain consumer takes a message and does not acknowledge it: what becomes of that shows that the broker
means it. Needs SPOOL_TEST_POSTGRES: eval "$(.ci/servers start)".
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import aio_pika
import asyncpg

from tests.anomaly.road import open_road
from tests.anomaly.servers import rabbit_nodes

REPORTS = Path(__file__).parents[2] / "docs/reports"
TIMEOUT_MS = 60_000
PIECES = 4
MINUTE_S = 60


async def hold(url: str) -> float:
    """Take a message and keep it unacknowledged. Returns after how many seconds the broker ended that."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        closed = asyncio.Event()
        channel.close_callbacks.add(lambda *_: closed.set())
        queue = await channel.declare_queue("held", durable=True, arguments={"x-queue-type": "quorum"})
        await channel.default_exchange.publish(aio_pika.Message(b"held"), queue.name)
        await queue.consume(lambda message: asyncio.sleep(0))
        started = time.monotonic()
        async with asyncio.timeout(5 * MINUTE_S):
            await closed.wait()
        return time.monotonic() - started


async def work(url: str, database: str, minutes: float) -> tuple[str, list[str]]:
    """Do some pieces that long. Returns what was counted, and what is wrong."""
    with tempfile.TemporaryDirectory() as directory:
        async with open_road(Path(directory), database=database, bus=url) as road:
            await road.start_mills(1, work_s=minutes * MINUTE_S, lease_s=30)
            await road.ask(PIECES)
            await road.until_all_is_heard()
            await road.stop()
            truth = await road.truth()
            faults = truth.faults
            if road.begun != PIECES:
                faults = [*faults, f"{road.begun} pieces were begun"]
            return str(truth), faults


async def run(url: str, minutes: float) -> int:
    """Work and hold at the same time, and report. Returns 1 when anything is wrong."""
    server = os.environ["SPOOL_TEST_POSTGRES"]
    name = f"spool_soak_{uuid4().hex}"
    connection = await asyncpg.connect(server)
    await connection.execute(f"CREATE DATABASE {name}")
    try:
        database = urlsplit(server)._replace(path=f"/{name}").geturl()
        held_s, (told, faults) = await asyncio.gather(hold(url), work(url, database, minutes))
    finally:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await connection.close()
    text = report(minutes, held_s, told, faults)
    print(text)
    (REPORTS / f"{datetime.now(UTC):%Y-%m-%d}-long-work.md").write_text(text)
    return int(bool(faults))


def report(minutes: float, held_s: float, told: str, faults: list[str]) -> str:
    """Say what was seen."""
    return (
        "# Work that outlasts the broker's patience\n\n"
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, `make soak long_work`, RabbitMQ of Debian with\n"
        f"`consumer_timeout = {TIMEOUT_MS}` (ms; it looks once a minute), PostgreSQL.\n\n"
        "| who | what happened |\n| --- | --- |\n"
        f"| a plain consumer that does not acknowledge | its channel was closed after {held_s:.0f} s |\n"
        f"| Spool, {PIECES} pieces of {minutes:g} minutes at once | {told} |\n\n"
        + ("Nothing was begun twice.\n" if not faults else "Wrong: " + "; ".join(faults) + "\n")
    )


def main() -> int:
    """Start the broker, and run on it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0, help="how long each piece of work takes")
    arguments = parser.parse_args()
    with rabbit_nodes(1, more=(f"consumer_timeout = {TIMEOUT_MS}",)) as (node,):
        return asyncio.run(run(node.url, arguments.minutes))


if __name__ == "__main__":
    sys.exit(main())
