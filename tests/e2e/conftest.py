"""Recordings that are made once for the room, and Spools on every kind of address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import pytest

from shared.bus.rabbitmq_topology import EXCHANGE
from shared.events.clip import ClipRequested
from shared.events.source import SourceAvailable, SourceRemoved
from spool.camera import Camera, Recording
from tests.adjoining import record_adjoining
from tests.broker_turn import broker_turn
from tests.e2e.running_spool import LISTENER, START_MS, RunningSpool, running_spool, spool_settings

RECORDING_MS = 6_000
QUEUES = (
    f"clipper.{SourceAvailable.type}",
    f"clipper.{SourceRemoved.type}",
    f"clipper.{ClipRequested.type}",
    "clipper.dead",
    f"{LISTENER}.told",
    f"{LISTENER}.dead",
)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recording, Recording]:
    """Two adjoining recordings of one camera, the second with the numbers that follow the first's."""
    directory = tmp_path_factory.mktemp("recordings")
    camera = Camera(width=320, height=180, gop_frames=40)
    return asyncio.run(record_adjoining(directory, camera, start_ms=START_MS, duration_ms=RECORDING_MS))


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[RunningSpool]:
    """Run a Spool on the embedded default."""
    async with running_spool(spool_settings(tmp_path / "data")) as running:
        yield running


@pytest.fixture
async def rabbitmq(amqp_url: str) -> AsyncIterator[str]:
    """Return a RabbitMQ's address on which nothing of Spool is left from before, and nothing will be.

    All of the suite shares one virtual host, and the queues of a real Spool have their own names.
    """
    async with broker_turn(amqp_url):
        await _clear(amqp_url)
        yield amqp_url
        await _clear(amqp_url)


async def _clear(amqp_url: str) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        for queue in QUEUES:
            await channel.queue_delete(queue)
        for exchange in (EXCHANGE, f"{EXCHANGE}.dead"):
            await channel.exchange_delete(exchange)
