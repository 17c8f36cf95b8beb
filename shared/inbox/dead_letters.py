"""What could not be done: with the reason and the bytes as they came, and one more try when that helps."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select, update

from shared.database.engine import Connection, Database
from shared.database.tables import State, inbox
from shared.inbox.listing import WorkFilter, WorkRow, list_work, show_work
from shared.inbox.row import DEAD, READY
from shared.kernel.errors import Conflict, NotFound


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter whole. `body` is what came, byte by byte."""

    work: WorkRow
    body: bytes
    content_type: str | None


async def list_dead_letters(
    connection: Connection,
    *,
    consumer: str | None = None,
    event_type: str | None = None,
    before_id: int | None = None,
    at_most: int = 50,
) -> list[WorkRow]:
    """Return dead letters, the newest first."""
    wanted = WorkFilter(consumer=consumer, type=event_type, state=State.DEAD, before_id=before_id)
    return await list_work(connection, wanted, at_most=at_most)


async def show_dead_letter(connection: Connection, letter_id: int) -> DeadLetter:
    """Return one dead letter. Raises NotFound when there is none, or it is alive."""
    work = await show_work(connection, letter_id)
    if work.state is not State.DEAD:
        raise NotFound(f"the work {letter_id} is not a dead letter")
    kept = select(inbox.c.body, inbox.c.content_type).where(inbox.c.id == letter_id)
    row = (await connection.execute(kept)).one()
    return DeadLetter(work=work, body=row.body or b"", content_type=row.content_type)


async def replay(database: Database, letter_id: int) -> None:
    """Make a dead letter ready again under the same id, with all its attempts and time before it.

    Raises NotFound, Conflict when it is not dead.
    """

    async def unit(connection: Connection) -> None:
        revived = await connection.execute(
            update(inbox)
            .where(inbox.c.id == letter_id, inbox.c.state == DEAD)
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
            )
        )
        if revived.rowcount:
            return
        work = await show_work(connection, letter_id)
        raise Conflict(f"the work {letter_id} is {work.state.name.lower()}, not dead")

    await database.write(unit)
