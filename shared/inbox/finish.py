"""How a piece of work ends: in one transaction, and only with a token that is still valid.

The fence is its first statement. Who comes too late changes nothing: no row, no event, no write.
Pieces that end at the same moment share the transaction; when that fails, each has one of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import delete, select

from shared.bus.message import Numbered
from shared.database.engine import Connection, Database, OutcomeUnknown
from shared.database.inserting import insert_into
from shared.database.notifying import READY_WORK, notify
from shared.database.tables import State, inbox, inbox_wake
from shared.events.envelope import Event, Kind, announce
from shared.inbox.claims import Claim
from shared.inbox.ending import Ending, Fence, Manner
from shared.inbox.outcome import Done, Later, LeaseLost
from shared.inbox.row import storable
from shared.inbox.together import Together
from shared.kernel.checkpoint import Checkpoint, Step
from shared.kernel.clock import Clock
from shared.kernel.errors import Transient, Unavailable
from shared.observability.tracing import TraceContext

TOGETHER = 64  # pieces in one transaction: more gain little, and one that fails undoes more
# What an hour of work has produced is worth waiting for a database that is away.
TRIES = 60
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0

# `shared.outbox.writing.append`, handed in: inbox and outbox are neighbours and do not know each other.
Append = Callable[[Connection, Sequence[tuple[Event, bool]], int], Awaitable[Sequence[Numbered]]]
# `Relay.told`: these events, perhaps among others, have just been committed.
Committed = Callable[[Sequence[Numbered]], None]


def tell_nobody(_: Sequence[Numbered]) -> None:
    """Stand in for the relay where it runs elsewhere, and polls."""


class _Apart(Transient):
    """The database asked to run the transaction again: rather each piece in one of its own."""


class Finisher:
    """Ends work of one service."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        append: Append,
        source: str,
        checkpoint: Checkpoint,
        committed: Committed = tell_nobody,
        together: int = TOGETHER,
    ) -> None:
        """`source` is the CloudEvents source of what the service tells.

        `committed` is called after each transaction that told something.
        `together` is how many pieces may share a transaction; 1 ends each in one of its own.
        """
        self._database = database
        self._clock = clock
        self._append = append
        self._source = source
        self._checkpoint = checkpoint
        self._committed = committed
        self._fence = Fence(database)
        self._together = Together(self._end, at_most=together)

    async def done(self, claim: Claim, outcome: Done, *, trace: TraceContext | None) -> None:
        """Commit what happened. Raises LeaseLost, WorldMoved, Unavailable, or what a write raises."""
        types = ",".join(event.type for event in outcome.events)[:64]
        await self._conclude(
            Ending(
                claim,
                Manner.DONE,
                values=(types,),
                writes=outcome.writes,
                events=self._announced(outcome, trace),
                forgets_keys=claim.may_have_keys,
            )
        )

    async def dead(
        self,
        claim: Claim,
        *,
        reason: str,
        outcome: str = "dead",
        digest: str | None = None,
        farewell: Done,
        trace: TraceContext | None = None,
    ) -> None:
        """Keep it with its body and the reason, and commit what whoever asked should hear."""
        await self._conclude(
            Ending(
                claim,
                Manner.DEAD,
                values=(outcome, storable(reason), digest),
                writes=farewell.writes,
                events=self._announced(farewell, trace),
                forgets_keys=claim.may_have_keys,
            )
        )

    async def later(self, claim: Claim, outcome: Later) -> None:
        """Let it sleep until the time or a wake. One that came since the claim makes it ready at once.

        What the handler did not register before it looked is registered here; harmless where it did.
        """
        await self._conclude(
            Ending(
                claim,
                Manner.LATER,
                values=(outcome.until_ms, claim.row.wake_count, storable(outcome.reason)),
                writes=outcome.writes,
                wake_keys=outcome.wake_keys,
            )
        )

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
        given_back = 0 if counted else 1
        values = (delay_ms, given_back, storable(reason), digest)
        await self._conclude(Ending(claim, Manner.AGAIN, values=values))

    async def release(self, claim: Claim) -> None:
        """Give the claim back as if it had not been taken: ready now, the attempt not counted."""
        await self._conclude(Ending(claim, Manner.RELEASED))

    def _announced(self, outcome: Done, trace: TraceContext | None) -> tuple[tuple[Event, bool], ...]:
        now_ms = self._clock.now_ms()
        carried = trace._asdict() if trace else {}
        return tuple(
            (
                announce(data, source=self._source, time_ms=now_ms, **carried),
                data.kind is Kind.COMMAND,
            )
            for data in outcome.events
        )

    async def _conclude(self, ending: Ending) -> None:
        await self._commit(ending)
        self._checkpoint(Step.COMMITTED)

    async def _commit(self, ending: Ending) -> None:
        """Commit, waiting for a database that is away: at first with others, then alone.

        After a COMMIT with unknown outcome the fence looks: it lets us in only if nothing was committed. When
        it does not, the row tells whether that was us.
        """
        end = self._together.join
        unknown = False
        pause_s = FIRST_PAUSE_S
        for _ in range(TRIES):
            try:
                if await end(ending) or (unknown and await self._is_concluded(ending.claim)):
                    if unknown:
                        self._committed(())
                    return
                raise LeaseLost
            except OutcomeUnknown:
                unknown = True
            except Unavailable:
                pass
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            end = self._together.alone
        raise Unavailable("the database was away for too long to finish the work; it will be done again")

    async def _end(self, endings: Sequence[Ending]) -> set[int]:
        """End pieces that end in the same manner, in one transaction. Return the rows of those let in."""
        runs = 0

        async def unit(connection: Connection) -> tuple[set[int], Sequence[Numbered]]:
            nonlocal runs
            runs += 1
            if runs > 1 and len(endings) > 1:
                raise _Apart
            let_in = await self._fence.let_in(connection, endings)
            told = await self._tell(connection, [each for each in endings if each.claim.row.id in let_in])
            if endings[0].manner is Manner.RELEASED:
                await notify(connection, READY_WORK)  # a process that drains leaves it to the others
            return let_in, told

        let_in, told = await self._database.write(unit)
        if told:
            self._committed(told)
        return let_in

    async def _tell(self, connection: Connection, endings: Sequence[Ending]) -> Sequence[Numbered]:
        """Write what belongs to the ends of those that were let in. Return their events."""
        await _keep_keys(connection, endings)
        # By subject, whatever their order was: two transactions come to the same rows the same way.
        ordered = sorted(endings, key=lambda each: (each.claim.row.subject, each.claim.row.id))
        for ending in ordered:
            for write in ending.writes:
                await write(connection)
        events = [event for ending in ordered for event in ending.events]
        return await self._append(connection, events, self._clock.now_ms()) if events else ()

    async def _is_concluded(self, claim: Claim) -> bool:
        row_id, token = claim.owner
        ours = select(inbox.c.state).where(inbox.c.id == row_id, inbox.c.token == token)
        async with self._database.read() as connection:
            state: int | None = (await connection.execute(ours)).scalar()
        return state is not None and state != State.WORKING


async def _keep_keys(connection: Connection, endings: Sequence[Ending]) -> None:
    """Forget the wake keys of what is over, register those of what sleeps."""
    forgetting = [each.claim.row.id for each in endings if each.forgets_keys]
    if forgetting:
        await connection.execute(delete(inbox_wake).where(inbox_wake.c.inbox_id.in_(forgetting)))
    registering = [
        {"inbox_id": each.claim.row.id, "wake_key": key}
        for each in endings
        for key in sorted(set(each.wake_keys))
    ]
    if registering:
        await connection.execute(insert_into(connection, inbox_wake).on_conflict_do_nothing(), registering)
