"""What the tests of inbox and outbox are made with: a bus, a database that fails, a worker, an observer."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, select

from shared.bus.local import LocalBus
from shared.bus.message import Message
from shared.bus.port import Bus
from shared.database.engine import Connection, Database, Unit
from shared.database.tables import outbox
from shared.events.clip import ClipRequested
from shared.events.envelope import CONTENT_TYPE, wrap
from shared.events.source import SourceAvailable
from shared.inbox.claims import LeaseTimes
from shared.inbox.listing import WorkFilter, WorkRow, list_work
from shared.inbox.router import Route, Router
from shared.inbox.worker import Worker
from shared.kernel.checkpoint import Step
from shared.outbox.writing import append
from shared.runtime.clock import SystemClock

T = TypeVar("T")

CLOCK = SystemClock()
# Short, so that tests of leases take a second; a heartbeat still has time on a machine with much else to do.
QUICK = LeaseTimes(length_ms=1_500, beat_ms=200, margin_ms=500)


class Weather:
    """A database that does what the real one does, except when it rains. `storm` decides for each write."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.dialect = database.dialect
        self.before: Callable[[bool], Awaitable[None]] = self._fair
        self.after: Callable[[bool], Awaitable[None]] = self._fair

    async def write(self, unit: Unit[T], *, urgent: bool = False) -> T:
        await self.before(urgent)
        result = await self._database.write(unit, urgent=urgent)
        await self.after(urgent)
        return result

    def read(self) -> AbstractAsyncContextManager[Connection]:
        return self._database.read()

    def now_sql(self) -> ColumnElement[int]:
        return self._database.now_sql()

    async def now_ms(self) -> int:
        return await self._database.now_ms()

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        await self._database.listen(channel, heard)

    async def give_back_space(self, *, pages: int = 500) -> None:
        await self._database.give_back_space(pages=pages)

    async def close(self) -> None:
        await self._database.close()

    async def _fair(self, _urgent: bool) -> None:
        """Let it through."""


@dataclass(slots=True)
class Observer:
    """A checkpoint that counts, and that can be waited for."""

    seen: Counter[Step] = field(default_factory=Counter)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, step: Step) -> None:
        self.seen[step] += 1
        self.moved.set()

    async def reached(self, step: Step, times: int = 1) -> None:
        while self.seen[step] < times:
            self.moved.clear()
            await self.moved.wait()


def asked(clip_id: str, *, camera_id: str = "gate") -> ClipRequested:
    return ClipRequested(
        clip_id=clip_id, camera_id=camera_id, start_timestamp_in_ms=1_000, end_timestamp_in_ms=2_000
    )


def recorded(key: str, *, camera_id: str = "gate") -> SourceAvailable:
    return SourceAvailable(
        camera_id=camera_id, key=key, start_timestamp_in_ms=1_000, end_timestamp_in_ms=2_000
    )


def message(data: ClipRequested | SourceAvailable, *, event_id: str | None = None) -> Message:
    """Put an event on the bus as a publisher would."""
    name = event_id or f"id-of-{data.key if isinstance(data, SourceAvailable) else data.clip_id}"
    event = wrap(data, id=name, source="/test", time_ms=CLOCK.now_ms())
    return raw(event.to_bytes(), data.type, message_id=name)


def raw(body: bytes, event_type: str = "clip_requested", *, message_id: str) -> Message:
    return Message(id=message_id, type=event_type, body=body, content_type=CONTENT_TYPE, mandatory=False)


@asynccontextmanager
async def open_bus(router: Router) -> AsyncIterator[LocalBus]:
    bus = await LocalBus.open(None)
    await bus.declare(router.subscriptions)
    yield bus
    await bus.close()


@asynccontextmanager
async def working(
    router: Router,
    database: Database,
    bus: Bus,
    *,
    observer: Observer | None = None,
    grace_s: float = 10,
    **options: Any,
) -> AsyncIterator[Worker]:
    """Run a worker; leaving drains it."""
    settings: dict[str, Any] = {"name": "worker", "poll_s": 0.02} | options
    worker = Worker(
        router,
        bus=bus,
        database=database,
        clock=CLOCK,
        append=append,
        checkpoint=observer or Observer(),
        **settings,
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(worker.run())
        try:
            await asyncio.sleep(0)  # let it begin, so that draining has something to end
            yield worker
        finally:
            await worker.drain(grace_s)
            await running


def router_of(*routes: Route) -> Router:
    return Router("clipper", routes)


async def all_work(database: Database) -> list[WorkRow]:
    """Return the rows of the inbox, oldest first."""
    async with database.read() as connection:
        return (await list_work(connection, WorkFilter(), at_most=500))[::-1]


async def told(database: Database) -> list[Any]:
    """Return the rows of the outbox, oldest first."""
    async with database.read() as connection:
        return list((await connection.execute(select(outbox).order_by(outbox.c.id))).all())


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something in a database holds; the test's own time limit bounds it."""
    while not await holds():  # noqa: ASYNC110  # a database has no event to wait for
        await asyncio.sleep(0.01)
