"""Races of hands, lanes and ticks, on SQLite and on PostgreSQL; `docs/reliability/races.md` lists all."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from contextvars import ContextVar

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError

from shared.database.engine import Connection, Database
from shared.database.tables import State, inbox
from shared.events.clip import ClipRequested
from shared.events.source import SourceAvailable
from shared.inbox.outcome import Done, Work
from shared.inbox.router import Route
from shared.kernel.checkpoint import Step
from shared.runtime.scheduler import Tick, run_ticks
from tests.integration.workshop import (
    CLOCK,
    Observer,
    Weather,
    all_work,
    asked,
    message,
    open_bus,
    raw,
    recorded,
    router_of,
    working,
)


def row_of(data: ClipRequested | SourceAvailable, state: State, event_id: str) -> dict[str, object]:
    """Return an ordered row as another process would have written it."""
    return {
        "consumer": f"clipper.{data.type}",
        "source": "/test",
        "event_id": event_id,
        "type": data.type,
        "subject": data.subject,
        "body": message(data).body,
        "ordered": isinstance(data, SourceAvailable),
        "state": int(state),
        "received_ms": CLOCK.now_ms(),
    }


async def keep(database: Database, *rows: dict[str, object]) -> None:
    async def unit(connection: Connection) -> None:
        await connection.execute(insert(inbox), list(rows))

    await database.write(unit)


async def test_ready_rows_are_worked_before_anything_new_is_received(database: Database) -> None:
    order: list[str] = []

    async def handler(data: ClipRequested, *, work: Work) -> Done:
        order.append(data.clip_id)
        return Done()

    observer = Observer()
    router = router_of(Route(ClipRequested, handler, hands=1))
    await keep(database, row_of(asked("kept"), State.READY, "kept"))
    async with open_bus(router) as bus:
        await bus.publish([message(asked("new"))])
        async with working(router, database, bus, observer=observer):
            await observer.reached(Step.COMMITTED, 2)

    assert order == ["kept", "new"]


async def test_no_more_is_begun_than_there_are_hands(database: Database) -> None:
    begun: list[str] = []
    busy, go_on = asyncio.Event(), asyncio.Event()

    async def handler(data: ClipRequested, *, work: Work) -> Done:
        begun.append(data.clip_id)
        if len(begun) == 2:
            busy.set()
        await go_on.wait()
        return Done()

    observer = Observer()
    router = router_of(Route(ClipRequested, handler, hands=2))
    await keep(database, *(row_of(asked(f"kept-{n}"), State.READY, f"kept-{n}") for n in range(3)))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer) as worker:
        await bus.publish([message(asked(f"new-{n}")) for n in range(3)])
        await busy.wait()
        for _ in range(5):  # it is told to look around, and has time for it
            worker.wake()
            await asyncio.sleep(0.02)
        begun_at_once = list(begun)
        go_on.set()
        await observer.reached(Step.COMMITTED, 6)

    assert begun_at_once == ["kept-0", "kept-1"]


async def test_rows_are_inserted_in_the_order_of_their_keys(database: Database) -> None:
    # Two workers that are brought the same rows in different orders must not wait for each other.
    async def handler(data: SourceAvailable, *, work: Work) -> Done:
        return Done()

    names = [f"{number:02}" for number in range(16)]
    shuffled = random.Random(1).sample(names, len(names))
    observer = Observer()
    router = router_of(Route(SourceAvailable, handler, hands=32))
    async with open_bus(router) as bus:
        await bus.publish([message(recorded(name)) for name in shuffled])
        await bus.publish([raw(b"bad", "source_available", message_id=f"bad {name}") for name in shuffled])
        async with working(router, database, bus, observer=observer):
            await observer.reached(Step.ACKNOWLEDGED)
    rows = await all_work(database)

    assert observer.seen[Step.ACCEPTED] == 1
    assert [row.event_id for row in rows if row.state is not State.DEAD] == [
        f"id-of-{name}" for name in names
    ]
    assert [row.event_id for row in rows if row.state is State.DEAD] == [f"bad {name}" for name in names]


async def test_a_collision_that_is_no_redelivery_loses_no_event(database: Database) -> None:
    async def handler(data: ClipRequested, *, work: Work) -> Done:
        return Done()

    async def another_rule(connection: Connection) -> None:
        await connection.execute(text("CREATE UNIQUE INDEX one_of_a_subject ON inbox (consumer, subject)"))

    await database.write(another_rule)
    observer = Observer()
    router = router_of(Route(ClipRequested, handler))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a"), event_id="first"), message(asked("a"), event_id="second")])
        await observer.reached(Step.COMMITTED)
    done, dead = await all_work(database)

    assert (done.event_id, done.state) == ("first", State.DONE)
    assert (dead.state, "cannot be stored" in (dead.reason or "")) == (State.DEAD, True)


async def test_work_that_takes_an_hour_starves_no_other_subscription(database: Database) -> None:
    stuck, go_on = asyncio.Event(), asyncio.Event()

    async def an_hour(data: SourceAvailable, *, work: Work) -> Done:
        stuck.set()
        await go_on.wait()
        return Done()

    async def a_moment(data: ClipRequested, *, work: Work) -> Done:
        return Done()

    observer = Observer()
    router = router_of(Route(SourceAvailable, an_hour, hands=1), Route(ClipRequested, a_moment, hands=1))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(recorded("a")), message(recorded("b"))])
        await stuck.wait()
        await bus.publish([message(asked("urgent"))])
        await observer.reached(Step.COMMITTED)
        go_on.set()
        await observer.reached(Step.COMMITTED, 3)

    assert {row.state for row in await all_work(database)} == {State.DONE}


async def test_the_next_is_begun_while_the_last_is_being_committed_and_no_more_than_that(
    database: Database,
) -> None:
    begun: list[str] = []
    has_returned = ContextVar("has_returned", default=False)  # in a hand, and in the tasks that it makes
    go_on = asyncio.Event()

    async def handler(data: ClipRequested, *, work: Work) -> Done:
        begun.append(data.clip_id)
        has_returned.set(True)
        return Done()

    async def a_moment(data: SourceAvailable, *, work: Work) -> Done:
        return Done()

    async def hold_ends(_urgent: bool) -> None:
        if has_returned.get():
            await go_on.wait()

    observer, slow = Observer(), Weather(database)
    slow.before = hold_ends
    router = router_of(Route(ClipRequested, handler, hands=1), Route(SourceAvailable, a_moment))
    async with open_bus(router) as bus, working(router, slow, bus, observer=observer):
        await bus.publish([message(asked(name)) for name in "abc"])
        await observer.reached(Step.HANDLED, 2)
        await bus.publish([message(recorded("meanwhile"))])
        await observer.reached(Step.COMMITTED)
        begun_meanwhile = begun.copy()
        go_on.set()
        await observer.reached(Step.COMMITTED, 4)

    assert begun_meanwhile == ["a", "b"]
    assert begun == ["a", "b", "c"]


async def test_what_comes_while_its_subject_is_worked_is_kept_as_ready(database: Database) -> None:
    calls: Counter[str] = Counter()

    async def handler(data: SourceAvailable, *, work: Work) -> Done:
        calls[data.key] += 1
        return Done()

    observer = Observer()
    router = router_of(Route(SourceAvailable, handler, ordered=True))
    # Another process works the head of this subject, and will for a while.
    head = row_of(recorded("head"), State.WORKING, "head") | {"lease_until_ms": CLOCK.now_ms() + 3_600_000}
    await keep(database, head)
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(recorded("behind"))])
        await observer.reached(Step.ACKNOWLEDGED)
    rows = await all_work(database)

    assert calls == {}
    assert [(row.event_id, row.state) for row in rows] == [
        ("head", State.WORKING),
        ("id-of-behind", State.READY),
    ]


async def test_no_two_rows_of_a_subject_are_ever_worked_at_once(database: Database) -> None:
    await keep(database, row_of(recorded("first"), State.WORKING, "first"))

    with pytest.raises(IntegrityError):
        await keep(database, row_of(recorded("second"), State.WORKING, "second"))
    await keep(database, row_of(recorded("other", camera_id="door"), State.WORKING, "other"))


async def test_each_tick_has_one_runner_in_the_fleet(database: Database) -> None:
    runs: Counter[str] = Counter()

    async def fleet() -> None:
        async with asyncio.TaskGroup() as group:
            for name in ("first", "second", "third"):

                async def run(worker: str = name) -> None:
                    runs[worker] += 1

                group.create_task(run_ticks([Tick("sweep", 1, run)], database, worker=name))

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(3.5):
            await fleet()

    assert 2 <= runs.total() <= 5  # of three runners, in a time that four seconds begin in
