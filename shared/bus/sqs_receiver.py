"""One queue of SQS: long polls that are never cut off, and the deliveries that were taken of it.

SQS hides a message from everybody as soon as a poll finds it, and a poll that is cancelled finds it for
nobody: it comes back only after the visibility timeout. So polls run in tasks of their own, which nobody
cancels; what one finds when its receiver is gone waits here for the next, and is given back at the end.

What is held here is kept hidden by a heartbeat, and only that: a process that dies is not one that beats.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from shared.bus.message import Delivery, Subscription
from shared.bus.sqs_errors import QueueMissing
from shared.bus.sqs_link import Link
from shared.bus.sqs_message import MAX_BATCH, Receipt, type_of, unpack
from shared.bus.sqs_names import Names
from shared.bus.sqs_queue import Queue
from shared.kernel.errors import Unavailable

if TYPE_CHECKING:
    from types_aiobotocore_sqs.type_defs import MessageTypeDef

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Times:
    """How long things take. Tests make them short."""

    visibility_s: int = 60  # hidden from others this long after a receive or a heartbeat
    poll_s: int = 5  # the longest poll, and with it the longest wait for one to end at close; at most 20
    idle_s: float = 5.0  # what a poll found goes back when nobody asks for it any more

    @property
    def tick_s(self) -> float:
        """How often to look what has to be extended or given back."""
        return min(1.0, self.visibility_s / 8)


class Receiver:
    """One subscription. Its polls are tasks that end by themselves; `close` waits for the last one."""

    def __init__(
        self, subscription: Subscription, url: str, *, link: Link, names: Names, times: Times
    ) -> None:
        """Ask nothing yet: that needs somebody who wants deliveries."""
        self.queue = Queue(url, called=subscription.queue, link=link)
        self.is_missing = False  # the queue does not exist any more
        self._subscription = subscription
        self._names = names
        self._times = times
        self._buffer: deque[Delivery] = deque()  # found, and nobody took it yet
        self._held: dict[str, float] = {}  # receipt handle -> hidden until; the buffer too
        self._news = asyncio.Event()  # something to take, room for it, or the end
        self._poll: asyncio.Task[None] | None = None
        self._failure: Unavailable | None = None  # of the last poll, until a receiver has seen it
        self._waiting = 0
        self._asked_at = self._now()
        self._stopped = False

    @property
    def held(self) -> int:
        """How many deliveries are hidden from others for us; those not yet taken as well."""
        return len(self._held)

    async def receive(self, *, at_most: int, wait_s: float) -> list[Delivery]:
        """Take up to `at_most` deliveries, waiting for the first. Cancelling it takes nothing."""
        deadline = self._now() + wait_s
        self._failure = None if self._poll is None else self._failure
        self._waiting += 1
        try:
            while not self._stopped:
                self._news.clear()
                if taken := self._take(at_most):
                    return taken
                self._raise_failure()
                short = self._ask(at_most, deadline - self._now())
                if not await self._heard_by(None if short else deadline) or (short and not self._buffer):
                    self._raise_failure()
                    return []
        finally:
            self._waiting -= 1
            self._asked_at = self._now()
        return []

    async def acknowledge(self, receipts: Collection[Receipt]) -> None:
        """Delete what is still ours. What cannot be deleted is let go: it comes again, and is recognised."""
        handles = self._let_go(receipts)
        await self.queue.delete(handles)

    async def give_back(self, receipts: Collection[Receipt]) -> None:
        """Make what is still ours visible at once. What cannot be told to SQS comes by itself, later."""
        handles = self._let_go(receipts)
        with suppress(Unavailable):
            await self.queue.hide(handles, 0, "give back")

    async def tend(self) -> None:
        """Keep hidden what is held, and give back what nobody asks for. Raises nothing."""
        if self._buffer and not self._waiting and self._now() - self._asked_at > self._times.idle_s:
            await self._give_back_buffer()
        now = self._now()
        for handle in [handle for handle, until in self._held.items() if until <= now]:
            self._lose(handle)  # somebody else may have it by now
        ending = now + self._times.visibility_s * 2 / 3
        due = [handle for handle, until in self._held.items() if until < ending]
        if not due:
            return
        try:
            stale = await self.queue.hide(due, self._times.visibility_s, "keep deliveries hidden")
        except Unavailable as error:
            log.warning("bus.no_heartbeat", queue=self._subscription.queue, reason=str(error))
            return
        for handle in due:
            if handle in stale:
                self._lose(handle)
            elif handle in self._held:
                self._held[handle] = now + self._times.visibility_s

    async def stop(self) -> None:
        """Let every receiver return, and give back what none of them took. The last poll ends by itself."""
        self._stopped = True
        self._news.set()
        await self._give_back_buffer()

    async def close(self) -> None:
        """Wait for the last poll, then give back everything that is held."""
        await self.stop()
        if self._poll is not None:
            await asyncio.wait({self._poll})
        await self.give_back([Receipt(handle) for handle in tuple(self._held)])

    def _take(self, at_most: int) -> list[Delivery]:
        room = self._subscription.hands - (len(self._held) - len(self._buffer))
        return [self._buffer.popleft() for _ in range(min(at_most, room, len(self._buffer)))]

    def _ask(self, at_most: int, wait_s: float) -> bool:
        """Have a poll under way, for no more than there are hands. Say whether a new one does not wait."""
        wanted = min(at_most, self._subscription.hands - len(self._held), MAX_BATCH)
        if self._poll is not None or self._buffer or wanted <= 0:
            return False
        poll_s = min(max(math.ceil(wait_s), 0), self._times.poll_s)
        self._poll = asyncio.create_task(
            self._run_poll(wanted, poll_s), name=f"poll {self._subscription.queue}"
        )
        return poll_s == 0

    async def _heard_by(self, deadline: float | None) -> bool:
        try:
            async with asyncio.timeout_at(deadline):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def _raise_failure(self) -> None:
        if (failure := self._failure) is not None:
            self._failure = None
            raise failure

    async def _run_poll(self, wanted: int, poll_s: int) -> None:
        asked_at = self._now()
        try:
            found = await self.queue.receive(wanted, poll_s=poll_s, visibility_s=self._times.visibility_s)
        except Unavailable as error:
            self.is_missing = isinstance(error, QueueMissing)
            self._failure = error
        else:
            self.is_missing = False
            for each in found:
                delivery = self._delivery(each)
                # Hidden at the latest since it was found, at the earliest since it was asked for.
                self._held[delivery.receipt.handle] = asked_at + self._times.visibility_s
                self._buffer.append(delivery)
        finally:
            self._poll = None
            self._news.set()
        if self._stopped:
            await self._give_back_buffer()

    def _delivery(self, received: MessageTypeDef) -> Delivery:
        return unpack(received, queue=self._subscription.queue, first_queue=self._first_queue(received))

    def _first_queue(self, received: MessageTypeDef) -> str | None:
        """Return the queue that a dead letter died in. Where SQS does not say it, its type does."""
        if self.queue.url.rpartition("/")[2] != self._names.dead_letters(self._subscription.service):
            return None
        service = self._subscription.service
        if source := received.get("Attributes", {}).get("DeadLetterQueueSourceArn"):
            return self._names.spoken(source.rpartition(":")[2], service)
        event_type = type_of(received)
        return f"{service}.{event_type}" if event_type else None

    async def _give_back_buffer(self) -> None:
        left = [delivery.receipt for delivery in self._buffer]
        self._buffer.clear()
        await self.give_back(left)

    def _let_go(self, receipts: Iterable[Receipt]) -> list[str]:
        """Hold the deliveries no longer; return the handles of those that are surely still ours.

        One that may be visible again may be somebody else's by now, and not every server refuses its old
        receipt: it is left alone, comes again, and is recognised.
        """
        now = self._now()
        held = [(receipt.handle, self._held.pop(receipt.handle, now)) for receipt in receipts]
        self._news.set()  # there is room again
        return [handle for handle, until in held if until > now]

    def _lose(self, handle: str) -> None:
        self._held.pop(handle, None)
        self._buffer = deque(each for each in self._buffer if each.receipt.handle != handle)
        self._news.set()
        log.info("bus.delivery_lost", queue=self._subscription.queue, reason="it is visible to others again")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
