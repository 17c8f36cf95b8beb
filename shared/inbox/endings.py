"""What becomes of a piece of work, decided from what its handler returned or raised."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import update

from shared.database.engine import Connection
from shared.database.tables import inbox
from shared.events.registry import Received
from shared.inbox.claims import Claim, Stop
from shared.inbox.finish import Finisher
from shared.inbox.handling import Stopped, TookTooLong, digest_of, handle, read_again, reason_of
from shared.inbox.intake import Intake
from shared.inbox.outcome import Dead, Done, Later, LeaseLost, Outcome, WorldMoved, Write
from shared.inbox.retry import GiveUp, after_failure, after_outage
from shared.inbox.router import Route
from shared.kernel.checkpoint import Checkpoint, Step
from shared.kernel.clock import Clock
from shared.kernel.errors import Permanent, Unavailable
from shared.observability.tracing import Hop

log = structlog.get_logger()

FAREWELL_S = 30.0  # for saying that work was given up
FAREWELL_ATTEMPTS = 5  # beyond the attempts of the work itself; then it dies in silence


@dataclass(slots=True)
class Hand:
    """One piece of work being done. `received` is read from the row where it was not just received.

    `handled` is called when its handler has returned: only the end is left to be committed.
    """

    route: Route
    claim: Claim
    received: Received | None
    span: Hop
    intake: Intake
    handled: Callable[[], None]


class Endings:
    """Brings each piece of work to its end, and says which one it was: the metrics' `status`."""

    def __init__(
        self,
        finisher: Finisher,
        clock: Clock,
        *,
        checkpoint: Checkpoint,
        woken: Callable[[], None],
    ) -> None:
        """`woken` is called after a commit that may have made rows ready."""
        self._finisher = finisher
        self._clock = clock
        self._checkpoint = checkpoint
        self._woken = woken

    async def by_handler(self, hand: Hand) -> str:
        """Handle, and commit what the handler decided. Raises what the handler raises."""
        claim, policy = hand.claim, hand.route.retry
        hand.received = hand.received or read_again(hand.route, claim.row)
        if claim.row.cancel_requested:
            return await self._after_stop(hand, Stop.CANCELLED)
        if claim.attempt > policy.attempts:
            last = claim.row.reason or "its process died each time"
            return await self._bury(hand, f"taken up {policy.attempts} times without an end; last: {last}")
        try:
            outcome = await handle(hand.route, claim, hand.received)
        except Stopped as stopped:
            return await self._after_stop(hand, stopped.why)
        self._checkpoint(Step.HANDLED)
        hand.handled()
        return await self._by_outcome(hand, outcome)

    async def by_error(self, hand: Hand, error: Exception) -> str:
        """Try again as the policy allows, or make it a dead letter. Raises what the farewell raises."""
        reason, digest = reason_of(error), digest_of(error)
        if digest is not None:
            log.error("work.bug", reason=reason, digest=digest, exc_info=error)
        if isinstance(error, Permanent):
            return await self._bury(hand, reason)
        if isinstance(error, Unavailable):
            pause_ms = await hand.intake.is_outage(hand.claim.row.id, error)
            if pause_ms is not None:
                return await self._after_outage(hand, reason, pause_ms)
        decision = after_failure(
            hand.route.retry,
            attempt=hand.claim.attempt,
            failing_ms=self._failing_ms(hand),
            dice=random.random(),  # noqa: S311  # jitter is no secret
        )
        if isinstance(decision, GiveUp):
            return await self._bury(hand, f"{decision.reason}; last: {reason}", digest=digest)
        # Who decided on a world that has moved looks again at once; attempts bound that as well.
        delay_ms = 0 if isinstance(error, WorldMoved) else decision.delay_ms
        log.warning("work.failed", reason=reason, again_in_ms=delay_ms)
        return await self._again(hand, delay_ms=delay_ms, reason=reason, digest=digest)

    async def _after_outage(self, hand: Hand, reason: str, pause_ms: int) -> str:
        """Give the attempt back: it was none. While the outage lasts nothing of the subscription is taken."""
        decision = after_outage(hand.route.retry, failing_ms=self._failing_ms(hand), pause_ms=pause_ms)
        if isinstance(decision, GiveUp):
            return await self._bury(hand, f"{decision.reason}; last: {reason}")
        log.warning("work.unavailable", reason=reason, again_in_ms=decision.delay_ms)
        await self._finisher.again(hand.claim, delay_ms=decision.delay_ms, reason=reason, counted=False)
        return "unavailable"

    def _failing_ms(self, hand: Hand) -> int:
        since_ms = hand.claim.row.failing_since_ms
        return self._clock.now_ms() - since_ms if since_ms else 0

    async def without_farewell(self, hand: Hand, error: Exception) -> str:
        """Even saying that it was given up failed: try that a few more times, then die in silence."""
        reason, digest = f"could not be given up: {reason_of(error)}", digest_of(error)
        log.error("work.farewell_failed", reason=reason, exc_info=error)
        policy = hand.route.retry
        if hand.claim.attempt < policy.attempts + FAREWELL_ATTEMPTS:
            return await self._again(hand, delay_ms=policy.longest_delay_ms, reason=reason, digest=digest)
        farewell = Done(writes=(_names_handler(hand),))
        await self._finisher.dead(hand.claim, reason=reason, digest=digest, farewell=farewell)
        return "dead"

    async def _by_outcome(self, hand: Hand, outcome: Outcome) -> str:
        match outcome:
            case Done():
                await self._finisher.done(hand.claim, outcome, trace=hand.span.context)
                self._after_commit(outcome)
                return "done"
            case Later():
                return await self._later(hand, outcome)
            case Dead():
                return await self._bury(hand, outcome.reason)

    async def _later(self, hand: Hand, outcome: Later) -> str:
        waited_ms = self._clock.now_ms() - hand.claim.row.waiting_since_ms
        if waited_ms > hand.route.retry.waiting_ms:
            return await self._bury(hand, f"waited for {waited_ms} ms: {outcome.reason}")
        await self._finisher.later(hand.claim, outcome)
        self._woken()  # it may have been woken while it worked
        return "later"

    async def _after_stop(self, hand: Hand, why: Stop) -> str:
        match why:
            case Stop.LEASE_LOST:
                raise LeaseLost
            case Stop.TIME_LIMIT:
                raise TookTooLong(f"the handler took longer than {hand.route.time_limit_s:g} s")
            case Stop.CANCELLED:
                await self._bury(hand, why.value, outcome="cancelled")
                return "cancelled"
            case Stop.DRAIN | Stop.LEASE_ENDING:
                await self._finisher.release(hand.claim)
                self._woken()
                return "released"

    async def _again(self, hand: Hand, *, delay_ms: int, reason: str, digest: str | None) -> str:
        await self._finisher.again(hand.claim, delay_ms=delay_ms, reason=reason, digest=digest)
        if delay_ms == 0:
            self._woken()
        return "retried"

    async def _bury(
        self, hand: Hand, reason: str, *, outcome: str = "dead", digest: str | None = None
    ) -> str:
        """Make it a dead letter, and say so to whoever asked, in one transaction."""
        farewell = Done()
        if hand.route.given_up and hand.received:
            async with asyncio.timeout(FAREWELL_S):
                farewell = await hand.route.given_up(hand.received.data, reason=reason)
        await self._finisher.dead(
            hand.claim,
            reason=reason,
            outcome=outcome,
            digest=digest,
            farewell=Done(*farewell.events, writes=(*farewell.writes, _names_handler(hand))),
            trace=hand.span.context,
        )
        log.error("work.dead", reason=reason)
        self._after_commit(farewell)
        return "dead"

    def _after_commit(self, outcome: Done) -> None:
        if outcome.writes:
            self._woken()  # what was written may be what other work waits for


def _names_handler(hand: Hand) -> Write:
    """Return the write that keeps with a dead letter who could not do it."""

    async def write(connection: Connection) -> None:
        ours = update(inbox).where(inbox.c.id == hand.claim.row.id)
        await connection.execute(ours.values(handler=hand.route.handler_name))

    return write
