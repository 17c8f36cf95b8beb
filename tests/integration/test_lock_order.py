"""Whoever changes several rows of the inbox locks them by id: two that meet wait one after the other.

The rows lie on the disk in another order than that of their ids, and PostgreSQL is made to read them as they
lie. Somebody holds one of them: who comes first stops half way, and a second one comes from the other end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TypeVar

import asyncpg
import pytest
from sqlalchemy import select, text

from shared.database.engine import Connection, Database, Unit
from shared.database.opening import open_database
from shared.database.tables import State, inbox, inbox_wake
from shared.inbox.claims import Claim, Claims, LeaseTimes
from shared.inbox.dead_letters import drop, replay
from shared.inbox.ending import Ending, Fence, Manner
from shared.inbox.row import CLAIMED_COLUMNS, claimed_row
from shared.inbox.wake import wake
from tests.integration.workshop import CLOCK, Weather, eventually

T = TypeVar("T")

QUEUE = "clipper.clip_requested"
FIRST, SECOND, HELD = 1, 2, 3
AS_THEY_LIE = (SECOND, HELD, FIRST)

pytestmark = pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)


class Counted(Weather):
    """A database that counts how often units are run: once each, unless PostgreSQL ends one of two."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.runs = 0

    async def write(self, unit: Unit[T], *, urgent: bool = False) -> T:
        async def counted(connection: Connection) -> T:
            self.runs += 1
            return await unit(connection)

        return await super().write(counted, urgent=urgent)


@pytest.fixture
async def counted(database_url: str) -> AsyncIterator[Counted]:
    """Open a database that reads tables as they lie."""
    connection = await asyncpg.connect(database_url)
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {name} SET enable_indexscan = off")
    await connection.execute(f"ALTER DATABASE {name} SET enable_bitmapscan = off")
    await connection.close()
    opened = await open_database(database_url, clock=CLOCK, connections=4)
    yield Counted(opened)
    await opened.close()


async def lay_down(database: Database, state: State) -> None:
    now_ms = await database.now_ms()
    common = {
        "consumer": QUEUE,
        "source": "/test",
        "type": "clip_requested",
        "subject": "gate",
        "body": b"{}",
        "ordered": False,
        "state": int(state),
        "received_ms": now_ms,
    }
    if state is State.WORKING:
        common |= {"token": 1, "attempt": 1, "worker": "worker", "lease_until_ms": now_ms + 600_000}
    else:
        common |= {"done_ms": now_ms}

    async def unit(connection: Connection) -> None:
        for row_id in AS_THEY_LIE:
            await connection.execute(inbox.insert(), common | {"id": row_id, "event_id": str(row_id)})
            await connection.execute(inbox_wake.insert(), {"inbox_id": row_id, "wake_key": "key"})

    await database.write(unit)


async def claims_on(database: Database) -> tuple[Claims, dict[int, Claim]]:
    """Hold the claims of what lies there."""
    claims = Claims(database, CLOCK, worker="worker", times=LeaseTimes())
    async with database.read() as connection:
        rows = [claimed_row(row) for row in await connection.execute(select(*CLAIMED_COLUMNS))]
    deadline_ms = claims.deadline_ms()
    return claims, {row.id: claims.hold(row, deadline_ms=deadline_ms, fresh=False) for row in rows}


async def a_heartbeat(database: Database) -> None:
    claims, _ = await claims_on(database)
    await claims.extend()


async def a_wake(database: Database) -> None:
    await database.write(lambda connection: wake(connection, "key"))


async def a_return_of_what_was_astray(database: Database) -> None:
    claims = Claims(database, CLOCK, worker="worker", times=LeaseTimes())
    claims.look_for_astray(QUEUE)
    await claims.take(QUEUE, ordered=False, at_most=1)


async def some_endings(database: Database) -> None:
    _, claims = await claims_on(database)
    endings = [Ending(claims[row_id], Manner.RELEASED) for row_id in (SECOND, FIRST)]
    await database.write(lambda connection: Fence(database).let_in(connection, endings))


async def a_replay_of_all(database: Database) -> None:
    await replay(database, AS_THEY_LIE)


async def a_drop_of_all(database: Database) -> None:
    await drop(database, AS_THEY_LIE)


async def one_after_the_other(database: Database) -> None:
    async def unit(connection: Connection) -> None:
        for row_id in (FIRST, SECOND):
            await connection.execute(select(inbox.c.id).where(inbox.c.id == row_id).with_for_update())

    await database.write(unit)


async def waiting(database: Database, number: int) -> bool:
    """Tell whether so many wait for a lock."""
    stuck = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    async with database.read() as connection:
        found: int = (await connection.execute(stuck)).scalar_one()
    return found == number


@pytest.mark.parametrize(
    ("first", "second", "state"),
    [
        pytest.param(a_heartbeat, some_endings, State.WORKING, id="heartbeat"),
        pytest.param(a_wake, some_endings, State.WORKING, id="wake"),
        pytest.param(a_return_of_what_was_astray, some_endings, State.WORKING, id="astray"),
        pytest.param(a_replay_of_all, one_after_the_other, State.DEAD, id="replay"),
        pytest.param(a_drop_of_all, one_after_the_other, State.DEAD, id="drop"),
    ],
)
async def test_two_that_want_the_same_rows_never_wait_for_each_other(
    counted: Counted,
    first: Callable[[Database], Coroutine[None, None, None]],
    second: Callable[[Database], Coroutine[None, None, None]],
    state: State,
) -> None:
    await lay_down(counted, state)
    is_held, release = asyncio.Event(), asyncio.Event()

    async def hold(connection: Connection) -> None:
        await connection.execute(select(inbox.c.id).where(inbox.c.id == HELD).with_for_update())
        is_held.set()
        await release.wait()

    counted.runs = 0
    async with asyncio.TaskGroup() as group:
        group.create_task(counted.write(hold))
        await is_held.wait()
        group.create_task(first(counted))
        await eventually(lambda: waiting(counted, 1))
        group.create_task(second(counted))
        await eventually(lambda: waiting(counted, 2))
        release.set()

    assert counted.runs == 3  # of the holder and of both
