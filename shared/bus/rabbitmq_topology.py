"""What Spool declares in RabbitMQ: one topic exchange, a quorum queue per subscription, dead letters.

publisher -> spool (topic) --type--> clipper.clip_requested --after 100 tries--> spool.dead
                                                 spool.dead --clipper.dead--> clipper.dead
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aio_pika import ExchangeType
from aio_pika.abc import AbstractExchange, AbstractRobustChannel, AbstractRobustQueue
from aio_pika.exceptions import ChannelPreconditionFailed
from pamqp.common import FieldTable

from shared.bus.message import DEAD_LETTERS, Subscription
from shared.kernel.errors import Conflict

EXCHANGE = "spool"
# It only guards the few lines before the inbox's insert, and an outage of the database must not
# make innocents into dead letters. RabbitMQ 4 would stop at 20.
DELIVERY_LIMIT = 200


async def declare_exchange(channel: AbstractRobustChannel, exchange: str) -> AbstractExchange:
    """Declare the exchange that everything is published to."""
    with _agreeing(exchange):
        return await channel.declare_exchange(exchange, ExchangeType.TOPIC, durable=True)


async def declare_queue(
    channel: AbstractRobustChannel, exchange: str, subscription: Subscription
) -> AbstractRobustQueue:
    """Declare the subscription's queue with its bindings, and the service's dead letters first.

    The robust channel declares all of it again after a reconnect.
    """
    dead = await _declare_dead_letters(channel, exchange, subscription.service)
    if subscription.name == DEAD_LETTERS:
        return dead

    source = await declare_exchange(channel, exchange)
    arguments: FieldTable = {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": _dead_exchange(exchange),
        "x-dead-letter-routing-key": dead.name,
        # Without these two a dead letter is lost when its queue is away for a moment.
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    with _agreeing(subscription.queue):
        queue = await channel.declare_queue(subscription.queue, durable=True, arguments=arguments)
    for name in subscription.types:
        await queue.bind(source, routing_key=name)
    return queue


async def _declare_dead_letters(
    channel: AbstractRobustChannel, exchange: str, service: str
) -> AbstractRobustQueue:
    name = f"{service}.{DEAD_LETTERS}"
    # What is dead has nowhere to go from here: no delivery limit of ours, but RabbitMQ 4 has one of its own.
    arguments: FieldTable = {"x-queue-type": "quorum", "x-overflow": "reject-publish"}
    with _agreeing(name):
        source = await channel.declare_exchange(_dead_exchange(exchange), ExchangeType.DIRECT, durable=True)
        queue = await channel.declare_queue(name, durable=True, arguments=arguments)
    await queue.bind(source, routing_key=name)
    return queue


def _dead_exchange(exchange: str) -> str:
    return f"{exchange}.{DEAD_LETTERS}"


@contextmanager
def _agreeing(name: str) -> Iterator[None]:
    try:
        yield
    except ChannelPreconditionFailed as error:
        hint = "delete it when it is empty, then start again"
        raise Conflict(f"{name} exists in RabbitMQ with other properties: {error}", hint=hint) from error
