"""The outbox on SQLite and on PostgreSQL: what was committed is published, in order per subject."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from shared.bus.message import Message, Numbered
from shared.bus.port import Capabilities, TooLarge, Unroutable
from shared.database.engine import Connection, Database, OutcomeUnknown
from shared.database.tables import outbox, outbox_subject
from shared.events.envelope import Event, announce
from shared.kernel.checkpoint import Step
from shared.kernel.errors import Conflict, NotFound, Permanent, Refused, Unavailable
from shared.outbox.reading import last_id, purge, purge_subjects, read_after
from shared.outbox.refused import list_refused, send_again
from shared.outbox.relay import SUBSCRIBE, UNROUTABLE_ATTEMPTS, Relay
from shared.outbox.subjects import EVENTS_PER_SUBJECT, Subjects, release_all_subjects
from shared.outbox.unsent import Unsent
from shared.outbox.writing import Outbox, append
from tests.integration.workshop import CLOCK, Observer, Weather, asked, eventually, recorded, told


class Town:
    """A transport that remembers what it was given, and refuses what it is told to."""

    capabilities = Capabilities(
        system="town",
        max_body_bytes=1_000_000,
        max_batch=50,
        survives_restart=False,
        shared_between_processes=False,
    )

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.tried: Counter[str] = Counter()
        self.unroutable: set[str] = set()
        self.refused: dict[str, type[Permanent]] = {}
        self.away = False
        self.first: dict[str, int] = {}
        self.on_the_way: Counter[str] = Counter()
        self.crossings: list[str] = []
        self.delay_s = 0.0

    async def publish(self, messages: Sequence[Message]) -> None:
        if self.away:
            raise Unavailable("the town is away")
        bodies = [json.loads(message.body) for message in messages]
        for body in bodies:
            self.first.setdefault(body["subject"], int(body["sequence"]))
        subjects = [body["subject"] for body in bodies]
        self.on_the_way.update(subjects)
        self.crossings += [subject for subject in subjects if self.on_the_way[subject] > 1]
        self.tried.update(message.id for message in messages)
        await asyncio.sleep(self.delay_s)
        self.on_the_way.subtract(subjects)
        for message in messages:
            if message.id in self.unroutable:
                raise Unroutable(message.id)
            if message.id in self.refused:
                raise self.refused[message.id](message.id)
            self.heard.append(message)

    def sequences(self) -> dict[str, list[int]]:
        """Return what was heard of each subject, counted from the first tried, repetitions left out."""
        found: dict[str, list[int]] = defaultdict(list)
        for message in self.heard:
            body = json.loads(message.body)
            number = int(body["sequence"]) - self.first[body["subject"]] + 1
            if number not in found[body["subject"]]:
                found[body["subject"]].append(number)
        return found

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(f"a relay does not need {name}")


def event(subject: str, number: int = 0) -> Event:
    data = recorded(f"{subject}/{number}", camera_id=subject)
    return announce(data, source="/test", time_ms=CLOCK.now_ms()).model_copy(
        update={"id": f"{subject}-{number}"}
    )


async def write(database: Database, *events: Event, mandatory: bool = False) -> list[Numbered]:
    async def unit(connection: Connection) -> list[Numbered]:
        return await append(connection, [(each, mandatory) for each in events], CLOCK.now_ms())

    return await database.write(unit)


def relay_of(database: Database, town: Town, name: str = "relay", **options: Any) -> Relay:
    return Relay(bus=town, database=database, clock=CLOCK, name=name, **({"poll_s": 0.02} | options))


@asynccontextmanager
async def relaying(*relays: Relay) -> AsyncIterator[None]:
    running = [asyncio.create_task(relay.run()) for relay in relays]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)


async def unsent(database: Database) -> int:
    return sum(1 for row in await told(database) if row.sent_ms is None and row.refused is None)


async def all_sent(database: Database) -> None:
    async def none_left() -> bool:
        return await unsent(database) == 0

    await eventually(none_left)


async def subject_row(database: Database, subject: str) -> Any:
    async with database.read() as connection:
        one = select(outbox_subject).where(outbox_subject.c.subject == subject)
        return (await connection.execute(one)).one()


async def has_tried(database: Database, subject: str, *, times: int) -> None:
    """Let a relay have failed with the subject so often already."""

    async def unit(connection: Connection) -> None:
        tried = update(outbox_subject).where(outbox_subject.c.subject == subject)
        await connection.execute(tried.values(attempts=times))

    await database.write(unit)


async def test_each_subject_has_a_sequence_without_gaps_whoever_writes(database: Database) -> None:
    async def writer(number: int) -> None:
        # Both subjects in one transaction, named in different orders: they must not lock each other out.
        first, second = ("gate", "door") if number % 2 else ("door", "gate")
        await write(database, event(first, number), event(second, number))

    await asyncio.gather(*(writer(number) for number in range(20)))
    found: dict[str, list[int]] = defaultdict(list)
    for row in sorted(await told(database), key=lambda row: row.id):
        found[row.subject].append(row.sequence)

    assert sorted(found) == ["door", "gate"]
    for numbers in found.values():
        assert sorted(numbers) == list(range(min(numbers), min(numbers) + 20))


async def test_a_transaction_that_is_undone_leaves_no_gap(database: Database) -> None:
    async def undone(connection: Connection) -> None:
        await append(connection, [(event("gate", 1), False)], CLOCK.now_ms())
        raise LookupError

    await write(database, event("gate", 0))
    with pytest.raises(LookupError):
        await database.write(undone)
    await write(database, event("gate", 2))

    first, second = await told(database)

    assert [first.event_id, second.event_id] == ["gate-0", "gate-2"]
    assert second.sequence == first.sequence + 1


async def test_what_has_no_form_is_told_to_nobody_and_holds_nobody_up(database: Database) -> None:
    town = Town()

    def without_the_first(message: Message) -> Message | None:
        return None if message.id == "gate-0" else message

    relay = relay_of(database, town, form=without_the_first)
    await write(database, event("gate", 0))
    await relay.flush()
    await write(database, event("gate", 1), event("door", 0))
    await relay.flush()

    assert sorted(message.id for message in town.heard) == ["door-0", "gate-1"]
    assert all(row.sent_ms is not None for row in await told(database))


async def test_a_body_carries_its_sequence_as_text_that_sorts(database: Database) -> None:
    await write(database, event("gate", 0), event("gate", 1))
    first, second = [json.loads(row.body)["sequence"] for row in await told(database)]

    assert [len(first), len(second)] == [12, 12]
    assert int(second) == int(first) + 1


async def test_what_was_committed_is_published_and_marked(database: Database) -> None:
    town, observer = Town(), Observer()
    await write(database, *(event(subject, n) for n in range(20) for subject in ("gate", "door")))
    relay = relay_of(database, town, checkpoint=observer)
    async with relaying(relay):
        await all_sent(database)
    row = await subject_row(database, "gate")

    assert town.sequences() == {"gate": list(range(1, 21)), "door": list(range(1, 21))}
    assert town.crossings == []
    assert len(town.heard) == 40
    assert (row.sent_sequence, row.relay) == (row.last_sequence, None)
    assert list(observer.seen)[:2] == [Step.PUBLISHED, Step.MARKED]


async def test_a_wake_before_the_commit_is_not_too_early(database: Database) -> None:
    town, observer = Town(), Observer()
    relay = relay_of(database, town, checkpoint=observer, poll_s=60)

    async def unit(connection: Connection) -> None:
        await Outbox(CLOCK, source="/test", written=relay.wake).command(asked("a"))(connection)
        if database.dialect == "sqlite":
            time.sleep(0.05)  # noqa: ASYNC251 - in the writer's thread, where nothing else can be waited for
        else:
            await asyncio.sleep(0.05)

    async with relaying(relay):
        await asyncio.sleep(0)
        await database.write(unit)
        await observer.reached(Step.MARKED)

    assert [message.type for message in town.heard] == ["clip_requested"]
    assert town.heard[0].mandatory


async def test_two_relays_keep_the_order_of_each_subject(database: Database) -> None:
    town = Town()
    town.delay_s = 0.002
    subjects = [f"camera-{n}" for n in range(5)]
    relays = [relay_of(database, town, name) for name in ("first", "second")]
    async with relaying(*relays):
        for number in range(30):
            await write(database, *(event(subject, number) for subject in subjects))
        await all_sent(database)

    assert town.crossings == []
    assert town.sequences() == {subject: list(range(1, 31)) for subject in subjects}


async def test_two_relays_never_have_the_same_subject(database: Database) -> None:
    names = [f"camera-{n}" for n in range(40)]
    await write(database, *(event(name) for name in names))
    relays = [Subjects(database, relay=f"relay-{n}", lease_ms=60_000) for n in range(4)]
    claimed: list[Counter[str]] = []
    for _ in range(5):
        turns = await asyncio.gather(*(relay.claim() for relay in relays))
        claimed.append(Counter(turn.subject for each in turns for turn in each))
        await release_all_subjects(database)

    assert claimed == [Counter(names)] * 5


async def test_a_turn_ends_well_before_its_lease(database: Database) -> None:
    @dataclass
    class Moving:
        """A clock that this test moves."""

        at_ms: int = 0

        def now_ms(self) -> int:
            return CLOCK.now_ms()

        def monotonic_ms(self) -> int:
            return self.at_ms

    class SlowTown(Town):
        async def publish(self, messages: Sequence[Message]) -> None:
            clock.at_ms += 25_000
            await super().publish(messages)

    clock, town, observer = Moving(), SlowTown(), Observer()
    relay = Relay(
        bus=town, database=database, clock=clock, name="relay", lease_ms=30_000, checkpoint=observer
    )
    await write(database, *(event("gate", number) for number in range(3)))
    await relay.flush()

    assert town.sequences() == {"gate": [1, 2, 3]}
    assert observer.seen == {Step.PUBLISHED: 3, Step.MARKED: 3}  # a new claim for each


async def test_a_subject_that_another_relay_has_is_left_alone(database: Database) -> None:
    await write(database, event("gate"))
    first = Subjects(database, relay="first", lease_ms=60_000)
    second = Subjects(database, relay="second", lease_ms=60_000)
    (turn,) = await first.claim()
    nothing = await second.claim()
    await release_all_subjects(database)
    (taken_over,) = await second.claim()
    # The first one was slow: what it was confirmed is marked, but the subject is no longer its own.
    turn.sent.append(turn.waiting.pop(0))
    await first.conclude([turn], pause_ms=lambda _attempts: 0)
    row = await subject_row(database, "gate")

    assert nothing == []
    assert taken_over.subject == "gate"
    assert (row.relay, row.sent_sequence, await unsent(database)) == ("second", row.last_sequence, 0)


async def test_what_was_just_written_is_published_as_its_row_says(database: Database) -> None:
    unsent = Unsent()
    trace = {"traceparent": f"00-{1:032x}-{1:016x}-01", "tracestate": "vendor=1"}
    events = [event("gate", 1), event("gate", 2), event("yard").model_copy(update=trace)]
    unsent.keep(await write(database, *events, mandatory=True))
    known = await Subjects(database, relay="relay", lease_ms=60_000, unsent=unsent).claim()
    await release_all_subjects(database)
    read = await Subjects(database, relay="relay", lease_ms=60_000).claim()

    assert sorted(known, key=lambda turn: turn.subject) == sorted(read, key=lambda turn: turn.subject)
    assert sum(len(turn.waiting) for turn in known) == 3


async def test_what_another_relay_has_published_is_not_published_from_memory(database: Database) -> None:
    unsent = Unsent()
    unsent.keep(await write(database, event("gate", 1)))
    async with relaying(relay_of(database, Town())):
        await all_sent(database)
    await write(database, event("gate", 2))  # by another process
    (turn,) = await Subjects(database, relay="ours", lease_ms=60_000, unsent=unsent).claim()

    assert [each.message.id for each in turn.waiting] == ["gate-2"]


async def test_of_what_is_known_in_part_all_is_read(database: Database) -> None:
    unsent = Unsent()
    await write(database, event("gate", 1))  # by another process
    unsent.keep(await write(database, event("gate", 2)))
    (turn,) = await Subjects(database, relay="ours", lease_ms=60_000, unsent=unsent).claim()

    assert [each.message.id for each in turn.waiting] == ["gate-1", "gate-2"]


async def test_a_subject_that_nobody_holds_is_free_also_when_the_clock_was_set_back(
    database: Database,
) -> None:
    async def an_hour_ago(connection: Connection) -> None:
        later = outbox_subject.c.lease_until_ms + 3_600_000
        await connection.execute(update(outbox_subject).values(lease_until_ms=later))

    subjects = Subjects(database, relay="relay", lease_ms=60_000)
    await write(database, event("gate", 0))
    (turn,) = await subjects.claim()
    turn.sent.append(turn.waiting.pop(0))
    await subjects.conclude([turn], pause_ms=lambda _attempts: 0)
    await write(database, event("gate", 1))
    await database.write(an_hour_ago)
    (free,) = await subjects.claim()
    held = await Subjects(database, relay="another", lease_ms=60_000).claim()

    assert [each.message.id for each in free.waiting] == ["gate-1"]
    assert held == []


async def test_an_event_committed_during_a_turn_is_not_passed_over(database: Database) -> None:
    await write(database, event("gate", 0))
    subjects = Subjects(database, relay="relay", lease_ms=60_000)
    (turn,) = await subjects.claim()
    await write(database, event("gate", 1))
    turn.sent.append(turn.waiting.pop(0))
    await subjects.conclude([turn], pause_ms=lambda _attempts: 0)
    (following,) = await subjects.claim()

    assert [each.message.id for each in following.waiting] == ["gate-1"]


async def test_a_busy_subject_lets_the_others_have_their_turn(database: Database) -> None:
    await write(database, *(event("busy", n) for n in range(EVENTS_PER_SUBJECT * 3)))
    subjects = Subjects(database, relay="relay", lease_ms=60_000)
    (turn,) = await subjects.claim()

    assert len(turn.waiting) == EVENTS_PER_SUBJECT
    assert not turn.complete


async def test_a_command_that_nobody_hears_waits_and_holds_its_own_subject_only(database: Database) -> None:
    town = Town()
    town.unroutable = {"gate-0"}
    await write(database, event("gate", 0), event("gate", 1), mandatory=True)
    await write(database, event("door", 0))
    relay = relay_of(database, town)
    async with relaying(relay):

        async def tried_twice() -> bool:
            return town.tried["gate-0"] >= 3

        await eventually(tried_twice)
        heard_meanwhile = {message.id for message in town.heard}
        town.unroutable = set()
        await all_sent(database)

    assert heard_meanwhile == {"door-0"}
    assert town.sequences()["gate"] == [1, 2]
    assert (await subject_row(database, "gate")).attempts == 0


async def test_a_command_that_nobody_hears_for_an_hour_becomes_a_dead_letter(database: Database) -> None:
    town = Town()
    town.unroutable = {"gate-0", "gate-1"}
    await write(database, event("gate", 0), event("gate", 1), mandatory=True)
    await has_tried(database, "gate", times=UNROUTABLE_ATTEMPTS)
    async with relaying(relay_of(database, town)):

        async def given_up() -> bool:
            return bool((await subject_row(database, "gate")).attempts == 1)

        await eventually(given_up)
        async with database.read() as connection:
            (letter,) = await list_refused(database, connection)
        town.unroutable = set()
        await send_again(database, [letter.id])
        await all_sent(database)

    assert (letter.event_id, letter.refused) == ("gate-0", f"gate-0: {SUBSCRIBE}")
    assert sorted(town.sequences()["gate"]) == [1, 2]


async def test_a_replayed_command_has_an_hour_of_its_own(database: Database) -> None:
    town = Town()
    town.unroutable = {"gate-0"}
    await write(database, event("gate", 0), mandatory=True)
    await has_tried(database, "gate", times=UNROUTABLE_ATTEMPTS)
    relay = relay_of(database, town)
    await relay.flush()
    async with database.read() as connection:
        (letter,) = await list_refused(database, connection)
    await has_tried(database, "gate", times=UNROUTABLE_ATTEMPTS)
    await send_again(database, [letter.id])
    await relay.flush()

    async with database.read() as connection:
        assert await list_refused(database, connection) == []
    assert (await subject_row(database, "gate")).attempts == 1


@pytest.mark.parametrize("refusal", [TooLarge, Refused])
async def test_what_no_transport_takes_becomes_a_dead_letter_and_its_subject_goes_on(
    database: Database, refusal: type[Permanent]
) -> None:
    town = Town()
    town.refused = {"gate-0": refusal}
    await write(database, event("gate", 0), event("gate", 1), event("door", 0))
    async with relaying(relay_of(database, town)):
        await all_sent(database)
    async with database.read() as connection:
        (refused,) = await list_refused(database, connection)

    assert refused.event_id == "gate-0"
    assert town.sequences() == {"gate": [2], "door": [1]}


async def test_a_refused_event_can_be_sent_again_under_its_id(database: Database) -> None:
    town = Town()
    town.refused = {"gate-0": TooLarge}
    await write(database, *(event("gate", n) for n in range(EVENTS_PER_SUBJECT * 2)))
    async with relaying(relay_of(database, town)):
        await all_sent(database)
        async with database.read() as connection:
            (refused,) = await list_refused(database, connection)
        town.refused = {}
        problems = await send_again(database, [refused.id])
        await all_sent(database)
    row = await subject_row(database, "gate")

    assert town.heard[-1].id == "gate-0"
    assert len(town.heard) == EVENTS_PER_SUBJECT * 2
    assert row.sent_sequence == row.last_sequence
    assert problems == {}
    again = await send_again(database, [refused.id, 10**6])
    assert [type(problem) for problem in again.values()] == [Conflict, NotFound]


async def test_what_is_sent_again_while_its_subject_is_on_its_way_is_not_lost(database: Database) -> None:
    town = Town()
    town.refused = {"gate-0": TooLarge}
    relay = relay_of(database, town)
    await write(database, event("gate", 0))
    await relay.flush()
    async with database.read() as connection:
        (refused,) = await list_refused(database, connection)
    town.refused, town.delay_s = {}, 0.3
    await write(database, event("gate", 1))
    under_way = asyncio.create_task(relay.flush())

    async def is_on_its_way() -> bool:
        return bool(town.on_the_way["gate"])

    await eventually(is_on_its_way)
    problems = await send_again(database, [refused.id])
    await under_way
    await relay.flush()

    assert problems == {}
    assert [message.id for message in town.heard] == ["gate-1", "gate-0"]


async def test_those_that_are_sent_again_keep_their_order(database: Database) -> None:
    town = Town()
    town.refused = {f"gate-{n}": TooLarge for n in range(6)}
    relay = relay_of(database, town)
    await write(database, *(event("gate", n) for n in range(8)))
    await relay.flush()
    async with database.read() as connection:
        refused = await list_refused(database, connection)
    town.refused = {}
    await send_again(database, [each.id for each in refused])  # the newest first, as they are listed
    await relay.flush()

    assert [message.id for message in town.heard] == [f"gate-{n}" for n in (6, 7, 0, 1, 2, 3, 4, 5)]


async def test_a_transport_that_is_away_is_waited_for(database: Database) -> None:
    town = Town()
    town.away = True
    relay = relay_of(database, town)
    await write(database, event("gate", 0))
    with pytest.raises(Unavailable):
        await relay.flush()
    free = await subject_row(database, "gate")
    town.away = False
    await relay.flush()

    assert free.relay is None
    assert [message.id for message in town.heard] == ["gate-0"]


async def test_a_claim_or_an_end_that_got_lost_costs_no_lease(database: Database) -> None:
    writes = 0

    async def lose_the_answer(_urgent: bool) -> None:
        raise OutcomeUnknown("the connection was lost during COMMIT")

    async def lose_the_request(_urgent: bool) -> None:
        nonlocal writes
        writes += 1
        if writes == 3:  # after giving back and claiming: it was published, and is not marked
            raise Unavailable("the database is away")

    town, rainy = Town(), Weather(database)
    relay = relay_of(rainy, town)
    await write(database, event("gate", 0))
    rainy.after = lose_the_answer
    with pytest.raises(OutcomeUnknown):
        await relay.flush()
    held_after_a_lost_claim = (await subject_row(database, "gate")).relay
    rainy.after, rainy.before = rainy._fair, lose_the_request
    with pytest.raises(Unavailable):
        await relay.flush()
    rainy.before = rainy._fair
    await relay.flush()

    assert held_after_a_lost_claim == "relay"
    assert {message.id for message in town.heard} == {"gate-0"}
    assert await unsent(database) == 0


async def test_what_was_published_but_not_marked_is_published_again_under_its_id(database: Database) -> None:
    class Killed(BaseException):
        """Like kill -9: nothing after it is done."""

    def die(step: Step) -> None:
        if step is Step.PUBLISHED:
            raise Killed

    town = Town()
    await write(database, event("gate", 0))
    dying = relay_of(database, town, "dying", checkpoint=die)
    with pytest.raises(Killed):
        await dying.flush()
    await database.write(_forget_marks)
    await release_all_subjects(database)
    await relay_of(database, town, "next").flush()

    assert [message.id for message in town.heard] == ["gate-0", "gate-0"]
    assert await unsent(database) == 0


async def _forget_marks(connection: Connection) -> None:
    await connection.execute(update(outbox).values(sent_ms=None))
    await connection.execute(update(outbox_subject).values(sent_sequence=0))


async def test_events_can_be_followed_by_their_row(database: Database) -> None:
    await write(database, *(event("gate", n) for n in range(5)))
    async with database.read() as connection:
        newest = await last_id(connection)
        first = await read_after(connection, 0, limit=2)
        rest = await read_after(connection, first[-1].id)
        nothing = await read_after(connection, newest)

    assert [each.event_id for each in first + rest] == [f"gate-{n}" for n in range(5)]
    assert nothing == []


async def test_what_was_sent_long_ago_is_purged_and_nothing_else(database: Database) -> None:
    town = Town()
    await write(database, event("gate", 0))
    await relay_of(database, town).flush()
    await write(database, event("gate", 1))
    early = await purge(database, await database.now_ms() - 60_000)
    dropped = await purge(database, await database.now_ms() + 1)
    await relay_of(database, town).flush()

    assert (early, dropped) == (0, 1)
    assert town.sequences() == {"gate": [1, 2]}


async def test_a_subject_is_purged_when_all_was_told_and_grows_when_it_comes_back(database: Database) -> None:
    town = Town()

    async def years_ago(connection: Connection) -> None:
        reached = 1_000_000
        await connection.execute(
            update(outbox_subject).values(last_sequence=reached, sent_sequence=reached - 1)
        )
        await connection.execute(update(outbox).values(sequence=reached))

    await write(database, event("told"), event("unsent"), event("kept"))
    await database.write(years_ago)
    town.unroutable = {"unsent-0"}
    await relay_of(database, town).flush()
    before = (await subject_row(database, "told")).last_sequence
    later_ms = await database.now_ms() + 60_000
    with_their_events = await purge_subjects(database, later_ms)

    async def tell_apart(connection: Connection) -> None:
        await connection.execute(delete(outbox).where(outbox.c.subject == "told"))

    await database.write(tell_apart)
    too_early = await purge_subjects(database, await database.now_ms() - 60_000)
    purged = await purge_subjects(database, later_ms)
    async with database.read() as connection:
        left = list((await connection.execute(select(outbox_subject.c.subject))).scalars())
    await write(database, event("told", 1))

    assert (with_their_events, too_early, purged) == (0, 0, 1)
    assert sorted(left) == ["kept", "unsent"]
    assert (await subject_row(database, "told")).last_sequence > before


async def test_a_subject_that_has_run_ahead_of_the_clock_is_not_purged(database: Database) -> None:
    async def far_ahead(connection: Connection) -> None:
        far = 10**11
        await connection.execute(update(outbox_subject).values(last_sequence=far, sent_sequence=far))
        await connection.execute(delete(outbox))

    await write(database, event("busy"))
    await database.write(far_ahead)

    assert await purge_subjects(database, await database.now_ms() + 60_000) == 0
