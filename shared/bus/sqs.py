"""The bus on AWS: events are published to SNS, and fanned out to one SQS queue per subscription.

What it cannot promise: order (it is the inbox's business, so there is nothing of FIFO here); that a message
comes only once; that a process that died hides its deliveries for less than the visibility timeout; and
anything between SNS and a queue that was deleted: SNS takes a message for it and says nothing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, cast

from shared.bus.message import Delivery, Message, Subscription
from shared.bus.port import Capabilities, Health, QueueState
from shared.bus.sqs_errors import QueueMissing
from shared.bus.sqs_link import Link
from shared.bus.sqs_message import MAX_MESSAGE_BYTES, OWN_BYTES, Receipt
from shared.bus.sqs_names import Names
from shared.bus.sqs_publisher import Publisher
from shared.bus.sqs_receiver import Receiver, Times
from shared.bus.sqs_routes import Routes
from shared.bus.sqs_topology import Topology
from shared.kernel.errors import Bug, Conflict, NotFound, Refused, Unavailable
from shared.settings.aws_address import AwsAddress

MAX_BATCH = 1000  # messages in one publish: a hundred calls, eight at once
PROBE_S = 15.0  # who has not been heard of for so long is asked whether it is there


class SqsBus:
    """A bus on SNS and SQS. Open it with `SqsBus.open`."""

    def __init__(
        self, link: Link, names: Names, *, create: bool, times: Times, unrouted: Callable[[str], None]
    ) -> None:
        """Take over an open link."""
        self._link = link
        self._names = names
        self._times = times
        self._topology = Topology(link, names, create=create)
        self._routes = Routes(self._topology)
        self._publisher = Publisher(link, self._topology, self._routes, unrouted)
        self._receivers: dict[str, Receiver] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._is_receiving = True
        self._closing = asyncio.Event()
        self._tending = [
            asyncio.create_task(self._tend(self._extend, times.tick_s), name="sqs-heartbeat"),
            asyncio.create_task(self._tend(self._probe, 1.0), name="sqs-probe"),
        ]

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        region: str | None = None,
        create: bool | None = None,
        times: Times | None = None,
        unrouted: Callable[[str], None] | None = None,
    ) -> SqsBus:
        """Open `aws:?…` and ask SNS and SQS whether they are there. Nothing is made yet.

        `region` counts when the address names none, `create` instead of what the address says of it;
        `unrouted` is told the type of each fact that nobody is subscribed to.
        Raises Unavailable, Refused for an address that is none.
        """
        try:
            address = AwsAddress.parse(url)
        except ValueError as error:
            raise Refused(f"the address of the bus {error}", hint="aws:?region=eu-central-1") from error
        async with AsyncExitStack() as undo:
            link = await Link.open(address, region=region)
            undo.push_async_callback(link.close)
            await link.probe(older_than_s=0)
            for side in link.sides.values():
                if problem := side.problem():
                    raise Unavailable(problem)
            undo.pop_all()
        names = Names(address)
        create = address.create if create is None else create
        return cls(link, names, create=create, times=times or Times(), unrouted=unrouted or _nobody_counts)

    @property
    def capabilities(self) -> Capabilities:
        """Shared by any number of processes. The body is what SNS carries of text, without headers.

        Bytes that are no text take a third more; the headers count as well.
        """
        return Capabilities(
            system="aws_sqs",
            max_body_bytes=MAX_MESSAGE_BYTES - OWN_BYTES,
            max_batch=MAX_BATCH,
            survives_restart=True,
            shared_between_processes=True,
        )

    async def declare(self, subscriptions: Sequence[Subscription]) -> None:
        """Make or find topics, queues and filters, and each service's dead letters.

        Raises Unavailable; NotFound for what is missing when nothing may be made; Conflict.
        """
        self._check_open()
        for subscription in subscriptions:
            url = await self._topology.declare(subscription)
            self._subscriptions[subscription.queue] = subscription
            if subscription.queue not in self._receivers:
                self._receivers[subscription.queue] = Receiver(
                    subscription, url, link=self._link, names=self._names, times=self._times
                )
            self._receivers[subscription.queue].queue.url = url
        self._routes.forget()

    async def publish(self, messages: Sequence[Message]) -> None:
        """Return when SNS has taken all of them. SNS keeps what it took until the queues have it."""
        self._check_open()
        await self._publisher.publish(messages)

    async def receive(self, subscription: Subscription, *, at_most: int, wait_s: float) -> list[Delivery]:
        """Take what a long poll finds. A queue that is gone is made again, where that is allowed."""
        if (receiver := self._receivers.get(subscription.queue)) is None:
            raise Bug(f"{subscription.queue} was not declared before receiving from it")
        try:
            return await receiver.receive(at_most=at_most, wait_s=wait_s)
        except QueueMissing:
            await self._restore(subscription)
            raise

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Delete the messages, in tens. Raises Unavailable: those left come again."""
        await asyncio.gather(*(each.acknowledge(found) for each, found in self._by_receiver(deliveries)))

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Make the messages visible to anyone. Each return counts towards the limit of receives."""
        await asyncio.gather(*(each.give_back(found) for each, found in self._by_receiver(deliveries)))

    async def stop_receiving(self) -> None:
        """Let receivers return. Polls under way end by themselves, and what they find is given back."""
        self._is_receiving = False
        await asyncio.gather(*(receiver.stop() for receiver in self._receivers.values()))

    def health(self) -> Health:
        """Tell by the last answers, which are never older than a probe."""
        held = sum(receiver.held for receiver in self._receivers.values())
        if self._closing.is_set():
            return Health(connected=False, consuming=False, reason="the bus is closed")
        if problems := [problem for side in self._link.sides.values() if (problem := side.problem())]:
            return Health(connected=False, consuming=False, reason="; ".join(problems), held=held)
        if not self._is_receiving:
            return Health(connected=True, consuming=False, reason="receiving has been stopped", held=held)
        missing = [name for name, receiver in self._receivers.items() if receiver.is_missing]
        reason = f"these queues do not exist: {', '.join(missing)}" if missing else ""
        return Health(connected=True, consuming=not missing, reason=reason, held=held)

    async def inspect(self, subscription: Subscription) -> QueueState:
        """Ask for the queue and its filters, and make nothing. AWS calls its numbers approximate."""
        return await Topology(self._link, self._names, create=False).inspect(subscription)

    async def close(self) -> None:
        """Wait for the polls to end, give everything back, close the connections. In bounded time."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._is_receiving = False
        await asyncio.gather(*self._tending)
        await asyncio.gather(*(receiver.close() for receiver in self._receivers.values()))
        await self._link.close()

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise Unavailable("the bus is closed")

    async def _restore(self, subscription: Subscription) -> None:
        """Declare again what was deleted. AWS makes no queue of a name that was deleted a minute ago."""
        with suppress(Unavailable, NotFound, Conflict):
            await self.declare([subscription])

    def _by_receiver(self, deliveries: Sequence[Delivery]) -> list[tuple[Receiver, list[Receipt]]]:
        receipts: defaultdict[str, list[Receipt]] = defaultdict(list)
        for delivery in deliveries:
            if delivery.queue in self._receivers:
                receipts[delivery.queue].append(cast("Receipt", delivery.receipt))
        return [(self._receivers[name], found) for name, found in receipts.items()]

    async def _extend(self) -> None:
        await asyncio.gather(*(receiver.tend() for receiver in tuple(self._receivers.values())))

    async def _probe(self) -> None:
        await self._link.probe(older_than_s=PROBE_S)

    async def _tend(self, work: Callable[[], Coroutine[Any, Any, None]], every_s: float) -> None:
        """Do a piece of work again and again until the bus closes."""
        while not self._closing.is_set():
            await work()
            with suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self._closing.wait()


def _nobody_counts(_: str) -> None:
    """Stand in for the metric where nobody asked for one."""
