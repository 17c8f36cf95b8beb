"""The hands of a service: they do what the inbox keeps, under a lease, and commit it in one transaction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from shared.bus.port import Bus
from shared.database.engine import Database
from shared.events.registry import Received
from shared.inbox.claims import Claim, Claims, LeaseTimes, Stop
from shared.inbox.endings import Endings, Hand
from shared.inbox.finish import TOGETHER, Append, Committed, Finisher, tell_nobody
from shared.inbox.handling import reason_of
from shared.inbox.intake import Diagnose, Intake, all_is_well
from shared.inbox.outcome import LeaseLost
from shared.inbox.pool import Pool
from shared.inbox.router import Route, Router
from shared.inbox.row import ClaimedRow
from shared.inbox.undertaker import Undertaker
from shared.kernel.checkpoint import Checkpoint, pass_by
from shared.kernel.clock import Clock
from shared.kernel.errors import SpoolError, Transient
from shared.observability.metrics import LEASES_LOST, PROCESSED_EXCEPTIONS, Working
from shared.observability.tracing import Hop, Role, hop, recording

log = structlog.get_logger()

POLL_S = 1.0  # rows become ready by time, and by other processes
WATCH_S = 0.5  # how late we may notice that a lease is ending; much less than its margin
OBSERVE_S = 10.0
ABANDON_AFTER_S = 10.0  # after the drain's grace: for handlers to be stopped and claims to be given back


class Worker:
    """Works the routes of one service. `run` it in a task, `drain` it before closing what it uses."""

    def __init__(
        self,
        router: Router,
        *,
        bus: Bus,
        database: Database,
        clock: Clock,
        append: Append,
        name: str,
        committed: Committed = tell_nobody,
        diagnose: Diagnose = all_is_well,
        times: LeaseTimes | None = None,
        poll_s: float = POLL_S,
        checkpoint: Checkpoint = pass_by,
        together: int = TOGETHER,
    ) -> None:
        """`append` is the outbox's; `committed` is called after each commit that told something.

        `diagnose` says what is away of that which handlers need: asked when one of them finds something so.
        Up to `together` pieces of work that end at the same moment share a transaction; 1 is each alone.
        `name` is this process's own: it is written beside each claim, for people.
        """
        self._bus = bus
        self._router = router
        self._times = times or LeaseTimes()
        self._claims = Claims(database, clock, worker=name, times=self._times)
        self._endings = Endings(
            Finisher(
                database,
                clock,
                append=append,
                source=router.source,
                checkpoint=checkpoint,
                committed=committed,
                together=together,
            ),
            clock,
            checkpoint=checkpoint,
            woken=self.wake,
        )
        self._counted = {
            route.data.type: Working.of(router.subscription(route).queue) for route in router.routes
        }
        self._intakes = {
            route.data.type: Intake(router.subscription(route).queue, clock, diagnose)
            for route in router.routes
        }
        self._undertaker = Undertaker(router.dead_letters, bus=bus, database=database)
        self._ended = asyncio.Event()
        self._ended.set()
        self._log = log.bind()  # made ready once: there is a line per piece of work
        self._pools = [
            Pool(
                route,
                router.subscription(route),
                bus=bus,
                database=database,
                clock=clock,
                claims=self._claims,
                intake=self._intakes[route.data.type],
                do_work=self._do,
                poll_s=poll_s,
                checkpoint=checkpoint,
            )
            for route in router.routes
        ]

    async def run(self) -> None:
        """Work until drained. The queues are declared before, by whoever runs this."""
        self._ended.clear()
        try:
            async with asyncio.TaskGroup() as group:
                keepers = [
                    group.create_task(keeper())
                    for keeper in (
                        self._keep_leases,
                        self._watch_leases,
                        self._observe,
                        self._undertaker.run,
                    )
                ]
                async with asyncio.TaskGroup() as pools:
                    for pool in self._pools:
                        pools.create_task(pool.run())
                for keeper in keepers:
                    keeper.cancel()
        finally:
            self._ended.set()

    async def drain(self, grace_s: float) -> None:
        """Take nothing new, wait up to `grace_s` for what is being done, then stop it and give it back."""
        for pool in self._pools:
            pool.drain()
        try:
            await self._bus.stop_receiving()
        except Transient as error:
            log.info("inbox.bus_away_at_drain", reason=str(error))
        if await self._ends_within(grace_s):
            return
        self._claims.stop_all(Stop.DRAIN)
        if await self._ends_within(ABANDON_AFTER_S):
            return
        log.error("inbox.abandoned", service=self._router.service)
        for pool in self._pools:
            pool.abandon()
        await self._ends_within(ABANDON_AFTER_S)

    def hurry(self) -> None:
        """Stop what is being done now, whatever is left of the grace of a drain."""
        self._claims.stop_all(Stop.DRAIN)

    def wake(self) -> None:
        """Look for ready rows now: something was committed in this process that may have made some."""
        for pool in self._pools:
            pool.wake()

    def paused(self) -> dict[str, str]:
        """Return the queues that nothing is taken from at the moment, and why."""
        return {
            intake.queue: because
            for intake in self._intakes.values()
            if (because := intake.paused_because) is not None
        }

    async def _ends_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    async def _keep_leases(self) -> None:
        beat_s = self._times.beat_ms / 1000
        while True:
            await asyncio.sleep(beat_s)
            try:
                # One that hangs is worth less than the next one.
                async with asyncio.timeout(beat_s):
                    await self._claims.extend()
            except (Transient, TimeoutError) as error:
                log.warning("inbox.heartbeat_failed", service=self._router.service, reason=reason_of(error))

    async def _watch_leases(self) -> None:
        while True:
            await asyncio.sleep(min(WATCH_S, self._times.margin_ms / 4000))
            self._claims.stop_overdue()

    async def _observe(self) -> None:
        while True:
            for pool in self._pools:
                try:
                    await pool.observe()
                except Transient as error:
                    log.debug("inbox.not_observed", reason=str(error))
            await asyncio.sleep(OBSERVE_S)

    async def _do(
        self, route: Route, claim: Claim, received: Received | None, handled: Callable[[], None]
    ) -> None:
        """Do one piece of work, whatever happens. Its row says what became of it."""
        counted = self._counted[route.data.type]
        row = claim.row
        intake = self._intakes[route.data.type]
        started_s = time.perf_counter()
        with self._span(counted.subscription, row) as span, counted.in_process.track_inprogress():
            # For every line of this task, which is the hand's own: there is nothing to take back.
            structlog.contextvars.bind_contextvars(
                event_id=row.event_id,
                type=row.type,
                subject=row.subject,
                attempt=row.attempt,
                work=row.id,
                trace_id=(row.trace or span.context).trace_id,
            )
            status = "lost"
            try:
                status = await self._attempt(Hand(route, claim, received, span, intake, handled))
            finally:
                intake.ended(row.id, status)
            seconds = time.perf_counter() - started_s
            counted.ended(status, seconds)
            span.note(status=status)
            self._log.info("work.ended", status=status, seconds=round(seconds, 3))

    def _span(self, queue: str, row: ClaimedRow) -> Hop:
        span = hop(f"process {row.type}", Role.CONSUMER, parent=row.trace)
        if recording():
            span.note(
                system=self._bus.capabilities.system,
                destination=queue,
                operation="process",
                event_id=row.event_id,
                source=row.source,
                subject=row.subject,
                type=row.type,
                body_bytes=len(row.body or b""),
                work=row.id,
                attempt=row.attempt,
            )
        return span

    async def _attempt(self, hand: Hand) -> str:
        try:
            return await self._to_an_end(hand)
        except LeaseLost:
            log.warning("work.lease_lost")
            hand.span.fail("the claim was lost")
        except (SpoolError, SQLAlchemyError) as error:
            # Not even its end could be written down. The lease runs out, and it is done again.
            log.exception("work.not_concluded", reason=reason_of(error))
        finally:
            self._claims.let_go(hand.claim)
        LEASES_LOST.labels(self._router.subscription(hand.route).queue).inc()
        return "lost"

    async def _to_an_end(self, hand: Hand) -> str:
        """Handle it; then, where needed, handle what went wrong. Raises LeaseLost, or a database's error."""
        try:
            return await self._endings.by_handler(hand)
        except LeaseLost:
            raise
        except Exception as error:
            # The one place where anything a handler raises becomes the next state of a row: a bug in one
            # handler must neither end the worker nor lose the event.
            failure = error
        hand.span.fail(reason_of(failure))
        hand.span.note(error_type=type(failure).__name__)
        queue = self._router.subscription(hand.route).queue
        PROCESSED_EXCEPTIONS.labels(queue, type(failure).__name__).inc()
        try:
            return await self._endings.by_error(hand, failure)
        except LeaseLost:
            raise
        except Exception as error:
            # What says farewell to work that is given up is a handler's code as well.
            return await self._endings.without_farewell(hand, error)
