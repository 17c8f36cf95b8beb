"""Publish to RabbitMQ with confirms: up to 128 on their way at once, every one accounted for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import stamina
from aio_pika import DeliveryMode
from aio_pika import Message as AmqpMessage
from aio_pika.abc import AbstractExchange
from aio_pika.exceptions import DeliveryError
from aiormq.abc import DeliveredMessage

from shared.bus.limits import check_size
from shared.bus.message import Message
from shared.bus.port import Unroutable
from shared.bus.rabbitmq_link import answering
from shared.kernel.errors import Bug

WINDOW = 128  # unconfirmed messages: one at a time does 500 a second, this thousands (spec/bus.md)
CONFIRM_S = 15.0  # for one message with all its attempts
ATTEMPTS = 8  # a leader that moves refuses for a second or so
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0  # between two attempts


class Publisher:
    """Publishes through one exchange, on a connection that nothing else uses."""

    def __init__(self, exchange: AbstractExchange, unrouted: Callable[[str], None]) -> None:
        """Publish to `exchange`; tell `unrouted` the type of each fact that nobody wants."""
        self._exchange = exchange
        self._unrouted = unrouted
        self._window = asyncio.Semaphore(WINDOW)
        self._on_their_way: dict[str, asyncio.Event] = {}

    async def publish(self, messages: Sequence[Message]) -> None:
        """Return when the broker has confirmed every message. Raises Unroutable, TooLarge, Unavailable."""
        for message in messages:
            check_size(message)
        for start in range(0, len(messages), WINDOW):
            window = messages[start : start + WINDOW]
            # Each one ends, well or badly, before the first failure is raised: none is left behind.
            outcomes = await asyncio.gather(*map(self._publish_one, window), return_exceptions=True)
            for outcome in outcomes:
                if outcome is not None:
                    raise outcome

    async def _publish_one(self, message: Message) -> None:
        async with self._window, self._alone(message.id):
            if not await self._is_returned(message):
                return
        if message.mandatory:
            raise Unroutable(f"nobody is subscribed to {message.type}")
        self._unrouted(message.type)

    async def _is_returned(self, message: Message) -> bool:
        """Publish and wait for the confirm; tell whether the broker found no queue for it."""
        parcel = AmqpMessage(
            message.body,
            headers=dict(message.headers),
            message_id=message.id,
            type=message.type,
            content_type=message.content_type,
            delivery_mode=DeliveryMode.PERSISTENT,
        )
        async with answering("confirm a message", within_s=CONFIRM_S):
            async for attempt in stamina.retry_context(
                on=DeliveryError,  # a NACK: the broker is there and could not keep it this time
                attempts=ATTEMPTS,
                timeout=CONFIRM_S,
                wait_initial=FIRST_WAIT_S,
                wait_max=LONGEST_WAIT_S,
            ):
                with attempt:
                    # Facts are mandatory to the broker as well, so that those nobody wants are counted.
                    answer = await self._exchange.publish(parcel, message.type, mandatory=True)
                    return isinstance(answer, DeliveredMessage)
        raise Bug("an attempt neither returned nor raised")

    @asynccontextmanager
    async def _alone(self, message_id: str) -> AsyncIterator[None]:
        """Keep two messages of one id apart: aiormq tells by the id which of them came back."""
        while (other := self._on_their_way.get(message_id)) is not None:
            await other.wait()
        arrived = self._on_their_way[message_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._on_their_way[message_id]
            arrived.set()
