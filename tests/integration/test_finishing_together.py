"""Pieces of work that end at the same moment share one transaction, and none pays for its neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

import pytest
from sqlalchemy import select

from shared.bus.message import Numbered
from shared.database.engine import Connection, Database, OutcomeUnknown, Unit
from shared.database.tables import State, inbox_wake
from shared.inbox.claims import Claim
from shared.inbox.finish import TOGETHER, Committed, Finisher, tell_nobody
from shared.inbox.outcome import Done, Later, LeaseLost, WorldMoved, Write
from shared.kernel.checkpoint import pass_by
from shared.kernel.errors import Refused, Unavailable
from shared.outbox.writing import append
from tests.integration.test_inbox import (
    Answering,
    accept_only,
    answer,
    claims_of,
    clips,
    expired,
    note,
    noted,
)
from tests.integration.workshop import CLOCK, Weather, all_work, asked, told

T = TypeVar("T")


class Counting(Weather):
    """Counts transactions, also those that are undone."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.transactions = 0

    async def write(self, unit: Unit[T], *, urgent: bool = False) -> T:
        self.transactions += 1
        return await super().write(unit, urgent=urgent)


def finisher_of(
    database: Database, *, together: int = TOGETHER, committed: Committed = tell_nobody
) -> Finisher:
    return Finisher(
        database,
        CLOCK,
        append=append,
        source="/spool/clipper",
        checkpoint=pass_by,
        committed=committed,
        together=together,
    )


async def claimed(database: Database, *clip_ids: str) -> list[Claim]:
    queue = await accept_only(database, clips(Answering()), *map(asked, clip_ids))
    return await claims_of(database).take(queue, ordered=False, at_most=len(clip_ids))


def done(clip_id: str, *writes: Write) -> Done:
    return Done(answer(asked(clip_id)), writes=writes)


async def finish(
    finisher: Finisher, claims: Sequence[Claim], outcomes: Sequence[Done]
) -> list[BaseException | None]:
    return await asyncio.gather(
        *(finisher.done(claim, outcome, trace=None) for claim, outcome in zip(claims, outcomes, strict=True)),
        return_exceptions=True,
    )


async def states(database: Database) -> list[State]:
    return [row.state for row in await all_work(database)]


@pytest.mark.parametrize(("together", "transactions"), [(TOGETHER, 1), (3, 3), (1, 7)])
async def test_what_ends_at_the_same_moment_shares_a_transaction(
    database: Database, together: int, transactions: int
) -> None:
    names = [f"{n}" for n in range(7)]
    claims, counting = await claimed(database, *names), Counting(database)
    ended = await finish(
        finisher_of(counting, together=together), claims, [done(name, note(name)) for name in names]
    )

    assert ended == [None] * 7
    assert counting.transactions == transactions
    assert await noted(database) == names
    assert await states(database) == [State.DONE] * 7
    assert sorted(event.subject for event in await told(database)) == names


async def test_only_what_is_committed_is_handed_to_the_relay(database: Database) -> None:
    claims = await claimed(database, "a", "b", "c")
    handed: list[str] = []

    def committed(events: Sequence[Numbered]) -> None:
        handed.extend(each.subject for each in events)

    async def fail(_connection: Connection) -> None:
        raise Refused("not this one")

    finisher = finisher_of(database, committed=committed)
    outcomes = [done("a"), done("b", fail), done("c")]
    ended = await finish(finisher, claims, outcomes)

    # Together they failed; then each had a transaction of its own.
    assert [type(each) for each in ended] == [type(None), Refused, type(None)]
    assert sorted(handed) == ["a", "c"]  # in transactions of their own, in whichever order
    assert sorted(event.subject for event in await told(database)) == ["a", "c"]


async def test_whoever_comes_while_a_transaction_is_under_way_is_in_the_next(database: Database) -> None:
    claims, counting = await claimed(database, "a", "b", "c"), Counting(database)
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def hold(_urgent: bool) -> None:
        under_way.set()
        await go_on.wait()

    counting.before = hold
    finisher = finisher_of(counting)
    async with asyncio.TaskGroup() as group:
        group.create_task(finisher.done(claims[0], done("a"), trace=None))
        await under_way.wait()
        for claim, name in zip(claims[1:], "bc", strict=True):
            group.create_task(finisher.done(claim, done(name), trace=None))
        await asyncio.sleep(0)
        go_on.set()

    assert counting.transactions == 2
    assert await states(database) == [State.DONE] * 3


async def test_a_stale_token_among_others_fails_alone(database: Database) -> None:
    claims, counting = await claimed(database, "a", "b", "c"), Counting(database)
    await expired(database)
    queue = "clipper.clip_requested"
    (retaken,) = await claims_of(database, "second").take(queue, ordered=False, at_most=1)
    ended = await finish(
        finisher_of(counting), claims, [done(name, note(name)) for name in ("stale", "b", "c")]
    )

    assert [type(each) for each in ended] == [LeaseLost, type(None), type(None)]
    assert counting.transactions == 1
    assert await noted(database) == ["b", "c"]
    assert sorted(event.subject for event in await told(database)) == ["b", "c"]
    await retaken.still_ours()


async def test_a_write_that_fails_never_fails_its_neighbours(database: Database) -> None:
    claims = await claimed(database, "a", "b", "c", "d")

    async def moved(_connection: Connection) -> None:
        raise WorldMoved

    await database.write(note("taken"))
    ended = await finish(
        finisher_of(database),
        claims,
        [done("a", note("a")), done("b", note("b"), moved), done("c", note("taken")), done("d", note("d"))],
    )

    assert [error is None for error in ended] == [True, False, False, True]
    assert isinstance(ended[1], WorldMoved)
    assert await noted(database) == ["a", "d", "taken"]
    assert await states(database) == [State.DONE, State.WORKING, State.WORKING, State.DONE]
    assert sorted(event.subject for event in await told(database)) == ["a", "d"]


@pytest.mark.parametrize("came_through", [True, False])
async def test_after_a_shared_commit_with_unknown_outcome_each_is_looked_up(
    database: Database, came_through: bool
) -> None:
    claims, counting = await claimed(database, "a", "b", "c"), Counting(database)

    async def lose_once(_urgent: bool) -> None:
        if counting.transactions == 1:
            raise OutcomeUnknown

    if came_through:
        counting.after = lose_once
    else:
        counting.before = lose_once
    ended = await finish(finisher_of(counting), claims, [done(name, note(name)) for name in "abc"])

    assert ended == [None] * 3
    assert await noted(database) == ["a", "b", "c"]
    assert len(await told(database)) == 3


async def test_what_waits_for_a_database_that_is_away_ends_when_it_is_back(database: Database) -> None:
    claims, counting = await claimed(database, "a", "b", "c"), Counting(database)

    async def storm(_urgent: bool) -> None:
        if counting.transactions == 1:
            raise Unavailable

    counting.before = storm
    ended = await finish(finisher_of(counting), claims, [done(name, note(name)) for name in "abc"])

    assert ended == [None] * 3
    assert await noted(database) == ["a", "b", "c"]


async def test_a_shared_transaction_that_has_to_run_again_is_taken_apart(database: Database) -> None:
    claims, counting = await claimed(database, "a", "b", "c"), Counting(database)
    write = counting.write

    async def as_after_a_deadlock(unit: Unit[T], *, urgent: bool = False) -> T:
        async def again(connection: Connection) -> T:
            await unit(connection)
            return await unit(connection)

        return await write(again if counting.transactions == 0 else unit, urgent=urgent)

    counting.write = as_after_a_deadlock  # type: ignore[method-assign]  # what the server asks for now and then
    ended = await finish(finisher_of(counting), claims, [done(name, note(name)) for name in "abc"])

    assert ended == [None] * 3
    assert counting.transactions == 4
    assert await noted(database) == ["a", "b", "c"]


async def test_writes_come_to_their_rows_by_subject(database: Database) -> None:
    order: list[str] = []

    def seen(name: str) -> Write:
        async def write(_connection: Connection) -> None:
            order.append(name)

        return write

    names = ["c", "a", "b"]
    claims = await claimed(database, *names)
    await finish(finisher_of(database), claims, [done(name, seen(name)) for name in names])

    assert order == ["a", "b", "c"]


async def test_ways_to_end_do_not_mix(database: Database) -> None:
    claims, counting = await claimed(database, *"abcdefgh"), Counting(database)
    finisher = finisher_of(counting)
    later = Later(CLOCK.now_ms() + 3_600_000, "not yet", ("key",))
    await asyncio.gather(
        *(finisher.done(claim, Done(), trace=None) for claim in claims[:2]),
        *(finisher.dead(claim, reason="never", farewell=Done()) for claim in claims[2:4]),
        *(finisher.later(claim, later) for claim in claims[4:6]),
        finisher.again(claims[6], delay_ms=60_000, reason="failed"),
        finisher.release(claims[7]),
    )
    rows = await all_work(database)

    assert counting.transactions == 5
    assert [row.state for row in rows] == [State.DONE] * 2 + [State.DEAD] * 2 + [State.READY] * 4
    assert [row.attempt for row in rows] == [1, 1, 1, 1, 0, 0, 1, 0]
    assert [row.reason for row in rows] == [None] * 2 + ["never"] * 2 + ["not yet"] * 2 + ["failed", None]


async def test_what_is_over_forgets_its_wake_keys(database: Database) -> None:
    claims = await claimed(database, "a", "b", "c")
    finisher = finisher_of(database)
    for claim in claims:
        await claim.wake_on("gate")
    await asyncio.gather(
        finisher.done(claims[0], Done(), trace=None),
        finisher.dead(claims[1], reason="never", farewell=Done()),
        finisher.again(claims[2], delay_ms=1, reason="failed"),
    )
    async with database.read() as connection:
        kept = list((await connection.execute(select(inbox_wake.c.inbox_id))).scalars())

    assert kept == [claims[2].row.id]


async def test_who_is_cancelled_takes_nobody_along(database: Database) -> None:
    claims, counting = await claimed(database, *"abcd"), Counting(database)
    under_way = asyncio.Event()

    async def hold_the_first(_urgent: bool) -> None:
        if counting.transactions == 1:
            under_way.set()
            await asyncio.Event().wait()

    counting.before = hold_the_first
    finisher = finisher_of(counting)
    ending = [
        asyncio.create_task(finisher.done(claim, Done(), trace=None)) for claim in claims[:2]
    ]  # one leads, one is with it
    await under_way.wait()
    ending += [asyncio.create_task(finisher.done(claim, Done(), trace=None)) for claim in claims[2:]]
    await asyncio.sleep(0)
    ending[0].cancel()  # it leads
    ending[2].cancel()  # it would lead next
    ended = await asyncio.gather(*ending, return_exceptions=True)

    assert [type(each) for each in ended] == [
        asyncio.CancelledError,
        type(None),
        asyncio.CancelledError,
        type(None),
    ]
    assert await states(database) == [State.WORKING, State.DONE, State.WORKING, State.DONE]


async def test_who_is_cancelled_when_called_to_lead_calls_the_next(database: Database) -> None:
    claims, counting = await claimed(database, *"abc"), Counting(database)
    finisher = finisher_of(counting)
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def hold_the_first(_urgent: bool) -> None:
        under_way.set()
        await go_on.wait()

    async def first() -> None:
        await finisher.done(claims[0], Done(), trace=None)
        second.cancel()  # it has been called, and does not know it yet

    counting.before = hold_the_first
    async with asyncio.TaskGroup() as group:
        group.create_task(first())
        await under_way.wait()
        second = group.create_task(finisher.done(claims[1], Done(), trace=None))
        group.create_task(finisher.done(claims[2], Done(), trace=None))
        await asyncio.sleep(0)
        go_on.set()

    assert await states(database) == [State.DONE, State.WORKING, State.DONE]
