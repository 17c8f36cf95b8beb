"""The places that bench/bus.py measures in: an exchange with queues of its own, and a database of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import aio_pika
import asyncpg
from aio_pika.abc import AbstractChannel, AbstractExchange

from bench.bus_events import asked, timed_name
from bench.peers import queue_of
from bench.roads import RATE, results_of, subscription_of
from shared.bus.rabbitmq import RabbitBus
from shared.events.clip import ClipRequested
from spool.migrations import migrate

WINDOW = 128  # confirms on the way while a queue is filled


class Broker:
    """What fills the queue, looks into it, and empties it, between two measurements."""

    def __init__(self, channel: AbstractChannel, exchange: AbstractExchange, name: str) -> None:
        self._channel = channel
        self._exchange = exchange
        self.name = name
        self._filled = 0

    async def fill(self, events: int) -> None:
        """Put requests into the queue that were never there before."""
        first, self._filled = self._filled, self._filled + events
        names = [f"clip-{number}" for number in range(first, self._filled)]
        for start in range(0, events, WINDOW):
            await asyncio.gather(*map(self._publish, names[start : start + WINDOW]))

    async def trickle(self, events: int) -> None:
        """Publish requests that are named by their moment, fifty a second."""
        for number in range(events):
            await self._publish(timed_name(number))
            await asyncio.sleep(1 / RATE)

    async def settle(self) -> tuple[int, int]:
        """Return how many requests were left and how many answers are there; leave neither."""
        left = await self._channel.declare_queue(queue_of(self.name), passive=True)
        told = await self._channel.declare_queue(results_of(self.name).queue, passive=True)
        counts = left.declaration_result.message_count, told.declaration_result.message_count
        await left.purge()
        await told.purge()
        return counts[0] or 0, counts[1] or 0

    async def _publish(self, name: str) -> None:
        message = aio_pika.Message(
            asked(name),
            message_id=name,
            type=ClipRequested.type,
            content_type="application/json",  # FastStream takes no CloudEvents type for JSON
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await self._exchange.publish(message, ClipRequested.type)


@asynccontextmanager
async def opened_broker(url: str) -> AsyncIterator[Broker]:
    """Declare what a service of a new name needs, as Spool declares it, and delete it at the end."""
    name = f"bench-{uuid4().hex[:12]}"
    bus = await RabbitBus.open(url, exchange=name)
    await bus.declare([subscription_of(name), results_of(name)])
    await bus.close()
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        try:
            yield Broker(channel, await channel.get_exchange(name), name)
        finally:
            for queue in (queue_of(name), results_of(name).queue, f"{name}.dead"):
                await channel.queue_delete(queue)
            for exchange in (name, f"{name}.dead"):
                await channel.exchange_delete(exchange)


@asynccontextmanager
async def new_database(server: str) -> AsyncIterator[str]:
    """Yield the address of a database with Spool's tables, and drop it at the end."""
    name = f"spool_bench_{uuid4().hex}"
    await _execute(server, f"CREATE DATABASE {name}")
    try:
        address = urlsplit(server)._replace(path=f"/{name}").geturl()
        await migrate(address)
        yield address
    finally:
        await _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(server: str, statement: str) -> None:
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
