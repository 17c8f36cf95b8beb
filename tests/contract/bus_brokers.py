"""The transports that the bus contract is held against: where their queues are, and how to open them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol
from uuid import uuid4

import aio_pika

from shared.bus.local import LocalBus
from shared.bus.message import Subscription
from shared.bus.port import Bus
from shared.bus.rabbitmq import RabbitBus


class Broker(Protocol):
    """What stays when a bus is closed: a file, a server, or nothing."""

    unrouted: list[str]

    async def open(self) -> Bus: ...

    async def destroy(self, services: set[str]) -> None: ...


class LocalBroker:
    """A file, or memory when there is no path."""

    def __init__(self, path: Path | None) -> None:
        self.unrouted: list[str] = []
        self._path = path

    async def open(self) -> Bus:
        return await LocalBus.open(self._path, unrouted=self.unrouted.append)

    async def destroy(self, services: set[str]) -> None:
        """Leave the file to the temporary directory."""


class RabbitBroker:
    """An exchange of its own on a RabbitMQ that others use as well."""

    def __init__(self, url: str) -> None:
        self.unrouted: list[str] = []
        self.url = url
        self.exchange = f"spool-test-{uuid4().hex}"

    async def open(self) -> RabbitBus:
        return await RabbitBus.open(self.url, exchange=self.exchange, unrouted=self.unrouted.append)

    async def destroy(self, services: set[str]) -> None:
        """Delete the exchanges, and the queues of the services."""
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            for service in services:
                for name in ("asked", "told", "dead"):
                    await channel.queue_delete(f"{service}.{name}")
            await channel.exchange_delete(self.exchange)
            await channel.exchange_delete(f"{self.exchange}.dead")


def new_service() -> str:
    """Name a service that no other test uses."""
    return f"test-{uuid4().hex}"


def subscribe(service: str, name: str, *types: str, hands: int = 8) -> Subscription:
    """Describe a queue that `destroy` knows to delete: its name is `asked` or `told`."""
    return Subscription(service=service, name=name, types=types, hands=hands)
