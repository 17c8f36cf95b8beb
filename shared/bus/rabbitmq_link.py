"""One connection to RabbitMQ, and its failures in Spool's words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from aio_pika import RobustConnection
from aio_pika.connection import make_url
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError
from yarl import URL

from shared.kernel.errors import Refused, Unavailable

ANSWER_S = 10.0  # the broker answers any call within this, also while a cluster elects a leader
CLOSE_S = 5.0  # a connection that cannot say goodbye is dropped
RECONNECT_S = 1.0  # between two attempts, so a broker that restarts is used again at once
HEARTBEAT_S = 15  # a peer that vanished without a word is noticed after three of these


@asynccontextmanager
async def answering(what: str, *, within_s: float = ANSWER_S) -> AsyncIterator[None]:
    """Bound a conversation with the broker. Raises Unavailable.

    aiormq cancels whoever waits on a channel that closes. Such a cancellation is the broker's
    absence and not ours; only one that was asked of this task goes on as a cancellation.
    """
    task = asyncio.current_task()
    asked_before = task.cancelling() if task else 0
    try:
        async with asyncio.timeout(within_s):
            yield
    except TimeoutError as error:
        raise Unavailable(f"RabbitMQ did not {what} within {within_s:g} s") from error
    except (AMQPError, ChannelInvalidStateError, OSError) as error:
        raise Unavailable(f"RabbitMQ did not {what}: {error!r}") from error
    except asyncio.CancelledError as error:
        if task is None or task.cancelling() > asked_before:
            raise
        raise Unavailable(f"RabbitMQ went away before it could {what}") from error


async def connect(url: str, *, name: str) -> RobustConnection:
    """Open a connection that from then on reconnects by itself. Raises Unavailable, Refused.

    `url` is `amqp://` or `amqps://` with aio-pika's own query parameters for TLS.
    """
    try:
        address = make_url(url, reconnect_interval=RECONNECT_S)
    except ValueError:
        raise Refused("the address of the bus is no URL", hint="amqp://user:password@host/") from None
    if "heartbeat" not in address.query:
        address = address.update_query(heartbeat=HEARTBEAT_S)
    connection = RobustConnection(address, client_properties={"connection_name": name})
    async with AsyncExitStack() as undo:
        undo.push_async_callback(disconnect, connection)
        async with answering(f"take a connection at {_origin(address)}"):
            await connection.connect(timeout=ANSWER_S)
        undo.pop_all()
    return connection


async def disconnect(connection: RobustConnection) -> None:
    """Close the connection, politely if the broker is there."""
    with suppress(Unavailable):
        async with answering("say goodbye", within_s=CLOSE_S):
            await connection.close()


def is_connected(connection: RobustConnection) -> bool:
    """Tell whether the broker is there now. `is_closed` stays False during a reconnect, so it is no use."""
    transport = connection.transport
    return connection.connected.is_set() and transport is not None and not transport.connection.is_closed


def _origin(address: URL) -> str:
    """Name the server without the password."""
    return f"{address.scheme}://{address.host}:{address.port or ''}{address.path}"
