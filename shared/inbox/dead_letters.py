"""What could not be done: with the reason and the bytes as they came, and one more try when that helps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVarTuple

from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.engine import Row

from shared.bus.message import DEAD_LETTERS
from shared.database.engine import Connection, Database
from shared.database.notifying import READY_WORK, notify
from shared.database.tables import State, inbox
from shared.events.reading import Letter, read_event
from shared.events.unreadable import Unreadable
from shared.inbox.row import DEAD, DONE, GIVEN_UP_BY_BROKER, READY, locked
from shared.kernel.errors import Conflict, NotFound, SpoolError

Columns = TypeVarTuple("Columns")

MAX_ROWS = 500  # of one page
MAX_AT_ONCE = 100  # that are replayed or dropped in one transaction; bodies may have to be read
COUNTED_ROWS = 10_000  # more than that is "many", and counting it would cost
DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class DeadWork:
    """A dead letter of the inbox. `died_ms` is by the database's clock; all times are Unix milliseconds."""

    id: int
    consumer: str
    source: str
    event_id: str
    type: str
    subject: str
    handler: str | None
    attempt: int
    worker: str | None
    outcome: str | None
    reason: str | None
    traceback_digest: str | None
    received_ms: int
    replayed_ms: int | None
    failing_since_ms: int | None
    done_ms: int
    size_bytes: int

    @property
    def given_up_by_broker(self) -> bool:
        return self.outcome == GIVEN_UP_BY_BROKER


@dataclass(frozen=True, slots=True)
class DeadFilter:
    """Which dead letters; None lets everything through. Ages are counted from the death."""

    service: str | None = None
    consumer: str | None = None
    type: str | None = None
    subject: str | None = None
    reason: str | None = None  # a part of it, in any case
    by_broker: bool | None = None
    older_than_ms: int | None = None
    newer_than_ms: int | None = None


_COLUMNS = [
    func.coalesce(func.length(inbox.c.body), 0).label("size_bytes")
    if field.name == "size_bytes"
    else inbox.c[field.name]
    for field in fields(DeadWork)
]


async def list_dead(
    database: Database,
    connection: Connection,
    wanted: DeadFilter = DeadFilter(),
    *,
    before_id: int | None = None,
    at_most: int = 50,
) -> list[DeadWork]:
    """Return dead letters, the newest first, those before an earlier page's last one."""
    rows = _chosen(select(*_COLUMNS), wanted, database.now_sql())
    if before_id is not None:
        rows = rows.where(inbox.c.id < before_id)
    rows = rows.order_by(inbox.c.id.desc()).limit(min(at_most, MAX_ROWS))
    return [_dead_work(row) for row in await connection.execute(rows)]


async def show_dead(connection: Connection, letter_id: int) -> tuple[DeadWork, bytes, str | None]:
    """Return one dead letter, its body byte by byte, and its content type.

    Raises NotFound when there is none, or it is alive.
    """
    one = select(*_COLUMNS, inbox.c.body, inbox.c.content_type).where(
        inbox.c.id == letter_id, inbox.c.state == DEAD
    )
    row = (await connection.execute(one)).first()
    if row is None:
        raise NotFound(f"there is no dead letter {letter_id}")
    return _dead_work(row), row.body or b"", row.content_type


async def replay(database: Database, letter_ids: Sequence[int]) -> dict[int, SpoolError]:
    """Make dead letters ready again under the same ids, with all their attempts and time before them.

    Return of each that was not, why; up to MAX_AT_ONCE at a time. Raises Unavailable.
    """

    async def unit(connection: Connection) -> dict[int, SpoolError]:
        chosen = inbox.c.id.in_(letter_ids), inbox.c.state == DEAD
        await connection.execute(select(locked(*chosen)))
        nobodys = inbox.c.consumer.endswith(f".{DEAD_LETTERS}", autoescape=True)
        for row_id, subject in (await _readable_by_now(connection, letter_ids)).items():
            await connection.execute(update(inbox).where(inbox.c.id == row_id).values(subject=subject))
        revived = await connection.execute(
            update(inbox)
            .where(*chosen, ~nobodys)
            .values(
                state=READY,
                attempt=0,
                replayed_ms=database.now_sql(),
                failing_since_ms=None,
                not_before_ms=None,
                waiting=False,
                cancel_requested=False,
                done_ms=None,
                outcome=None,
                traceback_digest=None,
                handler=None,
            )
            .returning(inbox.c.id)
        )
        ids = {row.id for row in revived}
        if ids:
            await notify(connection, READY_WORK)
        return await _why_not(connection, letter_ids, ids)

    return await database.write(unit)


async def drop(database: Database, letter_ids: Sequence[int]) -> dict[int, SpoolError]:
    """Let dead letters go with their bodies. Return of each that could not be dropped, why.

    The row stays as one that is done, for as long as those do: so long a redelivery of the same event is
    recognised, and is not worked after all. Up to MAX_AT_ONCE at a time. Raises Unavailable.
    """

    async def unit(connection: Connection) -> dict[int, SpoolError]:
        chosen = locked(inbox.c.id.in_(letter_ids), inbox.c.state == DEAD)
        dropped = await connection.execute(
            update(inbox)
            .where(inbox.c.id == chosen.c.id)
            .values(state=DONE, outcome=DROPPED, body=None, done_ms=database.now_sql())
            .returning(inbox.c.id)
        )
        return await _why_not(connection, letter_ids, {row.id for row in dropped})

    return await database.write(unit)


async def tally(database: Database, connection: Connection, wanted: DeadFilter) -> tuple[int, int | None]:
    """Return how many dead letters there are, up to COUNTED_ROWS, and since when the oldest is one."""
    oldest = (
        _chosen(select(inbox.c.done_ms), wanted, database.now_sql()).order_by(inbox.c.id).limit(COUNTED_ROWS)
    )
    counted = oldest.subquery()
    number, oldest_ms = (await connection.execute(select(func.count(), func.min(counted.c.done_ms)))).one()
    return number, oldest_ms


def _chosen(rows: Select[*Columns], wanted: DeadFilter, now: ColumnElement[int]) -> Select[*Columns]:
    rows = rows.where(inbox.c.state == DEAD)
    if wanted.service is not None:
        rows = rows.where(inbox.c.consumer.startswith(f"{wanted.service}.", autoescape=True))
    if wanted.consumer is not None:
        rows = rows.where(inbox.c.consumer == wanted.consumer)
    if wanted.type is not None:
        rows = rows.where(inbox.c.type == wanted.type)
    if wanted.subject is not None:
        rows = rows.where(inbox.c.subject == wanted.subject)
    if wanted.reason is not None:
        rows = rows.where(inbox.c.reason.icontains(wanted.reason, autoescape=True))
    if wanted.by_broker is not None:
        by_broker = func.coalesce(inbox.c.outcome, "") == GIVEN_UP_BY_BROKER
        rows = rows.where(by_broker if wanted.by_broker else ~by_broker)
    if wanted.older_than_ms is not None:
        rows = rows.where(inbox.c.done_ms <= now - wanted.older_than_ms)
    if wanted.newer_than_ms is not None:
        rows = rows.where(inbox.c.done_ms > now - wanted.newer_than_ms)
    return rows


async def _readable_by_now(connection: Connection, letter_ids: Sequence[int]) -> dict[int, str]:
    """Return the subjects of events that could not be read when they came, and can be by this version."""
    unread = select(inbox.c.id, inbox.c.type, inbox.c.event_id, inbox.c.body).where(
        inbox.c.id.in_(letter_ids), inbox.c.state == DEAD, inbox.c.subject == ""
    )
    subjects: dict[int, str] = {}
    for row in await connection.execute(unread):
        try:
            received = read_event(Letter(row.body or b"", row.event_id), expected=row.type)
        except Unreadable:
            continue  # it will die again, of the same
        subjects[row.id] = received.data.subject
    return subjects


async def _why_not(
    connection: Connection, letter_ids: Sequence[int], done: Collection[int]
) -> dict[int, SpoolError]:
    left = [each for each in letter_ids if each not in done]
    if not left:
        return {}
    found = select(inbox.c.id, inbox.c.consumer, inbox.c.state, inbox.c.outcome).where(inbox.c.id.in_(left))
    rows = {row.id: row for row in await connection.execute(found)}
    return {letter_id: _problem(letter_id, rows.get(letter_id)) for letter_id in left}


def _problem(letter_id: int, row: Row[Any] | None) -> SpoolError:
    if row is None:
        return NotFound(f"there is no dead letter {letter_id}")
    if row.state == State.DEAD:
        hint = "publish its body again, with 'spool events publish'"
        return Conflict(f"nobody works what is in {row.consumer}", hint=hint)
    stands = row.outcome if row.outcome == DROPPED else State(row.state).name.lower()
    return Conflict(f"the work {letter_id} is {stands}, not dead")


def _dead_work(row: Row[Any]) -> DeadWork:
    named = row._mapping  # noqa: SLF001  # a public name with an underscore, against column names
    return DeadWork(**{field.name: named[field.name] for field in fields(DeadWork)})
