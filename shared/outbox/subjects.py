"""The relay's half of the tables: subjects are claimed, their events read in order, marked when confirmed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    String,
    Update,
    and_,
    case,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.engine import Row
from sqlalchemy.sql.dml import ReturningUpdate

from shared.bus.message import Numbered
from shared.database.engine import Connection, Database, Unit
from shared.database.row_lists import RowList
from shared.database.tables import outbox, outbox_subject
from shared.outbox.unsent import Unsent, message_of

SUBJECTS_PER_CLAIM = 128  # a window of confirms: more gains nothing, and a lost lease repeats more
EVENTS_PER_SUBJECT = 8  # before the others have their turn again


@dataclass(slots=True)
class Turn:
    """A claimed subject: what of it waits, and how far this turn has come."""

    subject: str
    last_sequence: int  # when it was claimed: what came later is a later turn's
    attempts: int
    waiting: list[Numbered]  # oldest first
    complete: bool  # nothing waits beyond `waiting`
    sent: list[Numbered]
    refused: list[tuple[Numbered, str]]
    failed: bool = False

    @property
    def reached(self) -> int:
        """The sequence up to which nothing of the subject waits any more."""
        if not self.waiting and self.complete:
            return self.last_sequence
        done = [event.sequence for event in self.sent] + [event.sequence for event, _ in self.refused]
        return max(done, default=0)


class Subjects:
    """Claims subjects for one relay."""

    def __init__(
        self, database: Database, *, relay: str, lease_ms: int, unsent: Unsent | None = None
    ) -> None:
        """`unsent` knows what need not be read from its rows."""
        self._database = database
        self._relay = relay
        self._lease_ms = lease_ms
        self._unsent = unsent or Unsent()
        self._sent = RowList(database.dialect, "sent", subject=String(), sequence=BigInteger())
        self._turns = RowList(
            database.dialect,
            "turn",
            subject=String(),
            reached=BigInteger(),
            attempts=BigInteger(),
            pause_ms=BigInteger(),
        )
        # Built once: each round executes all of them, and building costs more than executing.
        self._claiming = self._to_claim()
        self._marking = self._to_mark()
        self._giving_back = self._to_give_back()

    async def claim(self) -> list[Turn]:
        """Claim subjects with unsent events, the longest untouched first. Raises Unavailable."""
        return await self._database.write(self._claim)

    async def _claim(self, connection: Connection) -> list[Turn]:
        claimed = (await connection.execute(self._claiming)).all()
        if not claimed:
            self._unsent.forget()
            return []
        waiting = {row.subject: self._just_written(row) for row in claimed}
        unknown = [subject for subject, events in waiting.items() if not events]
        if unknown:
            waiting |= await _oldest_unsent(connection, unknown)
        return [
            Turn(
                subject=row.subject,
                last_sequence=row.last_sequence,
                attempts=row.attempts,
                waiting=waiting[row.subject][:EVENTS_PER_SUBJECT],
                complete=len(waiting[row.subject]) <= EVENTS_PER_SUBJECT,
                sent=[],
                refused=[],
            )
            for row in claimed
        ]

    def _just_written(self, row: Row[tuple[str, int, int, int]]) -> list[Numbered]:
        """Return what waits of a subject where this process wrote all of it a moment ago."""
        if row.last_sequence - row.sent_sequence > EVENTS_PER_SUBJECT:
            return []
        return self._unsent.take(row.subject, after=row.sent_sequence, until=row.last_sequence)

    def _to_claim(self) -> ReturningUpdate[tuple[str, int, int, int]]:
        now = self._database.now_sql()
        # Whom nobody holds and nothing went wrong with is free, also when the clock was set back meanwhile.
        free = or_(
            _subject.c.lease_until_ms <= now, and_(_subject.c.relay.is_(None), _subject.c.attempts == 0)
        )
        # What says "pending" is written as the partial index says it, so that only that is read.
        chosen = (
            select(_subject.c.subject)
            .where(_subject.c.last_sequence > _subject.c.sent_sequence, free)
            .order_by(_subject.c.lease_until_ms)
            .limit(SUBJECTS_PER_CLAIM)
            .with_for_update(skip_locked=True, of=_subject)
            .cte("chosen")
            .prefix_with("MATERIALIZED", dialect="postgresql")
        )
        return (
            update(outbox_subject)
            .where(outbox_subject.c.subject.in_(select(chosen.c.subject)))
            .values(relay=self._relay, lease_until_ms=now + self._lease_ms)
            .returning(
                outbox_subject.c.subject,
                outbox_subject.c.last_sequence,
                outbox_subject.c.sent_sequence,
                outbox_subject.c.attempts,
            )
        )

    async def let_go(self) -> None:
        """Give back what this relay holds, whatever it knows of it. Raises Unavailable."""
        pending = outbox_subject.c.last_sequence > outbox_subject.c.sent_sequence
        await _release(self._database, and_(pending, outbox_subject.c.relay == self._relay))

    async def conclude(self, turns: Sequence[Turn], *, pause_ms: Callable[[int], int]) -> None:
        """Mark what was sent or refused, and give the subjects back. Raises Unavailable.

        What was confirmed is marked even if the lease was lost meanwhile: it was sent. The subject is given
        back only while it is ours. `pause_ms(attempts)` says how long a subject that failed is left alone.
        """
        await self._database.write(self._to_conclude(turns, pause_ms))

    async def conclude_and_claim(
        self, turns: Sequence[Turn], *, pause_ms: Callable[[int], int]
    ) -> list[Turn]:
        """Do both in one transaction: see `conclude` and `claim`. Raises Unavailable."""
        concluding = self._to_conclude(turns, pause_ms)

        async def unit(connection: Connection) -> list[Turn]:
            await concluding(connection)
            return await self._claim(connection)

        return await self._database.write(unit)

    def _to_conclude(self, turns: Sequence[Turn], pause_ms: Callable[[int], int]) -> Unit[None]:
        sent = [(event.subject, event.sequence) for turn in turns for event in turn.sent]
        refused = [refusal for turn in turns for refusal in turn.refused]
        ended = []
        for turn in turns:
            attempts = turn.attempts + 1 if turn.failed else 0
            ended.append((turn.subject, turn.reached, attempts, pause_ms(attempts) if turn.failed else 0))

        async def unit(connection: Connection) -> None:
            if sent:
                await connection.execute(self._marking, self._sent.bind(sent))
            for event, reason in refused:
                place = and_(outbox.c.subject == event.subject, outbox.c.sequence == event.sequence)
                await connection.execute(update(outbox).where(place).values(refused=reason))
            await connection.execute(self._giving_back, self._turns.bind(ended))

        return unit

    def _to_mark(self) -> Update:
        sent = self._sent.table.c
        place = and_(outbox.c.subject == sent.subject, outbox.c.sequence == sent.sequence)
        marked = update(outbox).where(place, outbox.c.sent_ms.is_(None))
        return marked.values(sent_ms=self._database.now_sql())

    def _to_give_back(self) -> Update:
        # Locked by subject, as writers do: two that lock the same rows must not wait for each other.
        turn = (
            select(*self._turns.table.c)
            .join(_subject, _subject.c.subject == self._turns.table.c.subject)
            .order_by(self._turns.table.c.subject)
            .with_for_update(of=_subject)
            .cte("turns")
            .prefix_with("MATERIALIZED", dialect="postgresql")
        )
        old = outbox_subject.c
        ours = old.relay == self._relay
        free_from = self._database.now_sql() + turn.c.pause_ms
        return (
            update(outbox_subject)
            .where(old.subject == turn.c.subject)
            .values(
                sent_sequence=case(
                    (old.sent_sequence < turn.c.reached, turn.c.reached), else_=old.sent_sequence
                ),
                lease_until_ms=case((ours, free_from), else_=old.lease_until_ms),
                attempts=case((ours, turn.c.attempts), else_=old.attempts),
                relay=case((ours, None), else_=old.relay),
            )
        )


async def release_all_subjects(database: Database) -> None:
    """Let every subject be claimed at once: only for whoever holds the lock on the data directory."""
    await _release(database, outbox_subject.c.relay.is_not(None))


async def _release(database: Database, held: ColumnElement[bool]) -> None:
    async def unit(connection: Connection) -> None:
        await connection.execute(update(outbox_subject).where(held).values(relay=None, lease_until_ms=0))

    await database.write(unit)


_subject = outbox_subject.alias("s")


async def _oldest_unsent(connection: Connection, subjects: Iterable[str]) -> dict[str, list[Numbered]]:
    """Read the oldest unsent events of each subject: one more than a turn takes, to see whether more wait."""
    statement, listed = _oldest(connection.dialect.name)
    found: dict[str, list[Numbered]] = defaultdict(list)
    for row in await connection.execute(statement, listed.bind([(subject,) for subject in subjects])):
        message = message_of(
            row.event_id, row.type, row.body, row.traceparent, row.tracestate, mandatory=row.mandatory
        )
        found[row.subject].append(Numbered(row.subject, row.sequence, message))
    return found


@cache
def _oldest(dialect: str) -> tuple[Select[Any], RowList]:
    listed = RowList(dialect, "claimed", subject=String())
    place = func.row_number().over(partition_by=outbox.c.subject, order_by=outbox.c.sequence)
    numbered = (
        select(outbox, place.label("place"))
        .where(outbox.c.subject.in_(select(listed.table.c.subject)))
        .where(outbox.c.sent_ms.is_(None), outbox.c.refused.is_(None))
        .subquery()
    )
    few = select(numbered).where(numbered.c.place <= EVENTS_PER_SUBJECT + 1)
    return few.order_by(numbered.c.subject, numbered.c.sequence), listed
