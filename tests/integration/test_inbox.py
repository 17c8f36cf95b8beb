"""The inbox on SQLite and on PostgreSQL: what came is done once, or lies where people look."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest
from sqlalchemy import select, update

from shared.bus.message import Delivery
from shared.database.engine import Connection, Database, OutcomeUnknown
from shared.database.notifying import READY_WORK
from shared.database.opening import open_database
from shared.database.purging import SLICE_ROWS
from shared.database.tables import State, inbox, tick
from shared.events.clip import ClipFailed, ClipNotAvailable, ClipRequested
from shared.events.envelope import wrap
from shared.events.source import SourceAvailable
from shared.inbox.claims import Claim, Claims, LeaseTimes, Stop, release_all_claims
from shared.inbox.dead_letters import list_dead, replay, show_dead
from shared.inbox.finish import Finisher
from shared.inbox.listing import WorkFilter, cancel_work, list_work, purge
from shared.inbox.outcome import Dead, Done, Later, LeaseLost, Outcome, Work, WorldMoved
from shared.inbox.pool import LOOK_AHEAD_ROWS
from shared.inbox.retry import RetryPolicy
from shared.inbox.router import Route
from shared.inbox.wake import wake
from shared.kernel.checkpoint import Step, pass_by
from shared.kernel.errors import Conflict, Corrupt, NotFound, Transient, Unavailable
from shared.outbox.writing import append
from tests.integration.workshop import (
    CLOCK,
    QUICK,
    Observer,
    Weather,
    all_work,
    asked,
    eventually,
    message,
    open_bus,
    raw,
    recorded,
    router_of,
    told,
    working,
)

QUICK_RETRY = RetryPolicy(attempts=3, first_delay_ms=1, longest_delay_ms=2)


def answer(data: ClipRequested) -> ClipNotAvailable:
    return ClipNotAvailable(
        clip_id=data.clip_id,
        camera_id=data.camera_id,
        start_timestamp_in_ms=data.start_timestamp_in_ms,
        end_timestamp_in_ms=data.end_timestamp_in_ms,
        missing=(),
    )


def note(task: str) -> Callable[[Connection], Awaitable[None]]:
    """Return a write that can be made only once: its key is unique."""

    async def write(connection: Connection) -> None:
        await connection.execute(tick.insert().values(task=task, due_ms=1))

    return write


async def noted(database: Database) -> list[str]:
    async with database.read() as connection:
        return list((await connection.execute(select(tick.c.task).order_by(tick.c.task))).scalars())


@dataclass(slots=True)
class Answering:
    """A handler that answers each request and writes a row."""

    calls: list[str] = field(default_factory=list)

    async def __call__(self, data: ClipRequested, *, work: Work) -> Done:
        self.calls.append(data.clip_id)
        return Done(answer(data), writes=(note(data.clip_id),))


@dataclass(slots=True)
class Failing:
    """A handler that raises what it is given, one after the other, and then answers."""

    errors: list[Exception]
    attempts: list[int] = field(default_factory=list)

    async def __call__(self, data: ClipRequested, *, work: Work) -> Done:
        self.attempts.append(work.attempt)
        if self.errors:
            raise self.errors.pop(0)
        return Done(answer(data))


def clips(handler: Callable[..., Awaitable[Outcome]], **options: object) -> Route:
    return Route(ClipRequested, handler, **({"retry": QUICK_RETRY} | options))  # type: ignore[arg-type]  # a test's shorthand


def claims_of(database: Database, name: str = "worker", *, length_ms: int = 30_000) -> Claims:
    return Claims(database, CLOCK, worker=name, times=LeaseTimes(length_ms=length_ms))


def finisher_of(database: Database) -> Finisher:
    return Finisher(database, CLOCK, append=append, source="/spool/clipper", checkpoint=pass_by)


async def test_what_came_is_done_and_told_in_one_transaction(database: Database) -> None:
    handler, observer = Answering(), Observer()
    router = router_of(clips(handler))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.COMMITTED)
    (row,) = await all_work(database)
    (event,) = await told(database)

    assert (row.state, row.attempt, row.outcome) == (State.DONE, 1, "clip_not_available")
    assert (event.type, event.subject) == ("clip_not_available", "a")
    assert json.loads(event.body)["source"] == "/spool/clipper"
    assert await noted(database) == ["a"]
    assert list(observer.seen) == [
        Step.RECEIVED,
        Step.PARSED,
        Step.ACCEPTED,
        Step.ACKNOWLEDGED,
        Step.HANDLED,
        Step.COMMITTED,
    ]


async def test_a_command_among_the_results_has_to_be_heard(database: Database) -> None:
    async def passes_on(data: ClipRequested, *, work: Work) -> Done:
        return Done(asked("another"), answer(data))

    observer = Observer()
    router = router_of(clips(passes_on))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.COMMITTED)

    assert {event.type: event.mandatory for event in await told(database)} == {
        "clip_requested": True,
        "clip_not_available": False,
    }


async def test_a_done_row_keeps_no_body(database: Database) -> None:
    observer = Observer()
    router = router_of(clips(Answering()))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.COMMITTED)
    async with database.read() as connection:
        body = (await connection.execute(select(inbox.c.body))).scalar_one()

    assert body is None


async def test_a_redelivery_is_recognised(database: Database) -> None:
    handler, observer = Answering(), Observer()
    router = router_of(clips(handler))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a")), message(asked("a"))])
        await bus.publish([message(asked("a"))])
        await bus.publish([message(asked("b"))])
        await observer.reached(Step.COMMITTED, 2)

    assert sorted(handler.calls) == ["a", "b"]
    assert len(await all_work(database)) == 2


async def test_of_two_with_one_name_the_first_is_worked_in_every_attempt(database: Database) -> None:
    seen: list[str] = []

    async def handle(data: ClipRequested, *, work: Work) -> Done:
        seen.append(data.clip_id)
        if work.attempt == 1:
            raise WorldMoved
        return Done()

    router, observer = router_of(clips(handle)), Observer()
    async with open_bus(router) as bus:
        await bus.publish([message(asked(name), event_id="same") for name in ("first", "second")])
        async with working(router, database, bus, observer=observer):
            await observer.reached(Step.COMMITTED, 2)

    assert seen == ["first", "first"]


@pytest.mark.parametrize(
    ("body", "field_name"),
    [
        pytest.param(b"not json", "body", id="no-json"),
        pytest.param(b"\xff\xfe\x00", "body", id="no-text"),
        pytest.param(b'{"clipId": "a", "cameraId": "gate"}', "startTimestampInMs", id="field-missing"),
        pytest.param(
            b'{"specversion":"1.0","id":"x","source":"/s","type":"clip_requested","data":{"clipId":"../a"}}',
            "data.clipId",
            id="envelope-with-bad-data",
        ),
    ],
)
async def test_what_cannot_be_read_is_kept_with_the_field_and_its_bytes(
    database: Database, body: bytes, field_name: str
) -> None:
    handler, observer = Answering(), Observer()
    router = router_of(clips(handler))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([raw(body, message_id="m1"), message(asked("good"))])
        await bus.publish([raw(body, message_id="m1")])
        await bus.publish([message(asked("after"))])
        await observer.reached(Step.COMMITTED, 2)
    async with database.read() as connection:
        (letter,) = await list_dead(database, connection)
        _, kept, _ = await show_dead(connection, letter.id)

    assert field_name in (letter.reason or "")
    assert kept == body
    assert sorted(handler.calls) == ["after", "good"]


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
async def test_a_row_that_cannot_be_stored_never_holds_its_neighbours(database: Database) -> None:
    handler, observer = Answering(), Observer()
    router = router_of(clips(handler, hands=8))
    # Within the envelope's limits in characters, beyond those of a PostgreSQL index in bytes.
    letters = random.Random(1)
    name = "".join(chr(letters.randint(0x20000, 0x2A000)) for _ in range(768))
    event = wrap(asked("bad"), id=name[:256], source=name[256:], time_ms=CLOCK.now_ms())
    bad = raw(event.to_bytes(), message_id="short")
    async with open_bus(router) as bus:
        await bus.publish([message(asked("before")), bad, message(asked("behind"))])
        async with working(router, database, bus, observer=observer):
            await observer.reached(Step.COMMITTED, 2)
    async with database.read() as connection:
        (letter,) = await list_dead(database, connection)
        _, kept, _ = await show_dead(connection, letter.id)

    assert sorted(handler.calls) == ["before", "behind"]
    assert "cannot be stored" in (letter.reason or "")
    assert kept == bad.body


async def test_a_batch_is_accepted_in_one_transaction(database: Database) -> None:
    weather, observer = Weather(database), Observer()
    writes: Counter[Step] = Counter()

    async def count(_urgent: bool) -> None:
        last = list(observer.seen)[-1] if observer.seen else Step.RECEIVED
        writes[last] += 1

    weather.before = count
    router = router_of(clips(Answering(), hands=8))
    async with open_bus(router) as bus:
        await bus.publish([*(message(asked(f"{n}")) for n in range(7)), raw(b"bad", message_id="bad")])
        async with working(router, weather, bus, observer=observer):
            await observer.reached(Step.COMMITTED, 7)

    assert observer.seen[Step.ACCEPTED] == 1
    assert writes[Step.PARSED] == 1


async def test_nothing_is_acknowledged_while_the_database_is_down(database: Database) -> None:
    handler, observer, weather = Answering(), Observer(), Weather(database)
    rains = True
    tried = asyncio.Event()

    async def storm(_urgent: bool) -> None:
        if rains and observer.seen[Step.RECEIVED]:  # it had been there for long enough to receive
            tried.set()
            raise Unavailable

    weather.before = storm
    router = router_of(clips(handler))
    async with open_bus(router) as bus:
        await bus.publish([message(asked("a"))])
        async with working(router, weather, bus, observer=observer):
            await tried.wait()
            acknowledged_in_the_rain = observer.seen[Step.ACKNOWLEDGED]
            rains = False
            await observer.reached(Step.COMMITTED)

    assert acknowledged_in_the_rain == 0
    assert handler.calls == ["a"]


async def test_deliveries_in_hand_go_back_when_the_drain_comes_first(database: Database) -> None:
    weather, observer = Weather(database), Observer()

    async def storm(_urgent: bool) -> None:
        if observer.seen[Step.RECEIVED]:
            raise Unavailable

    weather.before = storm
    router = router_of(clips(Answering()))
    returned: list[str | None] = []
    async with open_bus(router) as bus:
        give_back = bus.give_back

        async def giving_back(deliveries: Sequence[Delivery]) -> None:
            returned.extend(delivery.message_id for delivery in deliveries)
            await give_back(deliveries)

        bus.give_back = giving_back  # type: ignore[method-assign]  # to see what the worker asks of it
        async with working(router, weather, bus, observer=observer):
            await bus.publish([message(asked("a"))])
            await observer.reached(Step.PARSED)

    assert returned == ["id-of-a"]
    assert await all_work(database) == []


@pytest.mark.parametrize(
    ("errors", "attempts", "state"),
    [
        pytest.param([Transient("away")], [1, 2], State.DONE, id="transient-once"),
        pytest.param([Transient("away")] * 3, [1, 2, 3], State.DEAD, id="transient-for-ever"),
        pytest.param([Corrupt("broken")], [1], State.DEAD, id="permanent"),
        pytest.param([KeyError("bug")], [1, 2], State.DONE, id="bug-once"),
        pytest.param([KeyError("bug")] * 3, [1, 2, 3], State.DEAD, id="bug-for-ever"),
        pytest.param([WorldMoved()] * 2, [1, 2, 3], State.DONE, id="the-world-moved-twice"),
        pytest.param([asyncio.CancelledError()], [1, 2], State.DONE, id="cancelled-from-within"),
        pytest.param([TimeoutError()], [1, 2], State.DONE, id="a-timeout-of-its-own"),
    ],
)
async def test_an_exception_decides_what_becomes_of_the_work(
    database: Database, errors: list[Exception], attempts: list[int], state: State
) -> None:
    handler, observer = Failing(list(errors)), Observer()
    router = router_of(clips(handler))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.COMMITTED, len(attempts))
    (row,) = await all_work(database)

    assert handler.attempts == attempts
    assert row.state is state


async def test_a_bug_leaves_its_reason_and_the_digest_of_its_place(database: Database) -> None:
    observer = Observer()
    router = router_of(clips(Failing([KeyError("bug")] * 3)))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.COMMITTED, 3)
    (row,) = await all_work(database)

    assert "KeyError: 'bug'" in (row.reason or "")
    assert len(row.traceback_digest or "") == 16


async def test_a_reason_that_no_text_column_holds_is_made_storable(database: Database) -> None:
    observer = Observer()
    router = router_of(clips(Failing([Corrupt("NUL \0 and \ud800" + "x" * 10_000)])))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.COMMITTED)
    (row,) = await all_work(database)

    assert (row.reason or "").startswith("NUL \N{REPLACEMENT CHARACTER} and ?xxx")
    assert len(row.reason or "") == 2_000


async def test_a_dead_outcome_is_a_dead_letter(database: Database) -> None:
    async def refuse(data: ClipRequested, *, work: Work) -> Dead:
        return Dead("never")

    observer = Observer()
    router = router_of(clips(refuse))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.COMMITTED)
    (row,) = await all_work(database)

    assert (row.state, row.reason) == (State.DEAD, "never")


async def say_failed(data: ClipRequested, *, reason: str) -> Done:
    failed = ClipFailed(
        clip_id=data.clip_id,
        camera_id=data.camera_id,
        start_timestamp_in_ms=data.start_timestamp_in_ms,
        end_timestamp_in_ms=data.end_timestamp_in_ms,
        reason=reason,
        fault="spool",
        next="replay",
    )
    return Done(failed, writes=(note(f"gave up {data.clip_id}"),))


async def test_who_asked_hears_that_it_was_given_up(database: Database) -> None:
    observer = Observer()
    router = router_of(clips(Failing([Corrupt("broken")]), given_up=say_failed))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.COMMITTED)
    (row,) = await all_work(database)
    (event,) = await told(database)

    assert row.state is State.DEAD
    assert (event.type, json.loads(event.body)["data"]["reason"]) == ("clip_failed", "broken")
    assert await noted(database) == ["gave up a"]


async def test_failures_run_out_by_their_age_however_many_are_left(database: Database) -> None:
    observer = Observer()
    retry = RetryPolicy(attempts=10_000, first_delay_ms=10, longest_delay_ms=10, failing_ms=300)
    router = router_of(clips(Failing([Transient("not yet")] * 10_000), retry=retry))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a"))])

        async def given_up() -> bool:
            return [row.state for row in await all_work(database)] == [State.DEAD]

        await eventually(given_up)
    (row,) = await all_work(database)

    assert 1 < row.attempt < 100
    assert "300 ms are allowed" in (row.reason or "")


async def test_a_farewell_that_fails_is_tried_again_but_not_for_ever(database: Database) -> None:
    farewells = 0

    async def stumble(data: ClipRequested, *, reason: str) -> Done:
        nonlocal farewells
        farewells += 1
        raise LookupError("farewell")

    observer = Observer()
    retry = RetryPolicy(attempts=1, first_delay_ms=1, longest_delay_ms=1)
    router = router_of(clips(Failing([Corrupt("broken")] * 9), given_up=stumble, retry=retry))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.COMMITTED, 6)
    (row,) = await all_work(database)

    assert row.state is State.DEAD
    assert 6 <= farewells <= 12


async def test_a_write_that_finds_the_world_moved_undoes_all_and_the_work_is_done_again(
    database: Database,
) -> None:
    runs = 0

    async def moved(connection: Connection) -> None:
        raise WorldMoved

    async def handler(data: ClipRequested, *, work: Work) -> Done:
        nonlocal runs
        runs += 1
        return Done(answer(data), writes=(note(f"run {runs}"), *((moved,) if runs == 1 else ())))

    observer = Observer()
    patient = RetryPolicy(first_delay_ms=3_600_000, longest_delay_ms=3_600_000)  # of what really failed
    router = router_of(clips(handler, retry=patient))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.COMMITTED, 2)

    assert await noted(database) == ["run 2"]
    assert len(await told(database)) == 1


async def test_a_handler_that_takes_too_long_is_stopped_and_tried_again(database: Database) -> None:
    stopped = 0

    async def slow_once(data: ClipRequested, *, work: Work) -> Done:
        nonlocal stopped
        if work.attempt == 1:
            try:
                await asyncio.Event().wait()
            finally:
                stopped += 1
        return Done(answer(data))

    observer = Observer()
    router = router_of(clips(slow_once, time_limit_s=0.05))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.COMMITTED, 2)
    (row,) = await all_work(database)

    assert (row.state, row.attempt, stopped) == (State.DONE, 2, 1)


# --- Claims -------------------------------------------------------------------------------------------


async def accept_only(database: Database, route: Route, *messages_of: ClipRequested | SourceAvailable) -> str:
    """Bring events in as ready rows that nobody works. Return the consumer."""
    router = router_of(route)
    rows = [
        {
            "consumer": router.subscriptions[0].queue,
            "source": "/test",
            "event_id": f"{number}",
            "type": data.type,
            "subject": data.subject,
            "body": message(data).body,
            "ordered": route.ordered,
            "state": int(State.READY),
            "received_ms": CLOCK.now_ms(),
        }
        for number, data in enumerate(messages_of)
    ]

    async def unit(connection: Connection) -> None:
        await connection.execute(inbox.insert(), rows)

    await database.write(unit)
    return router.subscriptions[0].queue


async def expired(database: Database) -> None:
    """Let every lease be over, as if its worker had died."""

    async def unit(connection: Connection) -> None:
        await connection.execute(update(inbox).values(lease_until_ms=1).where(inbox.c.state == State.WORKING))

    await database.write(unit)


async def test_a_stale_token_commits_nothing(database: Database) -> None:
    queue = await accept_only(database, clips(Answering()), asked("a"))
    (stale,) = await claims_of(database, "first").take(queue, ordered=False, at_most=1)
    await expired(database)
    (fresh,) = await claims_of(database, "second").take(queue, ordered=False, at_most=1)
    finisher = finisher_of(database)
    done = Done(answer(asked("a")), writes=(note("written"),))

    for attempt in (
        finisher.done(stale, done, trace=None),
        finisher.dead(stale, reason="no", farewell=done),
        finisher.later(stale, Later(1, "no", ("key",))),
        finisher.again(stale, delay_ms=0, reason="no"),
        finisher.release(stale),
        stale.still_ours(),
        stale.wake_on("key"),
    ):
        with pytest.raises(LeaseLost):
            await attempt
    assert (await noted(database), await told(database)) == ([], [])
    await fresh.still_ours()
    await finisher.done(fresh, done, trace=None)
    assert await noted(database) == ["written"]


async def test_two_claimers_never_get_the_same_row(database: Database) -> None:
    queue = await accept_only(database, clips(Answering()), *(asked(f"{n}") for n in range(60)))
    taken: list[int] = []

    async def claimer(name: str) -> None:
        claims = claims_of(database, name)
        while got := await claims.take(queue, ordered=False, at_most=3):
            taken.extend(claim.row.id for claim in got)

    await asyncio.gather(*(claimer(f"{n}") for n in range(4)))

    assert len(taken) == len(set(taken)) == 60


async def test_only_heads_are_claimed_however_many_claim(database: Database) -> None:
    # Blocks of one subject: with subjects in turn every wrong rule passes.
    subjects = [f"camera-{block}" for block in range(6) for _ in range(12)]
    route = Route(SourceAvailable, Answering(), ordered=True)
    queue = await accept_only(
        database, route, *(recorded(f"{n}", camera_id=subject) for n, subject in enumerate(subjects))
    )
    finisher = finisher_of(database)
    busy: Counter[str] = Counter()
    order: dict[str, list[int]] = defaultdict(list)
    overlaps: list[str] = []

    async def do(claim: Claim) -> None:
        subject = claim.row.subject
        busy[subject] += 1
        if busy[subject] > 1:
            overlaps.append(subject)
        order[subject].append(claim.row.id)
        await asyncio.sleep(random.uniform(0, 0.003))
        busy[subject] -= 1
        await finisher.done(claim, Done(), trace=None)

    async def claimer(name: str) -> None:
        claims = claims_of(database, name)
        while sum(map(len, order.values())) < len(subjects):
            async with asyncio.TaskGroup() as group:
                for claim in await claims.take(queue, ordered=True, at_most=4):
                    group.create_task(do(claim))

    await asyncio.gather(*(claimer(f"{n}") for n in range(3)))

    assert overlaps == []
    assert all(ids == sorted(ids) and len(ids) == 12 for ids in order.values())


async def test_work_that_waits_lets_its_subject_go_on_and_failed_work_does_not(database: Database) -> None:
    route = Route(SourceAvailable, Answering(), ordered=True)
    queue = await accept_only(database, route, recorded("first"), recorded("second"), recorded("third"))
    claims, finisher = claims_of(database), finisher_of(database)
    (first,) = await claims.take(queue, ordered=True, at_most=8)
    await finisher.later(first, Later(CLOCK.now_ms() + 60_000, "not there yet", ("key",)))
    (second,) = await claims.take(queue, ordered=True, at_most=8)
    await finisher.again(second, delay_ms=60_000, reason="failed")
    blocked = await claims.take(queue, ordered=True, at_most=8)

    assert second.row.id > first.row.id
    assert blocked == []


async def test_a_woken_row_never_joins_one_that_works_in_its_lane(database: Database) -> None:
    route = Route(SourceAvailable, Answering(), ordered=True)
    queue = await accept_only(database, route, recorded("first"), recorded("second"))
    claims, finisher = claims_of(database), finisher_of(database)
    (first,) = await claims.take(queue, ordered=True, at_most=8)
    await finisher.later(first, Later(CLOCK.now_ms() + 60_000, "not there yet", ("key",)))
    (second,) = await claims.take(queue, ordered=True, at_most=8)
    await database.write(lambda connection: wake(connection, "key"))
    beside = await claims.take(queue, ordered=True, at_most=8)
    # Its worker dies: the abandoned row is its lane's head, though an older one is ready by now.
    await expired(database)
    others = claims_of(database, "others")
    (again,) = await others.take(queue, ordered=True, at_most=8)
    await finisher.done(again, Done(), trace=None)
    (last,) = await others.take(queue, ordered=True, at_most=8)

    assert beside == []
    assert again.row.id == second.row.id
    assert last.row.id == first.row.id


async def test_an_ordered_subscription_works_each_subject_in_order(database: Database) -> None:
    order: dict[str, list[str]] = defaultdict(list)

    async def handler(data: SourceAvailable, *, work: Work) -> Done:
        await asyncio.sleep(random.uniform(0, 0.005))
        order[data.camera_id].append(data.key)
        return Done()

    observer = Observer()
    router = router_of(Route(SourceAvailable, handler, ordered=True, hands=4))
    keys = [f"{n:02}" for n in range(10)]
    ids = random.Random(2).sample(keys, len(keys))  # what events are called says nothing of their order
    async with open_bus(router) as bus:
        for camera in ("gate", "door", "yard"):
            named = [(f"{camera}-{key}", f"{camera} {name}") for key, name in zip(keys, ids, strict=True)]
            await bus.publish(
                [message(recorded(key, camera_id=camera), event_id=name) for key, name in named]
            )
        async with working(router, database, bus, observer=observer):
            await observer.reached(Step.COMMITTED, 30)

    assert order == {camera: [f"{camera}-{key}" for key in keys] for camera in ("gate", "door", "yard")}


async def test_an_ordered_subscription_looks_only_so_far_ahead(database: Database) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def stuck(data: SourceAvailable, *, work: Work) -> Done:
        started.set()
        await go_on.wait()
        return Done()

    observer = Observer()
    router = router_of(Route(SourceAvailable, stuck, ordered=True, hands=32))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        for batch in range(0, LOOK_AHEAD_ROWS + 64, 32):
            await bus.publish([message(recorded(f"{batch + n}")) for n in range(32)])
        await started.wait()

        async def looked_ahead() -> bool:
            return len(await all_work(database)) >= LOOK_AHEAD_ROWS

        await eventually(looked_ahead)
        await asyncio.sleep(0.1)  # time in which it would take more
        ahead = len(await all_work(database))
        go_on.set()

    assert ahead <= LOOK_AHEAD_ROWS + 1


async def test_rows_that_wait_hold_up_no_other_subject(database: Database) -> None:
    worked = asyncio.Event()

    async def handler(data: SourceAvailable, *, work: Work) -> Outcome:
        if data.camera_id == "fresh":
            worked.set()
            return Done()
        return Later(CLOCK.now_ms() + 3_600_000, "not yet", ("key",))

    async def all_wait() -> bool:
        rows = await all_work(database)
        return len(rows) == LOOK_AHEAD_ROWS and all(row.waiting for row in rows)

    router = router_of(Route(SourceAvailable, handler, ordered=True, hands=32))
    async with open_bus(router) as bus, working(router, database, bus):
        for batch in range(0, LOOK_AHEAD_ROWS, 32):
            names = [f"{batch + n}" for n in range(32)]
            await bus.publish([message(recorded(name, camera_id=name)) for name in names])
        await eventually(all_wait)
        await bus.publish([message(recorded("a", camera_id="fresh"))])
        async with asyncio.timeout(20):
            await worked.wait()


async def test_a_crash_loop_runs_out_of_attempts(database: Database) -> None:
    handler, observer = Answering(), Observer()
    route = clips(handler, given_up=say_failed)
    queue = await accept_only(database, route, asked("a"))
    for _ in range(QUICK_RETRY.attempts):
        assert len(await claims_of(database, "dies").take(queue, ordered=False, at_most=1)) == 1
        await release_all_claims(database)  # what the next start finds
    router = router_of(route)
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await observer.reached(Step.COMMITTED)
    (row,) = await all_work(database)

    assert handler.calls == []
    assert row.state is State.DEAD
    assert [event.type for event in await told(database)] == ["clip_failed"]


async def test_a_late_heartbeat_succeeds_while_the_token_is_ours(database: Database) -> None:
    queue = await accept_only(database, clips(Answering()), asked("a"))
    claims = claims_of(database)
    (claim,) = await claims.take(queue, ordered=False, at_most=1)
    await expired(database)
    await claims.extend()
    nobody_elses = await claims_of(database, "second").take(queue, ordered=False, at_most=1)

    assert claim.stopped is None
    assert nobody_elses == []
    await claim.still_ours()


async def test_a_clock_that_is_set_forward_takes_no_claim_from_its_own_worker(database: Database) -> None:
    queue = await accept_only(database, clips(Answering()), asked("a"))
    claims = claims_of(database)
    (claim,) = await claims.take(queue, ordered=False, at_most=1)
    await expired(database)
    again = await claims.take(queue, ordered=False, at_most=1)
    claims.let_go(claim)
    after_its_end = await claims.take(queue, ordered=False, at_most=1)

    assert again == []
    assert [each.row.id for each in after_its_end] == [claim.row.id]


async def test_a_heartbeat_tells_of_a_lost_claim(database: Database) -> None:
    queue = await accept_only(database, clips(Answering()), asked("a"))
    claims = claims_of(database)
    (claim,) = await claims.take(queue, ordered=False, at_most=1)
    await expired(database)
    await claims_of(database, "second").take(queue, ordered=False, at_most=1)
    await claims.extend()

    assert claim.stopped is Stop.LEASE_LOST


async def test_work_stops_before_a_lease_that_cannot_be_extended_ends(database: Database) -> None:
    weather = Weather(database)
    lease_left_ms: list[int] = []

    async def no_heartbeat(urgent: bool) -> None:
        if urgent:
            raise Unavailable

    weather.before = no_heartbeat

    async def handler(data: ClipRequested, *, work: Work) -> Done:
        if lease_left_ms:
            return Done(answer(data))
        try:
            await asyncio.Event().wait()
        finally:
            async with database.read() as connection:
                until_ms = (await connection.execute(select(inbox.c.lease_until_ms))).scalar_one()
            lease_left_ms.append(until_ms - await database.now_ms())
        raise AssertionError("never comes here")

    observer = Observer()
    router = router_of(clips(handler))
    async with open_bus(router) as bus, working(router, weather, bus, observer=observer, times=QUICK):
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.COMMITTED, 2)
    (row,) = await all_work(database)

    assert lease_left_ms[0] > 0
    assert (row.state, row.attempt) == (State.DONE, 1)  # the attempt was given back


async def test_a_long_piece_of_work_keeps_its_claim(database: Database) -> None:
    go_on = asyncio.Event()
    begun = 0

    async def long(data: ClipRequested, *, work: Work) -> Done:
        nonlocal begun
        begun += 1
        await go_on.wait()
        return Done(answer(data))

    observer = Observer()
    router = router_of(clips(long))
    async with (
        open_bus(router) as bus,
        working(router, database, bus, observer=observer, times=LeaseTimes.of(3_000)),
    ):
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.ACKNOWLEDGED)
        async with database.read() as connection:
            first_ms = (await connection.execute(select(inbox.c.lease_until_ms))).scalar_one()

        async def first_lease_is_over() -> bool:
            return bool(await database.now_ms() > first_ms)

        await eventually(first_lease_is_over)
        others = await claims_of(database, "other").take("clipper.clip_requested", ordered=False, at_most=1)
        go_on.set()
        await observer.reached(Step.COMMITTED)
    (row,) = await all_work(database)

    assert others == []
    assert (row.state, row.attempt, begun) == (State.DONE, 1, 1)


async def test_whoever_holds_the_directory_releases_all_claims_at_once(database: Database) -> None:
    queue = await accept_only(database, clips(Answering()), asked("a"), asked("b"))
    await claims_of(database, "dead").take(queue, ordered=False, at_most=2)
    released = await release_all_claims(database)
    claims = await claims_of(database).take(queue, ordered=False, at_most=2)

    assert released == 2
    assert [claim.attempt for claim in claims] == [2, 2]


# --- Waiting ------------------------------------------------------------------------------------------


async def test_a_wake_between_look_and_sleep_is_not_missed(database: Database) -> None:
    runs = 0
    far_ms = CLOCK.now_ms() + 3_600_000

    async def handler(data: ClipRequested, *, work: Work) -> Done | Later:
        nonlocal runs
        runs += 1
        await work.wake_on("gate")
        if "source" in await noted(database):
            return Done(answer(data))
        # It arrives after we looked, and before we sleep.
        await database.write(note("source"))
        await database.write(lambda connection: wake(connection, "gate"))
        return Later(far_ms, "no source yet", ("gate",))

    observer = Observer()
    router = router_of(clips(handler))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.COMMITTED, 2)
    (row,) = await all_work(database)

    assert runs == 2
    assert (row.state, row.attempt) == (State.DONE, 1)  # waiting costs no attempts


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
async def test_registering_waits_for_what_is_just_being_brought(database: Database) -> None:
    queue = await accept_only(database, clips(Answering()), asked("a"))
    (claim,) = await claims_of(database).take(queue, ordered=False, at_most=1)
    woken, commit = asyncio.Event(), asyncio.Event()

    async def bring(connection: Connection) -> None:
        await note("source")(connection)
        await wake(connection, "gate")  # nobody has registered yet
        woken.set()
        await commit.wait()

    async def look() -> list[str]:
        await claim.wake_on("gate")
        return await noted(database)

    bringing = asyncio.create_task(database.write(bring))
    await woken.wait()
    looking = asyncio.create_task(look())
    await asyncio.wait({looking}, timeout=0.2)
    commit.set()
    await bringing

    assert await looking == ["source"]


async def test_sleeping_work_is_woken_by_its_key_and_by_no_other(database: Database) -> None:
    queue = await accept_only(database, clips(Answering()), asked("a"))
    claims, finisher = claims_of(database), finisher_of(database)
    (claim,) = await claims.take(queue, ordered=False, at_most=1)
    await claim.wake_on("gate", "door")
    await finisher.later(claim, Later(CLOCK.now_ms() + 3_600_000, "not yet", ("gate",)))
    await database.write(lambda connection: wake(connection, "yard"))
    asleep = await claims.take(queue, ordered=False, at_most=1)
    await database.write(lambda connection: wake(connection, "door"))
    awake = await claims.take(queue, ordered=False, at_most=1)

    assert asleep == []
    assert [each.row.id for each in awake] == [claim.row.id]


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
@pytest.mark.parametrize("by", ["wake", "release", "replay", "cancellation"])
async def test_what_another_process_makes_ready_is_heard_of(database_url: str, by: str) -> None:
    ours = await open_database(database_url, clock=CLOCK, connections=4)
    others = await open_database(database_url, clock=CLOCK, connections=4)
    heard = asyncio.Event()
    queue = await accept_only(others, clips(Answering()), asked("a"))
    claims, finisher = claims_of(others), finisher_of(others)
    (claim,) = await claims.take(queue, ordered=False, at_most=1)
    listening = asyncio.create_task(ours.listen(READY_WORK, heard.set))
    await heard.wait()  # it listens from now on
    heard.clear()
    if by == "wake":
        await finisher.later(claim, Later(CLOCK.now_ms() + 3_600_000, "not yet", ("key",)))
        await others.write(lambda connection: wake(connection, "key"))
    elif by == "release":
        await finisher.release(claim)
    elif by == "cancellation":
        await finisher.later(claim, Later(CLOCK.now_ms() + 3_600_000, "not yet"))
        await cancel_work(others, claim.row.id)
    else:
        await finisher.dead(claim, reason="never", farewell=Done())
        await replay(others, [claim.row.id])
    await heard.wait()
    listening.cancel()
    await asyncio.wait({listening})
    await ours.close()
    await others.close()


async def test_a_wake_does_not_hurry_work_that_is_retried_after_a_failure(database: Database) -> None:
    queue = await accept_only(database, clips(Answering()), asked("a"))
    claims = claims_of(database)
    (claim,) = await claims.take(queue, ordered=False, at_most=1)
    await claim.wake_on("gate")
    await finisher_of(database).again(claim, delay_ms=60_000, reason="failed")
    await database.write(lambda connection: wake(connection, "gate"))

    assert await claims.take(queue, ordered=False, at_most=1) == []


async def test_later_comes_back_when_its_time_has_come(database: Database) -> None:
    async def handler(data: ClipRequested, *, work: Work) -> Done | Later:
        if not await noted(database):
            return Later(CLOCK.now_ms() + 50, "soon", writes=(note("slept"),))
        return Done(answer(data))

    observer = Observer()
    router = router_of(clips(handler))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.COMMITTED, 2)
    (row,) = await all_work(database)

    assert (row.state, row.attempt) == (State.DONE, 1)


async def test_a_wait_is_bounded_by_its_age(database: Database) -> None:
    async def never(data: ClipRequested, *, work: Work) -> Later:
        return Later(CLOCK.now_ms() + 1, "no source yet")

    observer = Observer()
    router = router_of(clips(never, retry=RetryPolicy(waiting_ms=100), given_up=say_failed))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a"))])

        async def given_up() -> bool:
            return bool(await told(database))

        await eventually(given_up)
    (row,) = await all_work(database)

    assert row.state is State.DEAD
    assert "no source yet" in (row.reason or "")


# --- The last transaction -----------------------------------------------------------------------------


@pytest.mark.parametrize("came_through", [True, False])
async def test_a_commit_with_unknown_outcome_is_looked_up(database: Database, came_through: bool) -> None:
    handler, weather, observer = Answering(), Weather(database), Observer()
    lost = 0

    async def lose_once(urgent: bool) -> None:
        nonlocal lost
        if handler.calls and not urgent and not lost:
            lost += 1
            raise OutcomeUnknown

    if came_through:
        weather.after = lose_once
    else:
        weather.before = lose_once
    router = router_of(clips(handler))
    async with open_bus(router) as bus, working(router, weather, bus, observer=observer, poll_s=60):
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.COMMITTED)
    (row,) = await all_work(database)

    assert lost == 1
    assert observer.seen[Step.COMMITTED] == 1
    assert (handler.calls, await noted(database)) == (["a"], ["a"])
    assert (row.state, len(await told(database))) == (State.DONE, 1)


async def test_a_lost_commit_is_no_success_where_somebody_has_taken_over(
    database: Database,
) -> None:
    queue = await accept_only(database, clips(Answering()), asked("a"))
    (ours,) = await claims_of(database, "first").take(queue, ordered=False, at_most=1)
    weather, others = Weather(database), claims_of(database, "second")
    taken: list[Claim] = []

    async def lose_and_be_too_late(_urgent: bool) -> None:
        if not taken:
            await expired(database)
            taken.extend(await others.take(queue, ordered=False, at_most=1))
            raise OutcomeUnknown

    weather.before = lose_and_be_too_late
    with pytest.raises(LeaseLost):
        await finisher_of(weather).done(ours, Done(answer(asked("a"))), trace=None)

    assert await told(database) == []
    await taken[0].still_ours()


@pytest.mark.parametrize("came_through", [True, False])
@pytest.mark.parametrize("by", ["a delivery", "a claim"])
async def test_a_claim_whose_commit_had_an_unknown_outcome_waits_for_no_lease(
    database: Database, by: str, came_through: bool
) -> None:
    handler, weather, observer = Answering(), Weather(database), Observer()
    lost = 0

    async def lose_once(urgent: bool) -> None:
        nonlocal lost
        in_accept = observer.seen[Step.PARSED] > 0
        if not urgent and not lost and in_accept == (by == "a delivery"):
            lost += 1
            raise OutcomeUnknown

    if came_through:
        weather.after = lose_once
    else:
        weather.before = lose_once
    route = clips(handler)
    router = router_of(route)
    if by == "a claim":
        await accept_only(database, route, asked("a"))
    async with open_bus(router) as bus, asyncio.timeout(15):  # half a lease
        if by == "a delivery":
            await bus.publish([message(asked("a"))])
        async with working(router, weather, bus, observer=observer):
            await observer.reached(Step.COMMITTED)
    (row,) = await all_work(database)

    assert lost == 1
    assert (handler.calls, row.state, row.attempt) == (["a"], State.DONE, 1)


async def test_a_result_waits_for_a_database_that_is_away(database: Database) -> None:
    handler, weather, observer = Answering(), Weather(database), Observer()
    refused = 0

    async def storm(urgent: bool) -> None:
        nonlocal refused
        if handler.calls and refused < 3:
            refused += 1
            raise Unavailable

    weather.before = storm
    router = router_of(clips(handler))
    async with open_bus(router) as bus, working(router, weather, bus, observer=observer, poll_s=60):
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.COMMITTED)

    assert handler.calls == ["a"]
    assert await noted(database) == ["a"]


async def test_pieces_that_finish_together_fail_alone(database: Database) -> None:
    observer = Observer()

    async def handler(data: ClipRequested, *, work: Work) -> Done:
        # The unique key of the note is taken for every second one.
        return Done(answer(data), writes=(note("taken" if int(data.clip_id) % 2 else data.clip_id),))

    await database.write(note("taken"))
    router = router_of(clips(handler, hands=8, retry=RetryPolicy(attempts=1)))
    async with open_bus(router) as bus:
        await bus.publish([message(asked(f"{n}")) for n in range(8)])
        async with working(router, database, bus, observer=observer):
            await observer.reached(Step.COMMITTED, 8)
    rows = await all_work(database)

    assert Counter(row.state for row in rows) == {State.DONE: 4, State.DEAD: 4}
    assert sorted(event.subject for event in await told(database)) == ["0", "2", "4", "6"]


# --- Drain, cancel, replay, purge ---------------------------------------------------------------------


async def test_a_drain_lets_go_of_what_the_broker_sent_ahead_before_it_waits_for_hands(
    database: Database,
) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def busy(data: ClipRequested, *, work: Work) -> Done:
        started.set()
        await go_on.wait()
        return Done(answer(data))

    router = router_of(clips(busy))
    async with open_bus(router) as bus, working(router, database, bus) as worker:
        await bus.publish([message(asked("a"))])
        await started.wait()
        async with asyncio.TaskGroup() as group:
            draining = group.create_task(worker.drain(60))
            await asyncio.sleep(0.1)
            consuming, is_over = bus.health().consuming, draining.done()
            go_on.set()

    assert (consuming, is_over) == (False, False)


async def test_draining_waits_for_what_is_being_done(database: Database) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def handler(data: ClipRequested, *, work: Work) -> Done:
        started.set()
        await go_on.wait()
        return Done(answer(data))

    router = router_of(clips(handler))
    async with open_bus(router) as bus, working(router, database, bus):
        await bus.publish([message(asked("a"))])
        await started.wait()
        asyncio.get_running_loop().call_later(0.1, go_on.set)
    (row,) = await all_work(database)

    assert row.state is State.DONE


async def test_what_does_not_end_within_the_grace_is_given_back(database: Database) -> None:
    started = asyncio.Event()
    cleaned_up = False

    async def handler(data: ClipRequested, *, work: Work) -> Done:
        nonlocal cleaned_up
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up = True
        raise AssertionError("never comes here")

    router = router_of(clips(handler))
    async with open_bus(router) as bus, working(router, database, bus, grace_s=0.05):
        await bus.publish([message(asked("a"))])
        await started.wait()
    (row,) = await all_work(database)

    assert cleaned_up
    assert (row.state, row.attempt, row.lease_until_ms) == (State.READY, 0, None)


async def test_a_person_can_cancel_work_that_runs(database: Database) -> None:
    started = asyncio.Event()

    async def handler(data: ClipRequested, *, work: Work) -> Done:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError("never comes here")

    observer = Observer()
    router = router_of(clips(handler, given_up=say_failed))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer, times=QUICK):
        await bus.publish([message(asked("a"))])
        await started.wait()
        (row,) = await all_work(database)
        await cancel_work(database, row.id)
        await observer.reached(Step.COMMITTED)
    (row,) = await all_work(database)

    assert (row.state, row.outcome) == (State.DEAD, "cancelled")
    assert len(await told(database)) == 1


async def test_a_person_can_cancel_work_that_waits(database: Database) -> None:
    handler, observer = Answering(), Observer()
    route = clips(handler)
    queue = await accept_only(database, route, asked("a"))
    (claim,) = await claims_of(database).take(queue, ordered=False, at_most=1)
    await finisher_of(database).later(claim, Later(CLOCK.now_ms() + 3_600_000, "not yet"))
    await cancel_work(database, claim.row.id)
    router = router_of(route)
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await observer.reached(Step.COMMITTED)
    (row,) = await all_work(database)

    assert (row.state, row.outcome, handler.calls) == (State.DEAD, "cancelled", [])
    with pytest.raises(Conflict):
        await cancel_work(database, row.id)


async def test_a_replayed_dead_letter_keeps_its_id_and_starts_anew(database: Database) -> None:
    handler, observer = Failing([Corrupt("broken")]), Observer()
    router = router_of(clips(handler))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer) as worker:
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.COMMITTED)
        (dead,) = await all_work(database)
        problems = await replay(database, [dead.id])
        worker.wake()
        await observer.reached(Step.COMMITTED, 2)
    (done,) = await all_work(database)

    assert handler.attempts == [1, 1]
    assert (done.id, done.event_id, done.state) == (dead.id, dead.event_id, State.DONE)
    assert problems == {}
    again = await replay(database, [done.id, 10**6])
    assert [type(problem) for problem in again.values()] == [Conflict, NotFound]


async def test_work_is_listed_by_what_it_is_and_where_it_stands(database: Database) -> None:
    queue = await accept_only(database, clips(Answering()), *(asked(f"{n}") for n in range(5)))
    claims = await claims_of(database).take(queue, ordered=False, at_most=2)
    await finisher_of(database).done(claims[0], Done(), trace=None)

    async def ids(wanted: WorkFilter, at_most: int = 50) -> list[str]:
        async with database.read() as connection:
            return [row.event_id for row in await list_work(connection, wanted, at_most=at_most)]

    newest = await ids(WorkFilter(), at_most=2)
    async with database.read() as connection:
        last = (await list_work(connection, WorkFilter(), at_most=2))[-1].id

    assert newest == ["4", "3"]
    assert await ids(WorkFilter(before_id=last), at_most=2) == ["2", "1"]
    assert await ids(WorkFilter(state=State.DONE)) == ["0"]
    assert await ids(WorkFilter(state=State.WORKING, consumer=queue)) == ["1"]
    assert await ids(WorkFilter(type="clip_requested", subject="3")) == ["3"]
    assert await ids(WorkFilter(consumer="another")) == []


async def test_what_was_done_long_ago_is_purged_and_nothing_else(database: Database) -> None:
    queue = await accept_only(database, clips(Answering()), *(asked(f"{n}") for n in range(4)))
    claims = await claims_of(database).take(queue, ordered=False, at_most=3)
    finisher = finisher_of(database)
    await claims[0].wake_on("key")
    await finisher.done(claims[0], Done(), trace=None)
    await finisher.dead(claims[1], reason="never", farewell=Done())
    early = await purge(database, await database.now_ms() - 60_000)
    dropped = await purge(database, await database.now_ms() + 1)

    assert (early, dropped) == (0, 1)
    assert [row.event_id for row in await all_work(database)] == ["1", "2", "3"]


async def test_old_rows_are_dropped_slice_by_slice(database: Database) -> None:
    slices: list[bool] = []
    weather = Weather(database)

    async def count(urgent: bool) -> None:
        slices.append(urgent)

    async def done(connection: Connection) -> None:
        await connection.execute(update(inbox).values(state=int(State.DONE), done_ms=1))

    await accept_only(database, clips(Answering()), *(asked(f"{n}") for n in range(SLICE_ROWS * 2 + 1)))
    await database.write(done)
    weather.before = count
    dropped = await purge(weather, await database.now_ms())

    assert (dropped, len(slices)) == (SLICE_ROWS * 2 + 1, 3)
