"""The transports that the bus contract is held against: where their queues are, and how to open them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit
from uuid import uuid4

import aio_pika

from shared.bus.local import LocalBus
from shared.bus.message import Subscription
from shared.bus.port import Bus
from shared.bus.rabbitmq import RabbitBus
from shared.bus.sqs import SqsBus
from shared.bus.sqs_receiver import Times
from shared.settings.aws_address import AwsAddress


class Broker(Protocol):
    """What stays when a bus is closed: a file, a server, or nothing."""

    unrouted: list[str]
    keeps_order: bool  # what was published first is received first

    async def open(self) -> Bus: ...

    async def destroy(self, services: set[str]) -> None: ...


class LocalBroker:
    """A file, or memory when there is no path."""

    keeps_order = True

    def __init__(self, path: Path | None) -> None:
        self.unrouted: list[str] = []
        self._path = path

    async def open(self) -> Bus:
        return await LocalBus.open(self._path, unrouted=self.unrouted.append)

    async def destroy(self, services: set[str]) -> None:
        """Leave the file to the temporary directory."""


class RabbitBroker:
    """An exchange of its own on a RabbitMQ that others use as well."""

    keeps_order = True

    def __init__(self, url: str) -> None:
        self.unrouted: list[str] = []
        self.url = url
        self.exchange = f"spool-test-{uuid4().hex}"

    @property
    def server(self) -> tuple[str, int]:
        address = urlsplit(self.url)
        return address.hostname or "", address.port or 5672

    def move(self, port: int) -> None:
        """Reach the broker by way of another port of this machine."""
        self.url = self.url.replace(f":{self.server[1]}/", f":{port}/")

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


class AwsBroker:
    """Topics and queues with a prefix of their own, on SNS and SQS that others use as well."""

    keeps_order = False

    def __init__(self, url: str, **options: str) -> None:
        self.unrouted: list[str] = []
        self.url = url + "".join(f"&{name}={value}" for name, value in options.items())
        self.times = Times(poll_s=1)  # so that the last poll does not hold up the end of every test

    @property
    def server(self) -> tuple[str, int]:
        endpoint = urlsplit(AwsAddress.parse(self.url).sqs_endpoint or "")
        return endpoint.hostname or "", endpoint.port or 80

    def move(self, port: int) -> None:
        """Reach both by way of another port of this machine."""
        self.url = self.url.replace(f":{self.server[1]}", f":{port}")

    async def open(self) -> SqsBus:
        return await SqsBus.open(self.url, times=self.times, unrouted=self.unrouted.append)

    async def destroy(self, services: set[str]) -> None:
        """Leave everything to the server, which forgets it when it ends: no other test has the prefix."""


def new_service() -> str:
    """Name a service that no other test uses."""
    return f"test-{uuid4().hex}"


def subscribe(service: str, name: str, *types: str, hands: int = 8) -> Subscription:
    """Describe a queue that `destroy` knows to delete: its name is `asked` or `told`."""
    return Subscription(service=service, name=name, types=types, hands=hands)
