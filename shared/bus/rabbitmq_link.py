"""One connection to RabbitMQ, and its failures in Spool's words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from urllib.parse import unquote

import structlog
from aio_pika import RobustConnection
from aio_pika.abc import UnderlayConnection
from aio_pika.connection import make_url
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError, ProbableAuthenticationError
from aiormq.exceptions import InvalidFrameError
from yarl import URL

from shared.kernel.addresses import each_host
from shared.kernel.errors import Refused, Unavailable

log = structlog.get_logger()

ANSWER_S = 10.0  # the broker answers any call within this, also while a cluster elects a leader
CLOSE_S = 5.0  # a connection that cannot say goodbye is dropped
RECONNECT_S = 1.0  # between two attempts, so a broker that restarts is used again at once
HEARTBEAT_S = 15  # a peer that vanished without a word is noticed after three of these
ADDRESS_HINT = "amqp://user:password@host/, or amqp://user:password@one,two,three/ for a cluster"


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
    except ChannelInvalidStateError as error:
        raise Unavailable(f"RabbitMQ did not {what}: there is no connection") from error
    except (AMQPError, OSError) as error:
        raise Unavailable(f"RabbitMQ did not {what}: {_said(error)}") from error
    except asyncio.CancelledError as error:
        if task is None or task.cancelling() > asked_before:
            raise
        raise Unavailable(f"RabbitMQ went away before it could {what}") from error


def _said(error: BaseException) -> str:
    """Return the words of an error of aio-pika, without its numbers and types."""
    return ", ".join(word for word in error.args if isinstance(word, str)) or type(error).__name__


class ClusterConnection(RobustConnection):
    """A connection to any one of a cluster's nodes: each attempt goes to the next address, in turn."""

    def __init__(self, addresses: Sequence[URL], *, name: str) -> None:
        """Connect to none of them yet."""
        self._addresses = tuple(addresses)
        self._attempts = 0
        super().__init__(self._addresses[0], client_properties={"connection_name": name})
        self._attempts = 0  # setting it up is no attempt
        self._name = name
        self._lost_s: float | None = None  # when, by the monotonic clock, while it is lost
        self.close_callbacks.add(self._tell_loss)
        self.reconnect_callbacks.add(self._tell_return)

    @property
    def transport(self) -> UnderlayConnection | None:
        """What carries the connection now."""
        return self._transport

    @transport.setter
    def transport(self, transport: UnderlayConnection | None) -> None:
        # aio-pika takes the old one away just before each attempt, and then reads `url`. It has no other
        # moment at which the address of the next attempt could be chosen.
        self._transport = transport
        if transport is None:
            self.url = self._addresses[self._attempts % len(self._addresses)]
            self._attempts += 1

    def _tell_loss(self, _: object, error: BaseException | None = None) -> None:
        never_there, ended_by_us = self.connection_attempt == 0, self._close_called
        if never_there or ended_by_us or self._lost_s is not None:
            return
        self._lost_s = time.monotonic()
        log.warning("bus.connection_lost", connection=self._name, reason=_said(error) if error else "")

    def _tell_return(self, _: object) -> None:
        if self._lost_s is None:
            return
        seconds, self._lost_s = time.monotonic() - self._lost_s, None
        log.info("bus.connection_found", connection=self._name, seconds=round(seconds, 3))


async def connect(url: str, *, name: str) -> RobustConnection:
    """Open a connection that from then on reconnects by itself. Raises Unavailable, Refused.

    `url` is `amqp://` or `amqps://` with aio-pika's own query parameters for TLS. It may name several hosts,
    `amqp://user:password@one:5672,two:5672/`: the nodes of one cluster, each of which will do.
    """
    addresses = [_with_heartbeat(address) for address in _addresses_of(url)]
    # At the start each one is tried once, and then it is an error that somebody sees.
    for start, address in enumerate(addresses):
        try:
            return await _open(addresses[start:] + addresses[:start], name=name)
        except Unavailable:
            if address is addresses[-1]:
                raise
    raise Refused("the address of the bus names no host", hint=ADDRESS_HINT)


async def _open(addresses: Sequence[URL], *, name: str) -> RobustConnection:
    connection = ClusterConnection(addresses, name=name)
    async with AsyncExitStack() as undo:
        undo.push_async_callback(disconnect, connection)
        async with answering(f"take a connection at {_origin(addresses[0])}"):
            await _dial(connection, addresses[0])
        undo.pop_all()
    return connection


async def _dial(connection: ClusterConnection, address: URL) -> None:
    """Connect; say in words what RabbitMQ and its client say in frames. Raises Unavailable, AMQPError."""
    try:
        await connection.connect(timeout=ANSWER_S)
    except ProbableAuthenticationError as error:
        raise Unavailable(
            f"RabbitMQ at {_origin(address)} refused the user or the password",
            hint="correct them in the address, with %-escapes for what is not a letter or a digit",
        ) from error
    except InvalidFrameError as error:  # it closes where it should open, and the client does not look why
        name = unquote(address.raw_path.removeprefix("/")) or "/"
        raise Unavailable(
            f"RabbitMQ at {_origin(address)} did not open the virtual host {name!r}",
            hint="it does not exist, or the user may not use it: rabbitmqctl list_vhosts, list_permissions",
        ) from error


def _addresses_of(url: str) -> list[URL]:
    """Return one address for each host of the list."""
    try:
        return [make_url(address, reconnect_interval=RECONNECT_S) for address in each_host(url)]
    except ValueError:
        raise Refused("the address of the bus is no URL", hint=ADDRESS_HINT) from None


def _with_heartbeat(address: URL) -> URL:
    return address if "heartbeat" in address.query else address.update_query(heartbeat=HEARTBEAT_S)


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
    port = f":{address.port}" if address.port else ""
    return f"{address.scheme}://{address.host}{port}{address.path}"
