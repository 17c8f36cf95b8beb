"""Spool's own ways, with its real parts: the transport alone, and the whole road with inbox and outbox."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.bus_events import age_ms, answer, answered, asked, timed_name
from bench.peers import PREFETCH, RESULT, WINDOW, requests
from bench.stage import Stage
from shared.bus.local import LocalBus
from shared.bus.message import Delivery, Message, Subscription
from shared.bus.port import Bus, Capabilities, Health
from shared.bus.rabbitmq import RabbitBus
from shared.database.opening import open_database
from shared.events.clip import ClipRequested
from shared.events.envelope import CONTENT_TYPE, Event
from shared.events.reading import Letter, read_event
from shared.inbox.finish import TOGETHER
from shared.inbox.outcome import Done, Work
from shared.inbox.router import Route, Router
from shared.inbox.worker import Worker
from shared.outbox.relay import Relay
from shared.outbox.writing import append
from shared.runtime.clock import SystemClock
from shared.runtime.heap import settled_heap
from spool.migrations import migrate

CLOCK = SystemClock()
SPARE_CONNECTIONS = 8  # as shared/runtime/wiring.py gives
RATE = 50  # events a second of those that come now and then


def subscription_of(name: str) -> Subscription:
    """Return what takes the requests of the service of this name."""
    return Subscription(name, ClipRequested.type, (ClipRequested.type,), hands=PREFETCH)


def results_of(name: str) -> Subscription:
    """Return what keeps the answers, so that each of them is routed and durable."""
    return Subscription(name, RESULT, (RESULT,), hands=PREFETCH)


async def transport_consumes(stage: Stage) -> None:
    """Take, read as the inbox does, acknowledge."""
    subscription = subscription_of(stage.case.name)
    async with _transport(stage) as bus:
        await bus.declare([subscription])
        await stage.begin()
        left = stage.case.events
        while left > 0:
            deliveries = await bus.receive(subscription, at_most=PREFETCH, wait_s=5)
            for each in deliveries:
                letter = Letter(each.body, each.message_id or "", each.headers, each.content_type)
                read_event(letter, expected=ClipRequested.type)
            await bus.acknowledge(deliveries)
            left -= len(deliveries)
        stage.done(stage.case.events)
        await stage.over()


async def transport_publishes(stage: Stage) -> None:
    """Publish answers in batches, as the relay does."""
    async with _transport(stage) as bus:
        data = requests(stage.case.events)
        await stage.begin()
        for start in range(0, len(data), WINDOW):
            await bus.publish([_message(answered(each)) for each in data[start : start + WINDOW]])
        stage.done(stage.case.events)
        await stage.over()


async def road_on_servers(stage: Stage) -> None:
    """Work what waits in the queue: inbox, handler, outbox and relay on PostgreSQL and RabbitMQ."""
    async with _servers(stage) as road:
        await stage.begin()
        async with road.running():
            await stage.over()


async def road_one_by_one(stage: Stage) -> None:
    """Do the same with a transaction for the end of each piece of work."""
    async with _servers(stage, together=1) as road:
        await stage.begin()
        async with road.running():
            await stage.over()


async def road_embedded(stage: Stage) -> None:
    """Work as many in one process and one directory, without a server."""
    async with _embedded(stage) as road:
        events = [f"clip-{number}" for number in range(stage.case.events)]
        for start in range(0, len(events), WINDOW):
            await road.bus.ask(events[start : start + WINDOW])
        await stage.begin()
        async with road.running():
            await stage.over()


async def servers_wait(stage: Stage) -> None:
    """Work what comes now and then, and say how old it was when the handler saw it."""
    async with _servers(stage, timed=True) as road, road.running():
        await stage.begin()
        await stage.over()


async def embedded_waits(stage: Stage) -> None:
    """Do the same with what this process publishes itself."""
    async with _embedded(stage, timed=True) as road, road.running():
        await stage.begin()
        for number in range(stage.case.events):
            await road.bus.ask([timed_name(number)])
            await asyncio.sleep(1 / RATE)
        await stage.over()


async def servers_idle(stage: Stage) -> None:
    """Do nothing, and say how much processor time that took."""
    async with _servers(stage) as road, road.running():
        await _idle(stage)


async def embedded_idles(stage: Stage) -> None:
    """Do nothing in one directory."""
    async with _embedded(stage) as road, road.running():
        await _idle(stage)


async def _idle(stage: Stage) -> None:
    await asyncio.sleep(1)  # what starts is not idle yet
    await stage.begin()
    before_s, seconds = time.process_time(), float(stage.case.events)
    await asyncio.sleep(seconds)
    stage.done(stage.case.events, cpu_percent=100 * (time.process_time() - before_s) / seconds)
    await stage.over()


class CountingBus:
    """The bus, with what was published and confirmed through it told to the stage."""

    def __init__(self, bus: Bus, stage: Stage, *, counts: bool) -> None:
        self._bus = bus
        self._stage = stage
        self._counts = counts

    @property
    def capabilities(self) -> Capabilities:
        return self._bus.capabilities

    async def declare(self, subscriptions: Sequence[Subscription]) -> None:
        await self._bus.declare(subscriptions)

    async def publish(self, messages: Sequence[Message]) -> None:
        await self._bus.publish(messages)
        if self._counts and messages:
            self._stage.done(len(messages))

    async def ask(self, names: Sequence[str]) -> None:
        """Publish requests, which do not count."""
        await self._bus.publish(
            [Message(name, ClipRequested.type, asked(name), CONTENT_TYPE, mandatory=True) for name in names]
        )

    async def receive(self, subscription: Subscription, *, at_most: int, wait_s: float) -> list[Delivery]:
        return await self._bus.receive(subscription, at_most=at_most, wait_s=wait_s)

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        await self._bus.acknowledge(deliveries)

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        await self._bus.give_back(deliveries)

    async def stop_receiving(self) -> None:
        await self._bus.stop_receiving()

    def health(self) -> Health:
        return self._bus.health()

    async def close(self) -> None:
        await self._bus.close()


@dataclass(frozen=True, slots=True)
class Road:
    """A worker with a route, and the relay that tells what it decided."""

    bus: CountingBus
    worker: Worker
    relay: Relay

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run both; leaving drains as a service does."""
        async with asyncio.TaskGroup() as group:
            relaying = group.create_task(self.relay.run())
            working = group.create_task(self.worker.run())
            await asyncio.sleep(0)  # let it begin, so that draining has something to end
            yield
            await self.worker.drain(5)
            await working
            await self.relay.flush()
            relaying.cancel()


@asynccontextmanager
async def _transport(stage: Stage) -> AsyncIterator[RabbitBus]:
    bus = await RabbitBus.open(stage.case.amqp, exchange=stage.case.name)
    with settled_heap():  # as a service has that has started
        yield bus
    await bus.close()


@asynccontextmanager
async def _servers(stage: Stage, *, timed: bool = False, together: int = TOGETHER) -> AsyncIterator[Road]:
    bus = await RabbitBus.open(stage.case.amqp, exchange=stage.case.name)
    async with _opened(stage, bus, stage.case.database, timed=timed, together=together) as road:
        yield road


@asynccontextmanager
async def _embedded(stage: Stage, *, timed: bool = False) -> AsyncIterator[Road]:
    with tempfile.TemporaryDirectory(prefix="spool-bench-") as directory:
        address = f"sqlite:///{directory}/spool.db"
        await migrate(address)
        bus = await LocalBus.open(Path(directory) / "bus.db")
        async with _opened(stage, bus, address, timed=timed) as road:
            yield road


@asynccontextmanager
async def _opened(
    stage: Stage, bus: Bus, database_url: str, *, timed: bool, together: int = TOGETHER
) -> AsyncIterator[Road]:
    async def handle(data: ClipRequested, *, work: Work) -> Done:  # noqa: ARG001  # as the worker calls it
        if timed:
            stage.done(1, age_ms=age_ms(data))
        return Done(answer(data))

    router = Router(stage.case.name, (Route(ClipRequested, handle, hands=PREFETCH),))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(bus.close)
        database = await open_database(database_url, clock=CLOCK, connections=PREFETCH + SPARE_CONNECTIONS)
        stack.push_async_callback(database.close)
        counting = CountingBus(bus, stage, counts=not timed)
        await counting.declare([*router.subscriptions, results_of(stage.case.name)])
        relay = Relay(bus=counting, database=database, clock=CLOCK, name=f"relay {time.monotonic_ns()}")
        worker = Worker(
            router,
            bus=counting,
            database=database,
            clock=CLOCK,
            append=append,
            name=f"worker {time.monotonic_ns()}",
            committed=relay.told,
            together=together,
        )
        # Connected before the clock runs, as the peers are: to accept, to finish, to relay, to look around.
        await asyncio.gather(*(database.now_ms() for _ in range(4)))
        stack.enter_context(settled_heap())  # as a service does when it has started
        yield Road(counting, worker, relay)


def _message(event: Event) -> Message:
    return Message(event.id, event.type, event.to_bytes(), CONTENT_TYPE, mandatory=False)
