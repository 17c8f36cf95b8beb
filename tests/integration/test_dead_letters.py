"""Dead letters of inbox, broker and outbox in one list: found, replayed under their ids, dropped for good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import insert, update

from shared.database.engine import Connection, Database
from shared.database.tables import State, inbox, outbox, outbox_subject
from shared.events.clip import ClipRequested
from shared.inbox.outcome import Dead, Done, Work
from shared.inbox.router import Route
from shared.inbox.row import GIVEN_UP_BY_BROKER
from shared.kernel.checkpoint import Step
from shared.kernel.errors import Conflict, NotFound, Refused
from shared.runtime.dead_letters import DeadLetters, LetterFilter, Place
from tests.integration.workshop import (
    CLOCK,
    Observer,
    all_work,
    asked,
    message,
    open_bus,
    raw,
    router_of,
    working,
)

HOUR_MS = 3_600_000


class Woken:
    """Counts who was woken."""

    relay = 0
    workers = 0

    def told(self) -> None:
        self.relay += 1

    def changed(self) -> None:
        self.workers += 1


def letters_of(database: Database, woken: Woken | None = None) -> DeadLetters:
    ears = woken or Woken()
    return DeadLetters(database, told=ears.told, changed=ears.changed)


async def lay(database: Database, **values: Any) -> None:
    """Put a dead letter into the inbox, dead for `age_ms`."""
    age_ms = values.pop("age_ms", 0)
    now_ms = await database.now_ms()
    row: dict[str, Any] = {
        "consumer": "clipper.clip_requested",
        "source": "/test",
        "type": "clip_requested",
        "subject": "a",
        "body": b"{}",
        "ordered": False,
        "state": int(State.DEAD),
        "outcome": "dead",
        "reason": "broken",
        "received_ms": now_ms - age_ms,
        "done_ms": now_ms - age_ms,
    }

    async def unit(connection: Connection) -> None:
        await connection.execute(insert(inbox).values(row | values))

    await database.write(unit)


async def refuse(database: Database, subject: str, *, sequence: int = 1, age_ms: int = 0) -> None:
    """Put an event into the outbox that no transport took."""
    created_ms = await database.now_ms() - age_ms
    row = {
        "subject": subject,
        "sequence": sequence,
        "event_id": f"{subject}-{sequence}",
        "source": "/spool/clipper",
        "type": "clip_available",
        "mandatory": False,
        "body": b'{"big": true}',
        "created_ms": created_ms,
        "refused": "larger than the transport can carry",
    }

    async def unit(connection: Connection) -> None:
        await connection.execute(insert(outbox).values(row))
        ends = {"subject": subject, "last_sequence": sequence, "sent_sequence": sequence}
        await connection.execute(insert(outbox_subject).values(ends))

    await database.write(unit)


async def ids(letters: DeadLetters, wanted: LetterFilter) -> list[str]:
    page, _ = await letters.page(wanted, at_most=50)
    return [f"{letter.origin} {letter.event_id}" for letter in page]


@pytest.fixture
async def full(database: Database) -> Database:
    """Return a database with a dead letter of each kind, the newest last."""
    await lay(database, event_id="1", consumer="merger.call_ended", type="call_ended", age_ms=5 * HOUR_MS)
    await refuse(database, "b", age_ms=4 * HOUR_MS)
    await lay(database, event_id="2", outcome=GIVEN_UP_BY_BROKER, reason="The Broker", age_ms=2 * HOUR_MS)
    await lay(database, event_id="3", reason="100% of the disk", subject="c")
    await lay(database, event_id="alive", state=int(State.READY), done_ms=None)
    return database


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        pytest.param(LetterFilter(), ["inbox 3", "broker 2", "outbox b-1", "inbox 1"], id="all"),
        pytest.param(LetterFilter(service="clipper"), ["inbox 3", "broker 2", "outbox b-1"], id="service"),
        pytest.param(LetterFilter(service="clip"), [], id="part-of-a-service"),
        pytest.param(LetterFilter(origin="inbox"), ["inbox 3", "inbox 1"], id="inbox"),
        pytest.param(LetterFilter(origin="broker"), ["broker 2"], id="broker"),
        pytest.param(LetterFilter(origin="outbox"), ["outbox b-1"], id="outbox"),
        pytest.param(LetterFilter(consumer="merger.call_ended"), ["inbox 1"], id="queue"),
        pytest.param(LetterFilter(type="clip_available"), ["outbox b-1"], id="type"),
        pytest.param(LetterFilter(subject="c"), ["inbox 3"], id="subject"),
        pytest.param(LetterFilter(reason="broker"), ["broker 2"], id="reason-in-any-case"),
        pytest.param(LetterFilter(reason="0%"), ["inbox 3"], id="reason-is-no-pattern"),
        pytest.param(LetterFilter(reason="_"), [], id="reason-has-no-wildcards"),
        pytest.param(LetterFilter(older_than_ms=3 * HOUR_MS), ["outbox b-1", "inbox 1"], id="older"),
        pytest.param(LetterFilter(newer_than_ms=3 * HOUR_MS), ["inbox 3", "broker 2"], id="newer"),
        pytest.param(
            LetterFilter(older_than_ms=HOUR_MS, newer_than_ms=3 * HOUR_MS), ["broker 2"], id="between"
        ),
        pytest.param(LetterFilter(service="merger", reason="broken"), ["inbox 1"], id="two-words"),
    ],
)
async def test_dead_letters_are_found_by_what_they_are(
    full: Database, wanted: LetterFilter, found: Sequence[str]
) -> None:
    assert await ids(letters_of(full), wanted) == found


async def test_pages_of_inbox_and_outbox_together_pass_over_nothing(full: Database) -> None:
    letters = letters_of(full)
    seen: list[str] = []
    place = Place()
    for _ in range(4):
        page, place = await letters.page(LetterFilter(), after=place, at_most=1)
        seen += [letter.event_id for letter in page]
    rest, _ = await letters.page(LetterFilter(), after=place, at_most=1)

    assert (seen, rest) == (["3", "2", "b-1", "1"], [])


async def test_a_letter_is_shown_with_its_bytes(full: Database) -> None:
    letters = letters_of(full)
    page, _ = await letters.page(LetterFilter(), at_most=50)
    shown = [(await letters.show(letter.id))[:2] for letter in page]

    assert [letter for letter, _ in shown] == page
    assert [body for _, body in shown] == [b"{}", b"{}", b'{"big": true}', b"{}"]
    assert [letter.size_bytes for letter, _ in shown] == [2, 2, 13, 2]
    for nothing in ("999999", "outbox-999999", "nonsense", "outbox-", "٣"):
        with pytest.raises(NotFound):
            await letters.show(nothing)


async def test_some_are_replayed_and_of_the_others_it_is_said_why_not(full: Database) -> None:
    woken = Woken()
    letters = letters_of(full, woken)
    page, _ = await letters.page(LetterFilter(), at_most=50)
    alive = next(row for row in await all_work(full) if row.event_id == "alive")
    handled = await letters.replay([page[0].id, page[2].id, str(alive.id), "777777", "outbox-777777"])

    assert handled.done == (page[0].id, page[2].id)
    problems = {letter_id: type(problem) for letter_id, problem in handled.problems.items()}
    assert problems == {str(alive.id): Conflict, "777777": NotFound, "outbox-777777": NotFound}
    assert (woken.relay, woken.workers) == (1, 1)
    assert await ids(letters, LetterFilter()) == ["broker 2", "inbox 1"]


async def test_too_many_at_once_are_refused_before_any_is_touched(full: Database) -> None:
    with pytest.raises(Refused):
        await letters_of(full).replay([str(number) for number in range(101)])


async def test_what_nobody_works_is_not_made_ready(database: Database) -> None:
    await lay(database, event_id="lost", consumer="clipper.dead", outcome=GIVEN_UP_BY_BROKER)
    letters = letters_of(database)
    (letter,), _ = await letters.page(LetterFilter(), at_most=50)
    handled = await letters.replay([letter.id])

    assert "nobody works what is in clipper.dead" in str(handled.problems[letter.id])
    assert (await all_work(database))[0].state is State.DEAD


async def test_a_dropped_letter_is_gone_and_its_event_is_recognised(database: Database) -> None:
    calls: list[str] = []

    async def refuse_all(data: ClipRequested, *, work: Work) -> Dead:  # every handler is given its work
        calls.append(data.clip_id)
        return Dead("never")

    observer = Observer()
    letters = letters_of(database)
    router = router_of(Route(ClipRequested, refuse_all))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.COMMITTED)
        (dead,), _ = await letters.page(LetterFilter(), at_most=50)
        handled = await letters.drop([dead.id])
        await bus.publish([message(asked("a"))])
        await observer.reached(Step.ACKNOWLEDGED, 2)
    (row,) = await all_work(database)

    assert handled.done == (dead.id,)
    assert (row.state, row.outcome, row.reason) == (State.DONE, "dropped", "never")
    assert calls == ["a"]
    assert await ids(letters, LetterFilter()) == []
    assert isinstance((await letters.replay([dead.id])).problems[dead.id], Conflict)


async def test_a_dropped_event_of_the_outbox_is_never_published(full: Database) -> None:
    letters = letters_of(full)
    (letter,), _ = await letters.page(LetterFilter(origin="outbox"), at_most=50)
    dropped = await letters.drop([letter.id])
    again = await letters.replay([letter.id])

    assert dropped.done == (letter.id,)
    assert isinstance(again.problems[letter.id], Conflict)
    assert await ids(letters, LetterFilter(origin="outbox")) == []


async def test_a_letter_names_the_handler_that_could_not_do_it(database: Database) -> None:
    observer = Observer()
    router = router_of(Route(ClipRequested, give_up))
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await bus.publish([message(asked("a")), raw(b"no event", message_id="unread")])
        await observer.reached(Step.COMMITTED)
    page, _ = await letters_of(database).page(LetterFilter(), at_most=50)
    handlers = {letter.event_id: letter.handler for letter in page}

    assert handlers["id-of-a"] == f"{__name__}.give_up"
    assert handlers["unread"] is None  # it came to no handler


async def give_up(data: ClipRequested, *, work: Work) -> Dead:  # every handler is given its work
    return Dead("never")


async def test_what_could_not_be_read_is_worked_after_an_upgrade(database: Database) -> None:
    """An older version met an event that it did not know, and kept its bytes."""
    seen: list[str] = []

    async def answer(data: ClipRequested, *, work: Work) -> Done:  # every handler is given its work
        seen.append(data.clip_id)
        return Done()

    event = message(asked("new"))
    await lay(
        database, event_id="m-1", source="transport", subject="", body=event.body, reason="type: is not known"
    )
    observer = Observer()
    router = router_of(Route(ClipRequested, answer))
    letters = letters_of(database)
    (letter,), _ = await letters.page(LetterFilter(), at_most=50)
    handled = await letters.replay([letter.id])
    async with open_bus(router) as bus, working(router, database, bus, observer=observer):
        await observer.reached(Step.COMMITTED)
    (row,) = await all_work(database)

    assert handled.done == (letter.id,)
    assert (seen, row.state) == (["new"], State.DONE)
    assert (str(row.id), row.event_id, row.subject) == (letter.id, "m-1", "new")


async def test_the_metrics_count_them_and_know_the_oldest(full: Database) -> None:
    letters = letters_of(full)
    await letters.count("clipper", CLOCK)

    def value(name: str, origin: str) -> float:
        return REGISTRY.get_sample_value(name, {"service": "clipper", "origin": origin}) or 0

    numbers = {origin: value("spool_dead_letters", origin) for origin in ("inbox", "broker", "outbox")}
    ages_h = {
        origin: round(value("spool_dead_letters_oldest_age_seconds", origin) / 3600)
        for origin in ("inbox", "broker", "outbox")
    }

    assert numbers == {"inbox": 1, "broker": 1, "outbox": 1}
    assert ages_h == {"inbox": 0, "broker": 2, "outbox": 4}


async def test_a_replayed_letter_has_all_its_attempts_before_it(database: Database) -> None:
    await lay(database, event_id="1", attempt=10, failing_since_ms=1, cancel_requested=True)
    letters = letters_of(database)
    (letter,), _ = await letters.page(LetterFilter(), at_most=50)
    await letters.replay([letter.id])
    (row,) = await all_work(database)

    assert (row.state, row.attempt, row.failing_since_ms) == (State.READY, 0, None)
    assert not row.cancel_requested
    assert row.replayed_ms is not None


async def test_the_age_of_what_died_long_ago_is_by_the_database(database: Database) -> None:
    await lay(database, event_id="1")

    async def unit(connection: Connection) -> None:
        await connection.execute(update(inbox).values(done_ms=inbox.c.done_ms - HOUR_MS))

    await database.write(unit)

    assert await ids(letters_of(database), LetterFilter(older_than_ms=HOUR_MS)) == ["inbox 1"]
    assert await ids(letters_of(database), LetterFilter(older_than_ms=2 * HOUR_MS)) == []
