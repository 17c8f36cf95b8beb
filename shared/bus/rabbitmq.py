"""The bus on RabbitMQ: quorum queues on one topic exchange, confirms, a pull form over a small buffer.

It publishes and receives on separate connections, so that a broker which slows its publishers down
does not hold back their acknowledgements. Both reconnect by themselves and restore what was declared.

What it cannot promise: a message that was given back, or whose receiver died, more than
`DELIVERY_LIMIT` times goes to `<service>.dead`; and a queue deleted by hand loses what was in it.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from functools import partial
from typing import cast

from aio_pika import RobustConnection
from aio_pika.abc import AbstractIncomingMessage, AbstractRobustChannel
from aio_pika.exceptions import ChannelNotFoundEntity

from shared.bus.limits import MAX_BODY_BYTES
from shared.bus.message import Delivery, Message, Subscription
from shared.bus.port import Capabilities, Health, QueueState
from shared.bus.rabbitmq_consumer import Consumer, Receipt
from shared.bus.rabbitmq_link import answering, connect, disconnect, is_connected
from shared.bus.rabbitmq_publisher import Publisher
from shared.bus.rabbitmq_topology import EXCHANGE, declare_exchange, declare_queue
from shared.kernel.errors import Bug

MAX_BATCH = 1000  # messages in one publish: eight windows of confirms
TEND_S = 0.25  # how often consumers are asked whether somebody still wants them


class RabbitBus:
    """A bus on RabbitMQ 3.10 or newer. Open it with `RabbitBus.open`."""

    def __init__(
        self,
        publishing: RobustConnection,
        receiving: RobustConnection,
        publisher: Publisher,
        *,
        exchange: str,
    ) -> None:
        """Take over two open connections."""
        self._publishing = publishing
        self._receiving = receiving
        self._publisher = publisher
        self._exchange = exchange
        self._consumers: dict[str, Consumer] = {}
        self._channels: dict[str, AbstractRobustChannel] = {}
        self._declaring = asyncio.Lock()
        self._is_receiving = True
        self._closing = asyncio.Event()
        self._tending = asyncio.create_task(self._tend(), name="rabbitmq-tending")

    @classmethod
    async def open(
        cls, url: str, *, exchange: str = EXCHANGE, unrouted: Callable[[str], None] | None = None
    ) -> RabbitBus:
        """Connect to `amqp://` or `amqps://`, in bounded time, and declare the exchange.

        `unrouted` is told the type of each fact that nobody is subscribed to.
        Raises Unavailable, Refused when the URL is none, Conflict when the exchange is of another kind.
        """
        async with AsyncExitStack() as undo:
            publishing = await connect(url, name="spool publishes")
            undo.push_async_callback(disconnect, publishing)
            receiving = await connect(url, name="spool receives")
            undo.push_async_callback(disconnect, receiving)
            open_channel = partial(_open_channel, publishing, confirms=True)
            channel = await open_channel()
            async with answering("declare the exchange"):
                await declare_exchange(channel, exchange)
            publisher = Publisher(channel, exchange, unrouted or _nobody_counts, open_channel=open_channel)
            undo.pop_all()
        return cls(publishing, receiving, publisher, exchange=exchange)

    @property
    def capabilities(self) -> Capabilities:
        """Shared by any number of processes, and it outlives all of them."""
        return Capabilities(
            system="rabbitmq",
            max_body_bytes=MAX_BODY_BYTES,
            max_batch=MAX_BATCH,
            survives_restart=True,
            shared_between_processes=True,
        )

    async def declare(self, subscriptions: Sequence[Subscription]) -> None:
        """Declare queues and bindings, and each service's dead letters.

        Raises Unavailable, or Conflict when a queue of that name exists with other properties.
        """
        async with self._declaring:
            for subscription in subscriptions:
                await self._declare(subscription)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Return when the broker has confirmed all of them; it may have kept some when it fails."""
        await self._publisher.publish(messages)

    async def receive(self, subscription: Subscription, *, at_most: int, wait_s: float) -> list[Delivery]:
        """Take from the buffer, which the broker fills with no more than was asked for."""
        if (consumer := self._consumers.get(subscription.queue)) is None:
            raise Bug(f"{subscription.queue} was not declared before receiving from it")
        messages = await consumer.receive(at_most=at_most, wait_s=wait_s)
        return [_delivery(subscription.queue, message) for message in messages]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Write the acknowledgements. RabbitMQ confirms none of them: one may be lost with its connection."""
        for consumer, receipts in self._by_consumer(deliveries):
            await consumer.acknowledge(receipts)

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Return the messages to their queues. Each return counts towards the delivery limit."""
        for consumer, receipts in self._by_consumer(deliveries):
            await consumer.give_back(receipts)

    async def stop_receiving(self) -> None:
        """Cancel the consumers; the channels stay open for what was taken."""
        self._is_receiving = False
        await asyncio.gather(*(consumer.stop() for consumer in self._consumers.values()))

    def health(self) -> Health:
        """Tell what is so now, also while the connections are being restored."""
        lost = [
            name
            for name, connection in (("publishing", self._publishing), ("receiving", self._receiving))
            if not is_connected(connection)
        ]
        if lost:
            reason = f"no connection to RabbitMQ for {' and '.join(lost)}"
            return Health(connected=False, consuming=False, reason=reason)
        if not self._publisher.is_open:
            return Health(connected=False, consuming=False, reason="no channel to RabbitMQ for publishing")
        held = sum(consumer.held for consumer in self._consumers.values())
        if not self._is_receiving:
            return Health(connected=True, consuming=False, reason="receiving has been stopped", held=held)
        idle = [name for name, consumer in self._consumers.items() if not consumer.is_consuming()]
        reason = f"not attached to {', '.join(idle)}" if idle else ""
        return Health(connected=True, consuming=not idle, reason=reason, held=held)

    async def inspect(self, subscription: Subscription) -> QueueState:
        """Ask for the queue without making it. AMQP tells of no bindings, and of nothing that is held."""
        name = subscription.queue
        async with answering(f"look at {name}"):
            channel = await _open_channel(self._publishing, confirms=False)
            try:
                found = await channel.declare_queue(name, passive=True, robust=False)
            except ChannelNotFoundEntity:  # it closes the channel too
                return QueueState(queue=name, called=name, exists=False)
            ready = found.declaration_result.message_count
            await channel.close()
        return QueueState(queue=name, called=name, exists=True, ready=ready)

    async def close(self) -> None:
        """Stop receiving and close both connections, in bounded time."""
        if self._closing.is_set():
            return
        self._closing.set()
        await self._tending
        await self.stop_receiving()
        await disconnect(self._receiving)
        await disconnect(self._publishing)

    async def _declare(self, subscription: Subscription) -> None:
        async with answering(f"declare {subscription.queue}"):
            name = subscription.queue
            if name not in self._channels:
                self._channels[name] = await _open_channel(self._receiving, confirms=False)
            queue = await declare_queue(self._channels[name], self._exchange, subscription)
            if name not in self._consumers:
                self._consumers[name] = Consumer(subscription, self._channels[name], queue)
                await self._consumers[name].watch()

    def _by_consumer(self, deliveries: Sequence[Delivery]) -> list[tuple[Consumer, list[Receipt]]]:
        receipts: defaultdict[str, list[Receipt]] = defaultdict(list)
        for delivery in deliveries:
            if delivery.queue in self._consumers:
                receipts[delivery.queue].append(cast("Receipt", delivery.receipt))
        return [(self._consumers[name], found) for name, found in receipts.items()]

    async def _tend(self) -> None:
        """Let consumers go that nobody asks any more, until the bus closes."""
        while not self._closing.is_set():
            for consumer in tuple(self._consumers.values()):
                await consumer.rest()
            with suppress(TimeoutError):
                async with asyncio.timeout(TEND_S):
                    await self._closing.wait()


async def _open_channel(connection: RobustConnection, *, confirms: bool) -> AbstractRobustChannel:
    async with answering("open a channel"):
        await connection.ready()
        channel = connection.channel(publisher_confirms=confirms)
        await channel.initialize()
    return channel


def _delivery(queue: str, message: AbstractIncomingMessage) -> Delivery:
    return Delivery(
        message_id=message.message_id,
        queue=queue,
        body=message.body,
        content_type=message.content_type,
        headers={name: _text(value) for name, value in message.headers.items()},
        redelivered=bool(message.redelivered),
        receipt=Receipt(message.channel, message.delivery_tag or 0),
    )


def _text(value: object) -> str:
    """Write a header as text: other publishers may send numbers, bytes, times and tables."""
    match value:
        case str():
            return value
        case bytes() | bytearray():
            return value.decode(errors="replace")
        case datetime():
            return value.isoformat()
        case _:
            return json.dumps(value, default=str)


def _nobody_counts(_: str) -> None:
    """Stand in for the metric where nobody asked for one."""
