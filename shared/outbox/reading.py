"""What was told, for people: followed by `spool events tail`, dropped in the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.engine import Row

from shared.database.engine import Connection, Database
from shared.database.purging import drop_rows
from shared.database.tables import outbox, outbox_subject

MAX_ROWS = 500  # of one answer


@dataclass(frozen=True, slots=True)
class Told:
    """An event of the outbox. `body` is its CloudEvent as JSON; unsent while `sent_ms` is None."""

    id: int
    subject: str
    sequence: int
    event_id: str
    source: str
    type: str
    mandatory: bool
    body: bytes
    created_ms: int
    sent_ms: int | None
    refused: str | None


_COLUMNS = [outbox.c[name] for name in Told.__dataclass_fields__]


async def read_after(connection: Connection, after_id: int, *, limit: int = MAX_ROWS) -> list[Told]:
    """Return the events written after row `after_id`, oldest first.

    On PostgreSQL ids are given before the commit: a reader that follows closely can pass by a row whose
    transaction took longer. For people this is good enough; receivers use the bus.
    """
    rows = select(*_COLUMNS).where(outbox.c.id > after_id).order_by(outbox.c.id).limit(min(limit, MAX_ROWS))
    return [_told(row) for row in await connection.execute(rows)]


async def last_id(connection: Connection) -> int:
    """Return the id of the newest row, 0 when there is none: where following starts."""
    newest = select(outbox.c.id).order_by(outbox.c.id.desc()).limit(1)
    found: int | None = (await connection.execute(newest)).scalar()
    return found or 0


async def purge(database: Database, before_ms: int) -> int:
    """Drop what was sent before a moment, in slices. Return how many rows that were."""
    old = select(outbox.c.id).where(outbox.c.sent_ms < before_ms).order_by(outbox.c.id)
    return await drop_rows(database, outbox.c.id, old)


async def purge_subjects(database: Database, before_ms: int) -> int:
    """Drop the subjects of which nothing was told since a moment. Return how many those were.

    One that comes back begins beyond where it ended: at the seconds since 1970, which its sequence had not
    reached even then.
    """
    subject = outbox_subject
    old = (
        select(subject.c.subject)
        .where(subject.c.last_sequence <= subject.c.sent_sequence, subject.c.lease_until_ms < before_ms)
        .where(subject.c.last_sequence < before_ms // 1000)
        .where(~exists().where(outbox.c.subject == subject.c.subject))
        .order_by(subject.c.lease_until_ms)
        .with_for_update(skip_locked=True)
    )
    return await drop_rows(database, subject.c.subject, old)


def _told(row: Row[Any]) -> Told:
    return Told(**row._mapping)  # noqa: SLF001  # a public name with an underscore, against column names
