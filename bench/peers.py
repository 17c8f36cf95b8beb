"""Those that Spool is compared with: aio-pika as it is, and FastStream as its documentation shows it.

All take from the same quorum queue with a prefetch of 32, validate with pydantic, and publish persistent
messages with confirms, up to 128 of them on the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue

from bench.bus_events import Asked, age_ms, answered
from bench.stage import Stage, play
from shared.events.clip import ClipNotAvailable, ClipRequested
from shared.events.envelope import CONTENT_TYPE

PREFETCH = 32
WINDOW = 128


def queue_of(name: str) -> str:
    """Return the queue that Spool's service of this name takes requests from: all ways use it."""
    return f"{name}.{ClipRequested.type}"


class _Countdown:
    """Says when the last event is done."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._left = stage.case.events

    def __call__(self, event: Asked) -> None:
        assert event.data.clip_id  # it was really read
        self._left -= 1
        if self._left == 0:
            self._stage.done(self._stage.case.events)


async def aio_pika_consumes(stage: Stage) -> None:
    """Take, validate, acknowledge each."""
    count = _Countdown(stage)

    async def handle(message: AbstractIncomingMessage) -> None:
        async with message.process():
            event = Asked.model_validate_json(message.body)
        count(event)

    async with await aio_pika.connect_robust(stage.case.amqp) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await channel.get_queue(queue_of(stage.case.name))
        await stage.begin()
        tag = await queue.consume(handle)
        await stage.over()
        await queue.cancel(tag)


async def aio_pika_publishes(stage: Stage) -> None:
    """Publish answers, a window of confirms at a time."""
    async with await aio_pika.connect_robust(stage.case.amqp) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(stage.case.name)

        async def publish(data: ClipRequested) -> None:
            event = answered(data)
            message = aio_pika.Message(
                event.to_bytes(),
                message_id=event.id,
                type=event.type,
                content_type=CONTENT_TYPE,
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            await exchange.publish(message, event.type)

        await stage.begin()
        await in_window(publish, requests(stage.case.events))
        stage.done(stage.case.events)
        await stage.over()


async def faststream_consumes(stage: Stage) -> None:
    """Take, validate, acknowledge each: the handler does nothing."""
    broker, count = _faststream(stage), _Countdown(stage)

    @broker.subscriber(RabbitQueue(queue_of(stage.case.name), declare=False))
    async def handle(event: Asked) -> None:
        count(event)

    await _serve(broker, stage)


async def faststream_tells(stage: Stage) -> None:
    """Take, validate, publish the answer and wait for its confirm, acknowledge. No database."""
    broker, count = _faststream(stage), _Countdown(stage)
    exchange = _exchange(stage)

    @broker.subscriber(RabbitQueue(queue_of(stage.case.name), declare=False))
    async def handle(event: Asked) -> None:
        told = answered(event.data)
        await broker.publish(told, exchange=exchange, routing_key=told.type, persist=True, message_id=told.id)
        count(event)

    await _serve(broker, stage)


async def faststream_publishes(stage: Stage) -> None:
    """Publish answers, a window of confirms at a time."""
    broker, exchange = _faststream(stage), _exchange(stage)

    async def publish(data: ClipRequested) -> None:
        told = answered(data)
        await broker.publish(told, exchange=exchange, routing_key=told.type, persist=True, message_id=told.id)

    await broker.start()
    await stage.begin()
    await in_window(publish, requests(stage.case.events))
    stage.done(stage.case.events)
    await stage.over()
    await broker.stop()


async def faststream_waits(stage: Stage) -> None:
    """Take what comes now and then, and say how old it was when the handler saw it."""
    broker = _faststream(stage)

    @broker.subscriber(RabbitQueue(queue_of(stage.case.name), declare=False))
    async def handle(event: Asked) -> None:
        stage.done(1, age_ms=age_ms(event.data))

    await broker.start()
    await stage.begin()
    await stage.over()
    await broker.stop()


def _faststream(stage: Stage) -> RabbitBroker:
    # Its line of log per message is off, as Spool's is in this bench.
    return RabbitBroker(stage.case.amqp, default_channel=Channel(prefetch_count=PREFETCH), logger=None)


def _exchange(stage: Stage) -> RabbitExchange:
    return RabbitExchange(stage.case.name, type=ExchangeType.TOPIC, declare=False)


async def _serve(broker: RabbitBroker, stage: Stage) -> None:
    await broker.connect()
    await stage.begin()
    await broker.start()
    await stage.over()
    await broker.stop()


def requests(count: int) -> list[ClipRequested]:
    """Return what there is to answer, for those who only publish."""
    return [
        ClipRequested(
            clip_id=f"clip-{number}", camera_id="gate", start_timestamp_in_ms=1, end_timestamp_in_ms=2
        )
        for number in range(count)
    ]


async def in_window(publish: Callable[[ClipRequested], Awaitable[None]], data: list[ClipRequested]) -> None:
    """Publish all, always up to 128 at once."""
    window = asyncio.Semaphore(WINDOW)

    async def one(each: ClipRequested) -> None:
        async with window:
            await publish(each)

    await asyncio.gather(*map(one, data))


RESULT = ClipNotAvailable.type
WAYS = (
    aio_pika_consumes,
    aio_pika_publishes,
    faststream_consumes,
    faststream_publishes,
    faststream_tells,
    faststream_waits,
)


def perform() -> None:
    """Play the peers, in a process that holds nothing of Spool but the events: the whole life of a player."""
    asyncio.run(play({way.__name__: way for way in WAYS}))
