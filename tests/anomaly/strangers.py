"""Somebody else on the bus: asks for clips as any publisher would, and hears what Spool tells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import aio_pika
import httpx
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractQueue, AbstractRobustConnection

from shared.bus.local import LocalBus
from shared.bus.message import Message, Subscription
from shared.bus.rabbitmq_topology import EXCHANGE
from shared.events.envelope import CONTENT_TYPE, Event

ANSWERS = ("clip_available", "clip_not_available", "clip_refused", "clip_failed")
QUEUES = ("clipper.source_available", "clipper.source_removed", "clipper.clip_requested", "clipper.dead")
API_KEY = "a-key-of-the-anomaly-tests"

_ASKED = tuple(Subscription("clipper", name, (name,)) for name in ("source_available", "clip_requested"))


class Stranger(Protocol):
    """A publisher and listener that Spool does not know."""

    heard: list[dict[str, Any]]  # every answer so far, as CloudEvents, repeated ones as well

    async def publish(self, events: Sequence[Event], *, running: bool) -> None:
        """Put events on the bus. `running`: whether a Spool runs at this moment."""
        ...

    async def publish_bodies(self, bodies: Sequence[bytes], event_type: str) -> None:
        """Put anything on the bus while no Spool runs."""
        ...

    async def listen(self) -> None:
        """Take in what was told. On the local bus only while no Spool runs."""
        ...

    async def waiting(self) -> int:
        """Count what lies in Spool's queues, dead letters as well. As `listen`."""
        ...


class LocalStranger:
    """Uses the bus's file while no Spool does, and HTTP while one does: the file has one owner at a time."""

    def __init__(self, directory: Path) -> None:
        self.heard: list[dict[str, Any]] = []
        self._directory = directory
        self._ears = Subscription("stranger", "told", ANSWERS, hands=1000)

    async def publish(self, events: Sequence[Event], *, running: bool) -> None:
        if running:
            await self._post(events)
        else:
            await self._put([_message(event) for event in events])

    async def publish_bodies(self, bodies: Sequence[bytes], event_type: str) -> None:
        await self._put(
            [Message(uuid4().hex, event_type, body, CONTENT_TYPE, mandatory=True) for body in bodies]
        )

    async def listen(self) -> None:
        bus = await LocalBus.open(self._directory / "bus.db")
        try:
            await bus.declare([self._ears])
            while deliveries := await bus.receive(self._ears, at_most=1000, wait_s=0):
                self.heard += [json.loads(delivery.body) for delivery in deliveries]
                await bus.acknowledge(deliveries)
        finally:
            await bus.close()

    async def waiting(self) -> int:
        bus = await LocalBus.open(self._directory / "bus.db")
        try:
            await bus.declare(_ASKED)
            return sum([len(await bus.receive(each, at_most=1000, wait_s=0)) for each in _ASKED])
        finally:
            await bus.close()

    async def _put(self, messages: Sequence[Message]) -> None:
        bus = await LocalBus.open(self._directory / "bus.db")
        try:
            await bus.declare(_ASKED)
            await bus.publish(messages)
        finally:
            await bus.close()

    async def _post(self, events: Sequence[Event]) -> None:
        told = json.loads((self._directory / "running.json").read_text())
        async with httpx.AsyncClient(base_url=told["url"], headers={"x-api-key": API_KEY}) as client:
            for event in events:
                answer = await client.post("/api/v1/events", content=event.to_bytes())
                answer.raise_for_status()


class RabbitStranger:
    """Speaks AMQP to the broker itself, by the names that the documentation gives."""

    def __init__(
        self,
        connection: AbstractRobustConnection,
        channel: AbstractChannel,
        exchange: AbstractExchange,
        ears: AbstractQueue,
    ) -> None:
        self.heard: list[dict[str, Any]] = []
        self._connection = connection
        self._channel = channel
        self._exchange = exchange
        self._ears = ears

    @classmethod
    async def open(cls, url: str) -> RabbitStranger:
        """Find a broker on which nothing of Spool is left from before."""
        connection = await aio_pika.connect_robust(url)
        channel = await connection.channel()
        await remove_queues(channel)
        exchange = await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
        ears = await channel.declare_queue(f"stranger-{uuid4().hex}", exclusive=True)
        for name in ANSWERS:
            await ears.bind(exchange, name)
        return cls(connection, channel, exchange, ears)

    async def publish(self, events: Sequence[Event], *, running: bool) -> None:
        for event in events:
            await self._put(event.to_bytes(), event.type, message_id=event.id)

    async def publish_bodies(self, bodies: Sequence[bytes], event_type: str) -> None:
        for body in bodies:
            await self._put(body, event_type, message_id=uuid4().hex)

    async def listen(self) -> None:
        while (message := await self._ears.get(no_ack=True, fail=False)) is not None:
            self.heard.append(json.loads(message.body))

    async def waiting(self) -> int:
        counts = [
            (await self._channel.declare_queue(name, passive=True)).declaration_result.message_count
            for name in QUEUES
        ]
        return sum(count or 0 for count in counts)

    async def _put(self, body: bytes, event_type: str, *, message_id: str) -> None:
        message = aio_pika.Message(
            body,
            content_type=CONTENT_TYPE,
            message_id=message_id,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await self._exchange.publish(message, event_type, mandatory=True)

    async def close(self) -> None:
        await remove_queues(self._channel)
        await self._connection.close()


async def remove_queues(channel: AbstractChannel) -> None:
    """Leave nothing of Spool: all tests share one virtual host."""
    for name in QUEUES:
        await channel.queue_delete(name)
    for name in (EXCHANGE, f"{EXCHANGE}.dead"):
        await channel.exchange_delete(name)


def _message(event: Event) -> Message:
    return Message(event.id, event.type, event.to_bytes(), CONTENT_TYPE, mandatory=True)
