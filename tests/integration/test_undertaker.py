"""What the broker gave up is found among the dead letters, once, and can be replayed from there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from sqlalchemy import select

from shared.bus.local import LocalBus
from shared.bus.message import DEAD_LETTERS, FIRST_QUEUE, Message, Subscription
from shared.database.engine import Database
from shared.database.tables import inbox
from shared.events.clip import ClipRequested
from shared.events.envelope import CONTENT_TYPE, wrap
from shared.inbox.dead_letters import DeadWork, list_dead, show_dead
from shared.inbox.row import GIVEN_UP_BY_BROKER
from shared.inbox.undertaker import Undertaker
from shared.kernel.errors import Unavailable
from tests.integration.workshop import Weather

# On the local bus nothing dies by itself, so what a broker would do is published.
DEAD = Subscription(service="clipper", name=DEAD_LETTERS, types=("given_up",))
REQUEST = ClipRequested(
    clip_id="clip-1", camera_id="cam-1", start_timestamp_in_ms=0, end_timestamp_in_ms=1000
)
EVENT = wrap(REQUEST, id="event-1", source="a stranger", time_ms=0).to_bytes()


def given_up(body: bytes, *, queue: str = "clipper.clip_requested", message_id: str = "m-1") -> Message:
    headers = {FIRST_QUEUE: queue} if queue else {}
    return Message(message_id, "given_up", body, CONTENT_TYPE, mandatory=True, headers=headers)


@asynccontextmanager
async def undertaker_at_work(bus: LocalBus, database: Database) -> AsyncIterator[None]:
    await bus.declare([DEAD])
    working = asyncio.create_task(Undertaker(DEAD, bus=bus, database=database).run())
    yield
    working.cancel()
    await asyncio.wait([working])


async def dead_letters(database: Database, *, at_least: int) -> list[DeadWork]:
    async with asyncio.timeout(10):
        while True:
            async with database.read() as connection:
                found = await list_dead(database, connection)
            if len(found) >= at_least:
                return found
            await asyncio.sleep(0.02)


async def test_what_the_broker_gave_up_is_a_dead_letter_under_its_own_id(database: Database) -> None:
    bus = await LocalBus.open(None)
    async with undertaker_at_work(bus, database):
        await bus.publish([given_up(EVENT)])

        [letter] = await dead_letters(database, at_least=1)

    assert (letter.consumer, letter.source, letter.event_id) == (
        "clipper.clip_requested",
        "a stranger",
        "event-1",
    )
    assert (letter.outcome, letter.subject) == (GIVEN_UP_BY_BROKER, "clip-1")
    assert "broker" in (letter.reason or "")
    async with database.read() as connection:
        assert (await show_dead(connection, letter.id))[1] == EVENT
    await bus.close()


async def test_what_the_broker_gave_up_waits_for_a_database_that_is_away(database: Database) -> None:
    weather = Weather(database)
    tried = asyncio.Event()
    held_in_the_rain: list[int] = []
    bus = await LocalBus.open(None)

    async def storm(_urgent: bool) -> None:
        held_in_the_rain.append(bus.health().held)
        if not tried.is_set():
            tried.set()
            raise Unavailable

    weather.before = storm
    async with undertaker_at_work(bus, weather):
        await bus.publish([given_up(EVENT)])
        await tried.wait()
        await bus.stop_receiving()
    await bus.close()

    assert held_in_the_rain == [1]


async def test_what_the_broker_gave_up_keeps_its_trace(database: Database) -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    letter = given_up(EVENT)
    carried = {**letter.headers, "traceparent": traceparent, "tracestate": "vendor=1"}
    bus = await LocalBus.open(None)
    async with undertaker_at_work(bus, database):
        await bus.publish([replace(letter, headers=carried)])
        await dead_letters(database, at_least=1)
    async with database.read() as connection:
        kept = (await connection.execute(select(inbox.c.traceparent, inbox.c.tracestate))).one()

    assert tuple(kept) == (traceparent, "vendor=1")
    await bus.close()


async def test_one_that_comes_twice_is_one_dead_letter(database: Database) -> None:
    bus = await LocalBus.open(None)
    async with undertaker_at_work(bus, database):
        await bus.publish([given_up(EVENT), given_up(EVENT), given_up(b"what is this?", message_id="m-2")])

        letters = await dead_letters(database, at_least=2)

    assert sorted(letter.event_id for letter in letters) == ["event-1", "m-2"]
    await bus.close()


async def test_one_that_does_not_say_where_it_died_is_kept_all_the_same(database: Database) -> None:
    bus = await LocalBus.open(None)
    async with undertaker_at_work(bus, database):
        await bus.publish([given_up(b"\xff", queue="")])

        [letter] = await dead_letters(database, at_least=1)

    assert (letter.consumer, letter.event_id) == ("clipper.dead", "m-1")
    await bus.close()
