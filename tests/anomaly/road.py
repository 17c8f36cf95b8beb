"""The whole road with mills on it, from outside: who asks, works and listens, and the count at the end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import aio_pika
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.schema import CreateTable

from shared.bus.message import Message, Subscription
from shared.bus.port import Bus, Unroutable
from shared.database.engine import Connection, Database
from shared.database.opening import open_database
from shared.database.tables import State, inbox, outbox
from shared.events.clip import ClipRequested
from shared.events.envelope import CONTENT_TYPE, wrap
from shared.kernel.addresses import each_host
from shared.kernel.errors import Unavailable
from shared.runtime.clock import SystemClock
from spool.migrations import migrate
from tests.anomaly.mill import Orders, effect, open_bus, router_of

ROOT = Path(__file__).parents[2]
CLOCK = SystemClock()
LOOK_S = 0.05  # between two looks into tables that other processes write
AGAIN_S = 0.2  # before something is asked again of a server that is away
BATCH = 200  # requests in one publish
EARS = 32  # answers that are taken at once
SPARED = ("PATH", "HOME", "TMPDIR", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclass(frozen=True, slots=True)
class Truth:
    """What was counted when all was over."""

    asked: int
    effects: int  # rows of `effect`
    affected: int  # different requests among them
    unfinished: int
    dead: int
    untold: int
    answered: int  # different requests whose answer was heard
    ids: int  # different ids of answers
    repeats: int  # answers heard again under an id that was heard before: allowed, receivers dedupe

    @property
    def faults(self) -> list[str]:
        """Say what is wrong: something lost, done twice, left over, or told under two ids."""
        wanted = {
            "requests without an effect": self.asked - self.affected,
            "effects that happened again": self.effects - self.affected,
            "pieces of work that are not finished": self.unfinished,
            "dead letters": self.dead,
            "events that were not told": self.untold,
            "requests without an answer": self.asked - self.answered,
            "answers under a second id": self.ids - self.answered,
        }
        return [f"{number} {what}" for what, number in wanted.items() if number]

    def __str__(self) -> str:
        return (
            f"{self.asked} asked, {self.effects} effects, {self.answered} answers heard under {self.ids} ids"
            f" (and {self.repeats} repeated); {self.dead} dead, {self.unfinished + self.untold} left over"
        )


@dataclass(slots=True)
class Mill:
    """A mill's process. `log` is what it said."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    async def until_said(self, words: str, times: int = 1) -> None:
        while self.log.read_text().count(words) < times:
            assert self.process.returncode is None, self.log.read_text()[-4000:]
            await asyncio.sleep(LOOK_S)

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """Drain it."""
        self.process.send_signal(signal.SIGTERM)
        code = await self.process.wait()
        assert code == 0, self.log.read_text()[-4000:]


@dataclass(slots=True)
class Road:
    """One bus and one database with mills on them. Open it with `open_road`."""

    orders: Orders
    directory: Path
    database: Database
    bus: Bus | None  # of whoever asks and listens; none where a mill owns the bus
    asked: list[str] = field(default_factory=list)
    heard: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    mills: list[Mill] = field(default_factory=list)
    deaths: int = 0

    @property
    def ears(self) -> Subscription:
        return Subscription(f"{self.orders.service}-town", "told", ("clip_not_available",), hands=EARS)

    async def start_mill(self, *, environment: Mapping[str, str] | None = None, **changes: Any) -> Mill:
        """Start a worker; `changes` are to its orders. It says `ready` when it takes work."""
        name = f"mill-{len(self.mills)}"
        orders = replace(self.orders, name=name, **changes)
        log = self.directory / f"{name}.log"
        given = {key: os.environ[key] for key in SPARED if key in os.environ} | dict(environment or {})
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.anomaly.mill",
                orders.to_json(),
                cwd=ROOT,
                env=given,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self.mills.append(Mill(name, process, log))
        return self.mills[-1]

    async def start_mills(
        self, count: int, *, environment: Mapping[str, str] | None = None, **changes: Any
    ) -> list[Mill]:
        mills = [await self.start_mill(environment=environment, **changes) for _ in range(count)]
        for mill in mills:
            await mill.until_said("ready")
        return mills

    async def ask(self, count: int) -> None:
        """Publish that many requests, each until the broker has it; repeated ones keep their ids."""
        assert self.bus is not None
        first = len(self.asked)
        names = [f"clip-{number}" for number in range(first, first + count)]
        self.asked += names
        for start in range(0, count, BATCH):
            batch = self.messages(names[start : start + BATCH])
            while True:
                with suppress(Unavailable, Unroutable):
                    await self.bus.publish(batch)
                    break
                await asyncio.sleep(AGAIN_S)

    async def ask_before_the_start(self, count: int) -> None:
        """Put that many requests on a bus that the mill will own."""
        self.asked += [f"clip-{number}" for number in range(count)]
        bus = await open_bus(self.orders)
        await bus.declare([*router_of(self.orders).subscriptions, self.ears])
        await bus.publish(self.messages(self.asked))
        await bus.close()

    async def hear_at_the_end(self) -> None:
        """Hear what was told on a bus that the mill owned."""
        bus = await open_bus(self.orders)
        await bus.declare([self.ears])
        while deliveries := await bus.receive(self.ears, at_most=EARS, wait_s=0):
            self.note(json.loads(delivery.body) for delivery in deliveries)
            await bus.acknowledge(deliveries)
        await bus.close()

    @staticmethod
    def messages(names: Iterable[str]) -> list[Message]:
        """Return the requests as any publisher would send them."""
        wanted = [
            ClipRequested(
                clip_id=name, camera_id="gate", start_timestamp_in_ms=1_000, end_timestamp_in_ms=2_000
            )
            for name in names
        ]
        events = [wrap(data, id=f"id-of-{data.clip_id}", source="/road", time_ms=1_000) for data in wanted]
        return [Message(each.id, each.type, each.to_bytes(), CONTENT_TYPE, mandatory=True) for each in events]

    async def listen(self) -> None:
        """Hear answers for ever, whatever happens to the broker."""
        assert self.bus is not None
        while True:
            try:
                deliveries = await self.bus.receive(self.ears, at_most=EARS, wait_s=1)
                self.note(json.loads(delivery.body) for delivery in deliveries)
                await self.bus.acknowledge(deliveries)
            except Unavailable:
                await asyncio.sleep(AGAIN_S)

    def note(self, answers: Iterable[dict[str, str]]) -> None:
        for answer in answers:
            self.heard[answer["subject"]][answer["id"]] += 1

    async def count(self, what: ColumnElement[int], *conditions: ColumnElement[bool]) -> int:
        """Ask the database for one number, until it answers."""
        while True:
            with suppress(Unavailable):
                async with self.database.read() as connection:
                    number: int = (await connection.execute(select(what).where(*conditions))).scalar_one()
                    return number
            await asyncio.sleep(AGAIN_S)

    async def effects(self) -> int:
        return await self.count(func.count(effect.c.clip_id))

    @property
    def begun(self) -> int:
        """How many pieces of work were begun, where work takes a while."""
        return sum(mill.log.read_text().count("begun ") for mill in self.mills)

    async def most_attempts(self) -> int:
        """Return how often the piece of work was begun that was begun most often."""
        return await self.count(func.max(effect.c.run))

    async def until_effects(self, at_least: int) -> None:
        while await self.effects() < at_least:
            self._nobody_gave_up()
            await asyncio.sleep(LOOK_S)

    async def until_all_is_told(self) -> None:
        """Wait until each request had its effect, and each effect was told."""
        await self.until_effects(len(self.asked))
        while (await self._unfinished()) or (await self._untold()):
            self._nobody_gave_up()
            await asyncio.sleep(LOOK_S)

    async def until_all_is_heard(self) -> None:
        await self.until_all_is_told()
        while len(self.heard) < len(self.asked):  # noqa: ASYNC110  # another task hears them
            await asyncio.sleep(LOOK_S)

    async def truth(self) -> Truth:
        ids = [each for answers in self.heard.values() for each in answers]
        return Truth(
            asked=len(self.asked),
            effects=await self.effects(),
            affected=await self.count(func.count(effect.c.clip_id.distinct())),
            unfinished=await self._unfinished(),
            dead=await self.count(func.count(inbox.c.id), inbox.c.state == State.DEAD),
            untold=await self._untold(),
            answered=len(self.heard),
            ids=len(set(ids)),
            repeats=sum(sum(answers.values()) for answers in self.heard.values()) - len(ids),
        )

    async def stop(self) -> None:
        """Drain every mill that lives, also one that has only just been started."""
        for mill in self.living():
            await mill.until_said("ready")
            await mill.stop()

    def living(self) -> list[Mill]:
        return [mill for mill in self.mills if mill.process.returncode is None]

    async def _unfinished(self) -> int:
        return await self.count(func.count(inbox.c.id), inbox.c.state.in_((State.READY, State.WORKING)))

    async def _untold(self) -> int:
        return await self.count(func.count(outbox.c.id), outbox.c.sent_ms.is_(None))

    def _nobody_gave_up(self) -> None:
        """Fail now: a mill that ended by itself would leave the test waiting for its time limit."""
        for mill in self.mills:
            code = mill.process.returncode
            assert code in (None, 0, -signal.SIGKILL), mill.log.read_text()[-4000:]


@asynccontextmanager
async def open_road(directory: Path, *, database: str, bus: str) -> AsyncIterator[Road]:
    """Make the tables and the queues. `bus` is where the mills go; who asks goes there too."""
    await migrate(database)
    orders = Orders("nobody", bus, database, f"mill-{uuid4().hex[:12]}")
    async with AsyncExitStack() as stack:
        opened = await open_database(database, clock=CLOCK, connections=4)
        stack.push_async_callback(opened.close)
        await opened.write(_make_table)
        road = Road(orders, directory, opened, None)
        if not orders.embedded:
            if bus.startswith("amqp"):  # those of AWS have names of their own for each test
                stack.push_async_callback(_remove_queues, road)
            road.bus = await open_bus(orders)
            stack.push_async_callback(road.bus.close)
            await road.bus.declare([*router_of(orders).subscriptions, road.ears])
            stack.push_async_callback(_end, asyncio.create_task(road.listen()))
        stack.push_async_callback(_kill_all, road)
        yield road


async def _make_table(connection: Connection) -> None:
    await connection.execute(CreateTable(effect))


async def _end(listening: asyncio.Task[None]) -> None:
    listening.cancel()
    await asyncio.wait([listening])


async def _remove_queues(road: Road) -> None:
    """Leave nothing on a broker that is shared with other tests. One of our own may be away for good."""
    queues = [each.queue for each in router_of(road.orders).subscriptions]
    exchange = road.orders.service
    with suppress(*CONNECTION_EXCEPTIONS):
        async with await aio_pika.connect(each_host(road.orders.bus)[-1]) as connection:
            channel = await connection.channel()
            for name in (*queues, road.ears.queue, f"{road.ears.service}.dead"):
                await channel.queue_delete(name)
            for name in (exchange, f"{exchange}.dead"):
                await channel.exchange_delete(name)


async def _kill_all(road: Road) -> None:
    for mill in road.mills:
        await mill.kill()
