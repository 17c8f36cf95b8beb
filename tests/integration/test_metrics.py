"""What the metrics say of endings and failures, which a healthy Spool seldom shows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import update

from shared.bus.message import Message
from shared.bus.port import Capabilities, TooLarge, Unroutable
from shared.database.engine import Connection, Database
from shared.database.tables import State, inbox
from shared.events.clip import ClipRequested
from shared.events.envelope import announce
from shared.inbox.outcome import Dead, Done, Later, Outcome, Work
from shared.inbox.pool import _ready_rows
from shared.inbox.retry import RetryPolicy
from shared.inbox.router import Route
from shared.kernel.errors import Refused, SpoolError, Unavailable
from shared.outbox.relay import Relay
from shared.outbox.writing import Outbox, append
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

SUBSCRIPTION = "clipper.clip_requested"
Handler = Callable[..., Awaitable[Outcome]]


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


async def done(_event: ClipRequested, *, work: Work) -> Outcome:
    return Done()


async def not_yet(_event: ClipRequested, *, work: Work) -> Outcome:
    return Later(CLOCK.now_ms() + 60_000, reason="not yet")


async def hopeless(_event: ClipRequested, *, work: Work) -> Outcome:
    return Dead("hopeless")


async def refused(_event: ClipRequested, *, work: Work) -> Outcome:
    raise Refused("never")


async def away(_event: ClipRequested, *, work: Work) -> Outcome:
    raise Unavailable("not now")


@pytest.mark.parametrize(
    ("handler", "status", "raised"),
    [
        pytest.param(done, "done", None, id="done"),
        pytest.param(not_yet, "later", None, id="later"),
        pytest.param(hopeless, "dead", None, id="dead"),
        pytest.param(refused, "dead", "Refused", id="refused"),
        pytest.param(away, "retried", "Unavailable", id="retried"),
    ],
)
async def test_every_ending_is_counted_by_its_name(
    handler: Handler, status: str, raised: str | None, database: Database
) -> None:
    router = router_of(Route(ClipRequested, handler, retry=RetryPolicy(first_delay_ms=60_000)))
    ended = {"subscription": SUBSCRIPTION, "status": status}
    failed = {"subscription": SUBSCRIPTION, "exception_type": raised or "none"}
    before = value("spool_received_processed_messages_total", **ended)
    failures = value("spool_received_processed_messages_exceptions_total", **failed)

    async with open_bus(router) as bus, working(router, database, bus):
        await bus.publish([message(asked("one"))])

        async def counted() -> bool:
            return value("spool_received_processed_messages_total", **ended) == before + 1

        await eventually(counted)

    grown = value("spool_received_processed_messages_exceptions_total", **failed) - failures
    assert grown == (1 if raised else 0)
    assert value("spool_received_messages_in_process", subscription=SUBSCRIPTION) == 0


async def test_a_claim_that_was_lost_is_counted(database: Database) -> None:
    async def overtaken(_event: ClipRequested, *, work: Work) -> Outcome:
        row_id, token = work.owner

        async def unit(connection: Connection) -> None:
            await connection.execute(update(inbox).where(inbox.c.id == row_id).values(token=token + 1))

        await database.write(unit)
        return Done()

    router = router_of(Route(ClipRequested, overtaken))
    before = value("spool_inbox_leases_lost_total", subscription=SUBSCRIPTION)
    async with open_bus(router) as bus, working(router, database, bus):
        await bus.publish([message(asked("one"))])

        async def counted() -> bool:
            return value("spool_inbox_leases_lost_total", subscription=SUBSCRIPTION) == before + 1

        await eventually(counted)
    lost = value("spool_received_processed_messages_total", subscription=SUBSCRIPTION, status="lost")
    assert lost >= 1


async def test_what_is_held_and_what_is_being_done_show_while_it_is_so(database: Database) -> None:
    release = asyncio.Event()

    async def slow(_event: ClipRequested, *, work: Work) -> Outcome:
        await release.wait()
        return Done()

    router = router_of(Route(ClipRequested, slow, hands=2))
    async with open_bus(router) as bus, working(router, database, bus):
        await bus.publish([message(asked(str(number))) for number in range(3)])

        async def both_busy() -> bool:
            return value("spool_received_messages_in_process", subscription=SUBSCRIPTION) == 2

        await eventually(both_busy)
        untouched = await bus.receive(router.subscription(router.routes[0]), at_most=1, wait_s=5)
        held = bus.health().held
        await bus.give_back(untouched)
        given_back = bus.health().held
        release.set()

    assert value("spool_hands", subscription=SUBSCRIPTION) == 2
    assert (held, given_back) == (1, 0)


async def test_ready_rows_are_counted_with_the_age_of_the_oldest_also_what_a_dead_worker_left(
    database: Database,
) -> None:
    router = router_of(Route(ClipRequested, not_yet, hands=1))
    async with open_bus(router) as bus:
        async with working(router, database, bus):
            await bus.publish([message(asked(name)) for name in ("ready", "abandoned", "waits")])

            async def all_wait() -> bool:
                rows = await all_work(database)
                return len(rows) == 3 and all(row.state is State.READY for row in rows)

            await eventually(all_wait)
        now_ms = await database.now_ms()
        states: dict[str, dict[str, int | None]] = {
            "ready": {"not_before_ms": now_ms - 40_000},
            "abandoned": {
                "state": int(State.WORKING),
                "not_before_ms": None,
                "lease_until_ms": now_ms - 90_000,
            },
        }

        async def unit(connection: Connection) -> None:
            for name, values in states.items():
                row = inbox.c.event_id == f"id-of-{name}"
                await connection.execute(update(inbox).where(row).values(**values))

        await database.write(unit)
    counted = _ready_rows(SUBSCRIPTION, database.now_sql())
    async with database.read() as connection:
        number, oldest_ms, now_ms = (await connection.execute(counted)).one()

    assert number == 2
    assert 90_000 <= now_ms - (oldest_ms or 0) < 100_000


class Refusing:
    """A transport that fails in one way."""

    capabilities = Capabilities(
        system="refusing",
        max_body_bytes=1_000_000,
        max_batch=50,
        survives_restart=False,
        shared_between_processes=False,
    )

    def __init__(self, error: SpoolError) -> None:
        self._error = error

    async def publish(self, messages: Sequence[Message]) -> None:
        raise self._error

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(f"a relay does not need {name}")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param(Unroutable("nobody"), "unroutable", id="unroutable"),
        pytest.param(TooLarge("too large"), "refused", id="refused"),
        pytest.param(Unavailable("away"), "error", id="away"),
    ],
)
async def test_what_could_not_be_published_is_counted_by_what_was_wrong(
    error: SpoolError, status: str, database: Database
) -> None:
    tried = {"broker": "refusing", "type": ClipRequested.type, "status": status}
    raised = {"broker": "refusing", "exception_type": type(error).__name__}
    before = value("spool_published_messages_total", **tried)
    failures = value("spool_published_messages_exceptions_total", **raised)
    await database.write(Outbox(CLOCK, source="/test", written=lambda: None).command(asked("one")))
    with suppress(Unavailable):
        await Relay(bus=Refusing(error), database=database, clock=CLOCK, name="relay").flush()

    assert value("spool_published_messages_total", **tried) - before == 1
    assert value("spool_published_messages_exceptions_total", **raised) - failures >= 1


async def test_what_the_relay_could_not_tell_yet_is_its_lag(database: Database) -> None:
    told_at = CLOCK.now_ms() - 30_000
    waiting = announce(asked("one"), source="/test", time_ms=told_at)
    await database.write(lambda connection: append(connection, [(waiting, False)], told_at))
    bus = Refusing(Unavailable("away"))
    running = asyncio.create_task(Relay(bus=bus, database=database, clock=CLOCK, name="relay").run())

    async def seen() -> bool:
        return value("spool_outbox_unsent") == 1

    await eventually(seen)
    running.cancel()
    await asyncio.wait((running,))

    assert value("spool_outbox_lag_seconds") == pytest.approx(30, abs=5)
