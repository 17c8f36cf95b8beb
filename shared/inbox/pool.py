"""The hands of one subscription: ready rows first, then what the bus brings, never more than can be held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial

import structlog
from sqlalchemy import ColumnElement, Select, and_, func, or_, select

from shared.bus.message import Delivery, Subscription
from shared.bus.port import Bus
from shared.database.engine import Database
from shared.database.tables import inbox
from shared.events.registry import Received
from shared.inbox.accept import Entrance
from shared.inbox.claims import Claim, Claims, Stop
from shared.inbox.intake import Intake
from shared.inbox.router import Route
from shared.inbox.row import READY, WORKING
from shared.kernel.checkpoint import Checkpoint, Step
from shared.kernel.clock import Clock
from shared.kernel.errors import Transient
from shared.observability.metrics import HANDS, INBOX_READY, INBOX_READY_AGE

log = structlog.get_logger()

LOOK_AHEAD_ROWS = 256  # of an ordered subscription; beyond it the broker keeps the backlog, and its order
COUNTED_ROWS = 10_000  # more than that is "many", and counting it would cost
NEWCOMER_S = 0.2  # for a transport to bring what waits there
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0

# The last is called when the handler has returned, before what it decided is committed.
DoWork = Callable[[Route, Claim, Received | None, Callable[[], None]], Coroutine[None, None, None]]


class Pool:
    """One subscription and its hands."""

    def __init__(
        self,
        route: Route,
        subscription: Subscription,
        *,
        bus: Bus,
        database: Database,
        clock: Clock,
        claims: Claims,
        intake: Intake,
        do_work: DoWork,
        poll_s: float,
        checkpoint: Checkpoint,
    ) -> None:
        self._route = route
        self._subscription = subscription
        self._bus = bus
        self._database = database
        self._clock = clock
        self._claims = claims
        self._intake = intake
        self._do_work = do_work
        self._poll_s = poll_s
        self._checkpoint = checkpoint
        self._entrance = Entrance(
            route, subscription, bus=bus, database=database, claims=claims, checkpoint=checkpoint
        )
        HANDS.labels(subscription.queue).set(route.hands)
        self._hands: set[asyncio.Task[None]] = set()
        self._handling: set[Claim] = set()  # of them those whose handler has not returned
        self._signal = asyncio.Event()  # look around now: a hand is free, rows are ready, or it is over
        self._look = True
        self._next_poll_ms = 0
        self._pause_s = FIRST_PAUSE_S
        self._limited = False  # by the intake
        self._rows_first = False  # while limited: an ordered subscription works rows only
        self._draining = False

    async def run(self) -> None:
        """Work until drained; return when the last hand is empty."""
        async with asyncio.TaskGroup() as group:
            while not self._draining:
                self._signal.clear()
                try:
                    await self._turn(group)
                except Transient as error:
                    log.warning("inbox.waiting", queue=self._subscription.queue, reason=str(error))
                    await self._pause()
                else:
                    self._pause_s = FIRST_PAUSE_S

    def wake(self) -> None:
        """Look for ready rows now."""
        self._look = True
        self._signal.set()

    def drain(self) -> None:
        """Take nothing new."""
        self._draining = True
        self._signal.set()

    def abandon(self) -> None:
        """Let go of hands that do not come to an end. Their leases run out."""
        for hand in self._hands:
            hand.cancel()

    async def observe(self) -> None:
        """Tell the metrics how much waits. Raises Unavailable."""
        counted = _ready_rows(self._subscription.queue, self._database.now_sql())
        async with self._database.read() as connection:
            number, oldest_ms, now_ms = (await connection.execute(counted)).one()
        INBOX_READY.labels(self._subscription.queue).set(number)
        age_s = (now_ms - oldest_ms) / 1000 if oldest_ms is not None else 0
        INBOX_READY_AGE.labels(self._subscription.queue).set(max(0, age_s))

    async def _turn(self, group: asyncio.TaskGroup) -> None:
        free = self._free()
        if free == 0:
            await self._signal.wait()
            return
        free = await self._intake.room(free)
        self._limited = self._intake.is_limited
        if free == 0:
            self._look = True  # when the pause is over
            await self._signalled(self._poll_s)
            return
        if self._limited and await self._newcomer_tries(group):
            return
        if self._look or self._clock.monotonic_ms() >= self._next_poll_ms:
            free -= await self._work_ready_rows(group, free)
        if free == 0:
            return
        at_most = await self._room(free)
        wait_s = self._until_poll_s()
        deliveries = await self._receive(at_most, wait_s) if at_most else await self._signalled(wait_s)
        if deliveries:
            await self._accept(group, deliveries)

    def _free(self) -> int:
        """Return how many handlers may begin: the next are taken while the last ones are being committed.

        As many may be at that as there are hands; when the database is slow, nothing more is taken.
        """
        hands = self._route.hands
        return min(hands - len(self._handling), 2 * hands - len(self._hands))

    async def _work_ready_rows(self, group: asyncio.TaskGroup, free: int) -> int:
        self._look = False
        try:
            claims = await self._claims.take(
                self._subscription.queue,
                ordered=self._route.ordered,
                at_most=free,
                in_turn=self._intake.is_limited,
            )
        except Transient:
            self._look = True
            raise
        self._next_poll_ms = self._clock.monotonic_ms() + round(self._poll_s * 1000)
        for claim in claims:
            self._checkpoint(Step.CLAIMED)
            self._start(group, claim, None)
        self._look = self._look or len(claims) == free  # where so many came from there may be more
        return len(claims)

    async def _room(self, free: int) -> int:
        """Return how many deliveries may be taken: where order matters, rows may wait for their heads."""
        if not self._route.ordered:
            return free
        # What waits for an arrival or a moment holds nobody, and may wait for days.
        unfinished = (
            select(inbox.c.id)
            .where(inbox.c.consumer == self._subscription.queue, inbox.c.state.in_((READY,)))
            .where(inbox.c.waiting.is_(False))
            .limit(LOOK_AHEAD_ROWS)
            .subquery()
        )
        async with self._database.read() as connection:
            waiting: int = (
                await connection.execute(select(func.count()).select_from(unfinished))
            ).scalar_one()
        return min(free, LOOK_AHEAD_ROWS - waiting)

    async def _newcomer_tries(self, group: asyncio.TaskGroup) -> bool:
        """After a pause, let what is new try first: of what failed before, some may fail for ever."""
        wanted = 0 if self._rows_first else await self._room(1)
        self._rows_first = False
        deliveries = await self._receive(wanted, NEWCOMER_S) if wanted else []
        if deliveries:
            await self._accept(group, deliveries)
            self._rows_first = self._route.ordered
        return bool(deliveries)

    async def _receive(self, at_most: int, wait_s: float) -> Sequence[Delivery]:
        """Wait for deliveries, or until there is something else to do."""
        receiving = asyncio.create_task(self._bus.receive(self._subscription, at_most=at_most, wait_s=wait_s))
        signalled = asyncio.create_task(self._signal.wait())
        try:
            await asyncio.wait({receiving, signalled}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # A receive that is cancelled loses nothing; one that was just done still has its deliveries.
            receiving.cancel()
            signalled.cancel()
            await asyncio.wait({receiving, signalled})
        return [] if receiving.cancelled() else receiving.result()

    async def _signalled(self, within_s: float) -> Sequence[Delivery]:
        try:
            async with asyncio.timeout(within_s):
                await self._signal.wait()
        except TimeoutError:
            pass
        return []

    def _until_poll_s(self) -> float:
        return max(0.01, (self._next_poll_ms - self._clock.monotonic_ms()) / 1000)

    async def _accept(self, group: asyncio.TaskGroup, deliveries: Sequence[Delivery]) -> None:
        """Accept, waiting for a database that is away: until then nothing is acknowledged or received."""
        self._checkpoint(Step.RECEIVED)
        while not self._draining:
            try:
                accepted = await self._entrance.accept(deliveries)
            except Transient as error:
                self._look = True  # they may be rows already, and nobody's
                log.warning("inbox.cannot_accept", queue=self._subscription.queue, reason=str(error))
                await self._pause()
                continue
            for each in accepted:
                self._start(group, each.claim, each.received)
            self._look = self._look or self._route.ordered
            await asyncio.sleep(0)  # no time: a handler that returns at once leaves its hand to the next
            return
        await self._bus.give_back(deliveries)

    def _start(self, group: asyncio.TaskGroup, claim: Claim, received: Received | None) -> None:
        if self._draining:
            claim.stop(Stop.DRAIN)
        self._intake.begin(claim.row.id)
        self._handling.add(claim)
        handled = partial(self._handled, claim)
        hand = group.create_task(self._do_work(self._route, claim, received, handled))
        self._hands.add(hand)
        hand.add_done_callback(partial(self._freed, claim))

    def _handled(self, claim: Claim) -> None:
        was_full = self._free() == 0
        self._handling.discard(claim)
        if was_full:
            self._signal.set()

    def _freed(self, claim: Claim, hand: asyncio.Task[None]) -> None:
        was_full = self._free() == 0
        self._handling.discard(claim)
        self._hands.discard(hand)
        if self._route.ordered:
            self._look = True  # the next one of its subject has become the head
        if was_full or self._route.ordered or self._limited or self._intake.is_limited:
            self._signal.set()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._pause_s):
                while not self._draining:
                    self._signal.clear()
                    await self._signal.wait()
        except TimeoutError:
            pass
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)


def _ready_rows(consumer: str, now: ColumnElement[int]) -> Select[int, int | None, int]:
    """Count what could be worked now, and say since when the oldest could.

    What a dead process had claimed is ready from the end of its lease, what waited from when it should go on.
    """
    due = and_(inbox.c.state == READY, func.coalesce(inbox.c.not_before_ms, 0) <= now)
    abandoned = and_(inbox.c.state == WORKING, inbox.c.lease_until_ms < now)
    since_ms = func.coalesce(
        inbox.c.lease_until_ms, inbox.c.not_before_ms, inbox.c.replayed_ms, inbox.c.received_ms
    )
    ready = (
        select(since_ms.label("since_ms"))
        .where(inbox.c.consumer == consumer, inbox.c.state.in_((READY, WORKING)), or_(due, abandoned))
        .order_by(inbox.c.id)
        .limit(COUNTED_ROWS)
        .subquery()
    )
    return select(func.count(), func.min(ready.c.since_ms), now).select_from(ready)
