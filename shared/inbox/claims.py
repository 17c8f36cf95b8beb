"""Claims: a lease and a token that grows. Taken, kept alive, lost, given back.

A row is worked by whoever has its token. Others may take it once the lease has run out by the database's
clock; whoever had it stops by its own monotonic clock before that, and its token commits nothing afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import (
    ColumnElement,
    Select,
    Update,
    and_,
    exists,
    func,
    literal_column,
    not_,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from shared.database.engine import Connection, Database, OutcomeUnknown
from shared.database.tables import inbox
from shared.inbox.outcome import LeaseLost
from shared.inbox.row import CLAIMED_COLUMNS, READY, WORKING, ClaimedRow, claimed_row, locked
from shared.inbox.wake import register
from shared.kernel.clock import Clock


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """How long a claim holds, how often it is extended, and how long before its end we stop."""

    length_ms: int = 30_000  # long enough for a failover of the database, short enough for a restart
    beat_ms: int = 5_000
    margin_ms: int = 5_000  # for stopping: an ffmpeg is terminated, waited for, killed

    @classmethod
    def of(cls, length_ms: int) -> LeaseTimes:
        """Return times in the proportions of the usual ones."""
        return cls(length_ms, beat_ms=length_ms // 6, margin_ms=length_ms // 6)


class Stop(StrEnum):
    """Why a hand stops before its handler has returned."""

    DRAIN = "the service is stopping"
    LEASE_ENDING = "the lease could not be extended in time"
    LEASE_LOST = "another worker has the claim"
    CANCELLED = "cancelled by a person"
    TIME_LIMIT = "the handler took too long"


class Claim:
    """A claimed row in the hands of this worker. It is the `Work` that a handler sees."""

    def __init__(self, row: ClaimedRow, database: Database, *, deadline_ms: int, fresh: bool) -> None:
        """`deadline_ms` is monotonic. `fresh`: claimed as it came, so no wake keys were registered before."""
        self.row = row
        self.deadline_ms = deadline_ms
        self.may_have_keys = not fresh
        self.stopped: Stop | None = None
        self._database = database
        self._hand: asyncio.Task[object] | None = None  # while its handler runs
        self._cancelled = False  # the hand, by us

    @property
    def owner(self) -> tuple[int, int]:
        return self.row.id, self.row.token

    @property
    def attempt(self) -> int:
        return self.row.attempt

    @property
    def waiting_since_ms(self) -> int:
        return self.row.waiting_since_ms

    async def still_ours(self) -> None:
        ours = select(inbox.c.id).where(is_held(self.row.id, self.row.token))
        async with self._database.read() as connection:
            found = (await connection.execute(ours)).first()
        if found is None:
            raise LeaseLost

    async def wake_on(self, *keys: str) -> None:
        self.may_have_keys = True
        await self._database.write(
            lambda connection: register(connection, row_id=self.row.id, token=self.row.token, keys=keys)
        )

    def begin(self) -> None:
        """From here to `end`, `stop` cancels the task that calls this."""
        self._hand = asyncio.current_task()

    def end(self) -> int:
        """Leave the task alone; take back what cancelled it. Return how often others have cancelled it."""
        hand, self._hand = self._hand, None
        if hand is None:
            return 0
        cancelled, self._cancelled = self._cancelled, False
        return hand.uncancel() if cancelled else hand.cancelling()

    def stop(self, why: Stop) -> None:
        """End the handler. The first reason counts."""
        if self.stopped is None:
            self.stopped = why
            if self._hand is not None:
                self._cancelled = self._hand.cancel()


class Claims:
    """All claims of one worker, over all its subscriptions."""

    def __init__(self, database: Database, clock: Clock, *, worker: str, times: LeaseTimes) -> None:
        self._database = database
        self._clock = clock
        self._worker = worker
        self._times = times
        self._held: dict[int, Claim] = {}
        # By consumer: until when rows may be claimed in our name that nobody knows of (monotonic)
        self._astray: dict[str, int] = {}

    @property
    def worker(self) -> str:
        return self._worker

    @property
    def lease_ms(self) -> int:
        return self._times.length_ms

    def deadline_ms(self) -> int:
        """Return when work must stop whose lease is written after this moment."""
        return self._clock.monotonic_ms() + self._times.length_ms - self._times.margin_ms

    def hold(self, row: ClaimedRow, *, deadline_ms: int, fresh: bool) -> Claim:
        """Keep the lease of a row alive from now on."""
        claim = Claim(row, self._database, deadline_ms=deadline_ms, fresh=fresh)
        self._held[row.id] = claim
        return claim

    def let_go(self, claim: Claim) -> None:
        # The row may have been claimed anew, by us as well.
        if self._held.get(claim.row.id) is claim:
            del self._held[claim.row.id]

    def look_for_astray(self, consumer: str) -> None:
        """Note that the COMMIT of a claim had an unknown outcome: it may have been taken for nobody.

        What is astray is given back with the next look, for as long as its lease could last.
        """
        self._astray[consumer] = self._clock.monotonic_ms() + self._times.length_ms

    def stop_all(self, why: Stop) -> None:
        for claim in self._held.values():
            claim.stop(why)

    def stop_overdue(self) -> None:
        """Stop what could not be extended, while its lease still holds. Called more often than it can end."""
        now_ms = self._clock.monotonic_ms()
        for claim in self._held.values():
            if now_ms >= claim.deadline_ms:
                claim.stop(Stop.LEASE_ENDING)

    async def take(self, consumer: str, *, ordered: bool, at_most: int, in_turn: bool = False) -> list[Claim]:
        """Claim the oldest rows that are ready, or whose lease has run out. Raises Unavailable.

        `in_turn`: rather those that nobody has touched for the longest time, so that one which always fails
        is not chosen again and again.
        """
        deadline_ms = self.deadline_ms()

        async def unit(connection: Connection) -> list[ClaimedRow]:
            now = self._database.now_sql()
            if self._astray.get(consumer, 0) > self._clock.monotonic_ms():
                await connection.execute(self._giving_back(consumer))
            # What we hold is alive, whatever a clock says that was set forward: nobody takes it from himself.
            abandoned = _is_abandoned(now, list(self._held))
            claimable = (
                _ordered_heads(consumer, now, abandoned) if ordered else _any_ready(consumer, now, abandoned)
            )
            if in_turn:
                untouched = func.coalesce(_row.c.claimed_ms, 0)
                claimable = claimable.order_by(None).order_by(untouched, _row.c.id)
            statement = self._claiming(claimable.limit(at_most), now)
            return [claimed_row(row) for row in await connection.execute(statement)]

        try:
            rows = await self._database.write(unit)
        except IntegrityError:
            # The backstop: two claimers met in one lane. Whoever was second looks again later.
            return []
        except OutcomeUnknown:
            self.look_for_astray(consumer)
            raise
        rows.sort(key=lambda row: row.id)
        return [self.hold(row, deadline_ms=deadline_ms, fresh=False) for row in rows]

    def _giving_back(self, consumer: str) -> Update:
        """Make ready what is claimed in our name and not held: nobody works it, so the attempt was none."""
        astray = locked(
            inbox.c.consumer == consumer,
            inbox.c.state.in_((WORKING,)),
            inbox.c.worker == self._worker,
            inbox.c.id.not_in(list(self._held)),
        )
        return (
            update(inbox)
            .where(inbox.c.id == astray.c.id)
            .values(state=READY, attempt=inbox.c.attempt - 1, lease_until_ms=None, worker=None)
        )

    def _claiming(self, claimable: Select[tuple[int]], now: ColumnElement[int]) -> Update:
        # Materialized: a subquery with SKIP LOCKED that is evaluated twice claims more than its limit.
        chosen = claimable.cte("chosen").prefix_with("MATERIALIZED", dialect="postgresql")
        return (
            update(inbox)
            .where(inbox.c.id.in_(select(chosen.c.id)))
            .values(
                state=WORKING,
                token=inbox.c.token + 1,
                attempt=inbox.c.attempt + 1,
                worker=self._worker,
                lease_until_ms=now + self._times.length_ms,
                claimed_ms=now,
                not_before_ms=None,
                waiting=False,
            )
            .returning(*CLAIMED_COLUMNS)
        )

    async def extend(self) -> None:
        """Extend all claims in one statement; stop those that are lost or that a person cancelled.

        A late one succeeds too, as long as nobody else has the token. Raises Unavailable.
        """
        held = list(self._held.values())
        if not held:
            return
        deadline_ms = self.deadline_ms()

        async def unit(connection: Connection) -> dict[int, bool]:
            pairs = tuple_(inbox.c.id, inbox.c.token).in_([claim.owner for claim in held])
            ours = locked(pairs, inbox.c.state == WORKING)
            statement = (
                update(inbox)
                .where(inbox.c.id == ours.c.id)
                .values(lease_until_ms=self._database.now_sql() + self._times.length_ms)
                .returning(inbox.c.id, inbox.c.cancel_requested)
            )
            return {row.id: row.cancel_requested for row in await connection.execute(statement)}

        extended = await self._database.write(unit, urgent=True)
        self._note(held, extended, deadline_ms)

    def _note(self, held: Iterable[Claim], extended: dict[int, bool], deadline_ms: int) -> None:
        for claim in held:
            cancel = extended.get(claim.row.id)
            if cancel is None:
                claim.stop(Stop.LEASE_LOST)
                continue
            claim.deadline_ms = deadline_ms
            if cancel:
                claim.stop(Stop.CANCELLED)


def is_held(row_id: int, token: int) -> ColumnElement[bool]:
    """Return the fence: true for the row only while the token is the one that works it."""
    return and_(inbox.c.id == row_id, inbox.c.token == token, inbox.c.state == WORKING)


async def release_all_claims(database: Database) -> int:
    """Make everything that was being worked ready, at once. Returns how many rows that were.

    Only for whoever holds the lock on the data directory: then nobody else can be working. Attempts stay
    counted, so that work which kills its process runs out of them.
    """

    async def unit(connection: Connection) -> int:
        released = await connection.execute(
            update(inbox)
            .where(inbox.c.state == WORKING)
            .values(state=READY, lease_until_ms=None, worker=None)
        )
        return released.rowcount

    return await database.write(unit)


_row = inbox.alias("r")
_other = inbox.alias("p")


def _is_due(now: ColumnElement[int]) -> ColumnElement[bool]:
    waited = or_(_row.c.not_before_ms.is_(None), _row.c.not_before_ms <= now)
    return and_(_row.c.state == READY, waited)


def _is_abandoned(now: ColumnElement[int], held: Sequence[int]) -> ColumnElement[bool]:
    run_out = and_(_row.c.state == WORKING, _row.c.lease_until_ms < now)
    return and_(run_out, _row.c.id.not_in(held)) if held else run_out


def _candidates(consumer: str, condition: ColumnElement[bool]) -> Select[tuple[int]]:
    # `state IN (0, 1)` repeats what the condition implies, in the words of the partial index.
    return (
        select(_row.c.id)
        .where(_row.c.consumer == consumer, _row.c.state.in_((READY, WORKING)), condition)
        .order_by(_row.c.id)
        .with_for_update(skip_locked=True, of=_row)
    )


def _any_ready(consumer: str, now: ColumnElement[int], abandoned: ColumnElement[bool]) -> Select[tuple[int]]:
    return _candidates(consumer, or_(_is_due(now), abandoned))


def _ordered_heads(
    consumer: str, now: ColumnElement[int], abandoned: ColumnElement[bool]
) -> Select[tuple[int]]:
    """Select only the head of each subject: nobody works in its lane, and nothing older is unfinished.

    "Skip subjects that have a live claim" would be wrong: two claimers have two snapshots.
    An abandoned row is its lane's head, whatever became ready before it meanwhile.
    """
    lane = and_(_other.c.consumer == _row.c.consumer, _other.c.subject == _row.c.subject)
    # In the words of the index of lanes: SQLite would not know that `ordered = 1` is its `ordered`.
    occupied = exists().where(lane, _other.c.state == WORKING, literal_column("p.ordered"))
    older = exists().where(
        lane, _other.c.state.in_((READY, WORKING)), _other.c.id < _row.c.id, not_(_other.c.waiting)
    )
    head = and_(_is_due(now), not_(occupied), not_(older))
    return _candidates(consumer, or_(head, abandoned))
