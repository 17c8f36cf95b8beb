"""The pull form over AMQP's push: what one subscription was sent and nobody has taken yet.

The broker is asked for no more than there are free hands. When all hands are full it must not send the next
message, because that one would wait here unacknowledged for as long as the hands are busy, while others have
hands to spare. So the acknowledgements that would make room for it are owed for a moment: who asks next pays
as many of them as he asks for. When nobody asks so soon, the consumer is cancelled, and then all are paid.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Collection, Coroutine, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import aiormq.abc
import structlog
from aio_pika.abc import AbstractIncomingMessage, AbstractRobustChannel, AbstractRobustQueue

from shared.bus.message import Subscription
from shared.bus.rabbitmq_link import answering
from shared.kernel.errors import Unavailable

log = structlog.get_logger()

MAX_PREFETCH = 32  # takes nearly all of the gain over 1 (spec/bus.md, section 2)
IDLE_S = 5.0  # what was prefetched goes back when nobody asks for it any more
BURST_S = 0.002  # what was asked for together comes in several pieces: one insert for all is worth the wait
OWED_S = 0.25  # acknowledgements may be owed: work that is shorter costs no change of the consumer


@dataclass(frozen=True, slots=True)
class Receipt:
    """What RabbitMQ knows a delivery by: a number that counts on one channel only."""

    channel: aiormq.abc.AbstractChannel
    tag: int


class Consumer:
    """One subscription on a channel of its own. The robust channel restores it after a reconnect."""

    def __init__(
        self, subscription: Subscription, channel: AbstractRobustChannel, queue: AbstractRobustQueue
    ) -> None:
        """Attach nothing yet: that needs somebody who asks for deliveries."""
        self._hands = min(subscription.hands, MAX_PREFETCH)
        self._channel = channel
        self._queue = queue
        self._line: aiormq.abc.AbstractChannel | None = None  # where the tags below count
        self._buffer: deque[AbstractIncomingMessage] = deque()
        self._unacknowledged: set[int] = set()  # everything that was sent to us, the buffer too
        self._owed: set[int] = set()  # of these what our receiver is done with
        self._tag: str | None = None  # of the consumer that is attached
        self._last_tag = 0
        self._attached_after = 0  # the last tag that came before it was
        self._prefetch = 0
        self._hands_are_full = False
        self._expected = 0  # in the buffer, once the broker has answered to what it was paid last
        self._waiting = 0
        self._asked_at = asyncio.get_running_loop().time()
        self._stopped = False
        self._news = asyncio.Event()  # something to take, or room for it
        self._turn = asyncio.Lock()  # one change of the consumer at a time
        self._tasks: set[asyncio.Task[None]] = set()  # changes that are under way

    async def watch(self) -> None:
        """Say in the log when the broker takes the consumer away; also on the channels after this one."""
        self._channel.reopen_callbacks.add(self._watch_line)
        await self._watch_line()

    @property
    def held(self) -> int:
        """How many messages were sent to us that nobody is done with; those not yet taken as well."""
        return len(self._unacknowledged) - len(self._owed)

    def is_consuming(self) -> bool:
        """Tell whether the subscription is served: a consumer let go because nobody asks is no fault."""
        return not self._stopped and not self._channel.is_closed

    async def receive(self, *, at_most: int, wait_s: float) -> list[AbstractIncomingMessage]:
        """Take up to `at_most` messages, waiting for the first. Cancelling it takes nothing."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        self._waiting += 1
        try:
            while not self._stopped:
                self._news.clear()
                if self._buffer:
                    await self._burst(at_most)
                if taken := self._take(at_most):
                    return taken
                await self._uncut(self._ask(at_most))
                if self._buffer:
                    continue
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
        except TimeoutError:
            return []
        finally:
            self._waiting -= 1
            self._asked_at = loop.time()
        return []

    async def _burst(self, at_most: int) -> None:
        """Wait for the rest of what the broker was just given room for, as long as more of it comes."""
        before = 0
        while before < len(self._buffer) < min(at_most, self._expected):
            before = len(self._buffer)
            await asyncio.sleep(BURST_S)
        self._expected = 0

    async def acknowledge(self, receipts: Collection[Receipt]) -> None:
        """Acknowledge what this channel still knows; the rest was lost with its channel and comes again."""
        _, tags = self._known(receipts)
        self._owed |= tags
        if self._tag is None or not self._hands_are_full:
            await self._pay(self._owed)

    async def give_back(self, receipts: Collection[Receipt]) -> None:
        """Put messages back to the head of their queue, for anyone."""
        line, tags = self._known(receipts)
        if line is None or not tags:
            return
        self._unacknowledged -= tags
        self._news.set()
        with suppress(Unavailable):
            async with answering("take messages back"):
                for tag in sorted(tags):
                    await line.basic_nack(tag, requeue=True, wait=tag == max(tags))

    async def rest(self) -> None:
        """Be tended, several times a second: pay what is owed, and let go of what nobody asks for."""
        idle_s = asyncio.get_running_loop().time() - self._asked_at
        if self._owed and (self._waiting or idle_s > OWED_S):
            await self._uncut(self._pause())
        if self._tag is not None and not self._waiting and idle_s > IDLE_S:
            await self._uncut(self._let_go())

    async def stop(self) -> None:
        """Let every receiver return, and give back what none of them took."""
        self._stopped = True
        self._news.set()
        await self._uncut(self._let_go())
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch_line(self, *_: object) -> None:
        line = await self._channel.get_underlay_channel()
        line.on_consumer_cancel_callbacks.add(self._tell_cancelled)

    def _tell_cancelled(self, _: object) -> None:
        log.warning(
            "bus.consumer_cancelled",
            queue=self._queue.name,
            reason="the queue was deleted, with what waited in it, or its node went away; it is made again",
        )

    def _take(self, at_most: int) -> list[AbstractIncomingMessage]:
        self._forget_lost()
        wanted = min(at_most, self._room())
        taken = [self._buffer.popleft() for _ in range(min(wanted, len(self._buffer)))]
        self._hands_are_full = bool(taken) and len(taken) == wanted
        return taken

    def _room(self) -> int:
        """Count the hands that hold nothing, or only what they are done with."""
        return self._hands - (len(self._unacknowledged) - len(self._owed) - len(self._buffer))

    def _known(self, receipts: Iterable[Receipt]) -> tuple[aiormq.abc.AbstractChannel | None, set[int]]:
        self._forget_lost()
        tags = {receipt.tag for receipt in receipts if receipt.channel is self._line}
        return self._line, tags & (self._unacknowledged - self._owed)

    def _forget_lost(self) -> None:
        """Forget what came over a channel that is gone: the broker sends it again."""
        if self._line is not None and self._line.is_closed:
            self._begin_line(None)

    def _begin_line(self, line: aiormq.abc.AbstractChannel | None) -> None:
        self._line = line
        self._buffer.clear()
        self._unacknowledged.clear()
        self._owed.clear()
        self._last_tag = self._attached_after = 0

    async def _on_message(self, message: AbstractIncomingMessage) -> None:
        line, tag = message.channel, message.delivery_tag
        if tag is None or line.is_closed:
            return
        if line is not self._line:
            self._begin_line(line)
        self._last_tag = tag
        self._unacknowledged.add(tag)
        if self._tag is None:  # the consumer was cancelled while this one was on its way
            await self.give_back([Receipt(line, tag)])
            return
        self._buffer.append(message)
        self._news.set()

    async def _ask(self, wanted: int) -> None:
        """Pay so much of what is owed that the broker sends `wanted`, or attach a consumer that it will."""
        async with self._turn:
            self._forget_lost()
            wanted = min(wanted, self._room())
            if self._stopped or self._buffer or wanted <= 0:
                return
            counted = [tag for tag in self._unacknowledged if tag > self._attached_after]
            lacking = max(0, len(counted) + wanted - self._prefetch)
            owed = sorted(self._owed.intersection(counted))
            if self._tag is not None and lacking <= len(owed):
                await self._pay(owed[:lacking])
                return
            await self._detach()
            await self._pay(self._owed)
            async with answering(f"attach a consumer to {self._queue.name}"):
                await self._attach(wanted)

    async def _pay(self, owed: Iterable[int]) -> None:
        """Write acknowledgements."""
        line, tags = self._line, set(owed)
        if line is None or not tags:
            return
        frames = list(_frames(tags, self._unacknowledged))
        self._unacknowledged -= tags
        self._owed -= tags
        self._expected = len(self._buffer) + len(tags)
        self._news.set()
        with suppress(Unavailable):
            async with answering("take an acknowledgement"):
                for index, (tag, multiple) in enumerate(frames, start=1):
                    await line.basic_ack(tag, multiple=multiple, wait=index == len(frames))

    async def _attach(self, wanted: int) -> None:
        if wanted != self._prefetch:  # it counts for consumers that are attached from here on
            await self._channel.set_qos(prefetch_count=wanted)
            self._prefetch = wanted
        self._attached_after = self._last_tag
        self._expected = wanted
        with ExitStack() as undo:
            undo.callback(setattr, self, "_tag", None)
            self._tag = f"spool-{secrets.token_hex(8)}"  # known before the first message can come
            await self._queue.consume(self._on_message, consumer_tag=self._tag)
            undo.pop_all()

    async def _pause(self) -> None:
        """Let the broker send nothing to hands that are full, then pay what is owed."""
        async with self._turn:
            if self._hands_are_full and not self._waiting:
                await self._detach()
            self._forget_lost()
            await self._pay(self._owed)

    async def _let_go(self) -> None:
        async with self._turn:
            await self._detach()
            await self._pay(self._owed)

    async def _detach(self) -> None:
        """Cancel the consumer, then give back what nobody took."""
        if self._tag is None:
            return
        try:
            async with answering("cancel a consumer"):
                await self._queue.cancel(self._tag)
        except Unavailable:
            pass  # its channel is gone, and it is not restored with the next one
        finally:
            self._tag = None
        if (line := self._line) is not None:
            left = [Receipt(line, message.delivery_tag or 0) for message in self._buffer]
            self._buffer.clear()
            await self.give_back(left)

    async def _uncut(self, change: Coroutine[Any, Any, None]) -> None:
        """Finish a change of the consumer also when the caller is cancelled.

        aiormq closes a channel whose call is cut off, and with it goes everything that was taken.
        """
        task = asyncio.create_task(change)
        self._tasks.add(task)
        task.add_done_callback(self._retire)
        await asyncio.shield(task)

    def _retire(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its caller has seen it, unless the caller was cancelled


def _frames(tags: set[int], unacknowledged: set[int]) -> Iterator[tuple[int, bool]]:
    """Yield (tag, multiple): one acknowledgement for all that are oldest, one each for the others."""
    oldest = list(takewhile(tags.__contains__, sorted(unacknowledged)))
    if oldest:
        yield oldest[-1], len(oldest) > 1
    for tag in sorted(tags.difference(oldest)):
        yield tag, False
