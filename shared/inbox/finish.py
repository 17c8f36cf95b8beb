"""How a piece of work ends: one transaction, and only with a token that is still valid.

The first statement of each is the fence. Who comes too late changes nothing: no row, no event, no write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import case, delete, func, select, update

from shared.database.engine import Connection, Database, OutcomeUnknown, Unit
from shared.database.tables import State, inbox, inbox_wake
from shared.events.envelope import Event, Kind, announce
from shared.inbox.claims import Claim, is_held
from shared.inbox.outcome import Done, Later, LeaseLost
from shared.inbox.row import DEAD, DONE, READY, storable
from shared.inbox.wake import register
from shared.kernel.checkpoint import Checkpoint, Step
from shared.kernel.clock import Clock
from shared.kernel.errors import Unavailable

# What an hour of work has produced is worth waiting for a database that is away.
TRIES = 60
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0

# `shared.outbox.writing.append`, handed in: inbox and outbox are neighbours and do not know each other.
Append = Callable[[Connection, Sequence[tuple[Event, bool]], int], Awaitable[None]]


class Finisher:
    """Ends work of one service."""

    def __init__(
        self, database: Database, clock: Clock, *, append: Append, source: str, checkpoint: Checkpoint
    ) -> None:
        """`source` is the CloudEvents source of what the service tells."""
        self._database = database
        self._clock = clock
        self._append = append
        self._source = source
        self._checkpoint = checkpoint

    async def done(self, claim: Claim, outcome: Done, *, traceparent: str | None) -> None:
        """Commit what happened. Raises LeaseLost, WorldMoved, Unavailable, or what a write raises."""

        async def unit(connection: Connection) -> None:
            await self._fence(
                connection,
                claim,
                state=DONE,
                body=None,
                done_ms=self._database.now_sql(),
                lease_until_ms=None,
                outcome=",".join(event.type for event in outcome.events)[:64],
                reason=None,
                failing_since_ms=None,
            )
            await self._tell(connection, claim, outcome, traceparent)

        await self._conclude(claim, unit)

    async def dead(
        self,
        claim: Claim,
        *,
        reason: str,
        outcome: str = "dead",
        digest: str | None = None,
        farewell: Done,
        traceparent: str | None = None,
    ) -> None:
        """Keep it with its body and the reason, and commit what whoever asked should hear."""

        async def unit(connection: Connection) -> None:
            await self._fence(
                connection,
                claim,
                state=DEAD,
                done_ms=self._database.now_sql(),
                lease_until_ms=None,
                outcome=outcome,
                reason=storable(reason),
                traceback_digest=digest,
            )
            await self._tell(connection, claim, farewell, traceparent)

        await self._conclude(claim, unit)

    async def later(self, claim: Claim, outcome: Later) -> None:
        """Let it sleep until the time or a wake. One that came since the claim makes it ready at once."""
        woken = inbox.c.wake_count != claim.row.wake_count

        async def unit(connection: Connection) -> None:
            await self._register(connection, claim, outcome)
            await self._fence(
                connection,
                claim,
                state=READY,
                attempt=inbox.c.attempt - 1,
                lease_until_ms=None,
                not_before_ms=case((woken, None), else_=outcome.until_ms),
                waiting=case((woken, False), else_=True),
                reason=storable(outcome.reason),
                failing_since_ms=None,
            )
            for write in outcome.writes:
                await write(connection)

        await self._conclude(claim, unit)

    async def again(
        self,
        claim: Claim,
        *,
        delay_ms: int,
        reason: str,
        digest: str | None = None,
        counted: bool = True,
    ) -> None:
        """Try again after a failure. The row keeps its place in its lane.

        The attempt stays `counted` unless nothing could have succeeded: a dependency was away.
        """

        async def unit(connection: Connection) -> None:
            now = self._database.now_sql()
            await self._fence(
                connection,
                claim,
                state=READY,
                attempt=inbox.c.attempt - (0 if counted else 1),
                lease_until_ms=None,
                not_before_ms=now + delay_ms,
                failing_since_ms=func.coalesce(inbox.c.failing_since_ms, now),
                reason=storable(reason),
                traceback_digest=digest,
            )

        await self._conclude(claim, unit)

    async def release(self, claim: Claim) -> None:
        """Give the claim back as if it had not been taken: ready now, the attempt not counted."""

        async def unit(connection: Connection) -> None:
            await self._fence(
                connection, claim, state=READY, attempt=inbox.c.attempt - 1, lease_until_ms=None, worker=None
            )

        await self._conclude(claim, unit)

    async def _fence(self, connection: Connection, claim: Claim, **values: object) -> None:
        fenced = await connection.execute(update(inbox).where(is_held(*claim.owner)).values(**values))
        if fenced.rowcount != 1:
            raise LeaseLost

    async def _tell(
        self, connection: Connection, claim: Claim, outcome: Done, traceparent: str | None
    ) -> None:
        if claim.may_have_keys:
            await connection.execute(delete(inbox_wake).where(inbox_wake.c.inbox_id == claim.row.id))
        for write in outcome.writes:
            await write(connection)
        if not outcome.events:
            return
        now_ms = self._clock.now_ms()
        events = [
            (
                announce(data, source=self._source, time_ms=now_ms, traceparent=traceparent),
                data.kind is Kind.COMMAND,
            )
            for data in outcome.events
        ]
        await self._append(connection, events, now_ms)

    @staticmethod
    async def _register(connection: Connection, claim: Claim, outcome: Later) -> None:
        """Register late what the handler did not register before it looked; harmless where it did."""
        if outcome.wake_keys:
            row_id, token = claim.owner
            await register(connection, row_id=row_id, token=token, keys=outcome.wake_keys)

    async def _conclude(self, claim: Claim, unit: Unit[None]) -> None:
        await self._commit(claim, unit)
        self._checkpoint(Step.COMMITTED)

    async def _commit(self, claim: Claim, unit: Unit[None]) -> None:
        """Commit, waiting for a database that is away.

        After a COMMIT with unknown outcome the fence looks: it lets us in only if nothing was committed. When
        it does not, the row tells whether that was us.
        """
        unknown = False
        pause_s = FIRST_PAUSE_S
        for _ in range(TRIES):
            try:
                await self._database.write(unit)
            except LeaseLost:
                if unknown and await self._is_concluded(claim):
                    return
                raise
            except OutcomeUnknown:
                unknown = True
            except Unavailable:
                pass
            else:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        raise Unavailable("the database was away for too long to finish the work; it will be done again")

    async def _is_concluded(self, claim: Claim) -> bool:
        row_id, token = claim.owner
        ours = select(inbox.c.state).where(inbox.c.id == row_id, inbox.c.token == token)
        async with self._database.read() as connection:
            state: int | None = (await connection.execute(ours)).scalar()
        if state is None:
            raise LeaseLost
        return state != State.WORKING
