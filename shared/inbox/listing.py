"""What is being done, since when, how often, what went wrong, when next: the inbox for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import and_, select, update
from sqlalchemy.engine import Row

from shared.database.engine import Connection, Database
from shared.database.notifying import READY_WORK, notify
from shared.database.purging import drop_rows
from shared.database.tables import State, inbox, inbox_wake
from shared.inbox.row import DONE, READY, WORKING
from shared.kernel.errors import Conflict, NotFound

MAX_ROWS = 500  # of one page


@dataclass(frozen=True, slots=True)
class WorkRow:
    """A piece of work. All times are Unix milliseconds."""

    id: int
    consumer: str
    source: str
    event_id: str
    type: str
    subject: str
    state: State
    attempt: int
    worker: str | None
    lease_until_ms: int | None
    not_before_ms: int | None
    waiting: bool
    cancel_requested: bool
    ordered: bool
    received_ms: int
    replayed_ms: int | None
    failing_since_ms: int | None
    claimed_ms: int | None
    done_ms: int | None
    outcome: str | None
    reason: str | None
    traceback_digest: str | None
    handler: str | None


@dataclass(frozen=True, slots=True)
class WorkFilter:
    """Which work to list; None lets everything through. `before_id` continues after an earlier page.

    `failing`: unfinished, and its last attempt failed. `waiting`: asleep until a time or a wake.
    """

    service: str | None = None
    consumer: str | None = None
    type: str | None = None
    state: State | None = None
    subject: str | None = None
    failing: bool | None = None
    waiting: bool | None = None
    before_id: int | None = None


_COLUMNS = [inbox.c[field.name] for field in fields(WorkRow)]


async def list_work(connection: Connection, wanted: WorkFilter, *, at_most: int = 50) -> list[WorkRow]:
    """Return work, the newest first."""
    rows = select(*_COLUMNS).order_by(inbox.c.id.desc()).limit(min(at_most, MAX_ROWS))
    if wanted.service is not None:
        rows = rows.where(inbox.c.consumer.startswith(f"{wanted.service}.", autoescape=True))
    if wanted.consumer is not None:
        rows = rows.where(inbox.c.consumer == wanted.consumer)
    if wanted.type is not None:
        rows = rows.where(inbox.c.type == wanted.type)
    if wanted.state is not None:
        rows = rows.where(inbox.c.state == wanted.state)
    if wanted.subject is not None:
        rows = rows.where(inbox.c.subject == wanted.subject)
    if wanted.failing is not None:
        failing = and_(inbox.c.state.in_((READY, WORKING)), inbox.c.failing_since_ms.is_not(None))
        rows = rows.where(failing if wanted.failing else ~failing)
    if wanted.waiting is not None:
        asleep = and_(inbox.c.state == READY, inbox.c.waiting)
        rows = rows.where(asleep if wanted.waiting else ~asleep)
    if wanted.before_id is not None:
        rows = rows.where(inbox.c.id < wanted.before_id)
    return [_work_row(row) for row in await connection.execute(rows)]


async def show_work(connection: Connection, work_id: int) -> WorkRow:
    """Return one piece of work. Raises NotFound."""
    row = (await connection.execute(select(*_COLUMNS).where(inbox.c.id == work_id))).first()
    if row is None:
        raise NotFound(f"there is no work {work_id}")
    return _work_row(row)


async def wake_keys_of(connection: Connection, work_ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """Return what each piece of work waits to be woken by; those that wait for nothing are missing."""
    registered = select(inbox_wake.c.inbox_id, inbox_wake.c.wake_key).where(
        inbox_wake.c.inbox_id.in_(work_ids)
    )
    keys: dict[int, list[str]] = defaultdict(list)
    for row in await connection.execute(registered.order_by(inbox_wake.c.wake_key)):
        keys[row.inbox_id].append(row.wake_key)
    return {work_id: tuple(found) for work_id, found in keys.items()}


async def cancel_work(database: Database, work_id: int) -> None:
    """Stop a piece of work for good: at once when nobody does it, else with the next heartbeat.

    Raises NotFound, Conflict when it has ended.
    """

    async def unit(connection: Connection) -> None:
        row = (
            await connection.execute(select(inbox.c.state).where(inbox.c.id == work_id).with_for_update())
        ).first()
        if row is None:
            raise NotFound(f"there is no work {work_id}")
        if row.state not in (State.READY, State.WORKING):
            raise Conflict(f"the work {work_id} has ended")
        # Whoever works it hears of it; ready work is taken up once more, so that the farewell is said.
        await connection.execute(
            update(inbox)
            .where(inbox.c.id == work_id, inbox.c.state.in_((READY, WORKING)))
            .values(cancel_requested=True, not_before_ms=None, waiting=False)
        )
        if row.state == State.READY:
            await notify(connection, READY_WORK)

    await database.write(unit)


async def purge(database: Database, before_ms: int) -> int:
    """Drop what was done before a moment, in slices. Return how many rows that were. Dead letters stay."""
    done = select(inbox.c.id).where(inbox.c.state == DONE, inbox.c.done_ms < before_ms)
    return await drop_rows(database, inbox.c.id, done.order_by(inbox.c.done_ms))


def _work_row(row: Row[Any]) -> WorkRow:
    named = dict(row._mapping)  # noqa: SLF001  # a public name with an underscore, against column names
    return WorkRow(**named | {"state": State(named["state"])})
