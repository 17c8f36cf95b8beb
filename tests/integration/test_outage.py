"""A dependency that is down: work waits for it and loses nothing, and one bad object holds up nobody."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from prometheus_client import REGISTRY

from shared.database.engine import Database
from shared.database.tables import State
from shared.events.clip import ClipRequested
from shared.events.source import SourceAvailable
from shared.inbox.intake import SEVERAL
from shared.inbox.outcome import Done, Work
from shared.inbox.retry import RetryPolicy
from shared.inbox.router import Route
from shared.kernel.checkpoint import Step
from shared.kernel.errors import Unavailable
from tests.integration.workshop import (
    Observer,
    all_work,
    asked,
    message,
    open_bus,
    recorded,
    router_of,
    working,
)

QUICK_RETRY = RetryPolicy(attempts=3, first_delay_ms=1, longest_delay_ms=2)
WORK = 12
HANDS = 3


@dataclass(slots=True)
class Store:
    """Something that handlers need: it can be away as a whole, or single objects can be broken."""

    is_away: bool = False
    admits_it: bool = True
    broken: frozenset[str] = frozenset()
    tried: Counter[str] = field(default_factory=Counter)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def diagnose(self) -> Mapping[str, str]:
        return {"storage": "does not answer"} if self.is_away and self.admits_it else {}

    def need(self, name: str) -> None:
        self.tried[name] += 1
        self.asked.set()
        if self.is_away or name in self.broken:
            raise Unavailable(f"the store does not answer for {name}")

    async def cut(self, data: ClipRequested, *, work: Work) -> Done:  # every handler is given its work
        self.need(data.clip_id)
        return Done()

    async def index(self, data: SourceAvailable, *, work: Work) -> Done:  # as above
        self.need(data.key)
        return Done()


def paused(queue: str) -> float | None:
    return REGISTRY.get_sample_value("spool_inbox_paused", {"subscription": queue})


@pytest.mark.parametrize("ordered", [pytest.param(False, id="unordered"), pytest.param(True, id="ordered")])
@pytest.mark.parametrize(
    "admits_it", [pytest.param(True, id="known-to-be-away"), pytest.param(False, id="claims-to-be-there")]
)
async def test_an_outage_stops_taking_and_burns_no_attempt(
    database: Database, ordered: bool, admits_it: bool
) -> None:
    store, observer = Store(is_away=True, admits_it=admits_it), Observer()
    if ordered:
        route = Route(SourceAvailable, store.index, hands=HANDS, ordered=True, retry=QUICK_RETRY)
        messages = [message(recorded(f"k{each}", camera_id=f"c{each}")) for each in range(WORK)]
    else:
        route = Route(ClipRequested, store.cut, hands=HANDS, retry=QUICK_RETRY)
        messages = [message(asked(f"c{each}")) for each in range(WORK)]
    router = router_of(route)
    queue = router.subscription(route).queue
    async with (
        open_bus(router) as bus,
        working(router, database, bus, observer=observer, diagnose=store.diagnose) as worker,
    ):
        await bus.publish(messages)
        while not worker.paused():
            store.asked.clear()
            await store.asked.wait()
            await asyncio.sleep(0.05)
        because, gauge = worker.paused(), paused(queue)
        tried_before_the_pause = sum(store.tried.values())
        store.is_away = False
        await observer.reached(Step.HANDLED, WORK)
    rows = await all_work(database)

    assert ("storage" in because[queue]) if admits_it else ("does not answer for" in because[queue])
    assert (gauge, paused(queue)) == (1, 0)
    assert tried_before_the_pause <= HANDS + SEVERAL
    assert Counter(row.state for row in rows) == {State.DONE: WORK}
    # By its own account it is away: nothing is counted. Else the first few count, before it is seen to be.
    assert sum(row.attempt - 1 for row in rows) == (0 if admits_it else SEVERAL - 1)


async def test_one_bad_object_runs_out_of_attempts_and_holds_up_nobody(database: Database) -> None:
    store, observer = Store(broken=frozenset({"bad"})), Observer()
    route = Route(ClipRequested, store.cut, hands=HANDS, retry=QUICK_RETRY)
    router = router_of(route)
    async with (
        open_bus(router) as bus,
        working(router, database, bus, observer=observer, diagnose=store.diagnose),
    ):
        await bus.publish([message(asked("bad")), *(message(asked(f"c{each}")) for each in range(WORK))])
        await observer.reached(Step.COMMITTED, WORK + QUICK_RETRY.attempts)
    rows = {row.subject: row for row in await all_work(database)}
    bad = rows.pop("bad")

    assert (bad.state, bad.attempt) == (State.DEAD, QUICK_RETRY.attempts)
    assert "the store does not answer for bad" in (bad.reason or "")
    assert {(row.state, row.attempt) for row in rows.values()} == {(State.DONE, 1)}


async def test_bad_objects_that_look_like_an_outage_let_new_work_try_first(database: Database) -> None:
    bad = [f"bad{each}" for each in range(SEVERAL)]
    store, observer = Store(broken=frozenset(bad)), Observer()
    route = Route(ClipRequested, store.cut, hands=HANDS, retry=QUICK_RETRY)
    router = router_of(route)
    async with (
        open_bus(router) as bus,
        working(router, database, bus, observer=observer, diagnose=store.diagnose) as worker,
    ):
        await bus.publish([message(asked(each)) for each in bad])
        while not worker.paused():
            store.asked.clear()
            await store.asked.wait()
            await asyncio.sleep(0.05)
        tried_before = Counter(store.tried)
        await bus.publish([message(asked("innocent"))])
        await observer.reached(Step.HANDLED)
        tried_meanwhile = store.tried - tried_before
    innocent = (await all_work(database))[-1]

    assert (innocent.subject, innocent.state, innocent.attempt) == ("innocent", State.DONE, 1)
    assert sum(tried_meanwhile[each] for each in bad) <= SEVERAL


async def test_an_outage_is_waited_for_only_so_long(database: Database) -> None:
    store = Store(is_away=True)
    policy = RetryPolicy(attempts=3, first_delay_ms=1, longest_delay_ms=2, failing_ms=500)
    route = Route(ClipRequested, store.cut, hands=1, retry=policy)
    router = router_of(route)
    observer = Observer()
    async with (
        open_bus(router) as bus,
        working(router, database, bus, observer=observer, diagnose=store.diagnose),
    ):
        await bus.publish([message(asked("old"))])
        await observer.reached(Step.COMMITTED)
    (row,) = await all_work(database)

    assert row.state is State.DEAD
    assert "what it needs is away" in (row.reason or "")
