"""Processes on one PostgreSQL hear of work that another one made ready, also after their line was cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import text

from shared.database.engine import Connection, Database
from shared.database.notifying import READY_WORK
from shared.database.opening import open_database
from shared.events.clip import ClipRequested
from shared.inbox.outcome import Later, Work
from shared.inbox.router import Route
from shared.inbox.wake import wake
from tests.integration.workshop import (
    CLOCK,
    all_work,
    asked,
    eventually,
    message,
    open_bus,
    router_of,
    working,
)

HOUR_MS = 3_600_000
NEVER_S = 3600.0  # between two looks: what is found before was heard of

pytestmark = pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)


@dataclass(slots=True)
class Sleeping:
    """A handler that waits to be woken, each time it is called."""

    calls: int = 0
    called: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, data: ClipRequested, *, work: Work) -> Later:
        self.calls += 1
        self.called.set()
        return Later(CLOCK.now_ms() + HOUR_MS, "not yet", ("key",))


@pytest.fixture
async def others(database_url: str) -> AsyncIterator[Database]:
    """Open the same database as another process does."""
    opened = await open_database(database_url, clock=CLOCK, connections=4)
    yield opened
    await opened.close()


@asynccontextmanager
async def hearing(database: Database, heard: Callable[[], None]) -> AsyncIterator[None]:
    """Listen for ready work, from when this is entered."""
    listens = asyncio.Event()

    def note() -> None:
        listens.set()
        heard()

    listening = asyncio.create_task(database.listen(READY_WORK, note))
    try:
        await listens.wait()
        yield
    finally:
        listening.cancel()
        await asyncio.wait({listening})


async def cut_the_line(database: Database) -> None:
    """End the connection that listens, as a restart of the server or a failover does."""
    ending = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        # other suites listen in databases of the same server
        " WHERE query ILIKE 'LISTEN %' AND datname = current_database()"
    )

    async def unit(connection: Connection) -> list[bool]:
        return list((await connection.execute(ending)).scalars())

    ended = await database.write(unit)

    assert ended == [True]


async def asleep(database: Database) -> bool:
    return [row.waiting for row in await all_work(database)] == [True]


async def wake_it(database: Database) -> None:
    await database.write(lambda connection: wake(connection, "key"))


@asynccontextmanager
async def hearing_worker(database: Database, handler: Sleeping) -> AsyncIterator[None]:
    """Let a worker that looks by itself only in an hour, and one request for `handler`, come together."""
    router = router_of(Route(ClipRequested, handler))
    async with (
        open_bus(router) as bus,
        working(router, database, bus, poll_s=NEVER_S) as worker,
        hearing(database, worker.wake),
    ):
        await bus.publish([message(asked("a"))])
        yield


@pytest.mark.limit(20)  # who hears nothing would look again in an hour
async def test_a_worker_that_would_not_look_for_long_hears_of_a_wake(
    database: Database, others: Database
) -> None:
    handler = Sleeping()
    async with hearing_worker(database, handler):
        await eventually(lambda: asleep(database))
        handler.called.clear()
        await wake_it(others)
        await handler.called.wait()

    assert handler.calls == 2


@pytest.mark.limit(20)  # as above
async def test_a_worker_whose_line_was_cut_finds_what_came_meanwhile_and_hears_again(
    database: Database, others: Database
) -> None:
    handler = Sleeping()
    async with hearing_worker(database, handler):
        for _ in range(2):  # the second cut is of the connection that replaced the first
            await eventually(lambda: asleep(database))
            handler.called.clear()
            await cut_the_line(others)
            await wake_it(others)  # while nobody listens
            await handler.called.wait()
            await eventually(lambda: asleep(database))
            handler.called.clear()
            await wake_it(others)
            await handler.called.wait()

    assert handler.calls == 5
