"""Publish to RabbitMQ with confirms: windows of up to 128 on their way at once, every one accounted for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

import stamina
from aio_pika.abc import AbstractRobustChannel
from aio_pika.exceptions import DeliveryError
from aiormq.abc import DeliveredMessage

from shared.bus.limits import check_size
from shared.bus.message import Message
from shared.bus.port import Unroutable
from shared.bus.rabbitmq_link import answering
from shared.bus.rabbitmq_window import send

WINDOW = 128  # unconfirmed messages: one at a time does 500 a second, this thousands (spec/bus.md)
WINDOW_BYTES = 1024 * 1024  # of bodies, written in one piece; a larger body goes alone
WINDOWS = 4  # at once, of callers that do not know of each other
CONFIRM_S = 15.0  # for one window with all its attempts
ATTEMPTS = 8  # a leader that moves refuses for a second or so
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0  # between two attempts
ELECTION_S = 1.0  # a cluster has elected a leader by then; who is still refused has to go another way


class Publisher:
    """Publishes to one exchange, on a connection that nothing else uses."""

    def __init__(
        self,
        channel: AbstractRobustChannel,
        exchange: str,
        unrouted: Callable[[str], None],
        *,
        open_channel: Callable[[], Awaitable[AbstractRobustChannel]],
    ) -> None:
        """Publish to `exchange`; tell `unrouted` the type of each fact that nobody wants.

        `open_channel` is for going on with another channel.
        """
        self._channel = channel
        self._retired: AbstractRobustChannel | None = None  # the channel before this one
        self._open_channel = open_channel
        self._refused_since: dict[str, float] = {}  # types, when nothing of them was confirmed since
        self._renewed_at = -CONFIRM_S
        self._renewing = asyncio.Lock()
        self._exchange = exchange
        self._unrouted = unrouted
        self._turns = asyncio.Semaphore(WINDOWS)
        self._on_their_way: dict[str, asyncio.Event] = {}

    @property
    def is_open(self) -> bool:
        """Whether there is a channel: after a reconnect it comes a moment later than the connection."""
        return not self._channel.is_closed

    async def publish(self, messages: Sequence[Message]) -> None:
        """Return when the broker has confirmed every message. Raises Unroutable, TooLarge, Unavailable."""
        for message in messages:
            check_size(message)
        for window in _windows(messages):
            async with self._turns, self._alone(window):
                returned = await self._confirmed(window)
            self._account_for(returned)

    def _account_for(self, returned: Sequence[Message]) -> None:
        """Count the facts that nobody wants. Raises Unroutable for a command."""
        for message in returned:
            if not message.mandatory:
                self._unrouted(message.type)
        for message in returned:
            if message.mandatory:
                raise Unroutable(f"nobody is subscribed to {message.type}")

    async def _confirmed(self, window: Sequence[Message]) -> list[Message]:
        """Publish until the broker has confirmed all; return those that it found no queue for."""
        left, returned = list(window), list[Message]()
        async with answering("confirm a message", within_s=CONFIRM_S):
            async for attempt in stamina.retry_context(
                on=DeliveryError,  # a NACK: the broker is there and could not keep it this time
                attempts=ATTEMPTS,
                timeout=CONFIRM_S,
                wait_initial=FIRST_WAIT_S,
                wait_max=LONGEST_WAIT_S,
            ):
                with attempt:
                    await self._attempt(left, returned)
        return returned

    async def _attempt(self, left: list[Message], returned: list[Message]) -> None:
        """Publish what is left, and leave in it only what the broker refused. Raises DeliveryError for that.

        Facts are mandatory to the broker as well, so that those nobody wants are counted.
        """
        await self._renew()
        answers = await send(self._channel, self._exchange, left)
        refusal: DeliveryError | None = None
        tried, left[:] = tuple(left), []
        for message, answer in zip(tried, answers, strict=True):
            try:
                if isinstance(answer.result(), DeliveredMessage):
                    returned.append(message)
                self._refused_since.pop(message.type, None)
            except DeliveryError as error:
                self._refused_since.setdefault(message.type, asyncio.get_running_loop().time())
                left.append(message)
                refusal = error
        if refusal is not None:
            raise refusal

    async def _renew(self) -> None:
        """Go on with a new channel where nothing of a type goes through the old one for too long.

        A channel on which something was first published to a queue just as its leader was lost looks for the
        lost one: RabbitMQ 3.10 refuses all of it for as long as that node is away, whoever leads by now.
        """
        async with self._renewing:
            now = asyncio.get_running_loop().time()
            if now < min(self._refused_since.values(), default=now) + ELECTION_S:
                return
            if now < self._renewed_at + CONFIRM_S:
                return
            retired, self._retired = self._retired, None
            if retired is not None:
                await retired.close()  # what was on its way there has had its time
            self._retired, self._channel = self._channel, await self._open_channel()
            self._renewed_at = now
            self._refused_since.clear()

    @asynccontextmanager
    async def _alone(self, window: Sequence[Message]) -> AsyncIterator[None]:
        """Keep two messages of one id apart: aiormq tells by the id which of them came back."""
        ids = [message.id for message in window]
        while others := self._on_their_way.keys() & ids:
            await self._on_their_way[others.pop()].wait()
        arrived = asyncio.Event()
        self._on_their_way.update(dict.fromkeys(ids, arrived))
        try:
            yield
        finally:
            for message_id in ids:
                del self._on_their_way[message_id]
            arrived.set()


def _windows(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Split into what is written at once: no id twice, and no more bytes than a buffer should hold."""
    window: dict[str, Message] = {}
    window_bytes = 0
    for message in messages:
        full = len(window) == WINDOW or window_bytes + len(message.body) > WINDOW_BYTES
        if window and (full or message.id in window):
            yield tuple(window.values())
            window, window_bytes = {}, 0
        window[message.id] = message
        window_bytes += len(message.body)
    if window:
        yield tuple(window.values())
