"""The dead letters of the outbox: events that no transport would take. Looked at, sent again, dropped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVarTuple

from sqlalchemy import ColumnElement, Select, and_, func, select, update
from sqlalchemy.engine import Row

from shared.database.engine import Connection, Database
from shared.database.tables import outbox, outbox_subject
from shared.kernel.errors import Conflict, NotFound, SpoolError

Columns = TypeVarTuple("Columns")

MAX_ROWS = 500  # of one page
COUNTED_ROWS = 10_000  # more than that is "many", and counting it would cost


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """An event that was refused, and why."""

    id: int
    subject: str
    event_id: str
    source: str
    type: str
    created_ms: int
    refused: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RefusedFilter:
    """Which refused events; None lets everything through. Ages are counted from when they were told."""

    source: str | None = None
    type: str | None = None
    subject: str | None = None
    reason: str | None = None  # a part of it, in any case
    older_than_ms: int | None = None
    newer_than_ms: int | None = None


_COLUMNS = [
    func.length(outbox.c.body).label("size_bytes") if field.name == "size_bytes" else outbox.c[field.name]
    for field in fields(RefusedEvent)
]
# Of what was dropped `sent_ms` says when.
_IS_REFUSED = and_(outbox.c.refused.is_not(None), outbox.c.sent_ms.is_(None))


async def list_refused(
    database: Database,
    connection: Connection,
    wanted: RefusedFilter = RefusedFilter(),
    *,
    before_id: int | None = None,
    at_most: int = 50,
) -> list[RefusedEvent]:
    """Return refused events, the newest first, those before an earlier page's last one."""
    rows = _chosen(select(*_COLUMNS), wanted, database.now_sql())
    if before_id is not None:
        rows = rows.where(outbox.c.id < before_id)
    rows = rows.order_by(outbox.c.id.desc()).limit(min(at_most, MAX_ROWS))
    return [_refused(row) for row in await connection.execute(rows)]


async def show_refused(connection: Connection, row_id: int) -> tuple[RefusedEvent, bytes]:
    """Return one refused event and its CloudEvent as JSON. Raises NotFound."""
    row = (
        await connection.execute(select(*_COLUMNS, outbox.c.body).where(outbox.c.id == row_id, _IS_REFUSED))
    ).first()
    if row is None:
        raise NotFound(f"the outbox has no refused event {row_id}")
    return _refused(row), row.body


async def send_again(database: Database, row_ids: Sequence[int]) -> dict[int, SpoolError]:
    """Let refused events be published once more, after what refused them was changed. They keep their ids.

    Return of each that was not, why. Raises Unavailable.
    """

    async def unit(connection: Connection) -> dict[int, SpoolError]:
        rows = select(outbox.c.id, outbox.c.subject).where(outbox.c.id.in_(row_ids), _IS_REFUSED)
        places: dict[str, list[int]] = defaultdict(list)
        for row in await connection.execute(rows.order_by(outbox.c.sequence)):
            places[row.subject].append(row.id)
        # The subjects first and in one order, as every writer does.
        for subject in sorted(places):
            await _append_again(connection, subject, places[subject])
        ids = {row_id for listed in places.values() for row_id in listed}
        return await _why_not(connection, row_ids, ids)

    return await database.write(unit)


async def _append_again(connection: Connection, subject: str, row_ids: Sequence[int]) -> None:
    """Give refused events of a subject places behind all others of it, as if they were told now.

    Their own places may be behind a relay that is under way: it would count them as done.
    """
    last = outbox_subject.c.last_sequence
    reserved = (
        update(outbox_subject)
        .where(outbox_subject.c.subject == subject)
        # Without the attempts that others of the subject had: a replayed command has its own hour.
        .values(last_sequence=last + len(row_ids), attempts=0)
        .returning(last)
    )
    last_sequence: int = (await connection.execute(reserved)).scalar_one()
    for sequence, row_id in enumerate(row_ids, start=last_sequence - len(row_ids) + 1):
        unsent = update(outbox).where(outbox.c.id == row_id, _IS_REFUSED)
        await connection.execute(unsent.values(refused=None, sequence=sequence))


async def drop_refused(database: Database, row_ids: Sequence[int]) -> dict[int, SpoolError]:
    """Let refused events go: nobody will hear of them. Return of each that could not be dropped, why.

    Their rows are purged as if they had been sent now. Raises Unavailable.
    """

    async def unit(connection: Connection) -> dict[int, SpoolError]:
        dropped = await connection.execute(
            update(outbox)
            .where(outbox.c.id.in_(row_ids), _IS_REFUSED)
            .values(sent_ms=database.now_sql())
            .returning(outbox.c.id)
        )
        return await _why_not(connection, row_ids, {row.id for row in dropped})

    return await database.write(unit)


async def tally_refused(
    database: Database, connection: Connection, wanted: RefusedFilter
) -> tuple[int, int | None]:
    """Return how many events are refused, up to COUNTED_ROWS, and when the oldest was told."""
    oldest = _chosen(select(outbox.c.created_ms), wanted, database.now_sql()).order_by(outbox.c.id)
    counted = oldest.limit(COUNTED_ROWS).subquery()
    number, oldest_ms = (await connection.execute(select(func.count(), func.min(counted.c.created_ms)))).one()
    return number, oldest_ms


def _chosen(rows: Select[*Columns], wanted: RefusedFilter, now: ColumnElement[int]) -> Select[*Columns]:
    rows = rows.where(_IS_REFUSED)
    for column, value in (
        (outbox.c.source, wanted.source),
        (outbox.c.type, wanted.type),
        (outbox.c.subject, wanted.subject),
    ):
        if value is not None:
            rows = rows.where(column == value)
    if wanted.reason is not None:
        rows = rows.where(outbox.c.refused.icontains(wanted.reason, autoescape=True))
    if wanted.older_than_ms is not None:
        rows = rows.where(outbox.c.created_ms <= now - wanted.older_than_ms)
    if wanted.newer_than_ms is not None:
        rows = rows.where(outbox.c.created_ms > now - wanted.newer_than_ms)
    return rows


async def _why_not(
    connection: Connection, row_ids: Sequence[int], done: Collection[int]
) -> dict[int, SpoolError]:
    left = [each for each in row_ids if each not in done]
    if not left:
        return {}
    known = set((await connection.execute(select(outbox.c.id).where(outbox.c.id.in_(left)))).scalars())
    return {
        row_id: Conflict(f"the event {row_id} of the outbox is not refused")
        if row_id in known
        else NotFound(f"the outbox has no event {row_id}")
        for row_id in left
    }


def _refused(row: Row[Any]) -> RefusedEvent:
    named = row._mapping  # noqa: SLF001  # a public name with an underscore, against column names
    return RefusedEvent(**{field.name: named[field.name] for field in fields(RefusedEvent)})
